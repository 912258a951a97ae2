"""What a user may name as input: slides, folders of slides, a cohort table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from napari_slnpredict.cohort.slide_folders import slides_in
from napari_slnpredict.cohort.table import read_cohort
from napari_slnpredict.errors import DataError, one_line
from napari_slnpredict.many.slides import Input


def find_inputs(named: Sequence[Path]) -> list[Input]:
    """Return the slides meant by what a user named, each once, in the order given.

    Raises
    ------
    DataError
        A folder without slides, or a table that cannot be read; names the file and line.
    """
    found: dict[Path, Input] = {}
    for path in named:
        for item in _expand(path):
            found.setdefault(item.path.absolute(), item)
    return list(found.values())


def _expand(path: Path) -> Iterable[Input]:
    if path.is_dir():
        items = [Input(slide) for slide in slides_in(path)]
        if not items:
            raise DataError("no slide found in this folder", file=path, do="name the slide files themselves")
        return items
    if path.suffix.lower() == ".csv":
        table = one_line(path.name, 80)
        return [
            Input(row.path, row.mpp, row.slide, f"line {row.line} of {table}", row.patient, row.label)
            for row in read_cohort(path).rows
        ]
    return [Input(path)]
