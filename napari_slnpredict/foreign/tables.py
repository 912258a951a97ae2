"""Score tables: CSV files of WSInfer, of ours, and of anybody who writes a place and a number in a row."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import one_line

from .raw import MAX_COLUMNS, MAX_TILES, RawScores, ScoresError

MAX_BYTES = 512 << 20
DELIMITERS = (",", ";", "\t")
#: Cells that say "no value".
EMPTY = frozenset(("", "na", "nan", "n/a", "none", "null", "-"))
#: Beginnings of names of places: the tile's left (top) edge, or its middle.
_CORNERS = ("min{a}", "{a}min", "{a}_min", "{a}", "{a}0", "coord_{a}", "coords_{a}", "{edge}", "tile_{a}", "patch_{a}")
_MIDDLES = ("c{a}", "center_{a}", "centre_{a}", "centroid_{a}", "centroid {a}", "{a}_center", "{a}_centre")
_FAR = ("max{a}", "{a}max", "{a}_max", "{a}1")
_SIDES = ("size", "side", "tile_size", "patch_size", "tile_side")
#: Suffixes that tell the unit, and how many of our units one of theirs is.
_UNITS = (("um", "um"), ("µm", "um"), ("μm", "um"), ("microns", "um"), ("px", "px"), ("level0", "px"), ("lvl0", "px"))
_SLIDES = ("slide", "slide_id", "slide_name", "wsi", "wsi_id", "image", "filename", "file")
#: Numbers that are no scores.
_NO_SCORES = {"", "index", "id", "tile_id", "patch_id", "row", "col", "column", "i", "j", "level", "patch_level"}
_NO_SCORES |= {"tissue", "component", "cluster_id", "rank", "damaged", "mpp", "magnification", "unnamed: 0"}
_NO_SCORES |= {"width", "height"}
_OURS = frozenset(("x", "y", "size", "tissue", "attention", "share", "rank"))


@dataclass(frozen=True)
class _Role:
    """Which columns tell the place; columns are indices into the header."""

    x: int
    y: int
    unit: str
    centred: bool
    taken: frozenset[int]
    sides: tuple[int, ...]  # columns of the tile's side, in the places' unit
    far: tuple[int, int] | None = None  # right and bottom edges


@dataclass(frozen=True)
class _Table:
    """A table's cells, column by column.

    Attributes
    ----------
    header : list of str
        Names in small letters.
    names : list of str
        Names as they are, fit to be shown.
    columns : list of list of str
    lines : list of int
        Line of each row in the file.
    comma : bool
        Commas in cells are decimal points.
    """

    path: Path
    header: list[str]
    names: list[str]
    columns: list[list[str]]
    lines: list[int]
    comma: bool

    def __len__(self) -> int:
        return len(self.lines)

    def numbers(self, k: int) -> NDArray[np.float64]:
        """Return a column of which every cell must be a number, (n,) float64."""
        numbers, wrong = self._parsed(k)
        wrong = wrong or np.flatnonzero(~np.isfinite(numbers)).tolist()
        if wrong:
            raise self._fault(k, wrong[0])
        return numbers

    def numbers_or_text(self, k: int) -> NDArray[np.float64] | None:
        """Return a column as numbers, (n,) float64, NaN for empty cells; None where it is text.

        A column with words in many cells is text (a label, a name); a wrong cell among numbers is a mistake.
        """
        numbers, wrong = self._parsed(k)
        wrong = [row for row in wrong if self.columns[k][row].strip().lower() not in EMPTY]
        if len(wrong) > 0.1 * len(self):
            return None
        if wrong:
            raise self._fault(k, wrong[0])
        return numbers

    def _parsed(self, k: int) -> tuple[NDArray[np.float64], list[int]]:
        """Return a column's numbers, NaN where there is none, and the rows where there is none."""
        cells = [cell.replace(",", ".") for cell in self.columns[k]] if self.comma else self.columns[k]
        try:
            return np.fromiter(map(float, cells), np.float64, len(cells)), []
        except ValueError:
            known = [_is_number(cell) for cell in cells]
        numbers = [float(cell) if ok else np.nan for cell, ok in zip(cells, known, strict=True)]
        return np.array(numbers, np.float64), [row for row, ok in enumerate(known) if not ok]

    def _fault(self, k: int, row: int) -> ScoresError:
        shown = one_line(self.columns[k][row].strip(), 40)
        what = f"line {self.lines[row]}: {self.names[k]} is not a number: {shown!r}"
        return ScoresError(what, file=self.path, do="mend the line")


def read_table(path: Path) -> RawScores:
    """Read a score table.

    Raises
    ------
    ScoresError
        Too large, not text, no header, no columns of places; a row or a cell that is wrong, with its line.
    """
    table = _table(path)
    header = table.header
    role = _role(path, header)
    places = np.stack([table.numbers(role.x), table.numbers(role.y)], axis=1)
    wsinfer = {"minx", "miny", "width", "height"} <= set(header) and any(name.startswith("prob_") for name in header)
    ours = set(header) >= _OURS
    names, values = _scores(table, role.taken, ours)
    slides, slide_of = _slides(table)
    return RawScores(
        kind="wsinfer" if wsinfer else "slnpredict" if ours else "table",
        coords=places,
        names=names,
        values=np.stack(values, axis=1) if values else np.zeros((len(table), 0)),
        unit="px" if wsinfer or ours else role.unit,
        centred=role.centred,
        size=_size(table, role, places),
        slides=slides,
        slide_of=slide_of,
        missing=("a column size, or width and height",),
    )


def looks_like_table(start: bytes) -> bool:
    """Whether the first bytes of a file are text whose first line names at least three columns."""
    if b"\0" in start:
        return False
    try:
        text = start.decode("utf-8-sig", "strict")
    except UnicodeDecodeError as error:
        if len(start) - error.start > 4:  # not just a letter cut at the end
            return False
        text = start[: error.start].decode("utf-8-sig", "replace")
    first = _first_line(text)
    return max(first.count(mark) for mark in DELIMITERS) >= 2


def _table(path: Path) -> _Table:
    """Return the cells of a table; empty rows, and remarks above the header, are passed over."""
    rows, lines, delimiter = _rows(path, _text(path))
    if len(rows) < 2:
        raise ScoresError("the table has no rows", file=path, do="give one row a tile")
    names, body = [one_line(name.strip(), 60) for name in rows[0]], rows[1:]
    if all(_is_number(name) for name in names if name):
        raise ScoresError(
            "the table has no line with the names of its columns", file=path, do="add one: x,y,size,score"
        )
    for row, line in zip(body, lines[1:], strict=True):
        if len(row) != len(names):
            what = f"line {line} has {len(row)} cells, the header {len(names)}"
            raise ScoresError(what, file=path, do="mend the line")
    columns = [list(column) for column in zip(*body, strict=True)]
    return _Table(path, [name.lower() for name in names], names, columns, lines[1:], delimiter != ",")


def _text(path: Path) -> str:
    if path.stat().st_size > MAX_BYTES:
        raise ScoresError(f"is larger than {MAX_BYTES >> 20} MB", file=path, do="keep only this slide's rows")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        what = f"is not UTF-8 text (byte {error.start:,})"
        raise ScoresError(what, file=path, do="save it as CSV in UTF-8") from error
    if "\0" in text:
        raise ScoresError("is not text", file=path, do="give a CSV or an HDF5 file")
    return text


def _rows(path: Path, text: str) -> tuple[list[list[str]], list[int], str]:
    """Return the rows with a cell in them, header first, their line numbers, and what parts the cells."""
    delimiter = max(DELIMITERS, key=_first_line(text).count)
    rows: list[list[str]] = []
    lines: list[int] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if any(row) and (rows or not row[0].startswith("#")):
                rows.append(row)
                lines.append(reader.line_num)
            if len(rows) > MAX_TILES:
                raise ScoresError(f"has more than {MAX_TILES:,} rows", file=path, do="keep only this slide's rows")
    except csv.Error as error:
        what = f"line {reader.line_num}: {one_line(error, 100)}"
        raise ScoresError(what, file=path, do="mend the table") from error
    return rows, lines, delimiter


def _first_line(text: str) -> str:
    """Return the line with the columns' names."""
    lines = io.StringIO(text)
    return next((line for line in lines if line.strip() and not line.startswith("#")), "")


def _bare(name: str) -> tuple[str, str]:
    """Return a column's name without its unit, and the unit it told (``px``, ``um`` or empty)."""
    for suffix, unit in _UNITS:
        for pattern in (f"_{suffix}", f" {suffix}", f"({suffix})", f"[{suffix}]"):
            if name.endswith(pattern):
                return name.removesuffix(pattern).strip(" _"), unit
    return name, ""


def _role(path: Path, header: Sequence[str]) -> _Role:
    """Find the columns that tell places and sizes."""
    bare = [_bare(name) for name in header]

    def find(patterns: Iterable[str], axis: str) -> int | None:
        edge = "left" if axis == "x" else "top"
        for pattern in patterns:
            wanted = pattern.format(a=axis, edge=edge)
            for k, (name, _) in enumerate(bare):
                if name == wanted:
                    return k
        return None

    centred = False
    x, y = find(_CORNERS, "x"), find(_CORNERS, "y")
    if x is None or y is None:
        centred = True
        x, y = find(_MIDDLES, "x"), find(_MIDDLES, "y")
    if x is None or y is None:
        shown = ", ".join(one_line(name, 30) for name in header[:12])
        raise ScoresError(f"no columns for the places of tiles among: {shown}", file=path, do="name them x and y")
    unit = bare[x][1]
    if unit != bare[y][1]:
        raise ScoresError("x and y are told in different units", file=path, do="use the same unit for both")
    far_x, far_y = find(_FAR, "x"), find(_FAR, "y")
    far = (far_x, far_y) if far_x is not None and far_y is not None and not centred else None
    sides = _sides(bare, unit)
    taken = {x, y, *sides, *(far or ()), *(k for k, (name, _) in enumerate(bare) if name in _SIDES)}
    return _Role(x, y, unit, centred, frozenset(taken), sides, far)


def _sides(bare: Sequence[tuple[str, str]], unit: str) -> tuple[int, ...]:
    """Return the columns that tell a tile's side in the unit of the places.

    ``patch_size`` and ``tile_size`` alone are the side in the model's pixels as often as on the slide: they tell
    nothing without a unit.
    """
    both = [k for k, (name, other) in enumerate(bare) if name in ("width", "height") and other in ("", unit)]
    if len(both) == 2:
        return tuple(both)
    for k, (name, other) in enumerate(bare):
        certain = name in ("size", "side") and other in ("", unit)
        if certain or (name in _SIDES and other and other == unit):
            return (k,)
    return ()


def _size(table: _Table, role: _Role, places: NDArray[np.float64]) -> float | None:
    """Return the one side of all tiles, in the unit of the places; None where the table does not tell it."""
    found = [table.numbers(k) for k in role.sides]
    if not found and role.far is not None:
        found = [table.numbers(k) - places[:, axis] for axis, k in enumerate(role.far)]
    if not found:
        return None
    low, high = min(float(side.min()) for side in found), max(float(side.max()) for side in found)
    if not low > 0:
        raise ScoresError(f"a tile has the size {low:g}", file=table.path, do="sizes must be above 0")
    if high - low > max(0.01 * high, 1.01):
        what = f"tiles differ in size or are not square ({low:g} to {high:g})"
        raise ScoresError(what, file=table.path, do="give square tiles of one size")
    return float(np.median(np.concatenate(found)))


def _scores(table: _Table, taken: frozenset[int], ours: bool) -> tuple[tuple[str, ...], list[NDArray[np.float64]]]:
    """Return the columns of numbers that are no places, no sizes and no counters."""
    found: list[str] = []
    values: list[NDArray[np.float64]] = []
    for k, name in enumerate(table.header):
        # In our own table the share is the attention times the number of tiles: told again by the scale.
        if k in taken or name in _NO_SCORES or name in _SLIDES or (ours and name == "share"):
            continue
        numbers = table.numbers_or_text(k)
        if numbers is None or np.isnan(numbers).all():
            continue
        found.append(table.names[k])
        values.append(numbers)
        if len(found) == MAX_COLUMNS:
            break
    return tuple(found), values


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _slides(table: _Table) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """Return the slides a table speaks of and, where there are several, which row is of which."""
    column = next((table.columns[k] for k, name in enumerate(table.header) if name in _SLIDES), None)
    if column is None:
        return (), np.zeros(0, np.int32)
    names, member = np.unique([re.split(r"[/\\]", cell.strip())[-1] for cell in column], return_inverse=True)
    slides = tuple(str(name) for name in names)
    return slides, member.astype(np.int32) if len(slides) > 1 else np.zeros(0, np.int32)
