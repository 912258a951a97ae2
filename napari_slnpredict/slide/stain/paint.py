"""Pixels in another stain on a CPU: one tile at a time, in cache, with numpy.

Measured on two Zen 4 cores: tensors of 64 tiles (38 MB) leave the caches, and each step takes three times as long as
over one tile; numpy's logarithm of a tile of 224 px takes 0.035 ms on one core where torch's takes 0.11 and a table of
256 entries 0.11; planes written one after the other take a third of the time of the transposed whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .matrix import GLASS, MOST_GAIN, TISSUE, StainMatrix

if TYPE_CHECKING:
    from torch import Tensor

#: Pixels worked on at once: three float32 planes of them and two of amounts are 0.9 MB.
BLOCK_PX = 32_768


@dataclass(frozen=True, eq=False)
class Mixture:
    """What is done to each pixel: amounts by `unmix`, never negative, and back into light by `mix`.

    Attributes
    ----------
    unmix : (2, 3) float32
        Densities to amounts.
    mix : (3, 2) float32
        Amounts to the density that is added, or that replaces all where `keep` is False.
    white, new_white : (3,) float32
        Light through glass before and after, plus 1.
    offset : (3,) float32
        Density added everywhere.
    keep : bool
        What the stains do not explain stays.
    clamp : bool
        Negative amounts are none.
    """

    unmix: NDArray[np.float32]
    mix: NDArray[np.float32]
    white: NDArray[np.float32]
    new_white: NDArray[np.float32]
    offset: NDArray[np.float32]
    keep: bool = True
    clamp: bool = True

    def paint(self, pixels: NDArray[Any], into: NDArray[Any]) -> None:
        """Paint (n, 3) uint8, or float32 0 to 1, into an array of that shape and type."""
        planes = np.empty((3, min(BLOCK_PX, max(1, len(pixels)))), np.float32)
        stained, added = np.empty((2, planes.shape[1]), np.float32), np.empty_like(planes)
        for start in range(0, len(pixels), BLOCK_PX):
            part = slice(start, start + BLOCK_PX)
            n = len(pixels[part])
            self._paint_block(pixels[part], into[part], planes[:, :n], stained[:, :n], added[:, :n])

    def _paint_block(
        self,
        pixels: NDArray[Any],
        into: NDArray[Any],
        log: NDArray[np.float32],
        stained: NDArray[np.float32],
        added: NDArray[np.float32],
    ) -> None:
        whole = pixels.dtype == np.uint8
        np.copyto(log, pixels.T)
        if not whole:
            log *= 255
            np.maximum(log, 0, out=log)
        log += 1
        np.log(log, out=log)  # of light, not density: signs below are turned
        np.matmul(-self.unmix, log, out=stained)
        stained += (self.unmix @ np.log(self.white))[:, None]
        if self.clamp:
            np.maximum(stained, 0, out=stained)
        if self.keep:
            stained *= self._tissue(log)
        np.matmul(-self.mix, stained, out=added)
        new = np.log(self.new_white) - self.offset
        if self.keep:
            added += log
            new = new - np.log(self.white)
        added += new[:, None].astype(np.float32)
        np.exp(added, out=added)
        added -= 0.5 if whole else 1.0  # the 1 that density begins with, and the half that rounds
        np.clip(added, 0, 255, out=added)
        if not whole:
            added *= 1 / 255
        for channel in range(3):  # a plane at a time is three times as fast as the transposed whole
            np.copyto(into[:, channel], added[channel], casting="unsafe")

    def _tissue(self, log: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return 0 on glass, 1 on tissue, (n,) float32."""
        weight = log[0] + log[1]
        weight += log[2]
        step = 1 / (TISSUE - GLASS)
        weight *= -step / 3
        weight += np.float32((float(np.log(self.white).mean()) - GLASS) * step)
        clipped: NDArray[np.float32] = np.clip(weight, 0, 1, out=weight)
        return clipped


@dataclass(frozen=True)
class Restainer:
    """Gives pixels of one slide the stain of another; for a whole slide, tile by tile or chunk by chunk.

    Attributes
    ----------
    source, target : StainMatrix
    residual : bool
        Other pigments (melanin, carbon, ink) are kept as they are.
    """

    source: StainMatrix
    target: StainMatrix
    residual: bool = True

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return (h, w, 3) uint8 in the target's stain."""
        made = np.empty(pixels.shape, np.uint8)
        self._mixture.paint(np.ascontiguousarray(pixels).reshape(-1, 3), made.reshape(-1, 3))
        return made

    @cached_property
    def _mixture(self) -> Mixture:
        source, target = self.source, self.target
        return mixture(
            (source.array, np.asarray(source.strength), np.asarray(source.white)),
            (target.array, np.asarray(target.strength), np.asarray(target.white)),
            residual=self.residual,
        )


def mixture(
    source: tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
    target: tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
    *,
    offset: NDArray[Any] | None = None,
    residual: bool = True,
    clamp: bool = True,
) -> Mixture:
    """Return what turns one stain into another; each is (stains (2, 3), strength (2,), white (3,))."""
    stains, strength, white = (np.asarray(part, np.float64) for part in source)
    new_stains, new_strength, new_white = (np.asarray(part, np.float64) for part in target)
    gain = np.clip(new_strength / strength, 1 / MOST_GAIN, MOST_GAIN)
    mix = new_stains.T * gain - (stains.T if residual else 0)
    return Mixture(
        np.linalg.pinv(stains.T).astype(np.float32),
        mix.astype(np.float32),
        white.astype(np.float32),
        new_white.astype(np.float32),
        np.zeros(3, np.float32) if offset is None else np.asarray(offset, np.float32),
        residual,
        clamp,
    )


def paint_tiles(tiles: Tensor, mixtures: list[Mixture | None]) -> Tensor:
    """Return tiles (b, h, w, 3) on the CPU, uint8 or floating 0 to 1, painted; those with None as they are."""
    kept = tiles.contiguous()
    if not (kept.dtype.is_floating_point and kept.element_size() != 4):
        made = kept.clone()
        source, into = kept.numpy(), made.numpy()
    else:  # numpy knows no bfloat16
        source = kept.float().numpy()
        into = source.copy()
    for k, one in enumerate(mixtures):
        if one is not None:
            one.paint(source[k].reshape(-1, 3), into[k].reshape(-1, 3))
    if into.dtype == np.uint8 or kept.element_size() == 4:
        return made
    return _typed(into, kept)


def _typed(values: NDArray[np.float32], like: Tensor) -> Tensor:
    from napari_slnpredict.torch_door import import_torch

    made: Tensor = import_torch().from_numpy(values).to(like.dtype)
    return made
