"""Scores of predictions, numpy only.

Labels are 0 and 1 (or class numbers 0 to c - 1), one per case; scores are larger for what is more likely positive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_slnpredict.errors import DataError


@dataclass(frozen=True)
class Rates:
    """Outcome of a decision on labelled cases; a rate without cases is NaN.

    Attributes
    ----------
    true_positive, false_positive, true_negative, false_negative : int
    """

    true_positive: int
    false_positive: int
    true_negative: int
    false_negative: int

    @property
    def sensitivity(self) -> float:
        """Share of positive cases found."""
        return _share(self.true_positive, self.true_positive + self.false_negative)

    @property
    def specificity(self) -> float:
        """Share of negative cases left alone."""
        return _share(self.true_negative, self.true_negative + self.false_positive)

    @property
    def balanced_accuracy(self) -> float:
        """Mean of sensitivity and specificity."""
        return (self.sensitivity + self.specificity) / 2


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the area under the ROC curve: the chance that a positive case scores above a negative one.

    Ties count one half. NaN when a class is absent.

    Parameters
    ----------
    labels : (n,) of 0 and 1
    scores : (n,) float, finite
    """
    positive, values = binary(labels), _finite(scores)
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return float("nan")
    rank_sum = mid_ranks(values)[positive].sum()
    return float((rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def mid_ranks(values: ArrayLike) -> NDArray[np.float64]:
    """Return ranks from 1, (n,) float64; tied values share the mean of their ranks."""
    _, group, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[group.ravel()])


def rates(labels: ArrayLike, scores: ArrayLike, threshold: float = 0.5) -> Rates:
    """Return the outcome of calling a case positive where its score is at least `threshold`."""
    positive, called = binary(labels), _finite(scores) >= threshold
    return Rates(
        int((positive & called).sum()),
        int((~positive & called).sum()),
        int((~positive & ~called).sum()),
        int((positive & ~called).sum()),
    )


def youden_threshold(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the score from which calling positive gives the largest sensitivity + specificity (the highest if tied).

    Take it from validation cases, never from those it is then tested on.
    """
    positive, values = binary(labels), _finite(scores)
    order = np.argsort(-values, kind="stable")
    hits, alarms = np.cumsum(positive[order]), np.cumsum(~positive[order])
    ends = np.append(np.diff(values[order]) != 0, True)  # a threshold cannot part tied scores
    gain = hits / max(1, positive.sum()) - alarms / max(1, (~positive).sum())
    return float(values[order][np.flatnonzero(ends)[np.argmax(gain[ends])]])


def balanced_accuracy(labels: ArrayLike, predicted: ArrayLike) -> float:
    """Return the mean, over the classes that occur, of the share of their cases predicted as them.

    Parameters
    ----------
    labels, predicted : (n,) class numbers
    """
    truth, said = np.asarray(labels).ravel(), np.asarray(predicted).ravel()
    _same_length(truth, said)
    if not len(truth):
        return float("nan")
    return float(np.mean([(said[truth == one] == one).mean() for one in np.unique(truth)]))


def confusion(labels: ArrayLike, predicted: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Return counts, (c, c) int64: row the true class, column the predicted one."""
    truth, said = np.asarray(labels, np.int64).ravel(), np.asarray(predicted, np.int64).ravel()
    _same_length(truth, said)
    return np.bincount(truth * classes + said, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def brier(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Return the mean squared distance between probability and outcome.

    Parameters
    ----------
    labels : (n,) class numbers
    probabilities : (n,) of class 1, or (n, c)
        One column: 0 is perfect, 0.25 a coin. Columns: summed over the classes, so twice as much for two.
    """
    p = np.asarray(probabilities, np.float64)
    if p.ndim == 1:
        return float(np.mean((p - binary(labels)) ** 2))
    truth = np.asarray(labels, np.int64).ravel()
    _same_length(truth, p)
    return float(np.mean(((p - np.eye(p.shape[1])[truth]) ** 2).sum(1)))


def log_loss(labels: ArrayLike, probabilities: ArrayLike, floor: float = 1e-12) -> float:
    """Return the mean of -log(probability of the true class); `probabilities` is (n, c), rows sum to 1."""
    truth, p = np.asarray(labels, np.int64).ravel(), np.asarray(probabilities, np.float64)
    _same_length(truth, p)
    return float(-np.log(np.maximum(p[np.arange(len(truth)), truth], floor)).mean())


def binary(labels: ArrayLike) -> NDArray[np.bool_]:
    """Return labels as booleans; anything but 0 and 1 is an error, not a truth value."""
    given = np.asarray(labels).ravel()
    if given.dtype != bool and not np.isin(given, (0, 1)).all():
        raise DataError("labels must be 0 and 1 for this score")
    return given.astype(bool)


def _finite(scores: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(scores, np.float64).ravel()
    if not np.isfinite(values).all():
        raise DataError("scores must be finite numbers")
    return values


def _same_length(one: NDArray[np.generic], other: NDArray[np.generic]) -> None:
    if len(one) != len(other):
        raise DataError(f"{len(one)} labels for {len(other)} predictions")
