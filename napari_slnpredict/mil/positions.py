"""Where tiles lie relative to their piece of tissue, and how that is written as numbers for a network."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Wavelengths of the sinusoids, um: from two tiles to the longest slide.
SHORTEST_UM, LONGEST_UM, WAVES = 256.0, 65_536.0, 16
#: Length of a code: sine and cosine of x and of y at every wavelength.
CODE = 4 * WAVES


def centre_on_components(centres_um: NDArray[np.float64], component: NDArray[np.integer] | None) -> NDArray[np.float64]:
    """Return places relative to the centroid of each tile's own piece of tissue.

    Where on the glass a section was put, and how far from the next one, says nothing about the patient.

    Parameters
    ----------
    centres_um : (n, 2) float64, um, x then y
    component : (n,) int or None
        None: all tiles are one piece.

    Returns
    -------
    (n, 2) float64, um
    """
    if component is None:
        return np.asarray(centres_um - centres_um.mean(0))
    _, piece = np.unique(component, return_inverse=True)
    counts = np.bincount(piece)
    centroids = np.stack([np.bincount(piece, centres_um[:, axis]) / counts for axis in (0, 1)], 1)  # (pieces, 2)
    return np.asarray(centres_um - centroids[piece])


def sinusoids(places_um: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return sines and cosines of x and y at 16 wavelengths from 256 um to 65 mm.

    Angles are taken in float64: 65 mm are 1,600 radians of the shortest wave, where float32 is off by 1e-4.

    Parameters
    ----------
    places_um : (n, 2) float64

    Returns
    -------
    (n, 64) float32
    """
    wavelengths = SHORTEST_UM * (LONGEST_UM / SHORTEST_UM) ** (np.arange(WAVES) / (WAVES - 1))
    angles = places_um[:, :, None] * (2 * np.pi / wavelengths)  # (n, 2, waves)
    return np.concatenate([np.sin(angles), np.cos(angles)], 2).reshape(len(places_um), CODE).astype(np.float32)
