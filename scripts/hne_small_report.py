"""How `hne-small` is judged: retrieval and a linear probe within a set of tiles, with what chance would do.

Every set is judged by itself: queries and gallery, and the folds of the probe, all lie in it. A tile's own group
(slide, where one is known, else picture) is never in its gallery, and never on both sides of a fold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.encode.descriptor import describe
from napari_slnpredict.metrics.intervals import draw_patients
from napari_slnpredict.metrics.scores import auc
from napari_slnpredict.torch_door import import_torch

DRAWS = 2000


def features_of(encoder: Any, tiles: NDArray[np.uint8], side: int | None = None) -> NDArray[np.float32]:
    """Embed tiles with an encoder as users do: float32, normalised by its own mean and std; enlarged to `side` px."""
    torch = import_torch()
    network = encoder.build()
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (encoder.mean, encoder.std))
    rows = []
    with torch.inference_mode():
        for part in np.array_split(tiles, max(1, len(tiles) // 32)):
            given = torch.from_numpy(np.ascontiguousarray(part)).permute(0, 3, 1, 2).float() / 255
            if side is not None:
                given = torch.nn.functional.interpolate(given, size=(side, side), mode="bilinear", antialias=True)
            rows.append(network((given - mean) / std).float().numpy())
    return np.concatenate(rows)


def colours_of(tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mean and deviation of the three colours, (n, 6): what needs no network."""
    flat = tiles.reshape(len(tiles), -1, 3).astype(np.float32)
    return np.concatenate([flat.mean(axis=1), flat.std(axis=1)], axis=1)


def histograms_of(tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Root of the colour histogram with 6 x 6 x 6 bins, (n, 216): cosine is then the Bhattacharyya coefficient."""
    bins = (tiles.astype(np.int64) * 6 // 256) @ np.array([36, 6, 1])
    counts = np.stack([np.bincount(one.ravel(), minlength=216) for one in bins])
    return np.sqrt(counts / counts.sum(axis=1, keepdims=True)).astype(np.float32)


def precision_at(
    descriptors: NDArray[np.float32], labels: NDArray[np.int64], groups: NDArray[Any], k: int = 5
) -> NDArray[np.float64]:
    """Return, for each tile, the share of its own label among the `k` most alike tiles of other groups, (n,)."""
    unit = describe(descriptors).astype(np.float64)
    likeness = unit @ unit.T
    likeness[groups[:, None] == groups[None, :]] = -np.inf
    nearest = np.argsort(-likeness, axis=1, kind="stable")[:, :k]
    return (labels[nearest] == labels[:, None]).mean(axis=1)


def chance_at(labels: NDArray[np.int64], groups: NDArray[Any]) -> float:
    """Return what `precision_at` is on average for random neighbours: the base rate."""
    other = groups[:, None] != groups[None, :]
    same = labels[:, None] == labels[None, :]
    return float(((other & same).sum(1) / other.sum(1)).mean())


def probe(features: NDArray[np.float32], labels: NDArray[np.int64], groups: NDArray[Any], folds: int = 5) -> Any:
    """Return probabilities of the classes, (n, c), each by a logistic regression on the tiles of other folds.

    Features are standardised, and the strength of the penalty is chosen by inner folds, on the fitted tiles alone.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold

    said = np.zeros((len(labels), labels.max() + 1))
    for fitted, asked in StratifiedGroupKFold(folds, shuffle=True, random_state=0).split(features, labels, groups):
        known, new = _turned(features[fitted], features[asked])
        inner = StratifiedGroupKFold(3, shuffle=True, random_state=1)
        splits = list(inner.split(known, labels[fitted], groups[fitted]))
        search = GridSearchCV(
            LogisticRegression(max_iter=3000), {"C": (1e-4, 1e-3, 1e-2, 1e-1)}, cv=splits, scoring="balanced_accuracy"
        )
        search.fit(known, labels[fitted])
        said[asked[:, None], search.classes_[None, :]] = search.predict_proba(new)
    return said


def _turned(known: NDArray[np.float32], new: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Standardise by the known rows and turn to the axes they span: the same penalised fit in fewer dimensions."""
    centre, spread = known.mean(axis=0, dtype=np.float64), known.std(axis=0, dtype=np.float64)
    spread[spread == 0] = 1
    known, new = (known - centre) / spread, (new - centre) / spread
    axes = np.linalg.svd(known, full_matrices=False)[2].T
    return known @ axes, new @ axes


def macro_auc(labels: NDArray[np.int64], said: NDArray[np.float64]) -> float:
    """Return the AUC of two classes, or the mean over classes of each against the rest."""
    if said.shape[1] == 2:
        return auc(labels, said[:, 1])
    return float(np.nanmean([auc(labels == one, said[:, one]) for one in range(said.shape[1])]))


@dataclass(frozen=True)
class Answers:
    """What one encoder makes of one set.

    Attributes
    ----------
    found : (n,) float64
        Precision at 5 of each tile.
    said : (n, c) float64
        Probabilities of the probe.
    """

    found: NDArray[np.float64]
    said: NDArray[np.float64]


def answers(features: Any, descriptors: Any, labels: NDArray[np.int64], groups: NDArray[Any]) -> Answers:
    """Ask retrieval by descriptors and a probe on features."""
    return Answers(precision_at(descriptors, labels, groups), probe(features, labels, groups))


@dataclass(frozen=True)
class Questions:
    """Sets of tiles, by name: labels and groups; and for each the groups drawn anew, the same for every encoder."""

    labels: Mapping[str, NDArray[np.int64]]
    groups: Mapping[str, NDArray[Any]]
    draws: Mapping[str, Sequence[NDArray[np.int64]]]

    def figures(self, given: Mapping[str, Answers], names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        """Return precision and AUC, the mean over sets; the value first, then one for every draw."""
        found = [self._both(given[name], name) for name in names]
        return {what: np.mean([one[what] for one in found], axis=0) for what in found[0]}

    def _both(self, one: Answers, name: str) -> dict[str, NDArray[np.float64]]:
        labels, everything = self.labels[name], np.arange(len(self.labels[name]))
        rows = [everything, *self.draws[name]]
        return {
            "precision@5": np.array([one.found[drawn].mean() for drawn in rows]),
            "probe AUC": np.array([macro_auc(labels[drawn], one.said[drawn]) for drawn in rows]),
        }


def interval(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return value and 95 % interval of a figure from `Questions.figures`, or of the difference of two."""
    drawn = values[1:][np.isfinite(values[1:])]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(values[0]), float(low), float(high)


def draws_of(groups: NDArray[Any], labels: NDArray[np.int64], seed: int = 0) -> list[NDArray[np.int64]]:
    """Return rows of tiles whose groups were drawn anew, with all their tiles; the same for everything compared."""
    return draw_patients(labels, groups, DRAWS, seed)
