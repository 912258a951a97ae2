from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from napari_slnpredict.errors import DataError
from napari_slnpredict.metrics import scores


def cases(seed: int, n: int = 60, levels: int = 9) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = np.r_[0, 1, random.integers(0, 2, n - 2)]
    return labels, random.integers(0, levels, n) / levels + 0.05 * labels.round()


@pytest.mark.parametrize("seed", range(5))
def test_auc_with_ties(seed: int) -> None:
    """Ties that do not count one half move an AUC by whole points."""
    labels, values = cases(seed)
    assert scores.auc(labels, values) == pytest.approx(reference.roc_auc_score(labels, values), abs=1e-12)


def test_auc_of_one_class_is_unknown() -> None:
    """A cohort of one class has no AUC: a number would be an invention."""
    assert np.isnan(scores.auc([1, 1, 1], [0.1, 0.2, 0.3]))


def test_constant_scores_are_a_coin() -> None:
    """A model that says the same of everybody must not look good or bad."""
    assert scores.auc([0, 1, 0, 1], [0.5] * 4) == 0.5


@pytest.mark.parametrize("seed", range(3))
def test_rates_follow_the_confusion_matrix(seed: int) -> None:
    """Sensitivity and specificity swapped would turn a screening test round."""
    labels, values = cases(seed)
    (tn, fp), (fn, tp) = reference.confusion_matrix(labels, values >= 0.5)
    found = scores.rates(labels, values)
    assert (found.sensitivity, found.specificity) == pytest.approx((tp / (tp + fn), tn / (tn + fp)))
    assert found.balanced_accuracy == pytest.approx(reference.balanced_accuracy_score(labels, values >= 0.5))


def test_rates_without_cases_are_unknown() -> None:
    """A sensitivity without positive cases must not be 0 or 1."""
    assert np.isnan(scores.rates([0, 0], [0.1, 0.9]).sensitivity)


@pytest.mark.parametrize("seed", range(5))
def test_youden_is_the_best_threshold_there_is(seed: int) -> None:
    """A threshold inside a group of ties, or off by one case, is not the best one."""
    labels, values = cases(seed)
    best = max(scores.rates(labels, values, t).balanced_accuracy for t in np.unique(values))
    chosen = scores.rates(labels, values, scores.youden_threshold(labels, values))
    assert chosen.balanced_accuracy == pytest.approx(best)


def test_multiclass_scores() -> None:
    """Classes weighted by their frequency, or a transposed matrix, would flatter the common class."""
    random = np.random.default_rng(3)
    labels, said = random.integers(0, 4, 80), random.integers(0, 4, 80)
    assert scores.balanced_accuracy(labels, said) == pytest.approx(reference.balanced_accuracy_score(labels, said))
    assert (scores.confusion(labels, said, 4) == reference.confusion_matrix(labels, said, labels=range(4))).all()


def test_brier_and_log_loss() -> None:
    """A proper score computed improperly rewards a model for lying about its doubt."""
    labels, values = cases(1)
    p = np.clip(values, 0.01, 0.99)
    both = np.stack([1 - p, p], 1)
    assert scores.brier(labels, p) == pytest.approx(reference.brier_score_loss(labels, p))
    assert scores.brier(labels, both) == pytest.approx(2 * scores.brier(labels, p))
    assert scores.log_loss(labels, both) == pytest.approx(reference.log_loss(labels, both))


@pytest.mark.parametrize("labels", [[0, 2, 1], [0.5, 1, 0], [-1, 1, 0]])
def test_labels_that_are_not_binary_are_refused(labels: list[float]) -> None:
    """A score of 2 taken for true would make an AUC of something else."""
    with pytest.raises(DataError):
        scores.auc(labels, [0.1, 0.2, 0.3])


def test_scores_that_are_no_numbers_are_refused() -> None:
    """NaN sorts last: it would silently count as the most positive case."""
    with pytest.raises(DataError):
        scores.auc([0, 1], [0.1, np.nan])
