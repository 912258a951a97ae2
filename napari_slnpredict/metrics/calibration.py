"""Whether probabilities mean what they say. numpy only.

A model is calibrated when, of all cases it gives 0.7, seven in ten are so. One number, the temperature, mends a model
that is surer than it is right: logits are divided by it. (Guo, Pleiss, Sun, Weinberger, ICML 2017.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .scores import binary

#: The temperatures considered.
LOWEST, HIGHEST = 0.05, 20.0
#: Bins of equal numbers of cases, of a calibration error.
BINS = 15
_HALVINGS = 60


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """Return the temperature under which the labels are likeliest, between `LOWEST` and `HIGHEST`.

    In its inverse the log-likelihood is concave, so that halving the interval by the sign of its slope finds the one
    maximum. Take validation cases: on those a model was trained on it is sure for a good reason.

    Parameters
    ----------
    logits : (n, c)
    labels : (n,) class numbers

    Returns
    -------
    float
        1 with no cases. `LOWEST` where the logits are right about every case: then nothing can be learnt about how
        sure they may be, and a caller should keep 1.
    """
    said = np.asarray(logits, np.float64)
    truth = np.asarray(labels, np.int64).ravel()
    if not len(truth):
        return 1.0
    said = said - said.max(axis=1, keepdims=True)
    true_logit = said[np.arange(len(truth)), truth]
    low, high = 1 / HIGHEST, 1 / LOWEST
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        weights = np.exp(middle * said)
        expected = (weights * said).sum(axis=1) / weights.sum(axis=1)
        if float((true_logit - expected).mean()) > 0:
            low = middle  # surer would be likelier
        else:
            high = middle
    return 1 / math.sqrt(low * high)


@dataclass(frozen=True)
class Bins:
    """A calibration curve: cases sorted by probability, in bins of equal numbers.

    Attributes
    ----------
    said, happened : (b,) float
        Mean probability and share of cases that came true, of each bin.
    cases : (b,) int
    """

    said: NDArray[np.float64]
    happened: NDArray[np.float64]
    cases: NDArray[np.int64]

    @property
    def error(self) -> float:
        """Mean distance between said and happened, weighted by cases (the expected calibration error)."""
        return float((self.cases * np.abs(self.said - self.happened)).sum() / max(1, self.cases.sum()))


def calibration(happened: ArrayLike, probabilities: ArrayLike, bins: int = BINS) -> Bins:
    """Return the calibration curve of probabilities of something that happened or did not.

    Parameters
    ----------
    happened : (n,) of 0 and 1
        The positive class; or whether the likeliest class was the true one.
    probabilities : (n,)
        Of that.
    bins : int
        Fewer where there are fewer cases.
    """
    truth, said = binary(happened).astype(np.float64), np.asarray(probabilities, np.float64).ravel()
    parts = np.array_split(np.argsort(said, kind="stable"), min(bins, max(1, len(said))))
    means = [(said[part].mean(), truth[part].mean(), len(part)) for part in parts if len(part)]
    columns = tuple(zip(*means, strict=True)) if means else ((), (), ())
    return Bins(np.asarray(columns[0], float), np.asarray(columns[1], float), np.asarray(columns[2], np.int64))


def calibration_error(happened: ArrayLike, probabilities: ArrayLike, bins: int = BINS) -> float:
    """Return the expected calibration error over bins of equal numbers of cases."""
    return calibration(happened, probabilities, bins).error


def error_by_chance(
    probabilities: ArrayLike, bins: int = BINS, *, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Return the mean and the 95th percentile of the error that a perfectly calibrated model would show on such cases.

    With thirty patients it is large: an error below the second figure says nothing against a model.

    Parameters
    ----------
    probabilities : (n,)
    bins, draws, seed : int
    """
    said = np.asarray(probabilities, np.float64).ravel()
    random = np.random.default_rng(seed)
    errors = [calibration_error(random.random(len(said)) < said, said, bins) for _ in range(draws)]
    return float(np.mean(errors)), float(np.quantile(errors, 0.95))
