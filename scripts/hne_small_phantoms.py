"""What `hne-small` tells of synthetic tiles of slides it has not seen: whether it serves `demo-sln`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hne_small_tiles import KINDS, TileSet
from numpy.typing import NDArray

from napari_slnpredict.metrics.intervals import bootstrap
from napari_slnpredict.metrics.scores import auc, balanced_accuracy
from napari_slnpredict.phantom.scene import Tissue

ALTERED, NEST = (KINDS.index(int(kind)) for kind in (Tissue.ALTERED, Tissue.NEST))
Embed = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def judge_phantoms(embed: Embed, known: TileSet, asked: TileSet) -> dict[str, list[float]]:
    """Return figures of a linear probe fitted on slides that were trained on and asked about others, with intervals."""
    features, test = embed(known.pixels), embed(asked.pixels)
    said = _probe(features, known.labels).predict(test).astype(float)
    slides = np.array([group.split(":")[1] for group in asked.groups])
    result = {"kinds of tissue, balanced accuracy": _interval(balanced_accuracy, asked.labels, said, slides)}
    nests, asked_nests = np.isin(known.labels, (ALTERED, NEST)), np.isin(asked.labels, (ALTERED, NEST))
    scores = _probe(features[nests], known.labels[nests] == ALTERED).decision_function(test[asked_nests])
    truth, groups, slides = asked.labels[asked_nests] == ALTERED, asked.groups[asked_nests], slides[asked_nests]
    result["aggressive nests, AUC"] = _interval(auc, truth, scores, slides)
    unseen = np.char.startswith(groups, "D:")
    if unseen.any():
        found = _interval(auc, truth[unseen], scores[unseen], slides[unseen])
        result["aggressive nests of a laboratory never seen, AUC"] = found
    return result


def _probe(features: NDArray[np.float32], labels: NDArray[Any]) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000)).fit(features, labels)


def _interval(metric: Any, truth: NDArray[Any], said: NDArray[Any], slides: NDArray[Any]) -> list[float]:
    found = bootstrap(metric, truth.astype(int), said, slides, draws=1000)
    return [round(value, 3) for value in (found.value, found.low, found.high)]
