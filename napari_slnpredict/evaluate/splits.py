"""A fixed division of tile sets, as a table: ``file`` (a picture, or a slide's id) and ``split``; perhaps ``set``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.encode.tile_files import csv_lines
from napari_slnpredict.encode.tile_table import TileTable
from napari_slnpredict.errors import DataError, one_line

TRAIN, TEST = "train", "test"
_SIDES = {"train": TRAIN, "test": TEST, "held-out": TEST}


@dataclass(frozen=True)
class SplitFile:
    """Which side each file is on.

    Attributes
    ----------
    path : Path
    side : dict of (set, file) to "train" or "test"
        The set is "" where the table names none.
    """

    path: Path
    side: dict[tuple[str, str], str] = field(repr=False)

    def rows(self, table: TileTable, set_name: str, side: str) -> NDArray[np.int64]:
        """Return the tiles on one side, (k,) int64; tiles the table does not name are on none."""
        own = {file: where for (name, file), where in self.side.items() if name in ("", set_name)}
        return np.array([row for row, name in enumerate(table.sources) if own.get(name) == side], np.int64)


def read_split(path: Path) -> SplitFile:
    """Read a table of columns ``file`` and ``split`` (or ``half``) with train, test or held-out; perhaps ``set``.

    Raises
    ------
    DataError
        A column is missing, a value is none of these, a file stands on both sides; the line is named.
    """
    path = Path(path)
    lines = csv_lines(path, "file")
    column = next((name for name in ("split", "half") if lines and name in lines[0]), None)
    if not lines or "file" not in lines[0] or column is None:
        raise DataError("line 1: no columns 'file' and 'split'", file=path, do="write file,split (train or test)")
    side: dict[tuple[str, str], str] = {}
    for number, line in enumerate(lines, 2):
        said = (line[column] or "").strip().lower()
        key = ((line.get("set") or "").strip(), (line["file"] or "").strip())
        if said not in _SIDES and said:
            do = "write train or test, or leave the cell empty"
            raise DataError(f"line {number}: {one_line(said, 40)!r} is no side", file=path, do=do)
        if said and side.setdefault(key, _SIDES[said]) != _SIDES[said]:
            raise DataError(f"line {number}: {one_line(key[1], 80)} is on both sides", file=path, do="keep one line")
    return SplitFile(path, side)
