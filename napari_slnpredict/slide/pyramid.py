"""The levels as everybody above sees them: stored ones, coarser virtual ones, any rectangle, one bounded cache.

A slide whose coarsest stored level is still large gets virtual levels below it, each the mean of 2 x 2 pixels of the
one above, computed tile by tile when somebody looks and remembered within the memory budget.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .source import WHITE, Source, Tile, TileFault, white_tile

#: Virtual levels go down to this side: small enough to be read whole for a first look.
COARSEST_PX = 1024
VIRTUAL_TILE = 512
#: From this many halvings on a virtual tile is made of so many stored ones that it is kept apart from them.
DEAR_DEPTH = 3
DEAR_SHARE = 0.25


class TileCache:
    """Decoded tiles up to a number of bytes; the longest unused go first. Thread-safe."""

    def __init__(self, budget: int) -> None:
        self._budget, self._used = budget, 0
        self._tiles: OrderedDict[Hashable, Tile] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Tile | None:
        """Return a tile and mark it used; None when it is not here."""
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
            return tile

    def put(self, key: Hashable, tile: Tile) -> None:
        """Keep a tile; one larger than the whole budget is not kept."""
        with self._lock:
            if key in self._tiles:
                return
            self._tiles[key] = tile
            self._used += _cost(tile)
            while self._used > self._budget and self._tiles:
                self._used -= _cost(self._tiles.popitem(last=False)[1])

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._tiles.clear()
            self._used = 0

    @property
    def used(self) -> int:
        """Bytes held."""
        return self._used


def _cost(tile: Tile) -> int:
    return tile.nbytes + 500  # the entry itself


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


class Region(NamedTuple):
    """A rectangle read.

    Attributes
    ----------
    pixels : (h, w, 3) uint8
    valid : (h, w) bool
        False outside the slide, where nothing was scanned, and where a tile could not be decoded.
    faults : list of ((level, column, row), str)
        The undecodable tiles met (at the level asked for) and why.
    """

    pixels: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    faults: list[tuple[tuple[int, int, int], str]]


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
    """Reads rectangles of any level through one cache; thread-safe.

    Parameters
    ----------
    source : Source
    budget : int
        Bytes of decoded pixels held.
    """

    def __init__(self, source: Source, budget: int) -> None:
        self.source = source
        self.levels = all_levels(source)
        #: Seconds spent in reading and decoding stored tiles, summed over threads.
        self.seconds = 0.0
        self._clock = threading.Lock()
        self._cache = TileCache(int(budget * (1 - DEAR_SHARE)))
        self._dear = TileCache(int(budget * DEAR_SHARE))
        #: Undecodable stored tiles met so far: (level, column, row) -> why.
        self.faults: dict[tuple[int, int, int], str] = {}

    def tile(self, level: int, column: int, row: int) -> Tile:
        """Return one tile; one that cannot be decoded is white, says why, and is remembered in `faults`."""
        key = (level, column, row)
        cache = self._dear if self.levels[level].depth >= DEAR_DEPTH else self._cache
        tile = cache.get(key)
        if tile is None:
            tile = self._halved(*key) if self.levels[level].depth else self._stored(*key)
            cache.put(key, tile)
        return tile

    def _stored(self, level: int, column: int, row: int) -> Tile:
        start = time.perf_counter()
        try:
            return self.source.tile(level, column, row)
        except TileFault as fault:
            self.faults[level, column, row] = str(fault)
            _, _, width, height = self.tile_box(level, column, row)
            return white_tile(height, width, str(fault))
        finally:
            with self._clock:
                self.seconds += time.perf_counter() - start

    def _halved(self, level: int, column: int, row: int) -> Tile:
        from PIL import Image

        x, y, width, height = self.tile_box(level, column, row)
        finer = self.region(level - 1, 2 * x, 2 * y, 2 * width, 2 * height)
        pixels = np.asarray(Image.fromarray(finer.pixels).reduce(2))
        fault = finer.faults[0][1] if finer.faults else ""
        if finer.valid.all():
            return Tile(pixels, None, fault)
        # A pixel mixed with glass that was never there would be a pixel made up: it counts only when all four do.
        v = finer.valid
        valid = v[0::2, 0::2] & v[1::2, 0::2] & v[0::2, 1::2] & v[1::2, 1::2]
        return Tile(np.where(valid[..., None], pixels, np.uint8(WHITE)), valid, fault)

    def tile_box(self, level: int, column: int, row: int) -> tuple[int, int, int, int]:
        """Return x, y, width, height of a tile in its level's pixels, cut at the level's edge."""
        shape = self.levels[level]
        x, y = column * shape.tile_width, row * shape.tile_height
        return x, y, min(shape.tile_width, shape.width - x), min(shape.tile_height, shape.height - y)

    def region(self, level: int, x: int, y: int, width: int, height: int) -> Region:
        """Read a rectangle in the level's own pixels; it may reach outside the slide."""
        shape = self.levels[level]
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + width, shape.width), min(y + height, shape.height)
        inside = (x0, y0, x1, y1) == (x, y, x + width, y + height)
        pixels = np.empty((height, width, 3), np.uint8) if inside else np.full((height, width, 3), WHITE, np.uint8)
        valid = np.ones((height, width), np.bool_) if inside else np.zeros((height, width), np.bool_)
        faults = []
        for row in range(y0 // shape.tile_height, -(-y1 // shape.tile_height) if y1 > y0 else 0):
            for column in range(x0 // shape.tile_width, -(-x1 // shape.tile_width) if x1 > x0 else 0):
                tile = self.tile(level, column, row)
                left, top = column * shape.tile_width, row * shape.tile_height
                a0, b0 = max(x0, left), max(y0, top)
                a1, b1 = min(x1, left + shape.tile_width), min(y1, top + shape.tile_height)
                there = np.s_[b0 - y : b1 - y, a0 - x : a1 - x]
                here = np.s_[b0 - top : b1 - top, a0 - left : a1 - left]
                pixels[there] = tile.pixels[here]
                if tile.valid is not None:
                    valid[there] = tile.valid[here]
                elif not inside:
                    valid[there] = True
                if tile.fault:
                    faults.append(((level, column, row), tile.fault))
        return Region(pixels, valid, faults)

    def close(self) -> None:
        """Forget the cache and close the source."""
        self._cache.clear()
        self._dear.clear()
        self.source.close()
