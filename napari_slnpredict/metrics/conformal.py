"""Sets of answers that hold the true one as often as promised. numpy only.

Split conformal prediction by class (Vovk, Gammerman, Shafer 2005): each class has a threshold of its own, so that the
promise holds for the rare class as well. It holds for cases drawn like those the thresholds come from: those of another
hospital are not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_slnpredict.errors import DataError


@dataclass(frozen=True)
class Conformal:
    """Thresholds of a calibrated model.

    Attributes
    ----------
    coverage : float
        Share of cases, of each class, whose set holds their class.
    least : (c,) float64
        A class is in the set where its probability is at least this; 0 where there were too few cases of it, so that
        it is in every set.
    cases : (c,) int64
        Calibration cases by class.
    """

    coverage: float
    least: NDArray[np.float64]
    cases: NDArray[np.int64]

    @property
    def too_few(self) -> NDArray[np.bool_]:
        """Classes, (c,), with fewer cases than the promise needs."""
        return self.cases < cases_needed(self.coverage)

    def sets(self, probabilities: ArrayLike) -> NDArray[np.bool_]:
        """Return which classes are in each case's set.

        Parameters
        ----------
        probabilities : (..., c)

        Returns
        -------
        (..., c) bool
            A set may be empty: the case is like none of the classes' calibration cases.
        """
        return np.asarray(probabilities, np.float64) >= self.least - 1e-12


def cases_needed(coverage: float) -> int:
    """Return how many calibration cases of a class a promise needs: 9 for 90 %, 19 for 95 %."""
    return math.ceil(coverage / (1 - coverage) - 1e-9)


def fit_conformal(probabilities: ArrayLike, labels: ArrayLike, coverage: float = 0.9) -> Conformal:
    """Find each class's threshold on calibration cases, which must not have been trained on.

    A case's score is 1 minus the probability of its true class; a class's threshold is the score at position
    ``ceil((n + 1) * coverage)`` of its n cases.

    Parameters
    ----------
    probabilities : (n, c)
    labels : (n,) class numbers
    coverage : float
        Above 0 and below 1.

    Raises
    ------
    DataError
        A coverage outside of that.
    """
    if not 0 < coverage < 1:
        raise DataError(f"a coverage of {coverage:g} cannot be promised", do="ask for one between 0 and 1, such as 0.9")
    said, truth = np.asarray(probabilities, np.float64), np.asarray(labels, np.int64).ravel()
    classes = said.shape[1]
    least, cases = np.zeros(classes), np.bincount(truth, minlength=classes).astype(np.int64)
    for one in range(classes):
        scores = np.sort(1 - said[truth == one, one])
        position = math.ceil((len(scores) + 1) * coverage - 1e-9)
        if position <= len(scores):
            least[one] = 1 - scores[position - 1]
    return Conformal(coverage, least, cases)


def coverage_by_class(sets: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Return the share of each class's cases whose set holds it, (c,); NaN for a class without cases.

    Parameters
    ----------
    sets : (n, c) bool
    labels : (n,) class numbers
    """
    held, truth = np.asarray(sets, bool), np.asarray(labels, np.int64).ravel()
    return np.array(
        [held[truth == one, one].mean() if (truth == one).any() else np.nan for one in range(held.shape[1])]
    )
