"""A first picture of a slide that has no small level: tiles here and there, ever denser, until the time is up.

Making the true coarse levels of such a slide means decoding all of it. Until that is done in the background, this
picture stands in: its pixels are of the right place and colour, and no more is claimed for them.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .screen import ScreenLevel
from .source import WHITE, TileFault
from .spread import spread

if TYPE_CHECKING:
    from .pyramid import Pyramid

#: Side of a tile in the picture, px, and of the picture at most.
CELL, MOST_PX = 8, 2048
#: How far apart the tiles of each pass are. The first is always finished.
PASSES = (8, 4, 2, 1)
#: How much smaller a tile is decoded where the decoder can.
FACTOR = 8


def sketch(tiles: Pyramid, level: ScreenLevel, seconds: float) -> NDArray[np.uint8]:
    """Return a rough picture of a slide.

    Parameters
    ----------
    tiles : Pyramid
    level : ScreenLevel
        A stored one.
    seconds : float
        How long it may take, about.

    Returns
    -------
    (h, w, 3) uint8
        Of the level's shape, much smaller.
    """
    cell = max(1, min(CELL, MOST_PX // max(level.across, level.down)))
    picture = np.full((level.down * cell, level.across * cell, 3), WHITE, np.uint8)
    until = time.monotonic() + seconds
    for number, stride in enumerate(PASSES):
        before = PASSES[number - 1] if number else 0
        places = [
            (column, row)
            for row in range(0, level.down, stride)
            for column in range(0, level.across, stride)
            if not before or row % before or column % before
        ]

        def put(place: tuple[int, int], stride: int = stride, must: bool = not number) -> None:
            if must or time.monotonic() < until:
                _put(picture, tiles, level, place, cell, stride)

        spread(put, places)
    return picture[: round(level.height / level.tile_height * cell), : round(level.width / level.tile_width * cell)]


def _put(
    picture: NDArray[np.uint8], tiles: Pyramid, level: ScreenLevel, place: tuple[int, int], cell: int, stride: int
) -> None:
    """Put one tile into the picture, as wide as the tiles of this pass are apart."""
    column, row = place
    try:
        rough = getattr(tiles.source, "tile_rough", None)
        if rough is not None:
            pixels = rough(level.stored, column, row, FACTOR).pixels
        else:
            pixels = tiles.tile(level.stored, column, row, passing=True).pixels
    except TileFault:
        return  # the true picture will say so
    _, _, width, height = level.box(column, row)
    down = max(1, round(height / level.tile_height * cell))
    across = max(1, round(width / level.tile_width * cell))
    ys = ((np.arange(down) + 0.5) * pixels.shape[0] / down).astype(np.intp)
    xs = ((np.arange(across) + 0.5) * pixels.shape[1] / across).astype(np.intp)
    small = pixels[ys][:, xs].repeat(stride, axis=0).repeat(stride, axis=1)
    there = picture[row * cell :, column * cell :][: small.shape[0], : small.shape[1]]
    there[:] = small[: there.shape[0], : there.shape[1]]
