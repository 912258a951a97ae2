"""Compare recipes for `hne-small` by cross-validation inside the training half; the held-out half is never opened.

    python scripts/hne_small_choose.py --weights W --data DATA --phantoms COHORT [--recipes labels,mixture] [--folds 3]

Tiles of two thirds of the groups of each labelled set are learned from, with all phantoms and real slides; the other
third is judged as the held-out half is in the end. Prints precision@5 of descriptors and probe AUC of features, means
over sets and folds, for several shares of trained weights in the mean with the start's.
"""

from __future__ import annotations

import copy
import time
from dataclasses import replace
from typing import Any

import numpy as np
from hne_small_learn import Cached, Parts, Recipe, begin_descriptor, cached, fit, mix, settle_descriptor
from hne_small_report import macro_auc, precision_at, probe
from hne_small_tiles import TILE_SETS
from train_hne_small import arguments, gather, starting_network

from napari_slnpredict.encode.encoder import load_encoder
from napari_slnpredict.torch_door import import_torch

RECIPES = {
    "labels": Recipe(),
    "mixture": Recipe(contrast=1.0),
    "some contrast": Recipe(contrast=0.2),
    "contrast": Recipe(contrast=1.0, labels=0.0, feature_labels=0.0),
    "deeper": Recipe(first_stage=3),
    "fast": Recipe(rate=1e-3),
    "slow": Recipe(rate=1e-4),
}
SHARES = (0.0, 0.3, 0.6, 1.0)


def main() -> None:
    """Judge each recipe in each fold."""
    parser = arguments()
    parser.add_argument("--recipes", default="labels,mixture")
    parser.add_argument("--folds", type=int, default=3)
    options = parser.parse_args()
    import_torch().set_num_threads(options.threads)
    start = load_encoder(f"local:{options.weights}")
    sets = gather(options.data, options.phantoms)
    kept: dict[tuple[int, int], list[Cached]] = {}
    for name in options.recipes.split(","):
        recipe = replace(RECIPES[name], steps=options.steps)
        key = (recipe.first_stage, recipe.views)
        if key not in kept:
            parts = Parts(starting_network(start), recipe.first_stage)
            kept = {key: [cached(parts, one, recipe.views, at) for at, one in enumerate(sets)]}
        began = time.perf_counter()
        rows = [one_fold(start, kept[key], recipe, fold, options.folds) for fold in range(options.folds)]
        for share in SHARES:
            each = np.mean([row[share] for row in rows], axis=0)  # (sets, figures)
            print(name, share, each.mean(axis=0).round(4).tolist(), each.round(3).tolist(), flush=True)
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)


def one_fold(start: Any, sets: list[Cached], recipe: Recipe, fold: int, folds: int) -> dict[float, Any]:
    """Train without one fold; return, for each share of trained weights, (sets, figures) on it."""
    learned, asked = [], []
    for one in sets:
        if one.tiles.name in TILE_SETS:
            away = fold_of(one.tiles.groups, one.tiles.labels, folds) == fold
            asked.append(one.part(np.flatnonzero(away)))
            learned.append(one.part(np.flatnonzero(~away)))
        else:
            learned.append(one)
    parts = Parts(starting_network(start), recipe.first_stage)
    begin_descriptor(parts, learned)
    first = copy.deepcopy(parts.modules())
    fit(parts, learned, replace(recipe, trained=1.0), say=False)
    last = copy.deepcopy(parts.modules())
    found = {}
    for share in SHARES:
        mix(parts.modules(), first, last, share)
        settle_descriptor(parts, learned, recipe)
        found[share] = np.array([_figures(parts, one) for one in asked])
    return found


def _figures(parts: Parts, one: Cached) -> list[float]:
    features, descriptors = parts.described(one.outputs[:, 0])
    labels, groups = one.tiles.labels, one.tiles.groups
    # A fold has too few slides of osteosarcoma to divide again: recipes are compared on tiles, alike for all.
    apart = groups if len(set(groups)) > 20 else np.arange(len(groups))
    return [
        float(precision_at(descriptors, labels, groups).mean()),
        float(precision_at(features, labels, groups).mean()),
        macro_auc(labels, probe(features, labels, apart, folds=3)),
    ]


def fold_of(groups: Any, labels: Any, folds: int) -> Any:
    """Return the fold of each tile, (n,); a group is in one fold."""
    from sklearn.model_selection import StratifiedGroupKFold

    fold = np.empty(len(groups), np.int64)
    divided = StratifiedGroupKFold(folds, shuffle=True, random_state=3).split(groups, labels, groups)
    for at, (_, away) in enumerate(divided):
        fold[away] = at
    return fold


if __name__ == "__main__":
    main()
