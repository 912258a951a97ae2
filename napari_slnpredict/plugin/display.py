"""What the screen gets of a slide: arrays that read straight from the tile source, hatched where the file is damaged.

`Slide.levels()` (dask) is for computing: exact or raising. A screen must neither raise nor show white where tissue may
lie, and building a dask graph costs more than decoding the tiles it asks for. napari needs only the few attributes
below; `chunks` lets it expand a request to tile borders and stay quiet until the view leaves them.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .keeper import Keeper

#: Width of a stripe of the hatching, px on the screen's level.
STRIPE = 6
HATCH = ((228, 228, 228), (150, 40, 30))
#: A level up to this many pixels is kept in memory: napari reads the coarsest one whole, on the GUI thread.
RESIDENT_PX = 4096 * 4096
#: An in-between level is put where the next stored one is coarser by at least this factor.
LEAST_STEP = 1.75


class Look:
    """How a slide's colours are shown: as stored, or through the scanner's profile to sRGB.

    Parameters
    ----------
    profile : bytes or None
        ICC profile of the scanner.
    """

    def __init__(self, profile: bytes | None) -> None:
        self._lock = threading.Lock()
        self._convert = _to_srgb(profile) if profile else None
        self.srgb = False

    @property
    def can_convert(self) -> bool:
        """Whether the file has a usable profile."""
        return self._convert is not None

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return pixels as they shall be shown."""
        if not self.srgb or self._convert is None or not pixels.size:
            return pixels
        with self._lock:  # littlecms' cache is not made for two threads
            return self._convert(pixels)


def _to_srgb(profile: bytes) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]] | None:
    from PIL import Image, ImageCms

    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"), "RGB", "RGB"
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None  # a profile nobody understands: colours stay as stored
    return lambda pixels: np.asarray(ImageCms.applyTransform(Image.fromarray(pixels), transform), np.uint8)


class DisplayLevel:
    """One level of a slide for napari.

    Parameters
    ----------
    keeper : Keeper
        Holds the slide open while a read goes on; once the slide is leaving, reads give white.
    level : int
    look : Look
    reduce : int
        Whole number by which the level's pixels are averaged: scanners leave factors of 4 between levels, napari takes
        the finer one, and sixteen pixels on one screen pixel glitter.
    """

    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(self, keeper: Keeper, level: int, look: Look, reduce: int = 1) -> None:
        slide = keeper.slide
        self._keeper, self._level, self._look, self._reduce = keeper, level, look, reduce
        width, height = (-(-side // reduce) for side in slide.level_dimensions[level])
        self._downsample = float(slide.level_downsamples[level])
        self.shape = (height, width, 3)
        self.size = height * width * 3
        across, down = (max(64, 2 * side // reduce) for side in slide.level_tile_sizes[level])
        self.chunks = (_chunks(height, down), _chunks(width, across), (3,))
        self._resident: NDArray[np.uint8] | None = None

    def keep(self) -> None:
        """Read the whole level now and keep it."""
        self._resident = self._read(0, 0, self.shape[1], self.shape[0])

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        """Read a rectangle; steps and a selection of channels are applied afterwards."""
        rows, columns, *rest = key if isinstance(key, tuple) else (key,)
        columns = columns if columns is not Ellipsis else slice(None)
        y, y_end, y_step = _range(rows, self.shape[0])
        x, x_end, x_step = _range(columns, self.shape[1])
        if self._resident is not None:
            pixels = self._resident[y:y_end, x:x_end]
        else:
            pixels = self._read(x, y, max(x_end - x, 0), max(y_end - y, 0))
        picked = self._look(np.ascontiguousarray(pixels))[::y_step, ::x_step]
        return picked[(slice(None), slice(None), *rest)] if rest else picked

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read the whole level."""
        return np.asarray(self[:, :], dtype=dtype)

    def _read(self, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Read a rectangle of this level's pixels, averaging stored ones where it is an in-between level."""
        factor = self._reduce
        if factor == 1 or not width or not height:
            return self._stored(x, y, width, height)
        from PIL import Image

        # Past the slide's edge the source gives white: the last row and column of an odd level may be half of it.
        stored = self._stored(x * factor, y * factor, width * factor, height * factor)
        return np.asarray(Image.fromarray(np.ascontiguousarray(stored)).reduce(factor), np.uint8)

    def _stored(self, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        release = self._keeper.hold()
        if release is None:
            return np.full((height, width, 3), 255, np.uint8)
        try:
            slide = self._keeper.slide
            pixels, valid = slide.read_level(self._level, x, y, width, height)
            damaged = slide.damaged if not valid.all() else ()
        finally:
            release()
        return self._hatched(pixels, valid, x, y, damaged) if damaged else np.asarray(pixels)

    def _hatched(
        self, pixels: NDArray[np.uint8], valid: NDArray[np.bool_], x: int, y: int, damaged: Any
    ) -> NDArray[np.uint8]:
        """Stripe what could not be read: white would pass for glass."""
        height, width = valid.shape
        rows, columns = np.arange(y, y + height), np.arange(x, x + width)
        bad = np.zeros_like(valid)
        for _, left, top, across, down in damaged:
            in_rows = (rows * self._downsample >= top) & (rows * self._downsample < top + down)
            in_columns = (columns * self._downsample >= left) & (columns * self._downsample < left + across)
            bad |= in_rows[:, None] & in_columns[None, :]
        bad &= ~valid
        stripes = ((rows[:, None] + columns[None, :]) // STRIPE % 2).astype(np.intp)
        painted = np.array(pixels)
        painted[bad] = np.asarray(HATCH, np.uint8)[stripes[bad]]
        return painted


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


def display_levels(keeper: Keeper, look: Look) -> list[DisplayLevel]:
    """Return a slide's levels for the screen, the coarsest one in memory."""
    slide = keeper.slide
    factors = list(slide.level_downsamples)
    levels = []
    for level, factor in enumerate(factors):
        levels.append(DisplayLevel(keeper, level, look))
        reduce = 2
        while level + 1 < len(factors) and factors[level + 1] / (factor * reduce) >= LEAST_STEP:
            levels.append(DisplayLevel(keeper, level, look, reduce))
            reduce *= 2
    height, width, _ = levels[-1].shape
    if height * width <= RESIDENT_PX:
        levels[-1].keep()
    return levels
