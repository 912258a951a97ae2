"""Tiles of known stains for the tests of stains."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

#: Haematoxylin and eosin of three invented laboratories, and DAB.
LAB_A = ((0.65, 0.70, 0.29), (0.20, 0.93, 0.30))
LAB_B = ((0.55, 0.77, 0.32), (0.12, 0.90, 0.42))
IHC = ((0.65, 0.70, 0.29), (0.27, 0.57, 0.78))


def unit(stains: tuple[tuple[float, float, float], ...]) -> NDArray[np.float64]:
    """Return stains of length 1, (k, 3)."""
    array = np.asarray(stains, np.float64)
    return np.asarray(array / np.linalg.norm(array, axis=1, keepdims=True))


def amounts_of(seed: int, side: int, glass: float = 0.0) -> NDArray[np.float64]:
    """Return how much of two stains is where, (2, side, side): nuclei, fibres and, on a share of the rows, glass."""
    rng = np.random.default_rng(seed)
    nuclei = rng.gamma(2.0, 0.5, (side, side)) * (rng.random((side, side)) < 0.4)
    fibres = rng.gamma(4.0, 0.2, (side, side)) * (rng.random((side, side)) < 0.8)
    made = np.stack([nuclei + 0.02, fibres + 0.02])
    made[:, : round(glass * side)] = 0
    return made


def tile(
    stains: tuple[tuple[float, float, float], ...] = LAB_A,
    seed: int = 0,
    side: int = 96,
    *,
    glass: float = 0.0,
    strength: tuple[float, float] = (1.0, 1.0),
    whole: bool = True,
) -> torch.Tensor:
    """Return (side, side, 3) uint8, or float64 0 to 1 without rounding, of two stains on white 240."""
    amount = amounts_of(seed, side, glass) * np.asarray(strength)[:, None, None]
    density = np.einsum("khw,kc->hwc", amount, unit(stains))
    light = np.clip(240 * np.exp(-density) - 1, 0, 255)
    if whole:
        return torch.from_numpy(np.rint(light).astype(np.uint8))
    return torch.from_numpy(light / 255)


def angle(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return angles between rows, degrees."""
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    return np.asarray(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
