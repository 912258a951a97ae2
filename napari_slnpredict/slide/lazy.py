"""Levels as lazy dask arrays: the public way to compute over a slide."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .slide import Slide

#: A chunk is about 4 x 4 tiles, and not beyond this side where tiles are large.
TILES_A_CHUNK = 4
CHUNK_PX = 2048


class LevelArray:
    """One level as something to slice: every access reads, exactly or raising.

    Parameters
    ----------
    slide : Slide
    level : int
    """

    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(self, slide: Slide, level: int) -> None:
        self._slide, self._level = slide, level
        width, height = slide.level_dimensions[level]
        self.shape = (height, width, 3)

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        rows, columns, *rest = key if isinstance(key, tuple) else (key, slice(None))
        y, y_end, down = _range(rows, self.shape[0])
        x, x_end, across = _range(columns, self.shape[1])
        pixels = self._slide.read_exact(self._level, x, y, max(x_end - x, 0), max(y_end - y, 0))
        part: NDArray[np.uint8] = pixels[(down, across, *rest)]
        return part


def _range(key: Any, length: int) -> tuple[int, int, Any]:
    """Return start and end of what to read, and what to take of it: an int or a slice, as numpy would."""
    if isinstance(key, slice):
        start, end, step = key.indices(length)
        if step < 1:
            raise TypeError("a level is not read backwards")
        return start, end, slice(None, None, step)
    index = operator.index(key)
    if not -length <= index < length:
        raise IndexError(f"{index} of {length}")
    return index % length, index % length + 1, 0


def level_arrays(slide: Slide) -> list[Any]:
    """Return one dask array (h, w, 3) uint8 per level, stored and virtual."""
    import dask.array
    from dask.base import tokenize

    arrays = []
    for level, (width, height) in enumerate(slide.level_dimensions):
        chunks = (
            *(
                _chunk(tile, full)
                for tile, full in zip(slide.level_tile_sizes[level][::-1], (height, width), strict=True)
            ),
            3,
        )
        arrays.append(
            dask.array.from_array(
                LevelArray(slide, level),
                chunks=chunks,
                name=f"slide-{tokenize(slide.identity, slide.reader, level)}",
                asarray=False,
                fancy=False,
                meta=np.empty((0, 0, 0), np.uint8),
            )
        )
    return arrays


def _chunk(tile: int, full: int) -> int:
    return min(full, tile * max(1, min(TILES_A_CHUNK, CHUNK_PX // tile)))
