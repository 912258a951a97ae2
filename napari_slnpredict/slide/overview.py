"""A whole slide at a few um a pixel, read in bounded pieces: what tissue is looked for on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .slide import Slide

#: Level pixels read at once; bounds the memory of a slide of any size (about 60 MB a strip).
STRIP_PX = 4_000_000


def overview(slide: Slide, mpp: float) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return the whole slide at a resolution, read strip by strip.

    Each pixel is the mean of the readable level pixels it covers, edges weighted by the part covered.

    Parameters
    ----------
    slide : Slide
    mpp : float
        um per returned pixel, not finer than the slide.

    Returns
    -------
    pixels : (h, w, 3) uint8
    valid : (h, w) bool
        At least half of the pixel's area inside the slide could be read.
    """
    scale = mpp / slide.require_mpp()
    level = slide.best_level(scale)
    step = scale / slide.level_downsamples[level]  # level pixels per mask pixel
    width, height = slide.level_dimensions[level]
    shape = int(np.ceil(slide.dimensions[1] / scale - 1e-6)), int(np.ceil(slide.dimensions[0] / scale - 1e-6))
    shape = max(1, shape[0]), max(1, shape[1])
    pixels, valid = np.full((*shape, 3), 255, np.uint8), np.zeros(shape, bool)
    for rows, columns in _parts(shape, step):
        top, bottom = int(rows[0] * step), min(int(np.ceil((rows[1]) * step)), height)
        left, right = int(columns[0] * step), min(int(np.ceil(columns[1] * step)), width)
        if bottom <= top or right <= left:
            continue
        read, readable = slide.read_level(level, left, top, right - left, bottom - top)
        here = slice(*rows), slice(*columns)
        pixels[here], valid[here] = _shrink(
            read,
            readable,
            np.arange(rows[0], rows[1] + 1) * step - top,
            np.arange(columns[0], columns[1] + 1) * step - left,
        )
    return pixels, valid


def _parts(shape: tuple[int, int], step: float) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Yield (row range, column range) of mask pixels whose level pixels fit one read."""
    wide = max(1, min(shape[1], int(STRIP_PX / (step * step * 8))))
    high = max(1, int(STRIP_PX / (step * step * wide)))
    for row in range(0, shape[0], high):
        for column in range(0, shape[1], wide):
            yield (row, min(row + high, shape[0])), (column, min(column + wide, shape[1]))


def _shrink(
    pixels: NDArray[np.uint8], valid: NDArray[np.bool_], rows: NDArray[np.floating], columns: NDArray[np.floating]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Mean of the valid pixels between row and column edges (fractional): (len(rows) - 1, len(columns) - 1, 3)."""
    inside = np.outer(_lengths(rows, valid.shape[0]), _lengths(columns, valid.shape[1]))
    known = inside if valid.all() else _between(_between(valid, rows).T, columns).T
    readable = (known >= 0.5 * inside) & (inside > 1e-3)
    result = np.full((*readable.shape, 3), 255, np.uint8)
    for channel in range(3):
        plane = pixels[..., channel] if known is inside else pixels[..., channel] * valid
        # The nudge: a mean of exactly one half must not fall to either side with the strip it was summed in.
        mean = _between(_between(plane, rows).T, columns).T / np.maximum(known, 1e-6)
        np.copyto(result[..., channel], np.clip(np.rint(mean + 1e-4), 0, 255), casting="unsafe", where=readable)
    return result, readable


def _lengths(edges: NDArray[np.floating], size: int) -> NDArray[np.float64]:
    return np.asarray(np.diff(np.clip(edges, 0, size)), np.float64)


def _between(plane: NDArray[Any], edges: NDArray[np.floating]) -> NDArray[np.float32]:
    """Sum rows of (h, w) between fractional edges: (len(edges) - 1, w)."""
    sums = np.zeros((plane.shape[0] + 1, plane.shape[1]), np.float64)
    np.cumsum(plane, axis=0, dtype=np.float64, out=sums[1:])
    place = np.clip(edges, 0, plane.shape[0])
    low = np.minimum(place.astype(np.int64), plane.shape[0] - 1)
    part = (place - low)[:, None]
    at_edges = sums[low]
    at_edges += (sums[low + 1] - at_edges) * part
    return np.asarray(np.diff(at_edges, axis=0), np.float32)
