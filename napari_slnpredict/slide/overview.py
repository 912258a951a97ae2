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
#: Damaged tiles of a coarse level that are replaced from finer ones; a file with more is beyond mending.
MENDED = 64


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
    shape = int(np.ceil(slide.dimensions[1] / scale - 1e-6)), int(np.ceil(slide.dimensions[0] / scale - 1e-6))
    shape = max(1, shape[0]), max(1, shape[1])
    pixels, valid = np.full((*shape, 3), 255, np.uint8), np.zeros(shape, bool)
    _fill(slide, level, scale, (slice(0, shape[0]), slice(0, shape[1])), pixels, valid)
    _mend(slide, scale, pixels, valid)
    return pixels, valid


def _fill(
    slide: Slide,
    level: int,
    scale: float,
    where: tuple[slice, slice],
    pixels: NDArray[np.uint8],
    valid: NDArray[np.bool_],
) -> None:
    """Read a part of the overview from one level, in pieces, into its pixels that are not known yet."""
    step = scale / slide.level_downsamples[level]  # level pixels per overview pixel
    width, height = slide.level_dimensions[level]
    for rows, columns in _parts(where, step):
        top, bottom = int(rows.start * step), min(int(np.ceil(rows.stop * step)), height)
        left, right = int(columns.start * step), min(int(np.ceil(columns.stop * step)), width)
        if bottom <= top or right <= left:
            continue
        read, readable = slide.read_level(level, left, top, right - left, bottom - top)
        found, known = _shrink(
            read,
            readable,
            np.arange(rows.start, rows.stop + 1) * step - top,
            np.arange(columns.start, columns.stop + 1) * step - left,
        )
        new = known & ~valid[rows, columns]
        pixels[rows, columns][new] = found[new]
        valid[rows, columns] |= known


def _mend(slide: Slide, scale: float, pixels: NDArray[np.uint8], valid: NDArray[np.bool_]) -> None:
    """Read from finer levels what is damaged on a coarse one.

    A coarse tile covers much tissue. Left out of the mask it would be left out of the grid, where nobody counts it.
    """
    for level, x, y, width, height in slide.damaged[:MENDED]:
        low, high = int(y / scale), min(int(np.ceil((y + height) / scale)), valid.shape[0])
        left, right = int(x / scale), min(int(np.ceil((x + width) / scale)), valid.shape[1])
        where = slice(low, high), slice(left, right)
        for finer in reversed(range(min(level, slide.stored_level_count))):
            if valid[where].all():
                break
            _fill(slide, finer, scale, where, pixels, valid)


def damaged_places(slide: Slide, mpp: float, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return where damaged tiles were met so far, on an overview of a shape and resolution: (h, w) bool."""
    scale = mpp / slide.require_mpp()
    places = np.zeros(shape, bool)
    for _, x, y, width, height in slide.damaged:
        places[
            int(y / scale) : int(np.ceil((y + height) / scale)), int(x / scale) : int(np.ceil((x + width) / scale))
        ] = 1
    return places


def _parts(where: tuple[slice, slice], step: float) -> Iterator[tuple[slice, slice]]:
    """Yield rows and columns of overview pixels whose level pixels fit one read."""
    rows, columns = where
    wide = max(1, min(columns.stop - columns.start, int(STRIP_PX / (step * step * 8))))
    high = max(1, int(STRIP_PX / (step * step * wide)))
    for row in range(rows.start, rows.stop, high):
        for column in range(columns.start, columns.stop, wide):
            yield slice(row, min(row + high, rows.stop)), slice(column, min(column + wide, columns.stop))


def _shrink(
    pixels: NDArray[np.uint8], valid: NDArray[np.bool_], rows: NDArray[np.floating], columns: NDArray[np.floating]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Mean of the valid pixels between row and column edges (fractional): (len(rows) - 1, len(columns) - 1, 3)."""
    down, across = _coverage(rows, valid.shape[0]), _coverage(columns, valid.shape[1])
    inside = np.outer(down.sum(axis=1), across.sum(axis=1))
    if valid.all():
        known = inside
        total = _weighted(pixels, down, across)
    else:
        known = _weighted(valid[..., None], down, across)[..., 0]
        total = _weighted(pixels * valid[..., None], down, across)
    readable = (known >= 0.5 * inside) & (inside > 1e-3)
    # The nudge: a mean of exactly one half must not fall to either side with the strip it was summed in.
    mean = total / np.maximum(known, 1e-6)[..., None] + 1e-3
    return np.where(readable[..., None], np.clip(np.rint(mean), 0, 255), 255).astype(np.uint8), readable


def _coverage(edges: NDArray[np.floating], size: int) -> Any:
    """Length of each of `size` pixels that lies between neighbouring edges: sparse (len(edges) - 1, size) float32."""
    from scipy.sparse import csr_array

    low, high = edges[:-1, None], edges[1:, None]
    pixel = np.floor(low).astype(np.int64) + np.arange(int(np.ceil(np.diff(edges).max())) + 1)
    part = np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, 1)
    row, column = np.nonzero((part > 0) & (pixel >= 0) & (pixel < size))
    entries = part[row, column].astype(np.float32), (row, pixel[row, column])
    return csr_array(entries, shape=(len(edges) - 1, size))


def _weighted(pixels: NDArray[Any], down: Any, across: Any) -> NDArray[np.float32]:
    """Sum (h, w, channels) with weights along both axes: (rows, columns, channels) float32.

    Sparse products add whole rows, contiguous in memory; running sums down an axis take four times as long.
    """
    height, width, channels = pixels.shape
    lines = down @ pixels.reshape(height, width * channels).astype(np.float32)  # (rows, w * channels)
    turned = np.ascontiguousarray(lines.reshape(-1, width, channels).swapaxes(0, 1)).reshape(width, -1)
    sums = (across @ turned).reshape(across.shape[0], -1, channels)  # (columns, rows, channels)
    return np.asarray(sums.swapaxes(0, 1), np.float32)
