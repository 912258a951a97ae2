"""One level of a display pyramid as an array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .display import DisplayPyramid


class DisplayLevel:
    """One level of a slide for the screen: what a viewer needs of an array, and no more.

    Parameters
    ----------
    pyramid : DisplayPyramid
    level : int
        Of the pyramid's plan.

    Attributes
    ----------
    chunks : tuple of tuple of int
        Tiles: a viewer that knows them asks for whole ones, and not again until its view leaves them.
    """

    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(self, pyramid: DisplayPyramid, level: int) -> None:
        self._pyramid, self._level = pyramid, level
        shape = pyramid.plan[level]
        self.shape = (shape.height, shape.width, 3)
        self.size = shape.height * shape.width * 3
        self.downsample = shape.downsample
        self.chunks = (_chunks(shape.height, shape.tile_height), _chunks(shape.width, shape.tile_width), (3,))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        """Return a rectangle at once; steps and a selection of channels are applied afterwards."""
        rows, columns, *rest = key if isinstance(key, tuple) else (key, slice(None))
        columns = columns if columns is not Ellipsis else slice(None)
        y, y_end, y_step = _range(rows, self.shape[0])
        x, x_end, x_step = _range(columns, self.shape[1])
        picked = self._pyramid.picture(self._level, y, y_end, x, x_end)[::y_step, ::x_step]
        return picked[(slice(None), slice(None), *rest)] if rest else picked

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read the whole level, exactly; one that stays in memory as far as it is there: viewers ask for it at once."""
        height, width, _ = self.shape
        resident = self._pyramid.is_resident(self._level)
        whole = self[:, :] if resident else self.exact(0, height, 0, width)
        return np.asarray(whole, dtype=dtype)

    def exact(self, y: int, y_end: int, x: int, x_end: int) -> NDArray[np.uint8]:
        """Read a rectangle exactly, however long it takes."""
        return self._pyramid.exact(self._level, y, y_end, x, x_end)


def _range(key: Any, length: int) -> tuple[int, int, int]:
    if not isinstance(key, slice):
        raise TypeError("a level is sliced by ranges of rows and columns")
    start, stop, step = key.indices(length)
    if step < 1:
        raise TypeError("a level is not read backwards")
    return start, stop, step


def _chunks(length: int, side: int) -> tuple[int, ...]:
    whole, rest = divmod(length, side)
    return (side,) * whole + ((rest,) if rest else ())
