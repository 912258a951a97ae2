"""What a comparison says: figures, each with its interval and its distance from the baseline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.metrics.intervals import percentiles

#: The set that stands for the mean of all.
ALL_SETS = "all sets"
NAN = float("nan")


@dataclass(frozen=True)
class Figure:
    """One kind of figure.

    Attributes
    ----------
    name, text : str
    higher : bool or None
        Whether higher is better; None where neither is.
    unit : str
    main : bool
        Shown in the plot.
    """

    name: str
    text: str
    higher: bool | None = True
    unit: str = ""
    main: bool = False


FIGURES = {
    figure.name: figure
    for figure in (
        Figure("probe AUC", "linear probe: area under the ROC curve (several classes: mean of each against the rest)",
               main=True),
        Figure("probe accuracy", "linear probe: balanced accuracy"),
        Figure("kNN accuracy", "20 nearest neighbours of other groups: balanced accuracy", main=True),
        Figure("precision@1", "retrieval: nearest tile of the question's class"),
        Figure("precision@5", "retrieval: share of the question's class among the 5 nearest tiles", main=True),
        Figure("precision@10", "retrieval: share of the question's class among the 10 nearest tiles"),
        Figure("near/far AUC", "distance tells tiles far apart on a slide from near ones", main=True),
        Figure("far/near distance ratio", "mean distance of tiles far apart over that of near ones (by place)"),
        Figure("between/within class distance ratio",
               "mean distance to other classes over that within the class (by label), other slides alone"),
        Figure("stain: shift over distance",
               "how far another stain moves a tile, over how far apart tiles are in one stain (1 - cosine; 0: blind)",
               False, main=True),
        Figure("stain: same tile closer", "chance that a tile in another stain is nearer than another tile in its own"),
        Figure("stain: cosine within", "cosine of a tile with itself in other stains", None),
        Figure("stain: cosine between", "cosine of a tile with other tiles in the same stain", None),
        Figure("stain: probe AUC, other stains", "linear probe fitted in one stain, asked in others, not normalised",
               main=True),
        Figure("stain: probe AUC lost", "that probe's AUC in its own stain, less that in others", False),
        Figure("probe AUC, unseen site", "linear probe fitted on the other sites, asked of an unseen one", main=True),
        Figure("ms per tile", "time to embed a tile here", False, "ms"),
        Figure("bytes per tile", "of the vectors compared, float32", False, "B"),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Score:
    """One figure of one arm on one set.

    Attributes
    ----------
    set, figure, arm : str
    value, low, high : float
        And the 95 % interval; NaN where there is none.
    gain, gain_low, gain_high : float
        Value less the baseline's, drawn on the same groups; NaN for the baseline itself.
    base_rate : float
        What chance would give.
    count, groups : int
        Tiles (or pairs) judged, and the groups that were drawn.
    note : str
        What must stand beside the figure.
    """

    set: str
    figure: str
    arm: str
    value: float
    low: float = NAN
    high: float = NAN
    gain: float = NAN
    gain_low: float = NAN
    gain_high: float = NAN
    base_rate: float = NAN
    count: int = 0
    groups: int = 0
    note: str = ""


@dataclass(frozen=True)
class Measured:
    """A figure before intervals are taken.

    Attributes
    ----------
    draws : (1 + k,) float64
        The value, and that of every draw of groups; one number for what is not drawn.
    base_rate : float
    count, groups : int
    note : str
    """

    draws: NDArray[np.float64] = field(repr=False)
    base_rate: float = NAN
    count: int = 0
    groups: int = 0
    note: str = ""


@dataclass(frozen=True)
class ArmFacts:
    """What stands beside an arm."""

    name: str
    digest: str
    dim: int
    licence: str = ""
    notice: str = ""
    warning: str = ""


@dataclass(frozen=True)
class SetFacts:
    """What stands beside a set.

    Attributes
    ----------
    classes : mapping of str to int
        Labelled tiles judged on, by class.
    grouping : str
        What the groups are: patients, slides or source files.
    own : str
        What retrieval leaves out.
    split : str
        How the tiles were divided.
    notes : tuple of str
    """

    name: str
    tiles: int
    groups: int
    grouping: str
    own: str
    split: str
    tile_px: int
    mpp: float | None
    classes: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """An arm or a set that could not be judged; the others were."""

    name: str
    where: str
    kind: str
    message: str


@dataclass(frozen=True)
class Comparison:
    """Everything found.

    Attributes
    ----------
    baseline : str
        The arm the others are measured against.
    options : mapping
        As given, for the record.
    """

    arms: tuple[ArmFacts, ...]
    sets: tuple[SetFacts, ...]
    baseline: str
    scores: tuple[Score, ...] = field(repr=False)
    failures: tuple[Failure, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    def score(self, set_name: str, figure: str, arm: str) -> Score | None:
        """Return one figure, None where there is none."""
        wanted = (set_name, figure, arm)
        return next((one for one in self.scores if (one.set, one.figure, one.arm) == wanted), None)

    def figures(self, set_name: str) -> tuple[str, ...]:
        """Return the figures a set has, in their order."""
        held = {score.figure for score in self.scores if score.set == set_name}
        return tuple(name for name in FIGURES if name in held)

    @property
    def set_names(self) -> tuple[str, ...]:
        """The sets that have figures, the mean of all last."""
        held = {score.set for score in self.scores}
        return tuple(name for name in (*(facts.name for facts in self.sets), ALL_SETS) if name in held)


#: What was measured, by figure and arm.
SetMeasured = dict[str, dict[str, Measured]]


def scores_of(set_name: str, measured: SetMeasured, baseline: str) -> list[Score]:
    """Return the figures of a set with their intervals, and their paired distance from the baseline's."""
    scores = []
    for figure, by_arm in measured.items():
        base = by_arm.get(baseline)
        for arm, found in by_arm.items():
            own = percentiles(float(found.draws[0]), found.draws[1:], 0.95, "")
            gain = (NAN, NAN, NAN)
            if base is not None and arm != baseline and len(base.draws) == len(found.draws):
                apart = percentiles(float(found.draws[0] - base.draws[0]), (found.draws - base.draws)[1:], 0.95, "")
                gain = (apart.value, apart.low, apart.high)
            # fmt: off
            scores.append(Score(
                set_name, figure, arm, own.value, own.low, own.high, *gain, found.base_rate, found.count, found.groups,
                found.note,
            ))
            # fmt: on
    return scores


def mean_of_sets(measured: Sequence[SetMeasured], arms: Sequence[str]) -> SetMeasured:
    """Return the mean over sets of every figure that all arms have in at least two: draws are those of each set."""
    pooled: SetMeasured = {}
    for figure in FIGURES:
        holders = [one[figure] for one in measured if figure in one and all(arm in one[figure] for arm in arms)]
        if len(holders) < 2 or len({len(m.draws) for one in holders for m in one.values()}) != 1:
            continue
        pooled[figure] = {
            arm: Measured(
                np.mean([one[arm].draws for one in holders], axis=0),
                float(np.mean([one[arm].base_rate for one in holders])),
                sum(one[arm].count for one in holders),
                sum(one[arm].groups for one in holders),
                "; ".join([f"mean of {len(holders)} sets", *_notes(one[arm].note for one in holders)]),
            )
            for arm in arms
        }
    return pooled


def _notes(texts: Iterable[str]) -> list[str]:
    """Return what several notes say, each thing once."""
    return list(dict.fromkeys(part for text in texts for part in text.split("; ") if part))
