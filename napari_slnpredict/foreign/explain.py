"""What a score says: the scales it can be shown on, and what is known of one tile."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .scores import Column, ForeignScores

#: Scales by name, and how they are told.
SCALES = {"value": "", "times": "× mean", "rank": "share of tiles below"}
#: Other columns told of a clicked tile.
MOST_OTHERS = 4


@dataclass(frozen=True)
class Shown:
    """A column on a scale.

    Attributes
    ----------
    values : (n,) float32
    unit : str
    low, high : float
        Range of the colours.
    least, top : float
        Lowest and highest value.
    two_sided : bool
    """

    values: NDArray[np.float32] = field(repr=False)
    unit: str
    low: float
    high: float
    least: float
    top: float
    two_sided: bool = False


@dataclass(frozen=True)
class ScoreAnswer:
    """What is known of one tile.

    Attributes
    ----------
    tile : int or None
        None where there is no tile; `reason` says so.
    location : (int, int) or None
        Top-left corner, level-0 px.
    picture : (p, p, 3) uint8 or None
    name, unit : str
        Of the column.
    value : float or None
        None where the file has none.
    rank, of : int
        1 is the highest of `of` tiles with a value.
    percentile : float
        Share of tiles with a lower value, 0 to 100.
    times_mean : float or None
        For values that sum to one.
    others : tuple of (str, float)
        The file's other columns.
    reason : str
    tiles_so_far : None
        As in a model's answer: nothing more will be known of it.
    """

    tile: int | None = None
    location: tuple[int, int] | None = None
    picture: NDArray[np.uint8] | None = field(default=None, repr=False)
    name: str = ""
    unit: str = ""
    value: float | None = None
    rank: int = 0
    of: int = 0
    percentile: float = 0.0
    times_mean: float | None = None
    others: tuple[tuple[str, float], ...] = ()
    reason: str = ""
    tiles_so_far: None = None


def scales(column: Column) -> tuple[str, ...]:
    """Return the scales a column can be shown on, the first by default."""
    return ("times", "value", "rank") if column.is_share else ("value", "rank")


def on_scale(column: Column, scale: str) -> Shown:
    """Return a column on one of its scales, with the range its colours span.

    A few values may exceed the range: one that stands far out would leave the rest invisible.
    """
    values = column.values
    if scale == "rank":
        return Shown(ranks(values), SCALES["rank"], 0.0, 1.0, 0.0, 1.0)
    if scale == "times":
        values = (values * np.isfinite(values).sum()).astype(np.float32)
    known = values[np.isfinite(values)]
    unit = SCALES["times"] if scale == "times" else column.unit
    if not known.size:
        return Shown(values, unit, 0.0, 1.0, 0.0, 0.0, column.two_sided)
    least, top = float(known.min()), float(known.max())
    if column.two_sided:
        reach = max(float(np.quantile(np.abs(known), 0.99)), 1e-9)
        return Shown(values, unit, -reach, reach, least, top, True)
    if column.unit == "probability":
        return Shown(values, unit, 0.0, 1.0, least, top)
    low, high = (float(v) for v in np.quantile(known, (0.005, 0.995)))
    if least >= 0:
        low = 0.0
    if scale == "times":
        high = max(high, 3.0)  # an even map must look even, not alarming
    if not high > low:
        # All the same: drawn as high, unless it is nothing.
        low, high = (min(0.0, low), high) if high > 0 else (low, low + 1.0)
    return Shown(values, unit, low, high, least, top)


def ranks(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the share of other tiles with a lower value, (n,) float32, 0 to 1, NaN where there is no value."""
    known = np.isfinite(values)
    ordered = np.sort(values[known])
    result = np.full(len(values), np.nan, np.float32)
    result[known] = np.searchsorted(ordered, values[known], side="left") / max(1, len(ordered) - 1)
    return result


def explain(scores: ForeignScores, column: int, x: float, y: float) -> ScoreAnswer:
    """Say what is known of the tile at a place (level-0 px); its picture is added by who has the slide."""
    tile = scores.places.tile_at(x, y)
    if tile is None:
        return ScoreAnswer(reason="no tile here")
    left, top = (round(float(v)) for v in scores.places.locations[tile])
    if scores.coverage_only:
        return ScoreAnswer(tile, (left, top), reason="a tile, without a score")
    chosen = scores.columns[column]
    value = float(chosen.values[tile])
    others = tuple((other.name, float(other.values[tile])) for k, other in enumerate(scores.columns) if k != column)[
        :MOST_OTHERS
    ]
    if not np.isfinite(value):
        return ScoreAnswer(tile, (left, top), name=chosen.name, others=others, reason="no value here")
    known = chosen.values[np.isfinite(chosen.values)]
    return ScoreAnswer(
        tile,
        (left, top),
        name=chosen.name,
        unit=chosen.unit,
        value=value,
        rank=1 + int((known > value).sum()),
        of=len(known),
        percentile=100.0 * float((known < value).sum()) / max(1, len(known) - 1),
        times_mean=value * len(known) if chosen.is_share else None,
        others=others,
    )
