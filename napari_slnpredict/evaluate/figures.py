"""The figures of one arm on one sample: labels read by a probe, by neighbours, by retrieval; distances by place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.encode.similarity import PairPlanner, Pairs, PairSpec
from napari_slnpredict.errors import DataError
from napari_slnpredict.metrics.draws import Draws, draw
from napari_slnpredict.metrics.neighbours import (
    chance_precision,
    class_distances,
    knn_votes,
    retrieval_precision,
    unit,
)

from .arms import Arm
from .comparison import NAN, Measured
from .probe import fit_probe
from .sets import JudgedSet, Sample

#: Figures that do not depend on what the tiles show.
COSTS = ("ms per tile", "bytes per tile")
#: Ranks at which retrieval is judged.
RANKS = (1, 5, 10)
#: Fewer groups of a class than this, and an interval promises too much.
_FEW = 5
_FEW_NOTE = "fewer than 5 groups of a class: the interval is too narrow"


@dataclass(frozen=True)
class JudgeOptions:
    """How it is judged.

    Attributes
    ----------
    draws : int
        Of groups, for intervals.
    seed : int
        Everything random follows from it.
    folds : int
        Where no split is given.
    k : int
    temperature : float or None
        Of neighbours' votes; None: one vote each.
    tiles : int
        Of a set at most, spread over classes and groups.
    pairs : int
        Near and far.
    near_um, far_um : float
    stain_tiles : int
        Shown in other stains; 0: none.
    timed : bool
        Whether tiles per second are measured.
    """

    draws: int = 2000
    seed: int = 0
    folds: int = 5
    k: int = 20
    temperature: float | None = 0.07
    tiles: int = 5000
    pairs: int = 600
    near_um: float = 450.0
    far_um: float = 1700.0
    stain_tiles: int = 240
    timed: bool = True


@dataclass(frozen=True)
class Labelled:
    """The tiles with labels that are judged, the same for every arm.

    Attributes
    ----------
    asked : (q,) int64
        Places in the sample.
    draws : Draws
        Over them.
    note : str
    """

    asked: NDArray[np.int64] = field(repr=False)
    draws: Draws = field(repr=False)
    note: str = ""


def labelled_of(sample: Sample, options: JudgeOptions) -> Labelled | None:
    """Return the labelled tiles judged; None where labels do not do: one class, or one group alone."""
    table, used = sample.table, sample.labelled
    asked = sample.asked[used[sample.asked]]
    usable = [r for r in sample.rounds if len(np.unique(table.label[r.known[used[r.known]]])) > 1]
    if len(np.unique(table.label[asked])) < 2 or len(usable) < len(sample.rounds):
        return None
    draws = draw(table.group[asked], table.label[asked], draws=options.draws, seed=options.seed)
    return Labelled(asked, draws, few_groups(table.group[asked], table.label[asked]))


def few_groups(groups: NDArray[np.int64], labels: NDArray[np.int64]) -> str:
    """Return what must be said where a class has very few groups."""
    least = min(len(np.unique(groups[labels == one])) for one in np.unique(labels))
    return _FEW_NOTE if least < _FEW else ""


def label_figures(
    arm: Arm, features: NDArray[np.float32], sample: Sample, labelled: Labelled, options: JudgeOptions
) -> dict[str, Measured]:
    """Return what can be read of the labels from features (n, d)."""
    table, classes = sample.table, len(sample.table.classes)
    n = len(sample)
    said, votes = np.full((n, classes), np.nan), np.full((n, classes), np.nan)
    precision, apart = np.full((n, len(RANKS)), np.nan), np.full((n, 2), np.nan)
    gallery = sample.asked if sample.split else np.arange(n)
    gallery = gallery[sample.labelled[gallery]]
    for one in sample.rounds:
        known, asked = (part[sample.labelled[part]] for part in (one.known, one.asked))
        if not len(asked):
            continue
        vectors = arm.fitted(features[one.known])(features)
        probe = fit_probe(vectors[known], table.label[known], table.group[known], classes, seed=options.seed)
        said[asked] = probe.probabilities(vectors[asked])
        votes[asked] = knn_votes(
            vectors[known], table.label[known], vectors[asked], classes, k=options.k, temperature=options.temperature,
            gallery_groups=table.group[known], query_groups=table.group[asked],
        )  # fmt: skip
        questions = np.searchsorted(gallery, asked)
        found = vectors[gallery], table.label[gallery], sample.own[gallery]
        precision[asked] = retrieval_precision(*found, RANKS, questions)
        apart[asked] = class_distances(*found, questions)
    chance = float(np.nanmean(chance_precision(table.label[gallery], sample.own[gallery])))
    return _label_scores(said, votes, precision, apart, chance, sample, labelled)


def _label_scores(
    said: NDArray[np.float64],
    votes: NDArray[np.float64],
    precision: NDArray[np.float64],
    apart: NDArray[np.float64],
    chance: float,
    sample: Sample,
    labelled: Labelled,
) -> dict[str, Measured]:
    at, draws = labelled.asked, labelled.draws
    truth = sample.table.label[at]
    classes = len(np.unique(truth))

    def measured(values: NDArray[np.float64], base: float, note: str = "") -> Measured:
        return Measured(values, base, len(at), draws.groups, "; ".join(text for text in (labelled.note, note) if text))

    right = (said[at].argmax(axis=1) == truth, votes[at].argmax(axis=1) == truth)
    found = {
        "probe AUC": measured(draws.class_auc(truth, said[at]), 0.5),
        "probe accuracy": measured(draws.class_mean(right[0], truth), 1 / classes),
        "kNN accuracy": measured(draws.class_mean(right[1], truth), 1 / classes),
    }
    if np.isfinite(precision[at]).any():
        for column, rank in enumerate(RANKS):
            found[f"precision@{rank}"] = measured(draws.mean(precision[at, column]), chance, f"{sample.own_words} out")
        within, between = apart[at].T
        found["between/within class distance ratio"] = measured(draws.ratio(between, within), 1.0)
    return found


def site_figure(
    arm: Arm, features: NDArray[np.float32], sample: Sample, labelled: Labelled, options: JudgeOptions
) -> dict[str, Measured]:
    """Return the AUC of probes that never saw the site they are asked about; nothing where there are no two sites."""
    table = sample.table
    sites = [one for one in np.unique(table.site[labelled.asked]).tolist() if one > 0]
    if sample.split or len(sites) < 2 or (table.site[labelled.asked] == 0).any():
        return {}
    said = np.full((len(sample), len(table.classes)), np.nan)
    every = labelled.asked
    for site in sites:
        known, asked = every[table.site[every] != site], every[table.site[every] == site]
        known = known[~np.isin(table.group[known], table.group[asked])]
        if len(np.unique(table.label[known])) < 2:
            return {}
        fit = arm.fitted(features[known])
        probe = fit_probe(
            fit(features[known]), table.label[known], table.group[known], len(table.classes), seed=options.seed
        )
        said[asked] = probe.probabilities(fit(features[asked]))
    values = labelled.draws.class_auc(table.label[every], said[every])
    note = "; ".join(text for text in (labelled.note, f"{len(sites)} sites") if text)
    return {"probe AUC, unseen site": Measured(values, 0.5, len(every), labelled.draws.groups, note)}


@dataclass(frozen=True)
class Placed:
    """Pairs of tiles near each other and far apart, the same for every arm; rows are places in the sample."""

    pairs: Pairs
    draws: Draws = field(repr=False)
    note: str = ""


def pairs_of(judged: JudgedSet, options: JudgeOptions) -> tuple[Pairs | None, str]:
    """Return near and far pairs among the tiles judged, rows of the set, or why there are none.

    They are drawn from all tiles, not from a sample: of a few tiles spread over a large slide none are near.
    """
    table = judged.data.table
    if not (np.isfinite(table.centre_um).all(axis=1) & (table.slide >= 0)).any():
        return None, ""
    rows = np.arange(len(table)) if judged.test is None else judged.test
    try:
        spec = PairSpec(options.near_um, options.far_um)
        planner = PairPlanner(table.take(rows), spec, judged.data.tile_px * (judged.data.mpp or 1.0))
        pairs = planner.draw(options.pairs, options.seed, 0)
    except DataError as error:
        return None, f"no near/far figures: {error}"
    return Pairs(rows[pairs.first], rows[pairs.second], pairs.far), ""


def placed_of(sample: Sample, pairs: Pairs, options: JudgeOptions) -> Placed:
    """Return the pairs as places in the sample, and the draws over their groups."""
    first, second = sample.places(pairs.first), sample.places(pairs.second)
    group = sample.table.group[first]
    note = _FEW_NOTE.replace(" of a class", "") if len(np.unique(group)) < _FEW else ""
    return Placed(Pairs(first, second, pairs.far), draw(group, draws=options.draws, seed=options.seed), note)


def place_figures(arm: Arm, features: NDArray[np.float32], sample: Sample, placed: Placed) -> dict[str, Measured]:
    """Return how far distance follows place: AUC, and the ratio of mean distances (the paper's, by place)."""
    pairs = placed.pairs
    distance = np.full(len(pairs.far), np.nan)
    for one in sample.rounds:
        here = np.isin(pairs.first, one.asked)
        fit = arm.fitted(features[one.known])
        first, second = (unit(fit(features[rows[here]])) for rows in (pairs.first, pairs.second))
        distance[here] = np.linalg.norm(first - second, axis=1)
    draws, far = placed.draws, pairs.far
    ratio = draws.ratio(np.where(far, distance, np.nan), np.where(far, np.nan, distance))
    count, groups = len(far), draws.groups
    return {
        "near/far AUC": Measured(draws.auc(far, distance), 0.5, count, groups, placed.note),
        "far/near distance ratio": Measured(ratio, 1.0, count, groups, placed.note),
    }


def cost_figures(arm: Arm, ms: NDArray[np.float64] | None, count: int) -> dict[str, Measured]:
    """Return bytes of a vector, and the time of a tile: median, the range of the rounds as its interval."""
    found: dict[str, Measured] = {"bytes per tile": Measured(np.array([4.0 * arm.width]), NAN, count)}
    if ms is not None:
        found["ms per tile"] = Measured(
            np.array([np.median(ms), *ms]), NAN, count, 0, f"the middle of {len(ms)} rounds and their range"
        )
    return found


def class_counts(sample: Sample, labelled: Labelled | None) -> Mapping[str, int]:
    """Return how many tiles of each class are judged."""
    if labelled is None:
        return {}
    counts: dict[str, Any] = {}
    for number, name in enumerate(sample.table.classes):
        counts[name] = int((sample.table.label[labelled.asked] == number).sum())
    return counts
