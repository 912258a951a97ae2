"""A slide over an array, with the methods of the real one that tissue, grid and blocks use."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class ArraySlide:
    """A slide held in memory; level k is the mean over ``downsamples[k]`` pixels.

    Parameters
    ----------
    pixels : (h, w, 3) uint8
    mpp : float or None
    downsamples : whole factors, the first 1
    unreadable : rectangles (x, y, w, h), level-0 px, not valid: damaged file tiles
    sparse : rectangles not valid without damage: tiles never scanned
    bad_level : the coarsest levels, from this one on, are the damaged ones
    """

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        mpp: float | None = 1.0,
        downsamples: tuple[int, ...] = (1,),
        *,
        unreadable: tuple[tuple[int, int, int, int], ...] = (),
        sparse: tuple[tuple[int, int, int, int], ...] = (),
        not_brightfield: str | None = None,
        bad_level: int = 0,
    ) -> None:
        self.path, self.slide_id, self.mpp, self.not_brightfield = Path("array.svs"), "array", mpp, not_brightfield
        self.dimensions = (pixels.shape[1], pixels.shape[0])
        self.bounds = (0, 0, *self.dimensions)
        self.levels = [
            stored_level(pixels, sparse + (unreadable if level >= bad_level else ()), factor)
            for level, factor in enumerate(downsamples)
        ]
        self._bad_level = bad_level
        self.level_count = self.stored_level_count = len(self.levels)
        self.level_dimensions = tuple((p.shape[1], p.shape[0]) for p, _ in self.levels)
        self.level_downsamples = tuple(
            (self.dimensions[0] / w + self.dimensions[1] / h) / 2 for w, h in self.level_dimensions
        )
        self._unreadable, self._met = unreadable, [False] * len(unreadable)
        self._lock = threading.Lock()
        self.reads: list[tuple[int, int, int, int, int]] = []

    @property
    def damaged(self) -> tuple[tuple[int, int, int, int, int], ...]:
        return tuple((self._bad_level, *r) for r, met in zip(self._unreadable, self._met, strict=True) if met)

    def require_mpp(self) -> float:
        assert self.mpp is not None
        return self.mpp

    def best_level(self, downsample: float) -> int:
        return max(i for i, d in enumerate(self.level_downsamples) if d <= max(1.0, downsample) * (1 + 1e-3))

    def read_level(
        self, level: int, x: int, y: int, w: int, h: int, *, passing: bool = False
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        stored, known = self.levels[level]
        pixels, valid = np.full((h, w, 3), 255, np.uint8), np.zeros((h, w), bool)
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, stored.shape[1]), min(y + h, stored.shape[0])
        if x1 > x0 and y1 > y0:
            inner = slice(y0 - y, y1 - y), slice(x0 - x, x1 - x)
            pixels[inner], valid[inner] = stored[y0:y1, x0:x1], known[y0:y1, x0:x1]
        f = self.level_downsamples[level]
        with self._lock:
            self.reads.append((level, x, y, w, h))
            for i, (dx, dy, dw, dh) in enumerate(self._unreadable):
                self._met[i] |= level >= self._bad_level and bool(
                    dx < (x + w) * f and dx + dw > x * f and dy < (y + h) * f and dy + dh > y * f
                )
        return pixels, valid


def stored_level(
    pixels: NDArray[np.uint8], missing: tuple[tuple[int, int, int, int], ...], factor: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """One level and where it is valid; missing rectangles are white."""
    known, white = np.ones(pixels.shape[:2], bool), pixels.copy()
    for x, y, w, h in missing:
        known[y : y + h, x : x + w] = False
        white[y : y + h, x : x + w] = 255
    return shrink(white, factor), shrink(known[..., None] * np.uint8(255), factor)[..., 0] == 255


def shrink(pixels: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Mean over blocks; what is left over at the right and bottom is dropped."""
    h, w = pixels.shape[0] // factor, pixels.shape[1] // factor
    blocks = pixels[: h * factor, : w * factor].reshape(h, factor, w, factor, -1)
    return np.rint(blocks.mean(axis=(1, 3), dtype=np.float64)).astype(np.uint8)


def glass(
    height: int, width: int, colour: tuple[int, int, int] = (244, 244, 244), noise: float = 1.0
) -> NDArray[np.uint8]:
    """Empty glass with a little sensor noise."""
    rng = np.random.default_rng(7)
    return np.clip(np.array(colour) + rng.normal(0, noise, (height, width, 3)), 0, 255).astype(np.uint8)


def paint(
    pixels: NDArray[np.uint8], rows: slice, columns: slice, colour: tuple[int, int, int], texture: float = 12.0
) -> None:
    """Put an uneven patch of stained tissue (or an even one of ink, texture 0) on a picture, in place."""
    patch = pixels[rows, columns]
    rng = np.random.default_rng(3)
    uneven = rng.normal(0, texture, (*patch.shape[:2], 1)) if texture else 0.0
    patch[...] = np.clip(np.array(colour) + uneven, 0, 255).astype(np.uint8)
