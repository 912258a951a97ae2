"""Whether a slide looks like stained tissue in bright light, from few of its pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .pyramid import Pyramid

#: Background darker than this (brightest channel, median over the slide) is no light shining through glass.
DARK = 60
#: A coarsest stored level up to this size is looked at whole, px.
WHOLE_PX = 4_000_000
#: Of a larger one a lattice of so many tiles a side, and of those every fourth pixel.
LATTICE = 5
_EVERY = 4


def why_dark(pyramid: Pyramid) -> str | None:
    """Return what speaks against brightfield; None when nothing does."""
    colours, valid = _some_pixels(pyramid)
    if not valid.any():
        return None
    median = float(np.median(np.maximum(np.maximum(colours[..., 0], colours[..., 1]), colours[..., 2])[valid]))
    return None if median >= DARK else f"its background is dark (median {median:.0f} of 255), as in fluorescence"


def _some_pixels(pyramid: Pyramid) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return colours (n, 3) and whether they are valid (n,), without reading a large slide whole."""
    level = sum(shape.depth == 0 for shape in pyramid.levels) - 1
    shape = pyramid.levels[level]
    if shape.width * shape.height <= WHOLE_PX:
        whole = pyramid.region(level, 0, 0, shape.width, shape.height)
        return whole.pixels.reshape(-1, 3), whole.valid.reshape(-1)
    colours, marks = [], []
    for row in _spread(-(-shape.height // shape.tile_height)):
        for column in _spread(-(-shape.width // shape.tile_width)):
            part = pyramid.region(level, *pyramid.tile_box(level, column, row))
            colours.append(part.pixels[::_EVERY, ::_EVERY].reshape(-1, 3))
            marks.append(part.valid[::_EVERY, ::_EVERY].reshape(-1))
    return np.concatenate(colours), np.concatenate(marks)


def _spread(count: int) -> list[int]:
    """Return some of `count` places, first and last included: glass lies at the border, tissue in the middle."""
    return sorted({round(k * (count - 1) / (LATTICE - 1)) for k in range(LATTICE)})
