"""The linear probe: the fit of scikit-learn's, standardised on training tiles, strength chosen by groups."""

from __future__ import annotations

import numpy as np
import pytest

from napari_slnpredict.errors import DataError
from napari_slnpredict.evaluate import probe
from napari_slnpredict.evaluate.probe import STRENGTHS, fit_probe

RNG = np.random.default_rng(0)


def planted(n: int, d: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(n) % classes
    return RNG.normal(size=(n, d)) * 5 + 3 + np.eye(classes, d)[labels] * 9, labels


@pytest.mark.parametrize(("n", "d"), [(90, 8), (40, 120)], ids=["tall", "wide: rotated"])
def test_fit_is_the_one_of_scikit_learn(n: int, d: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe of our own that stops early, or regularises another way, could be compared with nobody's."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    monkeypatch.setattr(probe, "STRENGTHS", (0.05,))
    monkeypatch.setattr(probe, "_UNCHOSEN", 0.05)
    x, labels = planted(n, d)
    asked = RNG.normal(size=(20, d)) * 5 + 3
    found = fit_probe(x, labels, np.arange(n), 3)
    scaler = StandardScaler().fit(x)
    theirs = LogisticRegression(C=0.05, max_iter=5000, tol=1e-9).fit(scaler.transform(x), labels)
    assert found.probabilities(asked) == pytest.approx(theirs.predict_proba(scaler.transform(asked)), abs=2e-4)


def test_strength_follows_the_groups() -> None:
    """Inner folds that part a patient's tiles choose no regularisation at all: a patient's own mark is learned."""
    groups = np.repeat(np.arange(20), 10)
    labels = np.repeat(np.arange(20) % 2, 10)
    mark = RNG.normal(size=(20, 60))[groups] + 0.05 * RNG.normal(size=(200, 60))  # the patient, nothing of the class
    by_group = fit_probe(mark, labels, groups, 2).strength
    by_tile = fit_probe(mark, labels, np.arange(200), 2).strength
    assert by_group < by_tile
    assert by_group in STRENGTHS


def test_constant_features_and_an_absent_class() -> None:
    """A feature that is always 0 divides by 0; a class only the test tiles have must not end the run."""
    x, labels = planted(30, 4, 2)
    x[:, 2] = 7
    found = fit_probe(x, labels, np.arange(30), 3)
    said = found.probabilities(x)
    assert np.isfinite(said).all()
    assert said.sum(axis=1) == pytest.approx(1)
    assert (said[:, 2] < 0.2).all()


def test_what_cannot_be_fitted() -> None:
    """One class, or NaN, is a message."""
    with pytest.raises(DataError, match="two classes"):
        fit_probe(np.ones((4, 2)), np.zeros(4, int), np.arange(4), 2)
    with pytest.raises(DataError, match="finite"):
        fit_probe(np.full((4, 2), np.nan), np.array([0, 1, 0, 1]), np.arange(4), 2)


def test_too_few_groups_to_choose_from() -> None:
    """With one group of each class there are no inner folds; the probe is fitted all the same."""
    x, labels = planted(20, 3, 2)
    assert fit_probe(x, labels, labels, 2).strength == 1e-2
