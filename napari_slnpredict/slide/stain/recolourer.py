"""Reinhard's transfer for a whole slide on a CPU: one tile at a time with numpy and tables, as `paint` does for dyes.

The bends of CIELAB and of sRGB are looked up in tables of 65,536 steps (0.05 grey levels at the most); against tensors
in float32 (`reinhard.recolour`) a pixel differs by one level at most, and no thread of torch waits for another.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from .matrix import GLASS, TISSUE, WHITE, SlideColours
from .paint import BLOCK_PX
from .reinhard import MOST_STRETCH, TO_XYZ, WHITE_XYZ

#: Steps of the tables over 0 to 1.
STEPS = 65_535
#: CIELAB from bent x, y, z and back: L, a, b are linear in them.
LAB_OF_BENT = np.array([[0, 116, 0], [500, -500, 0], [0, 200, -200]], np.float64)
LAB_OFFSET = np.array([-16.0, 0, 0])
_LOW, _HIGH = np.array([[0], [-128], [-128]], np.float32), np.array([[100], [127], [127]], np.float32)


@dataclass(frozen=True)
class Recolourer:
    """Gives pixels of one slide the mean colour and the spread of another's tissue; glass stays.

    Attributes
    ----------
    source, target : SlideColours
    """

    source: SlideColours
    target: SlideColours

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return (h, w, 3) uint8 in the target's colours."""
        flat = np.ascontiguousarray(pixels).reshape(-1, 3)
        made = np.empty_like(flat)
        for start in range(0, len(flat), BLOCK_PX):
            part = slice(start, start + BLOCK_PX)
            made[part] = self._block(flat[part].T).T
        return made.reshape(pixels.shape)

    def _block(self, planes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Paint (3, n)."""
        linear, bend, unbent, log = _tables()
        to_bent, (matrix, offset), from_bent = self._steps
        bent = bend[_step(to_bent @ linear[planes])]
        lab = np.clip(matrix @ bent + offset, _LOW, _HIGH)
        bent = np.linalg.inv(LAB_OF_BENT).astype(np.float32) @ (lab - LAB_OFFSET[:, None].astype(np.float32))
        xyz = np.where(bent > 6 / 29, bent * bent * bent, (bent - 16 / 116) * np.float32(116 * 27 / 24389))
        new = unbent[_step(from_bent @ xyz)]
        density = log[planes].sum(axis=0) * np.float32(1 / 3)
        weight = np.clip((density - GLASS) * np.float32(1 / (TISSUE - GLASS)), 0, 1)
        old = planes.astype(np.float32)
        painted = old + weight * (new - old) + np.float32(0.5)
        rounded: NDArray[np.uint8] = painted.astype(np.uint8)
        return rounded

    @cached_property
    def _steps(
        self,
    ) -> tuple[NDArray[np.float32], tuple[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]:
        """Return linear light to x y z of white 1; bent ones to the target's L a b, factor and offset; and back."""
        to_xyz, white = np.asarray(TO_XYZ), np.asarray(WHITE_XYZ)[:, None]
        spread = np.asarray(self.target.deviation) / np.asarray(self.source.deviation)
        stretch = np.clip(spread, 1 / MOST_STRETCH, MOST_STRETCH)
        offset = (LAB_OFFSET - self.source.mean) * stretch + self.target.mean
        return (
            (to_xyz / white).astype(np.float32),
            ((LAB_OF_BENT * stretch[:, None]).astype(np.float32), offset[:, None].astype(np.float32)),
            (np.linalg.inv(to_xyz) * white.T).astype(np.float32),
        )


def _step(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    scaled = values * np.float32(STEPS)
    scaled += np.float32(0.5)
    return np.clip(scaled, 0, STEPS, out=scaled).astype(np.uint16)


@cache
def _tables() -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return linear light of a grey level; CIELAB's bend of 0 to 1; grey level of linear light; density of a level."""
    level = np.arange(256) / 255
    linear = np.where(level > 0.04045, ((level + 0.055) / 1.055) ** 2.4, level / 12.92)
    place = np.arange(STEPS + 1) / STEPS
    bend = np.where(place > 216 / 24389, np.cbrt(place), place * (24389 / 27 / 116) + 16 / 116)
    light = np.where(place > 0.0031308, 1.055 * place ** (1 / 2.4) - 0.055, place * 12.92) * 255
    density = -np.log((np.arange(256) + 1) / WHITE)
    return tuple(table.astype(np.float32) for table in (linear, bend, light, density))  # type: ignore[return-value]
