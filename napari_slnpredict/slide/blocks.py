"""Tiles for a network: neighbours read together, cut, brought to the network's resolution.

Measured for 224 px tiles from 448 px (benchmarks/read_blocks.py): a lone tile decodes twice the file tiles it needs,
4 x 4 neighbours share them. Means over whole factors take 0.16 ms a tile in plain numpy (Pillow's reduce 0.27, its box
filter 0.66, scikit-image 4.9); other factors 0.2 ms with torch's antialiased uint8 bilinear (Pillow's 1.1).

A tile's pixels depend on its own place only, never on the block it was read in: places are rounded in the level's own
pixels, so a block, a lone tile and another order give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.torch_door import import_torch

from .grid import TileGrid

if TYPE_CHECKING:
    from .slide import Slide

#: How pixels are brought to the network's resolution; part of every encoder's digest. Change it with the code below.
INTERPOLATION = "area-whole/bilinear-antialias/1"
#: Level pixels read at once (48 MB); larger blocks are read in parts.
REGION_PX = 16_000_000


@dataclass(frozen=True)
class Tiles:
    """Some tiles of a grid.

    Attributes
    ----------
    indices : (k,) int64
        Into the grid.
    pixels : (k, tile_px, tile_px, 3) uint8
        White beyond the slide's edge and where nothing could be read.
    damaged : (k,) bool
        Part of the tile could not be read because the file is damaged: such a tile never reaches a model.
    """

    indices: NDArray[np.int64]
    pixels: NDArray[np.uint8]
    damaged: NDArray[np.bool_]


@dataclass(frozen=True)
class _Cut:
    """What is cut out of which level for one tile: a square of `side` px, to become `tile_px` px."""

    level: int
    downsample: float
    side: int
    tile_px: int

    @property
    def factor(self) -> int:
        """Level pixels per tile pixel where that is a whole number, else 0."""
        return self.side // self.tile_px if self.side % self.tile_px == 0 else 0


def plan_blocks(
    grid: TileGrid, order: Sequence[int] | NDArray[np.int64] | None = None, side: int = 4
) -> list[NDArray[np.int64]]:
    """Group neighbouring tiles, so that a block is read at once.

    Parameters
    ----------
    grid : TileGrid
    order : sequence of int, optional
        Tiles wanted, the most urgent first; by default all, in the order of the file.
    side : int
        Blocks are `side` by `side` cells of the lattice.

    Returns
    -------
    list of (k,) int64
        Every wanted tile in one block; blocks by their most urgent tile, tiles row by row.
    """
    wanted = np.arange(len(grid)) if order is None else np.asarray(order, np.int64)
    if len(wanted) == 0:
        return []
    cells = grid.cells[wanted].astype(np.int64)
    across = (grid.shape[1] + side - 1) // side
    keys = (cells[:, 0] // side) * across + cells[:, 1] // side
    unique, first, member = np.unique(keys, return_index=True, return_inverse=True)
    # By default file order is the order of the keys; with an order it is that of each block's first tile.
    rank = np.empty(len(unique), np.int64)
    rank[np.argsort(first, kind="stable") if order is not None else slice(None)] = np.arange(len(unique))
    block = rank[member.reshape(-1)]
    sequence = np.lexsort((cells[:, 1], cells[:, 0], block))
    cuts = np.flatnonzero(np.diff(block[sequence])) + 1
    return [np.asarray(part, np.int64) for part in np.split(wanted[sequence], cuts)]


def read_block(slide: Slide, grid: TileGrid, indices: Sequence[int] | NDArray[np.int64]) -> Tiles:
    """Read some tiles, neighbours in one go; safe from several threads.

    Parameters
    ----------
    slide : Slide
    grid : TileGrid
    indices : (k,) int
        Tiles of the grid, in any order; a block of `plan_blocks` is read fastest.
    """
    chosen = np.asarray(indices, np.int64).reshape(-1)
    pixels, damaged = read_places(slide, grid, grid.locations[chosen])
    return Tiles(chosen, pixels, damaged)


def read_tile(slide: Slide, grid: TileGrid, index: int) -> NDArray[np.uint8]:
    """Read one tile, (tile_px, tile_px, 3) uint8."""
    pixels: NDArray[np.uint8] = read_block(slide, grid, [index]).pixels[0]
    return pixels


def read_places(
    slide: Slide, grid: TileGrid, locations: NDArray[np.integer]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Read squares of the grid's tile size anywhere on the slide.

    Parameters
    ----------
    slide : Slide
    grid : TileGrid
        Says how large and how fine.
    locations : (k, 2) int
        Level-0 px, x then y, top-left corners.

    Returns
    -------
    pixels : (k, tile_px, tile_px, 3) uint8
    damaged : (k,) bool
    """
    cut = _plan_cut(slide, grid)
    # The cut is centred on the tile: rounding its place and its side moves no pixel by more than half a level pixel.
    exact = np.asarray(locations, np.float64) / cut.downsample
    corners = np.rint(exact + (grid.size_level0 / cut.downsample - cut.side) / 2).astype(np.int64)
    pixels = np.empty((len(corners), grid.spec.tile_px, grid.spec.tile_px, 3), np.uint8)
    damaged = np.zeros(len(corners), bool)
    for group in _regions(corners, cut.side):
        damaged[group] = _read_group(slide, cut, corners[group], [pixels[i] for i in group.tolist()])
    return pixels, damaged


def _plan_cut(slide: Slide, grid: TileGrid) -> _Cut:
    wanted, tile_px = grid.spec.mpp / grid.slide_mpp, grid.spec.tile_px
    # Levels are not exactly 4, 16, ... times smaller, since their sides are whole: 4.0014 is 4, as long as the far
    # side of a tile moves by less than half a pixel.
    near = 1 + 0.5 / tile_px
    level = min(slide.best_level(wanted * near), slide.stored_level_count - 1)
    downsample = float(slide.level_downsamples[level])
    side = grid.size_level0 / downsample
    whole = max(1, round(side / tile_px)) * tile_px
    return _Cut(level, downsample, whole if abs(whole - side) <= 0.5 else max(1, round(side)), tile_px)


def _regions(corners: NDArray[np.int64], side: int) -> Iterator[NDArray[np.int64]]:
    """Yield groups of tiles worth one read each: not too large, at least half of it wanted."""
    waiting = [np.arange(len(corners))] if len(corners) else []
    while waiting:
        group = waiting.pop()
        low, high = corners[group].min(axis=0), corners[group].max(axis=0) + side
        area = int(np.prod(high - low))
        if len(group) == 1 or (area <= REGION_PX and area <= 2 * len(group) * side * side):
            yield group
            continue
        axis = int(np.argmax(high - low))
        along = np.argsort(corners[group, axis], kind="stable")
        middle = _widest_gap(corners[group[along], axis]) if area <= REGION_PX else len(group) // 2
        waiting += [group[along[middle:]], group[along[:middle]]]


def _widest_gap(places: NDArray[np.int64]) -> int:
    """Index after which sorted places are furthest apart; the middle where they are even."""
    gaps = np.diff(places)
    widest = np.flatnonzero(gaps == gaps.max())
    return int(widest[len(widest) // 2]) + 1


def _read_group(
    slide: Slide, cut: _Cut, corners: NDArray[np.int64], into: list[NDArray[np.uint8]]
) -> NDArray[np.bool_]:
    """Read tiles in one go into arrays (tile_px, tile_px, 3); return which are damaged."""
    left, top = (int(v) for v in corners.min(axis=0))
    right, bottom = (int(v) + cut.side for v in corners.max(axis=0))
    region, valid = slide.read_level(cut.level, left, top, right - left, bottom - top, passing=True)
    places = corners - (left, top)
    _resize([region[y : y + cut.side, x : x + cut.side] for x, y in places.tolist()], cut, into)
    return _damaged(slide, cut, valid, corners, (left, top))


def _damaged(
    slide: Slide, cut: _Cut, valid: NDArray[np.bool_], corners: NDArray[np.int64], origin: tuple[int, int]
) -> NDArray[np.bool_]:
    """Tiles with unreadable pixels that lie on a damaged file tile: (k,) bool. Sparse and outside is no damage."""
    found = np.zeros(len(corners), bool)
    if valid.all():
        return found
    damage = np.array([place[1:] for place in slide.damaged], np.float64).reshape(-1, 4)  # x, y, w, h in level-0 px
    if len(damage) == 0:
        return found
    for i, (x, y) in enumerate(corners.tolist()):
        column, row = x - origin[0], y - origin[1]
        if valid[row : row + cut.side, column : column + cut.side].all():
            continue
        low = np.array([x, y]) * cut.downsample
        high = low + cut.side * cut.downsample
        # One level pixel of slack: a place in level-0 px and one in level px round differently.
        slack = cut.downsample
        meets = (damage[:, :2] < high + slack) & (damage[:, :2] + damage[:, 2:] > low - slack)
        found[i] = bool(meets.all(axis=1).any())
    return found


def _resize(squares: list[NDArray[np.uint8]], cut: _Cut, into: list[NDArray[np.uint8]]) -> None:
    """Bring (side, side, 3) squares to (tile_px, tile_px, 3)."""
    if cut.factor == 1:
        for square, target in zip(squares, into, strict=True):
            target[...] = square
    elif cut.factor:
        for square, target in zip(squares, into, strict=True):
            _mean_of_blocks(square, cut.factor, target)
    else:
        torch = import_torch()
        batch = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)  # (k, 3, side, side), channels last in memory
        size = (cut.tile_px, cut.tile_px)
        resized = torch.nn.functional.interpolate(batch, size=size, mode="bilinear", antialias=True)
        for one, target in zip(resized.permute(0, 2, 3, 1).numpy(), into, strict=True):
            target[...] = one


def _mean_of_blocks(square: NDArray[np.uint8], factor: int, into: NDArray[np.uint8]) -> None:
    """Mean of `factor` by `factor` pixels, rounded half up, into a contiguous array of that size.

    Rows are added first, then pixels as one long line shifted by whole pixels: every pass runs over contiguous memory,
    three times as fast as slicing pixels out. Sums of pixels that belong to two blocks are made too and thrown away.
    """
    height, width = square.shape[0], square.shape[1]
    wide: type[np.unsignedinteger] = np.uint16 if factor <= 16 else np.uint32  # 255 * 16 * 16 just fits
    rows: NDArray[np.unsignedinteger] = square[0::factor].astype(wide)
    for i in range(1, factor):
        rows += square[i::factor]
    line = rows.reshape(-1)
    kept = len(line) - 3 * (factor - 1)
    sums = line[:kept].copy()
    for i in range(1, factor):
        sums += line[3 * i : 3 * i + kept]
    sums += factor * factor // 2
    sums //= factor * factor
    means = np.empty(len(line), np.uint8)
    means[:kept] = sums
    # Three bytes are one item, so that every factor-th pixel is copied whole.
    into.view("V3")[..., 0] = means.view("V3").reshape(height // factor, width)[:, ::factor]
