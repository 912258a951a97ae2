"""Scores of more than two classes, ordered ones among them. numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .scores import auc, binary, confusion


def quadratic_kappa(labels: ArrayLike, predicted: ArrayLike, classes: int) -> float:
    """Return Cohen's kappa with quadratic weights: 1 is agreement, 0 what chance gives with the same margins.

    A miss by two steps of the scale weighs four times one by a single step. The number of classes is fixed, so that a
    class nobody has or predicts does not change the scale. NaN where both sides hold one and the same class only.

    Parameters
    ----------
    labels, predicted : (n,) class numbers
    classes : int
        At least 2.
    """
    found = confusion(labels, predicted, classes).astype(np.float64)
    steps = np.subtract.outer(np.arange(classes), np.arange(classes)) ** 2 / (classes - 1) ** 2
    by_chance = np.outer(found.sum(axis=1), found.sum(axis=0)) / max(1.0, found.sum())
    chance = float((steps * by_chance).sum())
    return 1.0 - float((steps * found).sum()) / chance if chance else float("nan")


def one_against_rest(labels: ArrayLike, probabilities: ArrayLike) -> NDArray[np.float64]:
    """Return the AUC of each class against all others, (c,); NaN for a class that is absent, or alone.

    Parameters
    ----------
    labels : (n,) class numbers
    probabilities : (n, c)
    """
    truth, said = np.asarray(labels).ravel(), np.asarray(probabilities, np.float64)
    return np.array([auc(truth == one, said[:, one]) for one in range(said.shape[1])])


def macro_auc(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Return the mean of `one_against_rest` over the classes that occur; NaN with fewer than two of them."""
    areas = one_against_rest(labels, probabilities)
    return float(np.nanmean(areas)) if np.isfinite(areas).any() else float("nan")


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the area under the precision-recall curve as a sum of steps: precision at each positive case, averaged.

    Its chance level is the share of positive cases. Tied scores count as one step. NaN without a positive case.

    Parameters
    ----------
    labels : (n,) of 0 and 1
    scores : (n,) float, finite
    """
    positive, values = binary(labels), np.asarray(scores, np.float64).ravel()
    if not positive.any():
        return float("nan")
    order = np.argsort(-values, kind="stable")
    hits = np.cumsum(positive[order])
    ends = np.flatnonzero(np.append(np.diff(values[order]) != 0, True))
    recall = hits[ends] / hits[-1]
    return float((np.diff(recall, prepend=0.0) * hits[ends] / (ends + 1)).sum())
