"""Folds that keep groups whole and classes balanced. numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def grouped_folds(labels: ArrayLike, groups: ArrayLike, folds: int = 5, seed: int = 0) -> NDArray[np.int64]:
    """Return each case's fold, (n,) int64, 0 to folds - 1 or fewer where there are fewer groups.

    All cases of a group share a fold. Groups are dealt out, the largest first and equal ones in an order that follows
    from the seed, each to the fold that lacks its classes most.

    Parameters
    ----------
    labels : (n,) int
    groups : (n,)
    folds, seed : int
    """
    _, truth = np.unique(np.asarray(labels).ravel(), return_inverse=True)
    _, group = np.unique(np.asarray(groups).ravel(), return_inverse=True)
    truth, group = truth.ravel(), group.ravel()
    count = np.zeros((int(group.max(initial=-1)) + 1, int(truth.max(initial=-1)) + 1))
    np.add.at(count, (group, truth), 1)
    folds = max(1, min(folds, len(count)))
    share = count / np.maximum(1, count.sum(axis=0))  # of its class that a group holds
    shuffled = np.random.default_rng(seed).permutation(len(count))
    order = shuffled[np.argsort(-share.sum(axis=1)[shuffled], kind="stable")]
    held, of_group = np.zeros((folds, count.shape[1])), np.zeros(len(count), np.int64)
    for one in order.tolist():
        uneven = ((held + share[one]) ** 2).sum(axis=1) - (held**2).sum(axis=1)
        # Of equal folds the emptiest: no fold stays without a group.
        of_group[one] = int(np.lexsort((held.sum(axis=1), uneven.round(12)))[0])
        held[of_group[one]] += share[one]
    return of_group[group]
