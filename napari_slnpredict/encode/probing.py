"""A look at an encoder while it is trained: does it tell far tiles from near ones, and labelled tiles by their class?

What a probe sees is read once and kept in memory: few tiles, so that a look costs seconds. It is a sign, not a result:
near and far tiles come from the training slides. Encoders are compared by ``slnpredict compare encoders``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import DataError

from .similarity import PairPlanner, Pairs, PairSpec, near_far
from .supervised import check_labels, draw_by_class
from .tile_table import TileData

#: Pairs of tiles, and labelled tiles, that are looked at.
PAIRS, LABELLED = 96, 400
_SEED = 20_261

#: Tiles (k, p, p, 3) uint8 -> features (k, d) float32.
Embed = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
#: Figures by name, given the encoder as it is; higher is better.
Look = Callable[[Embed], Mapping[str, float]]


def near_far_look(data: TileData, spec: PairSpec | None = None) -> Look | None:
    """Return a look at near and far pairs; None where the tiles have no places for such."""
    try:
        planner = PairPlanner(data.table, spec or PairSpec(), data.tile_px * (data.mpp or 1.0))
    except DataError:
        return None
    pairs = planner.draw(PAIRS, _SEED, 0)
    rows, inverse = np.unique(np.concatenate([pairs.first, pairs.second]), return_inverse=True)
    tiles = data.read(rows)
    first, second = np.split(inverse.reshape(-1), 2)
    places = Pairs(first, second, pairs.far)

    def look(embed: Embed) -> dict[str, float]:
        features = embed(tiles)
        unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
        area, ratio = near_far(unit, places)
        return {"near/far AUC": area, "far/near distance ratio": ratio}

    return look


def labelled_look(data: TileData) -> Look:
    """Return a look at labelled tiles: each is named by its nearest neighbours of other groups (patients).

    Raises
    ------
    DataError
        Fewer than two classes, or one group alone.
    """
    check_labels(data.table)
    rows = np.unique(draw_by_class(data.table, LABELLED, _SEED, 0))
    tiles, labels, groups = data.read(rows), data.table.label[rows], data.table.group[rows]
    if len(np.unique(groups)) < 2:
        raise DataError("the probe's tiles are all of one patient or slide", do="give tiles of several")
    classes = len(data.table.classes)

    def look(embed: Embed) -> dict[str, float]:
        from napari_slnpredict.metrics.neighbours import knn_votes

        features = embed(tiles)
        votes = knn_votes(features, labels, features, classes, gallery_groups=groups, query_groups=groups)
        right = votes.argmax(axis=1) == labels
        return {"kNN accuracy": float(np.mean([right[labels == one].mean() for one in np.unique(labels)]))}

    return look


def joined_looks(looks: Sequence[Look]) -> Look | None:
    """Return several looks as one; None when there are none. Its first figure is what patience waits for."""
    if not looks:
        return None
    return lambda embed: {name: value for look in looks for name, value in look(embed).items()}
