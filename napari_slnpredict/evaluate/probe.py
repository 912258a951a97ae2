"""The linear probe: how much of the labels can be read from features by a plane.

Multinomial logistic regression on features standardised by the training tiles, its strength of regularisation chosen by
the log loss of inner folds that keep groups whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import DataError
from napari_slnpredict.metrics.folds import grouped_folds
from napari_slnpredict.metrics.scores import log_loss

#: Inverse strengths tried (scikit-learn's C: the loss is summed over tiles), and that used when none can be chosen.
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_UNCHOSEN = 1e-2
_INNER, _MOST_STEPS = 4, 300


@dataclass(frozen=True)
class Probe:
    """A fitted probe.

    Attributes
    ----------
    weight : (d, c) float64
        Of standardised features.
    bias : (c,) float64
    mean, scale : (d,) float64
    strength : float
        The C chosen.
    """

    weight: NDArray[np.float64] = field(repr=False)
    bias: NDArray[np.float64] = field(repr=False)
    mean: NDArray[np.float64] = field(repr=False)
    scale: NDArray[np.float64] = field(repr=False)
    strength: float

    def probabilities(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the probabilities of features (k, d): (k, c), rows sum to 1."""
        return _softmax(((features - self.mean) / self.scale) @ self.weight + self.bias)


def fit_probe(
    features: NDArray[np.floating],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    classes: int,
    *,
    seed: int = 0,
) -> Probe:
    """Fit a probe.

    Parameters
    ----------
    features : (n, d)
    labels : (n,) int64, 0 to c - 1
    groups : (n,)
    classes : int
        c; a class that does not occur gets small probabilities.
    seed : int
        Of the inner folds.

    Raises
    ------
    DataError
        Fewer than two classes, or features that are not finite.
    """
    from threadpoolctl import threadpool_limits

    if len(np.unique(labels)) < 2:
        raise DataError("a probe needs tiles of two classes", do="give more labelled tiles")
    given = np.asarray(features, np.float64)
    if not np.isfinite(given).all():
        raise DataError("features are not finite")
    # Matrices this small are slower on several threads, and ten times so beside other work (measured).
    with threadpool_limits(1, user_api="blas"):
        return _fitted(given, labels, groups, classes, seed)


def _fitted(
    given: NDArray[np.float64], labels: NDArray[np.int64], groups: NDArray[np.int64], classes: int, seed: int
) -> Probe:
    mean, scale = given.mean(axis=0), given.std(axis=0)
    scale = np.where(scale > 1e-12, scale, 1.0)
    # Rotated into as many axes as there are tiles: the penalty knows no direction, and the fit is the same.
    axes, reduced = _rotated((given - mean) / scale)
    strength = _choose(reduced, labels, groups, classes, seed)
    start = None
    for one in STRENGTHS[: STRENGTHS.index(strength) + 1]:
        start = _fit(reduced, labels, classes, one, start)
    assert start is not None
    return Probe(axes @ start[:-1], start[-1], mean, scale, strength)


def _rotated(x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return axes (d, r) and features on them (n, r), r at most n."""
    n, d = x.shape
    if d <= n:
        return np.eye(d), x
    squares, u = np.linalg.eigh(x @ x.T)
    kept = squares > 1e-10 * squares[-1]
    length = np.sqrt(squares[kept])
    return x.T @ (u[:, kept] / length), u[:, kept] * length


def _choose(x: NDArray[np.float64], labels: NDArray[np.int64], groups: NDArray[np.int64], c: int, seed: int) -> float:
    """Return the strength with the least log loss over inner folds, the smallest of equal ones."""
    fold = grouped_folds(labels, groups, _INNER, seed)
    usable = [k for k in np.unique(fold) if len(np.unique(labels[fold != k])) == len(np.unique(labels))]
    if fold.max() < 1 or not usable:
        return _UNCHOSEN
    total = np.zeros(len(STRENGTHS))
    for k in usable:
        fitted, held = fold != k, fold == k
        w = None
        for at, strength in enumerate(STRENGTHS):  # each begins where the stronger one ended
            w = _fit(x[fitted], labels[fitted], c, strength, w)
            total[at] += held.sum() * log_loss(labels[held], _softmax(x[held] @ w[:-1] + w[-1]))
    return STRENGTHS[int(np.argmin(total))]


def _fit(
    x: NDArray[np.float64], labels: NDArray[np.int64], c: int, strength: float, start: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """Return weights and, last, biases (d + 1, c) that minimise the summed log loss + |weights|^2 / (2 strength)."""
    from scipy.optimize import minimize

    n, d = x.shape
    hot = np.eye(c)[labels]
    shape = (d + 1, c)

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        w = flat.reshape(shape)
        logits = x @ w[:-1] + w[-1]
        top = logits.max(axis=1, keepdims=True)
        log_sum = np.log(np.exp(logits - top).sum(axis=1, keepdims=True)) + top
        off = np.exp(logits - log_sum) - hot
        slope = np.empty(shape)
        slope[:-1] = x.T @ off + w[:-1] / strength
        slope[-1] = off.sum(axis=0)
        value = float((log_sum[:, 0] - (logits * hot).sum(axis=1)).sum() + (w[:-1] ** 2).sum() / (2 * strength))
        return value / n, slope.ravel() / n

    begin = np.zeros(shape) if start is None else start
    found = minimize(loss, begin.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": _MOST_STEPS, "gtol": 1e-6})
    return np.asarray(found.x, np.float64).reshape(shape)


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))
