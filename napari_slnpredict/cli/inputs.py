"""What a user may name as input: slides, folders of slides, a cohort table."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_slnpredict.errors import DataError, one_line

if TYPE_CHECKING:
    from napari_slnpredict.slide.slide import Slide

#: Endings looked for in folders; a file named outright is tried whatever it is called.
ENDINGS = frozenset(
    (".svs", ".tif", ".tiff", ".ndpi", ".scn", ".mrxs", ".bif", ".svslide", ".vms", ".vmu", ".btf", ".qptiff")
)


@dataclass(frozen=True)
class Input:
    """One slide to work on.

    Attributes
    ----------
    path : Path
    mpp : float or None
        um per level-0 px where the table gives one.
    """

    path: Path
    mpp: float | None = None

    @property
    def stem(self) -> str:
        """The name the outputs get unless it collides."""
        return one_line(self.path.name if self.path.is_dir() else self.path.stem, 120)


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
        items = [Input(slide) for slide in _slides_in(path)]
        if not items:
            raise DataError("no slide found in this folder", file=path, do="name the slide files themselves")
        return items
    if path.suffix.lower() == ".csv":
        return read_table(path)
    return [Input(path)]


def _slides_in(folder: Path) -> Iterator[Path]:
    """Walk a folder; one with DICOM files is one slide, one with our own results holds none."""
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    if any(entry.suffix.lower() == ".dcm" for entry in entries):
        yield folder
        return
    if any(entry.name == "prediction.json" for entry in entries):
        return
    mirax = {entry.stem for entry in entries if entry.suffix.lower() == ".mrxs"}
    for entry in entries:
        if entry.is_dir():
            if entry.name not in mirax:  # slide.mrxs keeps its pixels in the folder slide/
                yield from _slides_in(entry)
        elif entry.suffix.lower() in ENDINGS:
            yield entry


def read_table(path: Path) -> list[Input]:
    """Read the slides of a cohort CSV: column ``path`` (relative to the table; else ``slide``), optional ``mpp``."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError("is not UTF-8 text", file=path, do="save the table as CSV UTF-8") from error
    except OSError as error:
        raise DataError(
            f"cannot be read ({one_line(error.strerror)})", file=path, do="check the name and your rights"
        ) from error
    first = text.split("\n", 1)[0]
    reader = csv.DictReader(io.StringIO(text), delimiter=";" if first.count(";") > first.count(",") else ",")
    columns = reader.fieldnames or []
    column = next((name for name in ("path", "slide") if name in columns), None)
    if column is None:
        raise DataError("line 1: no column 'path' or 'slide'", file=path, do="name the column of slide files 'path'")
    items = []
    for row in reader:
        cell = (row[column] or "").strip()
        if not cell:
            raise DataError(f"line {reader.line_num}: no {column}", file=path, do="fill the cell or delete the line")
        items.append(Input(path.parent / cell, _mpp(row.get("mpp"), path, reader.line_num)))
    if not items:
        raise DataError("the table has no rows", file=path, do="add one row a slide")
    return items


def _mpp(cell: str | None, path: Path, line: int) -> float | None:
    cell = (cell or "").strip()
    if not cell:
        return None
    try:
        return float(cell.replace(",", "."))
    except ValueError:
        raise DataError(
            f"line {line}: mpp is {one_line(cell, 40)!r}, not a number", file=path, do="give um per pixel, as 0.5"
        ) from None


class Names:
    """The name of each slide in the outputs: its stem, longer where two stems collide, or its content id.

    Parameters
    ----------
    inputs : sequence of Input
    taken : mapping of str to str
        Content ids of slides that the output folder already holds, by name.
    pseudonym : bool
        Put content ids where file names would stand.
    """

    def __init__(self, inputs: Sequence[Input], taken: dict[str, str], pseudonym: bool = False) -> None:
        # Case is ignored: on many file systems A.svs and a.svs would share a folder.
        self._stems = Counter(item.stem.casefold() for item in inputs)
        self._taken = {name.casefold(): content for name, content in taken.items()}
        self._pseudonym = pseudonym
        self._inputs = list(inputs)

    def name(self, item: Input, slide: Slide) -> str:
        """Return the name of an opened slide."""
        if self._pseudonym:
            return slide.content_id
        stem = item.stem
        other = self._taken.get(stem.casefold(), slide.content_id) != slide.content_id
        return f"{stem}-{slide.content_id[:8]}" if other or self._stems[stem.casefold()] > 1 else stem

    def shown(self, item: Input) -> str:
        """Return what a log calls an input before it is opened."""
        return f"slide {self._inputs.index(item) + 1}" if self._pseudonym else one_line(item.path.name, 120)

    def hide(self, item: Input, error: Exception) -> str:
        """Return an error's message, without the file's name where a pseudonym is wanted."""
        message = one_line(error, 900) if str(error) else type(error).__name__
        if not self._pseudonym:
            return message
        message = message.replace(item.path.name, self.shown(item))
        return message.replace(str(item.path), self.shown(item))
