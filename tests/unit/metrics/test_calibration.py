"""Probabilities that mean what they say, and sets that keep their promise."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_slnpredict.errors import DataError
from napari_slnpredict.metrics.calibration import (
    HIGHEST,
    LOWEST,
    calibration,
    calibration_error,
    error_by_chance,
    fit_temperature,
)
from napari_slnpredict.metrics.conformal import cases_needed, coverage_by_class, fit_conformal


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def drawn(n: int, classes: int, seed: int, sharpness: float = 2.0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return logits and labels drawn from the probabilities those logits mean."""
    random = np.random.default_rng(seed)
    logits = sharpness * random.normal(size=(n, classes))
    labels = (softmax(logits).cumsum(axis=1) < random.random((n, 1))).sum(axis=1)
    return logits, np.minimum(labels, classes - 1)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_of_overconfident_logits_is_found(temperature: float) -> None:
    """A model three times too sure would stay so."""
    logits, labels = drawn(20_000, 3, seed=1)
    assert fit_temperature(logits * temperature, labels) == pytest.approx(temperature, rel=0.05)


def test_the_temperature_is_the_likeliest() -> None:
    """The halving would end beside the maximum."""
    from scipy.optimize import minimize_scalar

    logits, labels = drawn(150, 4, seed=2)

    def loss(log_t: float) -> float:
        p = softmax(logits / np.exp(log_t))
        return float(-np.log(p[np.arange(len(labels)), labels]).mean())

    best = minimize_scalar(loss, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded", options={"xatol": 1e-9})
    assert fit_temperature(logits, labels) == pytest.approx(np.exp(best.x), rel=1e-4)


def test_a_temperature_stays_within_bounds() -> None:
    """Logits that are always right, or always wrong, would give 0 or infinity."""
    logits, labels = np.eye(2)[[0, 1, 0, 1]] * 3, np.array([0, 1, 0, 1])
    assert fit_temperature(logits, labels) == pytest.approx(LOWEST)
    assert fit_temperature(logits, 1 - labels) == pytest.approx(HIGHEST)
    assert fit_temperature(np.zeros((0, 2)), []) == 1.0


def test_calibrated_bags_have_a_small_error_and_others_a_large_one() -> None:
    """The error could not tell an honest model from a boastful one."""
    logits, labels = drawn(4000, 2, seed=3)
    for factor, least, most in ((1.0, 0.0, 0.05), (4.0, 0.08, 1.0)):
        error = calibration_error(labels == 1, softmax(logits * factor)[:, 1])
        assert least <= error <= most


def test_bins_hold_equal_numbers() -> None:
    """A bin of two cases would weigh like one of a hundred."""
    logits, labels = drawn(303, 2, seed=4)
    found = calibration(labels == 1, softmax(logits)[:, 1])
    assert len(found.cases) == 15
    assert set(found.cases.tolist()) == {20, 21}
    assert (np.diff(found.said) >= 0).all()
    assert calibration([1, 0], [0.9, 0.2]).cases.tolist() == [1, 1]
    assert calibration([], []).error == 0.0


def test_what_chance_gives_is_told() -> None:
    """An error of 0.15 on thirty patients would be held against a perfect model."""
    said = np.random.default_rng(5).random(30)
    mean, high = error_by_chance(said, draws=300)
    assert 0.1 < mean < high < 0.5
    assert error_by_chance(np.tile(said, 100), draws=100)[1] < 0.05
    assert error_by_chance(said, draws=50, seed=1) == error_by_chance(said, draws=50, seed=1)


@pytest.mark.parametrize(("classes", "coverage"), [(2, 0.9), (4, 0.8)])
def test_sets_keep_their_promise_for_each_class(classes: int, coverage: float) -> None:
    """A rare class would be missed more often than stated."""
    logits, labels = drawn(20_000, classes, seed=6)
    logits[:, 0] -= 0.7  # a rarer class
    labels = (softmax(logits).cumsum(axis=1) < np.random.default_rng(7).random((20_000, 1))).sum(axis=1)
    boastful = softmax(3 * logits)  # the promise does not need calibrated probabilities
    found = fit_conformal(boastful[:10_000], labels[:10_000], coverage)
    covered = coverage_by_class(found.sets(boastful[10_000:]), labels[10_000:])
    assert np.abs(covered - coverage).max() < 0.03


def test_too_few_cases_promise_nothing() -> None:
    """Eight cases would be said to allow a promise of 90 %."""
    assert (cases_needed(0.9), cases_needed(0.95), cases_needed(0.8)) == (9, 19, 4)
    random = np.random.default_rng(8)
    said = softmax(random.normal(size=(20, 2)))
    labels = np.array([0] * 8 + [1] * 12)
    found = fit_conformal(said, labels, 0.9)
    assert found.too_few.tolist() == [True, False]
    assert found.sets(said)[:, 0].all()
    assert found.sets([[0.0, 1.0]]).tolist() == [[True, True]]
    with pytest.raises(DataError, match="promised"):
        fit_conformal(said, labels, 1.0)


def test_the_threshold_is_the_one_by_hand() -> None:
    """Off by one position, the promise would be broken by one case in n."""
    said = np.array([[0.1 * i, 1 - 0.1 * i] for i in range(1, 10)])
    found = fit_conformal(said, np.zeros(9, int), 0.8)
    assert found.least[0] == pytest.approx(0.2)  # 8th of nine scores 0.1 ... 0.9 is 0.8
    assert fit_conformal(said, np.zeros(9, int), 0.9).least[0] == pytest.approx(0.1)
