"""The cohort CSV: one row a slide, read the same way by every command.

Columns: ``path`` (the file, relative to the table; without it ``slide`` is the path), ``patient``, ``label``; optional
``slide`` (what the slide is called; default the file's stem), ``site``, ``split``, ``stain``, ``mpp``. Other columns
are kept. Names of columns count whatever their case. UTF-8 with or without BOM; commas, semicolons (decimal commas
then) or tabs; Excel's ``sep=;`` line and the empty rows it leaves are passed over. Every error names the line.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from napari_slnpredict.errors import DataError, one_line

#: Columns with a meaning of their own.
KNOWN = ("path", "slide", "patient", "label", "site", "split", "stain", "mpp")
#: um per level-0 px that a microscope's picture can have.
MPP_RANGE = (0.05, 20.0)
#: A table of a million slides is smaller; a slide renamed to .csv is not.
MAX_BYTES = 256 << 20
#: An error lists so many lines and says how many more there are.
SHOWN = 5


@dataclass(frozen=True)
class Row:
    """One slide of a cohort; a cell that is empty or has no column is "".

    Attributes
    ----------
    line : int
        Where the row begins in the file, from 1.
    path : Path
        The slide's file or folder.
    slide : str
        What the slide is called, where the table says so.
    mpp : float or None
        um per level-0 px.
    other : mapping of str to str
        The columns without a meaning here, as they stand.
    """

    line: int
    path: Path
    slide: str = ""
    patient: str = ""
    label: str = ""
    site: str = ""
    split: str = ""
    stain: str = ""
    mpp: float | None = None
    other: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class Cohort:
    """A table of slides.

    Attributes
    ----------
    file : Path
    columns : tuple of str
        As the header names them, in lower case.
    rows : tuple of Row
        At least one.
    """

    file: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def check_files(self) -> None:
        """Raise a `DataError` that names the lines whose slide does not exist (before a training of hours)."""
        missing = [f"line {row.line}: {one_line(row.path.name, 80)}" for row in self.rows if not row.path.exists()]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(self.rows)} slides are not there ({_some(missing)})",
                file=self.file,
                do="paths are relative to the table; mend them or delete the lines",
            )


def read_cohort(path: Path, *, need: Sequence[str] = ()) -> Cohort:
    """Read a cohort CSV.

    Parameters
    ----------
    path : Path
    need : sequence of str
        Columns that no row may leave empty, beside the path: training needs ``("patient", "label")``.

    Raises
    ------
    DataError
        Names the table and the line: not text, no rows, no such column, an empty cell, too many cells, a number that
        is none, a slide or a slide's name that comes twice.
    """
    path = Path(path)
    lines = _lines(path)
    columns, _ = next(lines, (None, 0))
    if columns is None:
        raise DataError("the table is empty", file=path, do="begin it with a line of column names: path,patient,label")
    names = _header(columns, path, need)
    rows = tuple(_row(names, cells, line, path, need) for cells, line in lines)
    if not rows:
        raise DataError("the table has no rows", file=path, do="add one row a slide")
    _refuse_twice(rows, path)
    return Cohort(path, names, rows)


def _lines(path: Path) -> Iterator[tuple[list[str], int]]:
    """Yield the cells of each line that has any, stripped, and the number of the line it begins on."""
    text = _text(path)
    skipped = 0
    first, _, rest = text.partition("\n")
    if first.strip().lower().startswith("sep=") and len(first.strip()) <= len("sep=;"):
        # Excel writes and reads this line; it is no part of the table.
        text, skipped = rest, 1
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    while True:
        line = reader.line_num + 1 + skipped
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataError(
                f"line {line}: {one_line(error, 120)}", file=path, do="look for a quotation mark that is not closed"
            ) from error
        if cells is None:
            return
        cells = [cell.strip() for cell in cells]
        if any(cells):
            yield cells, line


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError("is too large for a table", file=path, do="give the slides' table, not a slide")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError("is not UTF-8 text", file=path, do="save the table as CSV UTF-8") from error
    except OSError as error:
        raise DataError(
            f"cannot be read ({one_line(error.strerror)})", file=path, do="check the name and your rights"
        ) from error


def _delimiter(text: str) -> str:
    header = text.lstrip().split("\n", 1)[0]
    return max(",;\t", key=lambda sign: (header.count(sign), sign == ","))


def _header(cells: list[str], path: Path, need: Sequence[str]) -> tuple[str, ...]:
    names = tuple(cell.casefold() for cell in cells)
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise DataError(
            f"line 1: column {one_line(twice[0], 40)!r} comes twice", file=path, do="rename or delete one of them"
        )
    if "path" not in names and "slide" not in names:
        raise DataError("line 1: no column 'path' or 'slide'", file=path, do="name the column of slide files 'path'")
    for name in need:
        if name not in names:
            raise DataError(
                f"line 1: no column {name!r}", file=path, do=f"add the column {name!r}, filled in every row"
            )
    return names


def _row(names: tuple[str, ...], cells: list[str], line: int, path: Path, need: Sequence[str]) -> Row:
    if len(cells) > len(names) and any(cells[len(names) :]):
        raise DataError(
            f"line {line}: {len(cells)} cells under {len(names)} columns",
            file=path,
            do="put cells that hold the separator into quotation marks",
        )
    cell = dict(zip(names, cells, strict=False))
    where = "path" if "path" in names else "slide"
    for name in (where, *need):
        if not cell.get(name):
            raise DataError(f"line {line}: no {name}", file=path, do="fill the cell or delete the line")
    known = {name: cell.get(name, "") for name in KNOWN if name not in ("path", "slide", "mpp")}
    return Row(
        line,
        path.parent / cell[where],
        slide=_slide_name(cell.get("slide", ""), line, path) if where == "path" else "",
        mpp=_mpp(cell.get("mpp", ""), line, path),
        other=MappingProxyType({name: cell.get(name, "") for name in names if name and name not in KNOWN}),
        **known,
    )


def _slide_name(name: str, line: int, path: Path) -> str:
    """Return a slide's name; it becomes a folder's, so it must not point elsewhere."""
    if name in (".", "..") or name.startswith(".") or any(sign in name for sign in "/\\\0"):
        raise DataError(
            f"line {line}: slide is {one_line(name, 60)!r}, which cannot name a folder",
            file=path,
            do="use letters, digits, hyphens; put the file into the column 'path'",
        )
    return name


def _mpp(cell: str, line: int, path: Path) -> float | None:
    if not cell:
        return None
    low, high = MPP_RANGE
    try:
        value = float(cell.replace(",", "."))
    except ValueError:
        value = float("nan")
        if cell.casefold() not in ("nan", "inf", "-inf"):
            raise DataError(
                f"line {line}: mpp is {one_line(cell, 40)!r}, not a number", file=path, do="give um per pixel, as 0.5"
            ) from None
    if not low <= value <= high:
        raise DataError(
            f"line {line}: mpp is {one_line(cell, 40)}, not between {low:g} and {high:g}",
            file=path,
            do="give um per pixel, as 0.5, or leave the cell empty where the file knows",
        )
    return value


def _refuse_twice(rows: Sequence[Row], path: Path) -> None:
    """Refuse a file, or a name given to slides, that stands on two lines: one of them is a mistake."""
    # The same file however it is spelt; links are not followed, a cohort may have ten thousand of them.
    _refuse_equal(
        rows, path, "slide file", lambda row: os.path.normpath(row.path.absolute()), lambda row: row.path.name
    )
    _refuse_equal(rows, path, "slide", lambda row: row.slide.casefold(), lambda row: row.slide)


def _refuse_equal(
    rows: Sequence[Row], path: Path, what: str, key: Callable[[Row], str], shown: Callable[[Row], str]
) -> None:
    lines: dict[str, int] = {}
    for row in rows:
        earlier = lines.setdefault(key(row), row.line) if key(row) else row.line
        if earlier != row.line:
            raise DataError(
                f"line {row.line}: {what} {one_line(shown(row), 80)!r} stands on line {earlier} already",
                file=path,
                do="keep one row a slide",
            )


def _some(items: Sequence[str]) -> str:
    more = f", and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + more
