"""Tiles to train on straight from slides: no folder of tiles is ever written.

`slide_tiles` looks at every slide once (tissue, grid) and leaves out, by name, what cannot be used; training goes on
with the rest. Tiles are then read when they are drawn. What cannot be read then is replaced by another tile, chosen by
the row's number, so that the same damage gives the same batches; `SlideTiles.notes` says how often.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.cohort.table import Row
from napari_slnpredict.errors import DataError, SlideError, SlnPredictError, one_line
from napari_slnpredict.events import Job, Meter, Stage, Throttle, Warn
from napari_slnpredict.slide.blocks import read_block
from napari_slnpredict.slide.grid import GridSpec, TileGrid, lay_grid
from napari_slnpredict.slide.slide import open_slide
from napari_slnpredict.slide.tissue import find_tissue

from .tile_table import SlideFacts, TileTable

if TYPE_CHECKING:
    from napari_slnpredict.slide.slide import Slide

#: Slides held open; one that was not read from for longest is closed first.
OPEN_SLIDES = 24
#: A slide coarser than the tiles by more than this is left out; a finer one never is.
MOST_ENLARGED = 2.0
#: After so many failures a slide is not tried again; stand-ins tried for one tile.
_PATIENCE, _STAND_INS = 2, 20


#: Name, kind of error and message of a slide that is left out.
LeftOut = tuple[str, str, str]


@dataclass(frozen=True)
class SlideSource:
    """One slide tiles are drawn from.

    Attributes
    ----------
    path : Path
    mpp : float or None
        As the cohort table gives it.
    grid : TileGrid
        Its tiles; row `first + i` of the table is tile i.
    first : int
    """

    path: Path
    mpp: float | None
    grid: TileGrid = field(repr=False)
    first: int


@dataclass(frozen=True)
class _Found:
    """What one slide has to give."""

    row: Row
    facts: SlideFacts
    grid: TileGrid


def slide_tiles(rows: Sequence[Row], spec: GridSpec, *, most: int | None = None) -> Job[SlideTiles]:
    """Find the tiles of a cohort's slides.

    Yields a `Stage`, `Progress` in slides, and a `Warn` for every slide that is left out: unreadable, no scale, no
    tissue, much coarser than the tiles, or a copy of another one.

    Parameters
    ----------
    rows : sequence of Row
        Of a cohort table; `Row(0, path)` for a bare file.
    spec : GridSpec
        Size and resolution of the tiles; `min_tissue` says how much of each is tissue at least.
    most : int, optional
        Tiles kept of one slide, evenly spread over it.

    Raises
    ------
    DataError
        Nothing is left.
    """
    yield Stage("tiles", "Finding tiles", len(rows), "slides")
    meter, tell = Meter(len(rows)), Throttle()
    found: list[_Found] = []
    left_out: list[LeftOut] = []
    seen: dict[str, Path] = {}
    for row in rows:
        try:
            one, notes = _look(row, spec, most)
            if (twin := seen.setdefault(one.facts.content_id, row.path)) is not row.path:
                raise SlideError(f"the same slide as {one_line(twin.name, 80)}", file=row.path)
            found.append(one)
            for note in notes:
                yield Warn(note)
        except (SlnPredictError, OSError) as error:
            left_out.append((row.slide or one_line(row.path.name, 80), type(error).__name__, one_line(error)))
            yield Warn(f"left out: {_named(error, row.path)}")
        meter.done += 1
        if tell():
            yield meter.progress()
    if not found:
        raise DataError(
            f"none of {len(rows)} slides gave a tile of {spec.tile_px} px at {spec.mpp:g} um/px",
            do="see the warnings; give slides with tissue and a pixel size",
        )
    return SlideTiles(_sources(found), _table(found), spec, tuple(left_out))


def _named(error: Exception, path: Path) -> str:
    text = one_line(error)
    return text if path.name in text else f"{one_line(path.name, 80)}: {text}"


def _look(row: Row, spec: GridSpec, most: int | None) -> tuple[_Found, list[str]]:
    """Return the tiles of one slide, and what to tell about it."""
    notes = []
    with open_slide(row.path, row.mpp) as slide:
        enlarged = slide.require_mpp() / spec.mpp
        if enlarged > MOST_ENLARGED:
            raise SlideError(
                f"at {slide.require_mpp():g} um/px it is too coarse for tiles of {spec.mpp:g}", file=row.path
            )
        if enlarged > 1.05:
            notes.append(f"{one_line(row.path.name, 80)}: its tiles are enlarged {enlarged:.2g} times")
        grid = lay_grid(slide, find_tissue(slide), spec)
        if len(grid) == 0:
            raise SlideError("no tissue for a tile", file=row.path)
        facts = SlideFacts(row.slide or slide.slide_id, slide.content_id, row.patient, row.site)
    return _Found(row, facts, _thinned(grid, most)), notes


def _thinned(grid: TileGrid, most: int | None) -> TileGrid:
    if most is None or len(grid) <= most:
        return grid
    kept = np.unique(np.linspace(0, len(grid) - 1, most).round().astype(np.int64))
    return replace(
        grid,
        locations=grid.locations[kept],
        tissue=grid.tissue[kept],
        component=grid.component[kept],
        cells=grid.cells[kept],
    )


def _sources(found: Sequence[_Found]) -> tuple[SlideSource, ...]:
    firsts = np.cumsum([0, *(len(one.grid) for one in found)]).tolist()
    return tuple(
        SlideSource(one.row.path, one.row.mpp, one.grid, first) for one, first in zip(found, firsts, strict=False)
    )


def _table(found: Sequence[_Found]) -> TileTable:
    counts = [len(one.grid) for one in found]
    sites = sorted({one.row.site for one in found} - {""})
    classes = tuple(sorted({one.row.label for one in found} - {""}))
    groups: dict[tuple[str, str], int] = {}
    group = [groups.setdefault(_group(one), len(groups)) for one in found]
    return TileTable(
        slide=np.repeat(np.arange(len(found)), counts),
        group=np.repeat(np.asarray(group, np.int64), counts),
        site=np.repeat([sites.index(one.row.site) + 1 if one.row.site else 0 for one in found], counts),
        centre_um=np.concatenate([one.grid.centres_um for one in found]),
        component=np.concatenate([one.grid.component for one in found]),
        label=np.repeat([classes.index(one.row.label) if one.row.label else -1 for one in found], counts),
        slides=tuple(one.facts for one in found),
        classes=classes,
    )


def _group(one: _Found) -> tuple[str, str]:
    return ("patient", one.facts.patient) if one.facts.patient else ("slide", one.facts.content_id)


class SlideTiles:
    """Tiles of slides, read when they are asked for; thread-safe; a context manager.

    Attributes
    ----------
    table : TileTable
        Tiles of one slide stand together, in the order of its file.
    spec : GridSpec
    sources : tuple of SlideSource
    left_out : tuple of LeftOut
        Slides that could not be used at all.
    """

    def __init__(
        self, sources: tuple[SlideSource, ...], table: TileTable, spec: GridSpec, left_out: tuple[LeftOut, ...] = ()
    ) -> None:
        self.table, self.spec, self.sources, self.left_out = table, spec, sources, left_out
        self._shelf = _Shelf(sources)
        self._lock = threading.Lock()
        self._failures: Counter[int] = Counter()
        self._said: dict[int, str] = {}
        self._replaced = 0

    @property
    def tile_px(self) -> int:
        """Side of a tile, px."""
        return self.spec.tile_px

    @property
    def mpp(self) -> float:
        """Resolution, um/px."""
        return self.spec.mpp

    @property
    def notes(self) -> tuple[str, ...]:
        """What went wrong while reading."""
        with self._lock:
            replaced = (f"{self._replaced} tiles could not be read; others stood in",) if self._replaced else ()
            return (*self._said.values(), *replaced)

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return tiles (k, p, p, 3), neighbours decoded together.

        A damaged tile is replaced by another one of its slide; a tile of a slide that cannot be read any more by one
        of another slide with the same label.

        Raises
        ------
        DataError
            No stand-in could be read either.
        """
        wanted = np.asarray(rows, np.int64).reshape(-1)
        pixels = np.empty((len(wanted), self.tile_px, self.tile_px, 3), np.uint8)
        missing = self._read_into(wanted, pixels, np.arange(len(wanted)))
        for attempt in range(_STAND_INS):
            if not len(missing):
                return pixels
            with self._lock:
                self._replaced += len(missing) if attempt == 0 else 0
            instead = np.array([self._stand_in(int(wanted[at]), attempt) for at in missing], np.int64)
            missing = missing[self._read_into(instead, pixels, missing)]
        if len(missing):
            raise DataError(
                f"{len(missing)} of {len(wanted)} tiles could not be read, nor any in their place",
                do="; ".join(self.notes[:3]) or "look at the slides with `slnpredict info`",
            )
        return pixels

    def _read_into(
        self, rows: NDArray[np.int64], pixels: NDArray[np.uint8], places: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Read rows[i] into pixels[places[i]]; return the i that could not be read."""
        missing = []
        for slide in np.unique(self.table.slide[rows]).tolist():
            at = np.flatnonzero(self.table.slide[rows] == slide)
            try:
                found, damaged = self._read_slide(slide, rows[at])
            except (SlnPredictError, OSError) as error:
                self._fail(slide, error)
                missing.append(at)
                continue
            pixels[places[at]] = found
            missing.append(at[damaged])
        return np.sort(np.concatenate(missing)) if missing else np.empty(0, np.int64)

    def _read_slide(self, slide: int, rows: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        source = self.sources[slide]
        if self._failures[slide] >= _PATIENCE:
            raise SlideError("given up", file=source.path)
        with self._shelf.lent(slide) as opened:
            tiles = read_block(opened, source.grid, rows - source.first)
        return tiles.pixels, tiles.damaged

    def _fail(self, slide: int, error: Exception) -> None:
        with self._lock:
            self._failures[slide] += 1
            self._said.setdefault(slide, _named(error, self.sources[slide].path))

    def _stand_in(self, row: int, attempt: int) -> int:
        """Return another row: of the same slide while that can be read, else of another one with the same label."""
        rng = np.random.default_rng([row, attempt])
        table, slide = self.table, int(self.table.slide[row])
        if not self._failures[slide]:
            source = self.sources[slide]
            return source.first + int(rng.integers(len(source.grid)))
        good = np.array([self._failures[k] == 0 for k in range(len(self.sources))])
        choice = np.flatnonzero(good[table.slide] & (table.label == table.label[row]))
        return int(rng.choice(choice)) if len(choice) else row

    def close(self) -> None:
        """Close every slide; reading again opens them again."""
        self._shelf.close()

    def __enter__(self) -> SlideTiles:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Shelf:
    """The slides that are open: a cohort may have more than a process may have files."""

    def __init__(self, sources: Sequence[SlideSource]) -> None:
        self._sources = sources
        self._lock = threading.Lock()
        self._opening = [threading.Lock() for _ in sources]
        self._open: OrderedDict[int, Slide] = OrderedDict()
        self._users: Counter[int] = Counter()

    @contextmanager
    def lent(self, slide: int) -> Iterator[Slide]:
        """Lend an open slide; it is not closed while anybody has it."""
        with self._lock:
            self._users[slide] += 1
        try:
            with self._opening[slide]:
                if (opened := self._taken(slide)) is None:
                    opened = open_slide(self._sources[slide].path, self._sources[slide].mpp)
                    with self._lock:
                        self._open[slide] = opened
            yield opened
        finally:
            with self._lock:
                self._users[slide] -= 1
            self._tidy(OPEN_SLIDES)

    def _taken(self, slide: int) -> Slide | None:
        with self._lock:
            if slide in self._open:
                self._open.move_to_end(slide)
            return self._open.get(slide)

    def _tidy(self, most: int) -> None:
        with self._lock:
            idle = [slide for slide in self._open if not self._users[slide]]
            old = [self._open.pop(slide) for slide in idle[: max(0, len(self._open) - most)]]
        for slide in old:
            slide.close()

    def close(self) -> None:
        """Close every slide that nobody has."""
        self._tidy(0)
