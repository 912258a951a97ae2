"""The colours of maps, the same in the viewer, in pictures and in reports.

H&E is pink and violet, so no map may be. Values up to the mean are nearly clear, and even the highest leave the tissue
visible below: a map is there to be looked through. Amounts (attention, share, anomaly) climb from clear over
yellow-green to blue-black, getting darker all the way, so that they read in grey too. Evidence has two sides: orange
speaks for, blue speaks against, and zero is clear; the pair stays apart for colour-blind readers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Position 0 to 1, then red, green, blue, opacity, each 0 to 1.
Stops = tuple[tuple[float, float, float, float, float], ...]

AMOUNT: Stops = (
    (0.00, 0.93, 0.96, 0.45, 0.00),
    (0.20, 0.86, 0.92, 0.30, 0.08),
    (0.40, 0.47, 0.76, 0.24, 0.40),
    (0.65, 0.08, 0.54, 0.44, 0.62),
    (0.85, 0.07, 0.29, 0.47, 0.72),
    (1.00, 0.04, 0.09, 0.24, 0.78),
)

SIDES: Stops = (
    (0.00, 0.02, 0.19, 0.42, 0.92),
    (0.25, 0.10, 0.44, 0.76, 0.78),
    (0.45, 0.45, 0.70, 0.90, 0.25),
    (0.50, 1.00, 1.00, 1.00, 0.00),
    (0.55, 0.99, 0.76, 0.38, 0.25),
    (0.75, 0.93, 0.50, 0.07, 0.80),
    (1.00, 0.58, 0.24, 0.00, 0.92),
)


#: One a class, red green blue 0 to 255: apart for colour-blind eyes (after Okabe and Ito), and neither pink nor violet.
CLASSES: tuple[tuple[int, int, int], ...] = (
    (230, 159, 0),
    (0, 114, 178),
    (0, 158, 115),
    (240, 228, 66),
    (86, 180, 233),
    (213, 94, 0),
    (160, 220, 50),
    (15, 15, 15),
    (255, 255, 255),
    (0, 90, 80),
)
#: How much of the tissue a class hides.
CLASS_OPACITY = 0.55


def class_colour(number: int) -> tuple[int, int, int]:
    """Return the colour of a class by its number; beyond the list they come again."""
    return CLASSES[number % len(CLASSES)]


def ramp(stops: Stops, steps: int = 256) -> NDArray[np.float32]:
    """Return a table of colours, (steps, 4) float32, red green blue opacity, straight lines between the stops."""
    table = np.asarray(stops, np.float64)
    at = np.linspace(0.0, 1.0, steps)
    return np.stack([np.interp(at, table[:, 0], table[:, k]) for k in range(1, 5)], axis=1).astype(np.float32)


def colour(values: NDArray[np.floating], low: float, high: float, stops: Stops) -> NDArray[np.float32]:
    """Colour an array of any shape; NaN is fully transparent, values past `low` and `high` take the end colours.

    Returns
    -------
    (..., 4) float32, red green blue opacity, 0 to 1.
    """
    table = ramp(stops)
    values = np.asarray(values, np.float64)
    known = np.isfinite(values)
    span = high - low if high > low else 1.0
    place = np.clip((np.where(known, values, low) - low) / span, 0.0, 1.0)
    painted = table[np.rint(place * (len(table) - 1)).astype(np.intp)]
    painted[~known] = 0.0
    return painted
