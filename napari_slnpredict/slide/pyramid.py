"""The levels as everybody above sees them: stored ones, coarser virtual ones, any rectangle, through the cache.

A slide whose coarsest stored level is still large gets virtual levels below it, each the mean of 2 x 2 pixels of the
one above, computed tile by tile when somebody looks and remembered within the memory budget.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from .cache import Shelf, TileCache
from .patience import Patience
from .source import WHITE, Source, Tile, TileFault, white_tile
from .spread import CORES, spread

#: Virtual levels go down to this side: small enough to be read whole for a first look.
COARSEST_PX = 1024
VIRTUAL_TILE = 512
#: From this many halvings on a virtual tile is made of so many stored ones that it is kept apart from them.
DEAR_DEPTH = 3
#: Reads on their way to a distant file system at once: it is waited for, not computed.
FAR_READS = 4

T = TypeVar("T")
_Read = Callable[[int, int, int], Tile]


@dataclass(frozen=True)
class Level:
    """One level of the pyramid, stored or virtual.

    Attributes
    ----------
    width, height : int
        Pixels.
    tile_width, tile_height : int
        Pixels.
    downsample : float
        Level-0 pixels per pixel.
    depth : int
        Halvings since the coarsest stored level; 0 for a stored level.
    """

    width: int
    height: int
    tile_width: int
    tile_height: int
    downsample: float
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle read.

    Attributes
    ----------
    pixels : (h, w, 3) uint8
    mask : (h, w) bool or None
        False outside the slide, where nothing was scanned, and where a tile could not be decoded; None where all is
        valid.
    faults : list of ((level, column, row), str)
        The undecodable tiles met (at the level asked for) and why, row by row.
    """

    pixels: NDArray[np.uint8]
    mask: NDArray[np.bool_] | None
    faults: list[tuple[tuple[int, int, int], str]] = field(default_factory=list)

    @property
    def valid(self) -> NDArray[np.bool_]:
        """The mask, (h, w) bool, also where all is valid."""
        return np.ones(self.pixels.shape[:2], np.bool_) if self.mask is None else self.mask


def levels_below(width: int, height: int) -> list[tuple[int, int]]:
    """Return the sizes of the virtual levels below a coarsest stored level."""
    sizes = []
    while max(width, height) > COARSEST_PX and min(width, height) >= 2:
        width, height = width // 2, height // 2
        sizes.append((width, height))
    return sizes


def all_levels(source: Source) -> tuple[Level, ...]:
    """Return stored and virtual levels of a source, finest first."""
    full_width, full_height = source.level_dimensions[0]
    levels = [
        # OpenSlide's definition, so that read_region means the same place: the mean of both axes' ratios.
        Level(width, height, *tile, (full_width / width + full_height / height) / 2)
        for (width, height), tile in zip(source.level_dimensions, source.tile_sizes, strict=True)
    ]
    coarsest = levels[-1]
    for depth, (width, height) in enumerate(levels_below(coarsest.width, coarsest.height), 1):
        tile = min(VIRTUAL_TILE, width), min(VIRTUAL_TILE, height)
        levels.append(Level(width, height, *tile, coarsest.downsample * 2**depth, depth))
    return tuple(levels)


class Pyramid:
    """Reads tiles and rectangles of any level through the cache; thread-safe.

    Parameters
    ----------
    source : Source
    cache : TileCache
        That of the process, or one of its own.
    patience : Patience, optional
        How long reads may take, for a source on a file system that may stop answering.
    """

    def __init__(self, source: Source, cache: TileCache, patience: Patience | None = None) -> None:
        self.source = source
        self.levels = all_levels(source)
        #: This slide's part of the cache. Others may keep tiles of their own in it under keys that are no places.
        self.cache = cache.tenant()
        self.cache_key = self.cache.number
        self._patience = patience
        # A thread of its own reads for a distant file system: what it decodes must last.
        self._fleeting = source.tile if patience else getattr(source, "fleeting_tile", source.tile)
        # Each thread writes its own entries only: no lock.
        self._spent: dict[int, float] = {}
        self._begun: dict[int, float] = {}
        #: Undecodable stored tiles met so far: (level, column, row) -> why.
        self.faults: dict[tuple[int, int, int], str] = {}

    @property
    def seconds(self) -> float:
        """Seconds spent in reading and decoding stored tiles for rectangles, summed over threads.

        Lone tiles are not timed: a clock costs a display a hundredth of a tile.
        """
        return sum(list(self._spent.values()))

    @property
    def waiting(self) -> float:
        """Seconds for which the longest read from a distant file system has been waited for; 0 when there is none."""
        return time.perf_counter() - min(begun) if (begun := list(self._begun.values())) else 0.0

    def cached(self, level: int, column: int, row: int) -> Tile | None:
        """Return one tile if it is at hand: nothing is read."""
        return self.cache.get((level, column, row))

    def tile(self, level: int, column: int, row: int, *, passing: bool = False) -> Tile:
        """Return one tile; one that cannot be decoded is white, says why, and is remembered in `faults`.

        Parameters
        ----------
        level, column, row : int
        passing : bool
            Read once and not looked at again: it takes no room from tiles that are.

        Raises
        ------
        DriveSilent
            The file system does not answer. Nothing is remembered; ask again later.
        """
        key = (level, column, row)
        tile = self.cache.get(key, not passing)
        if tile is None:
            depth = self.levels[level].depth
            tile = self._halved(*key) if depth else self._stored(*key, self.source.tile)
            common = Shelf.PASSING if passing else Shelf.COMMON
            self.cache.put(key, tile, Shelf.DEAR if depth >= DEAR_DEPTH else common)
        return tile

    def tiles(self, level: int, places: Sequence[tuple[int, int]], *, passing: bool = False) -> list[Tile]:
        """Return several tiles, decoded across threads.

        Parameters
        ----------
        level : int
        places : sequence of (column, row)
        passing : bool
            As for `tile`.
        """
        found = [self.cache.get((level, *place), not passing) for place in places]

        def load(i: int) -> None:
            found[i] = self.tile(level, *places[i], passing=passing)

        missing = [i for i, tile in enumerate(found) if tile is None]
        spread(load, missing, self._threads(len(missing)))
        return [tile for tile in found if tile is not None]

    def _threads(self, missing: int) -> int:
        return min(missing, FAR_READS if self._patience is not None else CORES)

    def _stored(self, level: int, column: int, row: int, read: _Read) -> Tile:
        try:
            if self._patience is None:
                return read(level, column, row)
            return self.answered(lambda: self._watched(level, column, row))
        except TileFault as fault:
            self.faults[level, column, row] = str(fault)
            _, _, width, height = self.tile_box(level, column, row)
            return white_tile(height, width, str(fault))

    def answered(self, work: Callable[[], T]) -> T:
        """Return what a piece of work with the slide's files returns. Raises `DriveSilent`."""
        return work() if self._patience is None else self._patience.run(work)

    def _watched(self, level: int, column: int, row: int) -> Tile:
        me = threading.get_ident()
        self._begun[me] = time.perf_counter()
        try:
            return self.source.tile(level, column, row)
        finally:
            del self._begun[me]

    def _halved(self, level: int, column: int, row: int) -> Tile:
        from PIL import Image

        x, y, width, height = self.tile_box(level, column, row)
        stored = self.levels[level - 1].depth == 0
        finer = self.region(level - 1, 2 * x, 2 * y, 2 * width, 2 * height, passing=stored, alone=False)
        pixels = np.asarray(Image.fromarray(finer.pixels).reduce(2))
        fault = finer.faults[0][1] if finer.faults else ""
        v = finer.mask
        if v is None or v.all():
            return Tile(pixels, None, fault)
        # A pixel mixed with glass that was never there would be a pixel made up: it counts only when all four do.
        valid = v[0::2, 0::2] & v[1::2, 0::2] & v[0::2, 1::2] & v[1::2, 1::2]
        return Tile(np.where(valid[..., None], pixels, np.uint8(WHITE)), valid, fault)

    def tile_box(self, level: int, column: int, row: int) -> tuple[int, int, int, int]:
        """Return x, y, width, height of a tile in its level's pixels, cut at the level's edge."""
        shape = self.levels[level]
        x, y = column * shape.tile_width, row * shape.tile_height
        return x, y, min(shape.tile_width, shape.width - x), min(shape.tile_height, shape.height - y)

    def region(
        self, level: int, x: int, y: int, width: int, height: int, *, passing: bool = False, alone: bool | None = None
    ) -> Region:
        """Read a rectangle in the level's own pixels; it may reach outside the slide.

        Parameters
        ----------
        level, x, y, width, height : int
        passing : bool
            As for `tile`. Tiles within the rectangle are not even kept; those it cuts are, for its neighbours.
        alone : bool, optional
            Decode in this thread only; by default passing reads do, for whoever reads a whole slide has threads of
            their own.
        """
        shape = self.levels[level]
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + width, shape.width), min(y + height, shape.height)
        inside = (x0, y0, x1, y1) == (x, y, x + width, y + height)
        canvas = _Canvas(shape, x, y, width, height, whole=inside)
        if x1 <= x0 or y1 <= y0:
            return Region(canvas.pixels, canvas.valid)
        places = [
            (column, row)
            for row in range(y0 // shape.tile_height, -(-y1 // shape.tile_height))
            for column in range(x0 // shape.tile_width, -(-x1 // shape.tile_width))
        ]

        def paste(place: tuple[int, int]) -> None:
            me, start = threading.get_ident(), time.perf_counter()
            if passing and not shape.depth and canvas.covers(*place):
                tile = self.cache.get((level, *place), False) or self._stored(level, *place, self._fleeting)
            else:
                tile = self.tile(level, *place, passing=passing)
            if not shape.depth:
                self._spent[me] = self._spent.get(me, 0.0) + time.perf_counter() - start
            canvas.paste(tile, *place)

        alone = (passing and self._patience is None) if alone is None else alone
        spread(paste, places, 1 if alone or len(places) == 1 else self._threads(self._missing(level, places)))
        found = sorted(canvas.faults.items(), key=lambda fault: fault[0][::-1])
        faults = [((level, *place), why) for place, why in found]
        return Region(canvas.pixels, canvas.valid, faults)

    def _missing(self, level: int, places: Sequence[tuple[int, int]]) -> int:
        return sum(self.cache.get((level, *place), False) is None for place in places)

    def close(self) -> None:
        """Give back the cache and close the source."""
        self.cache.close()
        if self._patience is not None:
            self._patience.close()
        self.source.close()


class _Canvas:
    """A rectangle that tiles are pasted into, by several threads at once: each tile has pixels of its own.

    Parameters
    ----------
    level : Level
    x, y, width, height : int
        In the level's pixels.
    whole : bool
        The rectangle lies inside the level.
    """

    def __init__(self, level: Level, x: int, y: int, width: int, height: int, *, whole: bool) -> None:
        self._level, self._box = level, (x, y, x + width, y + height)
        self._lock = threading.Lock()
        if whole:
            self.pixels = np.empty((height, width, 3), np.uint8)
            self.valid: NDArray[np.bool_] | None = None
        else:
            self.pixels = np.full((height, width, 3), WHITE, np.uint8)
            self.valid = np.zeros((height, width), np.bool_)
        self.faults: dict[tuple[int, int], str] = {}

    def _cut(self, column: int, row: int) -> tuple[int, int, int, int, int, int]:
        """Return a tile's corner and the part of it within the rectangle, level pixels."""
        left, top = column * self._level.tile_width, row * self._level.tile_height
        x0, y0, x1, y1 = self._box
        right = min(x1, left + self._level.tile_width, self._level.width)
        bottom = min(y1, top + self._level.tile_height, self._level.height)
        return left, top, max(x0, left), max(y0, top), right, bottom

    def covers(self, column: int, row: int) -> bool:
        """Whether a whole tile lies within the rectangle."""
        left, top = column * self._level.tile_width, row * self._level.tile_height
        x0, y0, x1, y1 = self._box
        right = min(left + self._level.tile_width, self._level.width)
        bottom = min(top + self._level.tile_height, self._level.height)
        return x0 <= left and y0 <= top and right <= x1 and bottom <= y1

    def paste(self, tile: Tile, column: int, row: int) -> None:
        """Copy what the rectangle has of a tile."""
        left, top, x0, y0, x1, y1 = self._cut(column, row)
        x, y = self._box[:2]
        there = np.s_[y0 - y : y1 - y, x0 - x : x1 - x]
        here = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
        self.pixels[there] = tile.pixels[here]
        if tile.valid is not None:
            self._mask()[there] = tile.valid[here]
        elif self.valid is not None:
            self.valid[there] = True
        if tile.fault:
            self.faults[column, row] = tile.fault

    def _mask(self) -> NDArray[np.bool_]:
        with self._lock:
            if self.valid is None:
                self.valid = np.ones(self.pixels.shape[:2], np.bool_)
            return self.valid
