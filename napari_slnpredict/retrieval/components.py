"""A slide's descriptors as colours: their first three principal components as red, green and blue."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .pages import Page

#: Percentiles of a component that become 0 and 1: a few odd tiles must not take the range from the rest.
_LOW, _HIGH = 1, 99


@dataclass(frozen=True)
class Components:
    """Colours of a slide's tiles.

    Attributes
    ----------
    colours : (n, 3) float32
        0 to 1; grey where the slide's tiles do not differ.
    shares : (3,) float64
        Of the variance of the descriptors, that each of them shows; 0 where there is no such component.
    """

    colours: NDArray[np.float32] = field(repr=False)
    shares: NDArray[np.float64]


def principal_components(page: Page) -> Components:
    """Return the place of each tile along the slide's first three principal components.

    Each component runs from its 1st percentile (0) to its 99th (1); its sign is such that its longest entry is
    positive, so that the same slide has the same colours every time.
    """
    colours, shares = np.full((len(page), 3), 0.5, np.float32), np.zeros(3)
    if len(page) < 2:
        return Components(colours, shares)
    centred = page.exact - page.exact.mean(axis=0)
    variances, axes = np.linalg.eigh((centred.T @ centred).astype(np.float64))
    total = float(variances.clip(0).sum())
    for channel, (variance, axis) in enumerate(zip(variances[::-1][:3], axes.T[::-1][:3], strict=True)):
        upright = axis * np.sign(axis[np.abs(axis).argmax()])
        along = centred @ upright.astype(np.float32)
        low, high = np.percentile(along, (_LOW, _HIGH))
        if high - low > 1e-6:
            colours[:, channel] = np.clip((along - low) / (high - low), 0, 1)
            shares[channel] = max(float(variance), 0.0) / total
    return Components(colours, shares)


def principal_colours(page: Page) -> NDArray[np.float32]:
    """Return the colours alone, (n, 3) float32."""
    return principal_components(page).colours
