from __future__ import annotations

import numpy as np
import pytest

from napari_slnpredict.errors import DataError
from napari_slnpredict.metrics import intervals
from napari_slnpredict.metrics.scores import auc


def normal_cases(seed: int, m: int, n: int, shift: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return np.r_[np.ones(m, int), np.zeros(n, int)], np.r_[random.normal(shift, 1, m), random.normal(0, 1, n)]


def slow_delong_variance(labels: np.ndarray, scores: np.ndarray) -> float:
    """Every pair, as the paper writes it."""
    pairs = np.sign(scores[labels == 1][:, None] - scores[labels == 0][None]) / 2 + 0.5
    return float(pairs.mean(1).var(ddof=1) / len(pairs) + pairs.mean(0).var(ddof=1) / pairs.shape[1])


@pytest.mark.parametrize("seed", range(4))
def test_delong_is_the_variance_over_all_pairs(seed: int) -> None:
    """The fast form by ranks must not lose ties."""
    labels, scores = normal_cases(seed, 17, 30)
    scores = scores.round(1)
    found, value = intervals.delong(labels, scores), auc(labels, scores)
    logit = np.log(value / (1 - value))
    width = 1.959964 * np.sqrt(slow_delong_variance(labels, scores)) / (value * (1 - value))
    assert (found.low, found.high) == pytest.approx(1 / (1 + np.exp(-(logit + np.array([-width, width])))), abs=1e-6)


@pytest.mark.parametrize(("positives", "negatives", "half"), [(10, 13, 0.22), (25, 25, 0.15), (50, 50, 0.10)])
def test_hanley_mcneil_half_widths(positives: int, negatives: int, half: float) -> None:
    """The half widths at AUC 0.7 that decide what a small cohort can claim."""
    found = intervals.hanley_mcneil(0.7, positives, negatives)
    assert (found.high - found.low) / 2 == pytest.approx(half, abs=0.02)


def test_a_perfect_auc_still_has_doubt() -> None:
    """Five of five right is not certainty: an interval from 1 to 1 would claim it."""
    found = intervals.delong([0] * 5 + [1] * 5, list(range(10)))
    assert found.value == found.high == 1.0
    assert 0.5 < found.low < 0.95


def test_bootstrap_agrees_with_delong() -> None:
    """Two roads to one doubt: a bootstrap that draws wrongly is far off."""
    labels, scores = normal_cases(2, 50, 60)
    drawn, exact = intervals.bootstrap(auc, labels, scores), intervals.delong(labels, scores)
    assert drawn.value == exact.value
    assert (drawn.low, drawn.high) == pytest.approx((exact.low, exact.high), abs=0.025)


def test_patients_not_slides_are_drawn() -> None:
    """Five copies of each slide must not make the interval narrower."""
    labels, scores = normal_cases(4, 20, 20)
    one = intervals.bootstrap(auc, labels, scores, draws=600)
    five = intervals.bootstrap(auc, labels.repeat(5), scores.repeat(5), np.arange(40).repeat(5), draws=600)
    assert (five.low, five.high) == pytest.approx((one.low, one.high), abs=0.02)


def test_every_draw_keeps_the_classes() -> None:
    """A draw without a positive patient has no AUC; dropped draws would bias the interval."""
    labels = np.array([1, 1, *[0] * 30])
    for rows in intervals.draw_patients(labels, None, 200, seed=1):
        assert labels[rows].sum() == 2
        assert len(rows) == 32


def test_same_seed_same_interval() -> None:
    """A figure that changes with each run cannot be checked."""
    labels, scores = normal_cases(5, 12, 12)
    assert intervals.bootstrap(auc, labels, scores, draws=50) == intervals.bootstrap(auc, labels, scores, draws=50)


def test_paired_difference_of_equal_models_is_zero() -> None:
    """Unpaired draws would see a difference between a model and itself."""
    labels, scores = normal_cases(6, 15, 15)
    found = intervals.paired_bootstrap(auc, labels, scores, scores * 3, draws=100)
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_permutation_p() -> None:
    """A p of 0 would claim more than the draws can show; chance must look like chance."""
    labels, scores = normal_cases(7, 20, 20, shift=3.0)
    assert intervals.permutation_p(auc, labels, scores, draws=200) == pytest.approx(1 / 201)
    assert intervals.permutation_p(auc, labels, np.zeros(40), draws=50) == 1.0


def test_lengths_must_agree() -> None:
    """A patient column of another cohort must not be broadcast."""
    with pytest.raises(DataError):
        intervals.draw_patients([0, 1, 1], ["a", "b"], 10, 0)
    with pytest.raises(DataError):
        intervals.draw_patients([], None, 10, 0)
