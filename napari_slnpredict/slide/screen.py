"""The levels a screen chooses from, and how each of their tiles is made.

Scanners leave factors of 4 and 16 between levels, or store one level only. A viewer takes the coarsest level that
still has a pixel for every pixel of the screen, so such gaps cost it up to 16 (256) pixels for one, and the picture
glitters. Between and below the stored levels come halved ones, with one definition for all of them:

    **a halved level is the mean of 2 x 2 pixels of the level before it, rounded half up, again and again; an odd last
    row or column is left out; a pixel counts as valid when all four do, and is white when it does not.**

`Slide`'s virtual levels below the coarsest stored one are the same pixels. The decoder's own reduction (JPEG by DCT
scaling) would save a third of the decoding, but differs where colours are subsampled, and would throw away the full
tiles that the next step of zooming in needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .pages import pages
from .source import WHITE, Tile

if TYPE_CHECKING:
    from .pyramid import Level

#: A halved level is put where the next stored one is coarser by at least this factor.
LEAST_STEP = 1.75
#: Halving goes on below the coarsest stored level down to this side: viewers read the coarsest level whole, and often.
SMALLEST_PX = 320
#: Rows made at a time when halving.
HALVED_ROWS = 64
#: Width of a stripe of the hatching, px of the level shown.
STRIPE = 6
HATCH = ((228, 228, 228), (150, 40, 30))

#: (level of the screen, column, row)
Key = tuple[int, int, int]


@dataclass(frozen=True)
class ScreenLevel:
    """One level for the screen.

    Attributes
    ----------
    width, height : int
        Pixels.
    tile_width, tile_height : int
        Pixels; a tile of a halved level is made of 2 x 2 tiles of the level before.
    stored : int
        The stored level it comes from.
    halvings : int
        How often that one is halved; 0 for the stored level itself.
    downsample : float
        Level-0 pixels per pixel.
    """

    width: int
    height: int
    tile_width: int
    tile_height: int
    stored: int
    halvings: int
    downsample: float

    @property
    def across(self) -> int:
        """Tiles in a row."""
        return -(-self.width // self.tile_width)

    @property
    def down(self) -> int:
        """Tiles in a column."""
        return -(-self.height // self.tile_height)

    def box(self, column: int, row: int) -> tuple[int, int, int, int]:
        """Return x, y, width, height of a tile, px, cut at the level's edge."""
        x, y = column * self.tile_width, row * self.tile_height
        return x, y, min(self.tile_width, self.width - x), min(self.tile_height, self.height - y)

    @property
    def stored_tiles(self) -> int:
        """How many stored tiles the whole level is made of, about."""
        return self.across * self.down << 2 * self.halvings


def screen_levels(stored: Sequence[Level]) -> tuple[ScreenLevel, ...]:
    """Return the levels for the screen, finest first, from the stored ones."""
    found: list[ScreenLevel] = []
    for number, level in enumerate(stored):
        now = ScreenLevel(level.width, level.height, level.tile_width, level.tile_height, number, 0, level.downsample)
        found.append(now)
        following = stored[number + 1].downsample if number + 1 < len(stored) else None
        for halved in _halvings(now):
            far_enough = (
                max(halved.width, halved.height) * 2 > SMALLEST_PX
                if following is None
                else following / halved.downsample >= LEAST_STEP
            )
            if not far_enough:
                break
            found.append(halved)
    return tuple(found)


def _halvings(level: ScreenLevel) -> Iterator[ScreenLevel]:
    width, height, times = level.width, level.height, 0
    while min(width, height) >= 2:
        width, height, times = width // 2, height // 2, times + 1
        yield ScreenLevel(
            width,
            height,
            level.tile_width,
            level.tile_height,
            level.stored,
            times,
            level.downsample * 2**times,
        )


def parts(levels: Sequence[ScreenLevel], key: Key) -> list[Key]:
    """Return the tiles of the level before that a halved tile is made of, row by row."""
    level, column, row = key
    finer = levels[level - 1]
    return [
        (level - 1, each, line)
        for line in range(2 * row, min(2 * row + 2, finer.down))
        for each in range(2 * column, min(2 * column + 2, finer.across))
    ]


def halved_tile(levels: Sequence[ScreenLevel], key: Key, part: Callable[[Key], Tile]) -> Tile:
    """Make a tile of a halved level.

    Parameters
    ----------
    levels : sequence of ScreenLevel
    key : (level, column, row)
    part : callable
        Returns a tile of the level before.
    """
    level, column, row = key
    _, _, width, height = levels[level].box(column, row)
    finer = levels[level - 1]
    left, top, _, _ = finer.box(2 * column, 2 * row)
    pixels = pages(2 * height, 2 * width, 3)
    valid: NDArray[np.bool_] | None = None
    fault = ""
    for each in parts(levels, key):
        tile = part(each)
        x, y, w, h = finer.box(each[1], each[2])
        there = np.s_[y - top : min(y - top + h, 2 * height), x - left : min(x - left + w, 2 * width)]
        cut = np.s_[: pixels[there].shape[0], : pixels[there].shape[1]]
        pixels[there] = tile.pixels[cut]
        if tile.valid is not None:
            valid = np.ones((2 * height, 2 * width), np.bool_) if valid is None else valid
            valid[there] = tile.valid[cut]
        fault = fault or tile.fault
    half = halve(pixels)
    if valid is None:
        return Tile(half, None, fault)
    kept = valid[0::2, 0::2] & valid[1::2, 0::2] & valid[0::2, 1::2] & valid[1::2, 1::2]
    return Tile(np.where(kept[..., None], half, np.uint8(WHITE)), kept, fault)


def halve(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return means of 2 x 2 pixels, rounded half up.

    Parameters
    ----------
    pixels : (2h, 2w, 3) uint8
        Contiguous.

    Returns
    -------
    (h, w, 3) uint8
    """
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
    rows = pixels.reshape(height, 2, 2 * width * 3)
    half = np.empty((height, width, 3), np.uint8)
    # In stripes that stay in the processor's cache. Rows first, as one long run; then colour by colour: an inner loop
    # of three elements would take three times as long.
    sums = np.empty((min(HALVED_ROWS, height), width, 6), np.uint16)
    mean = np.empty(sums.shape[:2], np.uint16)
    for top in range(0, height, HALVED_ROWS):
        stripe = np.s_[top : top + HALVED_ROWS]
        count = len(half[stripe])
        np.add(rows[stripe, 0], rows[stripe, 1], out=sums.reshape(len(sums), -1)[:count], dtype=np.uint16)
        for colour in range(3):
            np.add(sums[:count, :, colour], sums[:count, :, colour + 3], out=mean[:count])
            mean += 2
            mean >>= 2
            half[stripe, :, colour] = mean[:count]
    return half


def hatched(
    tile: Tile,
    x: int,
    y: int,
    downsample: float,
    damaged: Sequence[tuple[int, int, int, int, int]],
) -> NDArray[np.uint8]:
    """Return a tile's pixels with what could not be decoded striped: white would pass for empty glass.

    Parameters
    ----------
    tile : Tile
    x, y : int
        Its corner in its level, px: stripes run on from tile to tile.
    downsample : float
    damaged : sequence of (level, x, y, w, h)
        Rectangles that cannot be decoded, level-0 px, as `Slide.damaged` gives them: what else is not valid was never
        scanned, and is glass.

    Returns
    -------
    (h, w, 3) uint8
    """
    if tile.valid is None:
        return tile.pixels
    height, width = tile.valid.shape
    rows, columns = np.arange(y, y + height), np.arange(x, x + width)
    bad = np.zeros((height, width), np.bool_)
    for _, left, top, across, down in damaged:
        in_rows = (rows * downsample > top - downsample) & (rows * downsample < top + down)
        in_columns = (columns * downsample > left - downsample) & (columns * downsample < left + across)
        bad |= in_rows[:, None] & in_columns[None, :]
    bad &= ~tile.valid
    stripes = ((rows[:, None] + columns[None, :]) // STRIPE % 2).astype(np.intp)
    painted = np.array(tile.pixels)
    painted[bad] = np.asarray(HATCH, np.uint8)[stripes[bad]]
    return painted
