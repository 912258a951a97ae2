"""Scores of several classes against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from napari_slnpredict.metrics.agreement import average_precision, macro_auc, one_against_rest, quadratic_kappa

GRADES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=4, max_size=40)


@settings(max_examples=40, deadline=None)
@given(GRADES)
def test_kappa_is_the_known_one(pairs: list[tuple[int, int]]) -> None:
    """An agreement would be reported that no other program finds."""
    from sklearn.metrics import cohen_kappa_score

    labels, predicted = np.array(pairs).T
    ours = quadratic_kappa(labels, predicted, 4)
    if len(set(labels) | set(predicted)) == 1:
        assert np.isnan(ours)
    else:
        theirs = cohen_kappa_score(labels, predicted, weights="quadratic", labels=list(range(4)))
        assert ours == pytest.approx(theirs, abs=1e-12)


def test_an_absent_class_does_not_change_the_scale() -> None:
    """A test set without 3+ would make a miss by one step look worse."""
    assert quadratic_kappa([0, 1, 2, 1], [0, 2, 2, 1], 4) == pytest.approx(
        quadratic_kappa([0, 1, 2, 1], [0, 2, 2, 1], 3)
    )


def several(seed: int, n: int = 60) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 4, n)
    said = random.dirichlet(np.ones(4), n) + 0.3 * np.eye(4)[labels]
    return labels, said / said.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("seed", range(5))
def test_areas_are_the_known_ones(seed: int) -> None:
    """AUC by class and macro would differ from every other program's."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    labels, said = several(seed)
    assert macro_auc(labels, said) == pytest.approx(roc_auc_score(labels, said, multi_class="ovr"), abs=1e-12)
    for one, area in enumerate(one_against_rest(labels, said)):
        assert area == pytest.approx(roc_auc_score(labels == one, said[:, one]), abs=1e-12)
        tied = said[:, one].round(1)
        theirs = average_precision_score(labels == one, tied)
        assert average_precision(labels == one, tied) == pytest.approx(theirs, abs=1e-12)


def test_what_cannot_be_scored_is_not_a_number() -> None:
    """A class nobody has would count as a class never found."""
    labels, said = several(1)
    said = np.where(labels[:, None] == 3, said, said)
    areas = one_against_rest(labels[labels != 3], said[labels != 3])
    assert np.isnan(areas[3])
    assert macro_auc(labels[labels != 3], said[labels != 3]) == pytest.approx(areas[:3].mean())
    assert np.isnan(macro_auc([1, 1], [[0.5, 0.5], [0.2, 0.8]]))
    assert np.isnan(average_precision([0, 0], [0.1, 0.2]))
