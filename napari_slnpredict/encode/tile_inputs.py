"""Whatever a user names as tiles, opened as one source: slides, cohort tables, folders, zips, HDF5, public sets.

==================  =============================================================================================
input               what it is
==================  =============================================================================================
``a.svs``           a slide; ``slides:PATH`` says so of any file or folder
``cohort.csv``      a table of slides
``FOLDER``          tiles, when there is a PNG or JPEG in it (each subfolder a class): ``tiles:FOLDER``; else slides
``set.zip``         tiles, with their table set.csv beside it: ``zip:FILE``
``x.h5``            as PatchCamelyon's; ``_y.h5`` and ``_meta.csv`` of the same name beside it: ``pcam:FILE``
``wilds:FOLDER``    CAMELYON17-WILDS
``bracs:FOLDER``    BRACS: its regions (pictures), or its slides
``camelyon16:DIR``  Camelyon16: tiles of its slides, labelled by their outlines
==================  =============================================================================================

Behind any of them may stand what only this one has: ``set.zip@512px@1.0um`` cuts tiles of 512 px and says that they are
at 1 um/px.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from napari_slnpredict.cohort.public import bracs_cohort
from napari_slnpredict.cohort.slide_folders import slides_in
from napari_slnpredict.cohort.table import Cohort, Row, read_cohort
from napari_slnpredict.cohort.tasks import LABEL, for_task
from napari_slnpredict.errors import DataError, one_line
from napari_slnpredict.events import Job
from napari_slnpredict.slide.grid import GridSpec

from .joined_tiles import JoinedTiles, joined
from .pcam_tiles import PcamTiles
from .public_tiles import bracs_tiles, camelyon16_tiles, wilds_tiles
from .sampling import slide_tiles
from .tile_files import folder_tiles, zip_tiles
from .tile_table import TileData

#: Endings that make a folder one of tiles; TIFFs may be slides.
_PLAIN = frozenset((".png", ".jpg", ".jpeg", ".bmp"))


@dataclass(frozen=True)
class _Wish:
    """What is wanted of the tiles, whatever they come from; as `open_tiles`."""

    tile_px: int | None
    mpp: float | None
    split: str | None
    label: str
    stain: str | None
    most: int | None
    min_tissue: float

    def of(self, named: Named) -> _Wish:
        """Return the wish with the size and resolution that an input names itself."""
        return replace(self, tile_px=named.tile_px or self.tile_px, mpp=named.mpp or self.mpp)

    def spec(self, what: str) -> GridSpec:
        """Return the grid to lay over slides."""
        if self.tile_px is None or self.mpp is None:
            raise DataError("tiles of slides need a size and a resolution", file=what, do="give px and um/px")
        return GridSpec(self.tile_px, self.mpp, min_tissue=self.min_tissue)


def open_tiles(
    inputs: Sequence[str],
    *,
    tile_px: int | None = None,
    mpp: float | None = None,
    split: str | None = None,
    label: str = LABEL,
    stain: str | None = None,
    most: int | None = None,
    min_tissue: float = 0.5,
) -> Job[JoinedTiles]:
    """Open everything named as one source of tiles; close it afterwards, it is a context manager.

    Parameters
    ----------
    inputs : sequence of str
        See the top of this module.
    tile_px : int, optional
        Slides need it; of pictures by default the shorter side of the smallest.
    mpp : float, optional
        um/px; slides need it, for pictures it says what they have.
    split : str, optional
        Only this split of what comes with splits; what has none is taken whole.
    label : str
        The column of the classes, in tables: a task's name.
    stain : str, optional
        Only slides of this stain, where a table says it of any.
    most : int, optional
        Tiles of one slide at most.
    min_tissue : float
        Share of a slide's tile that is tissue at least.

    Raises
    ------
    DataError
        An input that is not there, not what it is said to be, or has no split of that name.
    """
    wish = _Wish(tile_px, mpp, split, label, stain, most, min_tissue)
    if not inputs:
        raise DataError("no tiles", do="name slides, a cohort table, a folder or a zip of tiles")
    meant = [_meant(text, inputs) for text in inputs]
    parts: list[TileData] = []
    try:
        # All slides at once: two tables may name the same slide.
        slides = [one for one in meant if one.kind == "slides"]
        rows = [row for one in slides for row in _rows(one.path, wish)]
        if rows:
            parts.append((yield from slide_tiles(rows, wish.of(slides[0]).spec(slides[0].path.name), most=most)))
        for one in meant:
            if one.kind in _OPENERS:
                part = yield from _OPENERS[one.kind](one.path, wish.of(one))
                parts.append(part)
        return joined(parts)
    except BaseException:
        for part in parts:
            getattr(part, "close", lambda: None)()
        raise


def sets_of(inputs: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return inputs as sets of their own, each with a name: the file's stem; slides named one by one are one set."""
    sets: dict[str, list[str]] = {}
    for text in inputs:
        named = _meant(text, inputs)
        path = named.path
        if named.kind == "":
            continue  # the table of a zip: found beside it
        alone = named.kind == "slides" and path.is_file() and path.suffix.lower() != ".csv"
        name = "slides" if alone else (path.name if path.is_dir() else path.stem)
        if not alone and name in sets:
            name = f"{path.absolute().parent.name}/{name}"
        sets.setdefault(name, []).append(text)
    return list(sets.items())


def needs_grid(inputs: Sequence[str]) -> bool:
    """Whether any of the inputs is of slides, whose tiles need a size and a resolution."""
    meant = [_meant(text, inputs) for text in inputs]
    return any(
        one.kind in ("slides", "camelyon16") or (one.kind == "bracs" and not _has_pictures(one.path)) for one in meant
    )


@dataclass(frozen=True)
class Named:
    """What a user wrote.

    Attributes
    ----------
    kind : str
        As the word before the colon says, "" where there is none.
    path : Path
    tile_px : int or None
    mpp : float or None
        Of ``@512px`` and ``@0.5um`` behind the path.
    """

    kind: str
    path: Path
    tile_px: int | None = None
    mpp: float | None = None


def read_input(text: str) -> Named:
    """Return the parts of an input as a user wrote it."""
    kind, colon, rest = text.partition(":")
    if not colon or kind not in _KINDS:
        kind, rest = "", text
    parts = re.fullmatch(r"(?P<path>.+?)(?P<own>(@\d+px|@\d+(\.\d+)?um)*)", rest)
    own = parts["own"] if parts else ""
    side, scale = re.search(r"@(\d+)px", own), re.search(r"@([\d.]+)um", own)
    path = Path(parts["path"] if parts else rest).expanduser()
    return Named(kind, path, int(side[1]) if side else None, float(scale[1]) if scale else None)


def _meant(text: str, inputs: Sequence[str]) -> Named:
    """Return what an input is; of kind "" is a table that belongs to a zip named as well."""
    named = read_input(text)
    path, ending = named.path, named.path.suffix.lower()
    if not path.exists():
        raise DataError("is not there", file=path, do="check the name")
    if named.kind:
        return named
    if path.is_dir():
        return replace(named, kind=_kind_of_folder(path))
    if ending == ".csv" and path.with_suffix(".zip") in {read_input(other).path for other in inputs}:
        return named
    return replace(named, kind={".zip": "zip", ".h5": "pcam", ".hdf5": "pcam"}.get(ending, "slides"))


def _kind_of_folder(folder: Path) -> str:
    if (folder / "metadata.csv").is_file() and (folder / "patches").is_dir():
        return "wilds"
    return "tiles" if _has_pictures(folder) else "slides"


def _has_pictures(folder: Path) -> bool:
    return any(path.suffix.lower() in _PLAIN for path in folder.rglob("*"))


def _rows(path: Path, wish: _Wish) -> list[Row]:
    """Return the slides of a file, a folder or a table."""
    if path.is_dir():
        rows = [Row(k, slide) for k, slide in enumerate(slides_in(path), 1)]
        if not rows:
            raise DataError("no slide found in this folder", file=path, do="name the slide files themselves")
        return rows
    if path.suffix.lower() != ".csv":
        return [Row(0, path)]
    return list(_chosen(for_task(read_cohort(path), wish.label), wish).rows)


def _chosen(cohort: Cohort, wish: _Wish) -> Cohort:
    """Return the rows of the split and stain wished for, where the table tells."""
    rows = cohort.rows
    for column, wanted in (("split", wish.split), ("stain", wish.stain)):
        known = sorted({value for row in rows if (value := getattr(row, column))})
        if wanted is None or not known:
            continue
        rows = tuple(row for row in rows if getattr(row, column).casefold() == wanted.casefold())
        if not rows:
            shown = ", ".join(one_line(value, 40) for value in known)
            raise DataError(
                f"no slide of {column} {one_line(wanted, 40)!r}", file=cohort.file, do=f"there are: {shown}"
            )
    return Cohort(cohort.file, cohort.columns, rows)


def _folder(path: Path, wish: _Wish) -> Job[TileData]:
    return folder_tiles(path, tile_px=wish.tile_px, mpp=wish.mpp)


def _zip(path: Path, wish: _Wish) -> Job[TileData]:
    return zip_tiles(path, tile_px=wish.tile_px, mpp=wish.mpp, label=wish.label, split=wish.split)


def _pcam(path: Path, wish: _Wish) -> Job[TileData]:
    yield from ()
    stem = path.stem.removesuffix("_x")
    beside = [path.with_name(f"{stem}{ending}") for ending in ("_y.h5", "_meta.csv")]
    labels, meta = (other if other.is_file() and other != path else None for other in beside)
    return PcamTiles(path, labels, meta) if wish.mpp is None else PcamTiles(path, labels, meta, mpp=wish.mpp)


def _wilds(path: Path, wish: _Wish) -> Job[TileData]:
    yield from ()
    return wilds_tiles(path, split=wish.split, mpp=wish.mpp)


def _bracs(path: Path, wish: _Wish) -> Job[TileData]:
    if _has_pictures(path):
        return (yield from bracs_tiles(path, tile_px=wish.tile_px, mpp=wish.mpp, split=wish.split))
    rows = _chosen(bracs_cohort(path), wish).rows
    return (yield from slide_tiles(rows, wish.spec(path.name), most=wish.most))


def _camelyon16(path: Path, wish: _Wish) -> Job[TileData]:
    return camelyon16_tiles(path, wish.spec(path.name), split=wish.split, most=wish.most)


_OPENERS: dict[str, Callable[[Path, _Wish], Job[TileData]]] = {
    "tiles": _folder,
    "zip": _zip,
    "pcam": _pcam,
    "wilds": _wilds,
    "bracs": _bracs,
    "camelyon16": _camelyon16,
}
_KINDS = frozenset(("slides", *_OPENERS))
