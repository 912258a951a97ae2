"""Whether a slide looks like those a model has learnt from. numpy only.

A model answers whatever it is shown: glass, another stain, a blurred scan. How far a slide's tiles lie from those of
the training slides, in the encoder's own features, tells when its answer means nothing. The distance to the nearest
training tiles needs no assumption about the shape of what was seen (Sun, Ming, Zhu, Li, "Out-of-distribution detection
with deep nearest neighbors", ICML 2022, there for single images; the slide's score as the mean over its tiles is ours).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import BundleMismatch, DataError

#: Training tiles kept in a bundle, the axes they are described by, and tiles of a slide that are looked at.
TILES, AXES, LOOKED_AT = 2048, 48, 512
#: A tile's distance is that to so many nearest training tiles, averaged.
NEAREST = 3
#: Fewest training slides (of several patients) from which a limit can be told.
LEAST_SLIDES = 8
#: Variances below this share of the largest are noise, not an axis.
_FLOOR = 1e-4
#: A slide beyond the mean and so many standard deviations of the training slides' (logarithmic) scores is outside.
_DEVIATIONS = 3.0

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Domain:
    """What the training slides' tiles look like.

    Attributes
    ----------
    centre, spread : (d,) float32
        Of the training tiles' features.
    axes : (k, d) float32
        Principal axes of the standardised features, divided by the standard deviation along them.
    rest : float
        Usual length of what the axes leave over.
    tiles : (m, k + 1) float32
        Training tiles in these coordinates; the last is the length left over.
    scores : (s,) float64
        Each training slide's score against the tiles of other patients, ascending.
    """

    centre: NDArray[np.float32] = field(repr=False)
    spread: NDArray[np.float32] = field(repr=False)
    axes: NDArray[np.float32] = field(repr=False)
    rest: float
    tiles: NDArray[np.float32] = field(repr=False)
    scores: Floats = field(repr=False)

    @property
    def limit(self) -> float:
        """The score beyond which a slide is outside: three deviations above the training slides', as logarithms."""
        logs = np.log(self.scores)
        return float(max(np.exp(logs.mean() + _DEVIATIONS * logs.std()), self.scores[-1]))

    def score(self, features: Any) -> float:
        """Return how far a slide is from the training slides: the mean distance of its tiles, 1 being usual.

        Parameters
        ----------
        features : (n, d) float
            n >= 1; of the same encoder.
        """
        return _mean_distance(self._coordinates(_some(features)), self.tiles)

    def place(self, features: Any) -> dict[str, Any]:
        """Return the score, the share of training slides below it in percent, and whether the slide is inside."""
        score = self.score(features)
        inside = bool(score <= self.limit)
        found: dict[str, Any] = {
            "score": score,
            "percentile": 100.0 * float((self.scores < score).mean()),
            "inside": inside,
        }
        if not inside:
            times = score / float(np.median(self.scores))
            found["reason"] = f"its tiles are {times:.1f} times as far from the training slides' as usual"
        return found

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return what a bundle stores; `domain_of` is the inverse."""
        return {
            "centre": self.centre,
            "spread": self.spread,
            "axes": self.axes,
            "rest": np.array([self.rest], np.float32),
            "tiles": self.tiles.astype(np.float16),
            "scores": self.scores.astype(np.float64),
        }

    def _coordinates(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        return _coordinates(features, self.centre, self.spread, self.axes, self.rest)


def fit_domain(slides: Sequence[Any], patients: Sequence[str], *, seed: int = 0) -> Domain:
    """Describe the training slides.

    Parameters
    ----------
    slides : sequence of (n, d) float
        Features of each training slide, n >= 1.
    patients : sequence of str
        One a slide: a slide is scored against other patients' tiles, for a model meets new patients.
    seed : int

    Raises
    ------
    DataError
        Fewer than `LEAST_SLIDES` slides, or all of one patient: no limit can be told from them.
    """
    if len(slides) < LEAST_SLIDES or len(set(patients)) < 2:
        raise DataError(
            f"{len(slides)} slides of {len(set(patients))} patients do not tell what a usual slide is",
            do=f"train on {LEAST_SLIDES} slides of several patients at least",
        )
    random = np.random.default_rng(seed)
    each = max(1, TILES // len(slides))
    parts = [_drawn(features, each, random) for features in slides]
    owner = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    together = np.concatenate(parts)
    centre, spread = together.mean(axis=0), np.maximum(together.std(axis=0), 1e-6)
    standard = (together - centre) / spread
    axes = _axes(standard)
    rest = float(np.sqrt(np.mean(_left_over(standard, axes) ** 2))) or 1.0
    tiles = _coordinates(together, centre, spread, axes, rest)
    of_patient = np.asarray([str(patient) for patient in patients])
    scores = [
        _mean_distance(_coordinates(_some(features), centre, spread, axes, rest), tiles[of_patient[owner] != patient])
        for features, patient in zip(slides, of_patient, strict=True)
    ]
    return Domain(centre, spread, axes, rest, tiles, np.sort(np.maximum(scores, 1e-9)))


def domain_of(tensors: Mapping[str, NDArray[Any]], dim: int) -> Domain:
    """Return the domain a bundle stores.

    Raises
    ------
    BundleMismatch
        The tensors do not belong together, or not to features of this length.
    """
    try:
        parts = {name: np.asarray(tensors[name], np.float32) for name in ("centre", "spread", "axes", "rest", "tiles")}
        scores = np.sort(np.asarray(tensors["scores"], np.float64).ravel())
    except KeyError as error:
        raise BundleMismatch(
            f"its description of the training slides lacks {error}", do="copy the model again"
        ) from error
    width = parts["axes"].shape[0] if parts["axes"].ndim == 2 else -1
    fits = (
        parts["centre"].shape == parts["spread"].shape == (dim,)
        and parts["axes"].shape == (width, dim)
        and parts["tiles"].ndim == 2
        and parts["tiles"].shape[1] == width + 1
        and len(parts["tiles"]) >= NEAREST
        and parts["rest"].size == 1
        and len(scores) > 0
    )
    sound = fits and np.isfinite(scores).all() and all(np.isfinite(part).all() for part in parts.values())
    if not sound or not (scores > 0).all() or not (parts["spread"] > 0).all() or not (parts["rest"] > 0).all():
        raise BundleMismatch("its description of the training slides is damaged", do="copy the model again")
    return Domain(
        parts["centre"], parts["spread"], parts["axes"], float(parts["rest"].ravel()[0]), parts["tiles"], scores
    )


def _axes(standard: NDArray[np.float32]) -> NDArray[np.float32]:
    values, vectors = np.linalg.eigh(np.cov(standard.T.astype(np.float64)))
    order = np.argsort(-values)[:AXES]
    values, vectors = values[order], vectors[:, order].T
    keep = values > _FLOOR * values[0]
    return np.asarray(vectors[keep] / np.sqrt(values[keep, None]), np.float32)


def _left_over(standard: NDArray[np.float32], axes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the length of each row that the axes do not span, (n,)."""
    unit = axes / np.linalg.norm(axes, axis=1, keepdims=True)
    total, along = (standard**2).sum(axis=1), ((standard @ unit.T) ** 2).sum(axis=1)
    return np.asarray(np.sqrt(np.maximum(total - along, 0)), np.float32)


def _coordinates(
    features: NDArray[np.float32],
    centre: NDArray[np.float32],
    spread: NDArray[np.float32],
    axes: NDArray[np.float32],
    rest: float,
) -> NDArray[np.float32]:
    standard = (features - centre) / spread
    # What lies beside everything seen counts as much as all axes together: it is where the unknown shows first.
    left = _left_over(standard, axes) / rest * np.sqrt(len(axes))
    return np.asarray(np.column_stack([standard @ axes.T, left]), np.float32)


def _mean_distance(tiles: NDArray[np.float32], known: NDArray[np.float32]) -> float:
    square = (tiles**2).sum(axis=1)[:, None] - 2.0 * tiles @ known.T + (known**2).sum(axis=1)
    count = min(NEAREST, len(known))
    nearest = np.partition(np.maximum(square, 0), count - 1, axis=1)[:, :count]
    return float(np.sqrt(nearest.astype(np.float64)).mean() / np.sqrt(tiles.shape[1]))


def _some(features: Any) -> NDArray[np.float32]:
    """Return at most `LOOKED_AT` tiles, evenly spread over the slide: a memory-mapped bag is not read whole."""
    step = max(1, -(-len(features) // LOOKED_AT))
    return np.asarray(features[::step], np.float32)


def _drawn(features: Any, count: int, random: np.random.Generator) -> NDArray[np.float32]:
    rows = np.sort(random.choice(len(features), min(count, len(features)), replace=False))
    return np.asarray(features[rows], np.float32)
