"""Many scores of many encoders on the same draws of groups: the bootstrap as a few matrix products. numpy only.

`intervals.bootstrap` asks a metric anew for every draw, which suits a few hundred patients and one score. Here a draw
is a row of counts, how often each group was drawn, so that a mean over cases is two products, and all encoders meet the
same draws: their differences are paired. Row 0 counts every group once: its score is the plain one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_slnpredict.errors import DataError

from .intervals import Interval, percentiles

#: Numbers weighted at a time, about 30 MB.
_BLOCK = 4_000_000


@dataclass(frozen=True)
class Draws:
    """Groups drawn with replacement.

    Attributes
    ----------
    counts : (1 + k, g) float32
        How often a draw holds each group; the first row holds each once.
    group : (n,) int64
        Each case's group, 0 to g - 1.
    """

    counts: NDArray[np.float32] = field(repr=False)
    group: NDArray[np.int64] = field(repr=False)

    def __len__(self) -> int:
        return len(self.group)

    @property
    def groups(self) -> int:
        """Number of groups."""
        return int(self.counts.shape[1])

    def sums(self, values: ArrayLike) -> NDArray[np.float64]:
        """Return the sum over drawn cases of values (n,): (1 + k,)."""
        summed = np.bincount(self.group, np.asarray(values, np.float64), minlength=self.groups)
        return np.asarray(self.counts @ summed, np.float64)

    def mean(self, values: ArrayLike) -> NDArray[np.float64]:
        """Return the mean over drawn cases of values (n,), those that are NaN left out: (1 + k,)."""
        given = np.asarray(values, np.float64)
        known = np.isfinite(given)
        return _over(self.sums(np.where(known, given, 0.0)), self.sums(known))

    def ratio(self, above: ArrayLike, below: ArrayLike) -> NDArray[np.float64]:
        """Return the mean of one value over the mean of another: (1 + k,)."""
        return _over(self.mean(above), self.mean(below))

    def class_mean(self, values: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
        """Return the mean, over the classes a draw holds, of the mean of their cases' values: (1 + k,).

        Of values that say whether a case was called right that is the balanced accuracy.
        """
        given, truth = np.asarray(values, np.float64), np.asarray(labels)
        means = [self.mean(np.where(truth == one, given, np.nan)) for one in np.unique(truth)]
        return _nan_mean(np.stack(means))

    def auc(self, labels: ArrayLike, scores: ArrayLike) -> NDArray[np.float64]:
        """Return the area under the ROC curve of every draw, ties counted one half: (1 + k,).

        Parameters
        ----------
        labels : (n,) bool
        scores : (n,) float, finite
        """
        positive, values = np.asarray(labels, bool), np.asarray(scores, np.float64)
        if not np.isfinite(values).all():
            raise DataError("scores must be finite numbers")
        order = np.argsort(values, kind="stable")
        starts = np.flatnonzero(np.append(True, np.diff(values[order]) != 0))  # of runs of equal scores
        group, mark = self.group[order], positive[order]
        step = max(1, _BLOCK // max(1, len(order)))
        parts = [np.empty(0)]
        for start in range(0, len(self.counts), step):
            weight = self.counts[start : start + step][:, group].astype(np.float64)  # (b, n)
            hits = np.add.reduceat(weight * mark, starts, axis=1)
            misses = np.add.reduceat(weight * ~mark, starts, axis=1)
            below = np.cumsum(misses, axis=1) - misses / 2
            parts.append(_over((hits * below).sum(axis=1), hits.sum(axis=1) * misses.sum(axis=1)))
        return np.concatenate(parts)

    def class_auc(self, labels: ArrayLike, scores: ArrayLike) -> NDArray[np.float64]:
        """Return the AUC of class 1 of two, else the mean over classes of each one's AUC against the rest: (1 + k,).

        Parameters
        ----------
        labels : (n,) int
        scores : (n, c) float
        """
        truth, given = np.asarray(labels), np.asarray(scores, np.float64)
        if given.shape[1] == 2:
            return self.auc(truth == 1, given[:, 1])
        return _nan_mean(np.stack([self.auc(truth == one, given[:, one]) for one in np.unique(truth)]))


def draw(groups: ArrayLike, strata: ArrayLike | None = None, *, draws: int = 2000, seed: int = 0) -> Draws:
    """Draw groups with replacement; every stratum keeps its number of groups.

    Parameters
    ----------
    groups : (n,)
        Each case's patient, slide or source.
    strata : (n,) int, optional
        Labels; a group's stratum is the largest of its cases' (as `intervals.draw_patients`).
    draws, seed : int
    """
    names = np.asarray(groups).ravel()
    if not len(names):
        raise DataError("no cases to draw from")
    _, group = np.unique(names, return_inverse=True)
    group = group.ravel().astype(np.int64)
    count = int(group.max()) + 1
    stratum = np.zeros(count, np.int64)
    if strata is not None:
        np.maximum.at(stratum, group, np.asarray(strata, np.int64).ravel())
    rng = np.random.default_rng(seed)
    counts = np.ones((1 + draws, count), np.float32)
    for one in np.unique(stratum):
        members = np.flatnonzero(stratum == one)
        for row in range(1, 1 + draws):
            drawn = rng.integers(0, len(members), len(members))
            counts[row, members] = np.bincount(drawn, minlength=len(members))
    return Draws(counts, group)


def interval_of(values: NDArray[np.float64], method: str, level: float = 0.95) -> Interval:
    """Return a score and its interval from (1 + k,) repetitions, the first of which is the score."""
    return percentiles(float(values[0]), values[1:], level, method)


def _over(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


def _nan_mean(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over rows (m, k) of what is known, NaN where nothing is."""
    known = np.isfinite(rows)
    return _over(np.where(known, rows, 0.0).sum(axis=0), known.sum(axis=0).astype(np.float64))
