"""Laboratories: how the same tissue comes out of different staining rooms and scanners."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import DataError


@dataclass(frozen=True)
class Lab:
    """One laboratory.

    Attributes
    ----------
    haematoxylin, eosin : (3,) float
        Optical density of one unit of dye in red, green, blue; normalised to length 1 when used.
    strength : (float, float)
        Amount of the two dyes relative to lab A.
    thickness : float
        Of the section, relative; multiplies both.
    blur_px : float
        Width of the scanner's point spread, 1 um pixels.
    quality : int
        JPEG quality.
    glass : (3,) float
        Colour of empty glass, 0 to 255.
    noise : float
        Standard deviation of the sensor's noise, grey levels.
    spread : float
        How much batches of this lab differ, relative (standard deviation).
    """

    haematoxylin: tuple[float, float, float]
    eosin: tuple[float, float, float]
    strength: tuple[float, float]
    thickness: float
    blur_px: float
    quality: int
    glass: tuple[float, float, float]
    noise: float
    spread: float


#: Read it as a table. C is pale and yellowish, D thick and blue-violet with coarse JPEG, E red and out of focus.
LABS: dict[str, Lab] = {
    "A": Lab((0.64, 0.72, 0.28), (0.08, 0.98, 0.20), (1.00, 1.00), 1.00, 0.45, 82, (243, 243, 244), 1.6, 0.08),
    "B": Lab((0.56, 0.77, 0.31), (0.13, 0.95, 0.29), (1.10, 1.15), 1.05, 0.60, 76, (240, 238, 242), 2.0, 0.10),
    "C": Lab((0.70, 0.66, 0.27), (0.06, 0.93, 0.36), (0.85, 0.90), 0.95, 0.55, 80, (244, 241, 232), 1.4, 0.10),
    "D": Lab((0.60, 0.74, 0.20), (0.20, 0.95, 0.12), (1.15, 0.95), 1.15, 0.75, 70, (235, 237, 243), 2.2, 0.10),
    "E": Lab((0.61, 0.73, 0.33), (0.05, 0.96, 0.28), (0.90, 1.30), 1.00, 0.95, 74, (246, 243, 243), 1.8, 0.12),
}

#: Optical density of DAB (brown) and of blood, pigment and three inks, per unit.
DAB = (0.30, 0.56, 0.78)
BLOOD = (0.06, 0.86, 0.62)
PIGMENT = (0.42, 0.58, 0.78)
INKS = ((1.6, 0.55, 0.12), (1.3, 0.4, 1.1), (1.2, 1.2, 1.15))


def find_lab(name: str) -> Lab:
    """Return a lab by its letter."""
    try:
        return LABS[name.upper()]
    except KeyError:
        raise DataError(f"no phantom laboratory {name!r}", do=f"known are {', '.join(LABS)}") from None


def unit(vector: tuple[float, float, float]) -> NDArray[np.float32]:
    """Return a stain vector of length 1, (3,) float32."""
    array = np.asarray(vector, np.float32)
    return np.asarray(array / np.linalg.norm(array), np.float32)
