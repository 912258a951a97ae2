"""Folds keep groups whole and classes balanced."""

from __future__ import annotations

import numpy as np

from napari_slnpredict.metrics.folds import grouped_folds


def test_a_group_lies_in_one_fold_and_classes_are_shared_out() -> None:
    """A patient on both sides of a fold makes every figure too good; a fold without a class cannot be judged."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), rng.integers(1, 20, 30))
    labels = (groups % 3 == 0).astype(int)
    fold = grouped_folds(labels, groups, 5)
    assert all(len(np.unique(fold[groups == g])) == 1 for g in range(30))
    for label in (0, 1):
        share = np.bincount(fold[labels == label], minlength=5) / (labels == label).sum()
        assert share.min() > 0.1
        assert share.max() < 0.35


def test_folds_follow_from_the_seed() -> None:
    """Two runs would be judged on two divisions."""
    labels, groups = np.arange(40) % 2, np.arange(40)
    assert np.array_equal(grouped_folds(labels, groups, seed=3), grouped_folds(labels, groups, seed=3))
    assert not np.array_equal(grouped_folds(labels, groups, seed=3), grouped_folds(labels, groups, seed=4))


def test_fewer_groups_than_folds() -> None:
    """Three patients are three folds, one is one."""
    assert set(grouped_folds([0, 1, 1, 0], [7, 7, 8, 9], 5).tolist()) == {0, 1, 2}
    assert grouped_folds([0, 1], ["a", "a"]).tolist() == [0, 0]
    assert len(grouped_folds([], [])) == 0
