"""Doubt about a score: how far it would move with other patients. numpy only.

Patients are drawn, not slides: two slides of one patient are not two witnesses. The bootstrap is stratified, so that
no draw loses a class.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_slnpredict.errors import DataError

from .scores import auc, binary, mid_ranks

#: A score of labels and predictions; predictions are (n,) or (n, c).
Metric = Callable[[NDArray[np.generic], NDArray[np.float64]], float]


@dataclass(frozen=True)
class Interval:
    """A score and the range that covers it.

    Attributes
    ----------
    value, low, high : float
    method : str
    level : float
        Share of repetitions the range is made to cover.
    """

    value: float
    low: float
    high: float
    method: str
    level: float = 0.95


def bootstrap(
    metric: Metric,
    labels: ArrayLike,
    predictions: ArrayLike,
    patients: ArrayLike | None = None,
    *,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return the percentile interval of a score over patients drawn anew.

    Parameters
    ----------
    metric : callable
        ``metric(labels, predictions) -> float``.
    labels : (n,)
    predictions : (n,) or (n, c)
    patients : (n,), optional
        Without it every case is a patient of its own.
    draws : int
    level : float
    seed : int
    """
    truth, said = np.asarray(labels).ravel(), np.asarray(predictions, np.float64)
    values = np.array([metric(truth[rows], said[rows]) for rows in draw_patients(truth, patients, draws, seed)])
    return percentiles(metric(truth, said), values, level, f"bootstrap of patients, {draws} draws")


def paired_bootstrap(
    metric: Metric,
    labels: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    patients: ArrayLike | None = None,
    *,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return the interval of ``metric(first) - metric(second)``, both taken on the same drawn patients."""
    truth = np.asarray(labels).ravel()
    one, other = np.asarray(first, np.float64), np.asarray(second, np.float64)
    rows_of = draw_patients(truth, patients, draws, seed)
    values = np.array([metric(truth[rows], one[rows]) - metric(truth[rows], other[rows]) for rows in rows_of])
    value = metric(truth, one) - metric(truth, other)
    return percentiles(value, values, level, f"paired bootstrap of patients, {draws} draws")


def draw_patients(labels: ArrayLike, patients: ArrayLike | None, draws: int, seed: int) -> list[NDArray[np.int64]]:
    """Return `draws` sets of case numbers: patients drawn with replacement within strata, with all their cases.

    A patient's stratum is the largest label among the cases; every stratum keeps its number of patients.
    """
    truth = np.asarray(labels).ravel()
    if not len(truth):
        raise DataError("no cases to draw from")
    names = np.arange(len(truth)) if patients is None else np.asarray(patients).ravel()
    if len(names) != len(truth):
        raise DataError(f"{len(names)} patients for {len(truth)} cases")
    _, patient = np.unique(names, return_inverse=True)
    cases = [np.flatnonzero(patient == p) for p in range(patient.max() + 1)]
    stratum = np.array([truth[rows].max() for rows in cases])
    random = np.random.default_rng(seed)
    strata = [np.flatnonzero(stratum == one) for one in np.unique(stratum)]
    return [
        np.concatenate([cases[p] for members in strata for p in random.choice(members, len(members))])
        for _ in range(draws)
    ]


def delong(labels: ArrayLike, scores: ArrayLike, level: float = 0.95) -> Interval:
    """Return the interval of an AUC by DeLong's variance, on the logit scale so that it stays within 0 and 1.

    For independent cases (one a patient). An AUC of exactly 0 or 1 has no variance here; Hanley-McNeil
    answers in its place.
    """
    positive, values = binary(labels), np.asarray(scores, np.float64).ravel()
    value, m, n = auc(positive, values), int(positive.sum()), int((~positive).sum())
    if m < 2 or n < 2:
        return Interval(value, float("nan"), float("nan"), "DeLong", level)
    if value in (0.0, 1.0):
        return hanley_mcneil(value, m, n, level)
    ranks = mid_ranks(values)
    # Share of the other class that each case beats (DeLong 1988, by ranks: Sun & Xu 2014).
    v_positive = (ranks[positive] - mid_ranks(values[positive])) / n
    v_negative = 1 - (ranks[~positive] - mid_ranks(values[~positive])) / m
    variance = v_positive.var(ddof=1) / m + v_negative.var(ddof=1) / n
    return _logit_interval(value, math.sqrt(variance), "DeLong", level)


def hanley_mcneil(value: float, positives: int, negatives: int, level: float = 0.95) -> Interval:
    """Return the interval of an AUC from its value and the class sizes alone.

    The variance is Hanley & McNeil's (1982), taken at the bound and not at the value: all true AUCs that would not be
    surprised by this one. It therefore stays within 0 and 1 and has a width even at an AUC of 1.
    """
    if not positives or not negatives:
        return Interval(value, float("nan"), float("nan"), "Hanley-McNeil", level)
    z = NormalDist().inv_cdf(0.5 + level / 2)
    low, high = (_farthest_unsurprised(value, end, z, positives, negatives) for end in (0.0, 1.0))
    return Interval(value, low, high, "Hanley-McNeil", level)


def _farthest_unsurprised(value: float, end: float, z: float, m: int, n: int) -> float:
    """Return, between `value` and `end`, the AUC that lies z of its own standard deviations from `value`."""
    near, far = value, end
    for _ in range(60):
        middle = (near + far) / 2
        inside = abs(value - middle) <= z * math.sqrt(_hanley_mcneil_variance(middle, m, n))
        near, far = (middle, far) if inside else (near, middle)
    return near


def _hanley_mcneil_variance(a: float, m: int, n: int) -> float:
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    return max(0.0, a * (1 - a) + (m - 1) * (q1 - a * a) + (n - 1) * (q2 - a * a)) / (m * n)


def permutation_p(
    metric: Metric, labels: ArrayLike, predictions: ArrayLike, *, draws: int = 2000, seed: int = 0
) -> float:
    """Return the share of label permutations (the true order included) whose score is at least the observed one."""
    truth, said = np.asarray(labels).ravel(), np.asarray(predictions, np.float64)
    observed, random = metric(truth, said), np.random.default_rng(seed)
    as_good = sum(metric(random.permutation(truth), said) >= observed for _ in range(draws))
    return (1 + as_good) / (1 + draws)


def _logit_interval(value: float, deviation: float, method: str, level: float) -> Interval:
    z = NormalDist().inv_cdf(0.5 + level / 2)
    middle, width = math.log(value / (1 - value)), z * deviation / (value * (1 - value))
    low, high = (1 / (1 + math.exp(-max(-700.0, min(700.0, middle + side * width)))) for side in (-1, 1))
    return Interval(value, low, high, method, level)


def percentiles(value: float, values: NDArray[np.float64], level: float, method: str) -> Interval:
    """Return the interval that holds the middle `level` of a score's repetitions; what is not finite is left out."""
    usable = values[np.isfinite(values)]
    if not len(usable):
        return Interval(value, float("nan"), float("nan"), method, level)
    low, high = np.percentile(usable, [50 * (1 - level), 50 * (1 + level)])
    return Interval(value, float(low), float(high), method, level)
