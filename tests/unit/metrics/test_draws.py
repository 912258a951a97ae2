"""Draws as counts: the same scores as the plain metrics on the drawn cases, and intervals that cover."""

from __future__ import annotations

import numpy as np
import pytest

from napari_slnpredict.errors import DataError
from napari_slnpredict.metrics.draws import draw, interval_of
from napari_slnpredict.metrics.intervals import bootstrap
from napari_slnpredict.metrics.scores import auc, balanced_accuracy

RNG = np.random.default_rng(5)
GROUPS = np.repeat(np.arange(12), RNG.integers(1, 6, 12))
LABELS = RNG.integers(0, 3, len(GROUPS))
SCORES = np.round(RNG.normal(size=len(GROUPS)) + LABELS, 1)  # rounded: ties


def drawn_rows(counts: np.ndarray) -> np.ndarray:
    """The cases of one draw, each as often as its group was drawn."""
    return np.repeat(np.arange(len(GROUPS)), counts[GROUPS].astype(int))


def test_every_draw_is_the_plain_score_of_its_cases() -> None:
    """A weight in the wrong place would give intervals of another score than the one shown."""
    draws = draw(GROUPS, LABELS, draws=20)
    positive, right = LABELS == 2, (LABELS + (SCORES > 1)) % 3
    found = {
        "mean": draws.mean(SCORES),
        "auc": draws.auc(positive, SCORES),
        "classes": draws.class_mean(right == LABELS, LABELS),
        "ratio": draws.ratio(SCORES + 9, LABELS + 1.0),
    }
    for k, counts in enumerate(draws.counts):
        rows = drawn_rows(counts)
        assert found["mean"][k] == pytest.approx(SCORES[rows].mean())
        assert found["auc"][k] == pytest.approx(auc(positive[rows], SCORES[rows]))
        assert found["classes"][k] == pytest.approx(balanced_accuracy(LABELS[rows], right[rows]))
        assert found["ratio"][k] == pytest.approx((SCORES[rows] + 9).mean() / (LABELS[rows] + 1).mean())
    assert len(np.unique(draws.counts, axis=0)) > 15


def test_first_row_is_everything_once_and_strata_keep_their_size() -> None:
    """The figure itself would be a draw; or a draw without a class would have no score."""
    draws = draw(GROUPS, LABELS, draws=50)
    stratum = np.array([LABELS[g == GROUPS].max() for g in range(12)])
    assert (draws.counts[0] == 1).all()
    for one in np.unique(stratum):
        assert (draws.counts[:, stratum == one].sum(axis=1) == (stratum == one).sum()).all()


def test_what_is_not_known_is_left_out() -> None:
    """A tile without a neighbour would make the whole figure NaN, or count as a miss."""
    values = np.where(np.arange(len(GROUPS)) % 4 == 0, np.nan, SCORES)
    assert draw(GROUPS, draws=3).mean(values)[0] == pytest.approx(np.nanmean(values))


def test_interval_agrees_with_the_bootstrap_of_patients() -> None:
    """Two ways to the same interval that disagree: one of them is wrong."""
    rng = np.random.default_rng(1)
    groups = np.arange(80)
    labels = rng.integers(0, 2, 80)
    scores = rng.normal(size=80) + labels
    fast = interval_of(draw(groups, labels, draws=1500).auc(labels == 1, scores), "")
    slow = bootstrap(auc, labels, scores, groups, draws=1500)
    assert fast.value == pytest.approx(slow.value)
    assert (fast.low, fast.high) == pytest.approx((slow.low, slow.high), abs=0.02)


def test_intervals_cover_the_truth() -> None:
    """An interval that covers far less than it says makes chance look like a finding."""
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(100):
        level = rng.normal(0.6, 0.1, 25)  # what differs between patients; the mean over patients is 0.6
        groups = np.repeat(np.arange(25), 8)
        hits = rng.random(200) < level[groups]
        found = interval_of(draw(groups, draws=300, seed=trial).mean(hits), "")
        covered += found.low <= 0.6 <= found.high
    assert 86 <= covered <= 100


def test_several_classes_are_each_asked_against_the_rest() -> None:
    """With three classes the AUC must not be that of class 1 alone."""
    probabilities = np.eye(3)[LABELS] * 0.8 + 0.1
    assert draw(GROUPS, LABELS, draws=5).class_auc(LABELS, probabilities) == pytest.approx(1.0)


def test_the_seed_decides() -> None:
    """Two runs of one command would print two intervals."""
    first, again, other = (draw(GROUPS, LABELS, draws=9, seed=seed).counts for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_nothing_to_draw_from() -> None:
    """No cases is a message, not an index error."""
    with pytest.raises(DataError, match="no cases"):
        draw(np.empty(0))
    with pytest.raises(DataError, match="finite"):
        draw(GROUPS, draws=2).auc(LABELS == 1, np.full(len(GROUPS), np.nan))
