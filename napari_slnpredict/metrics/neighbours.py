"""What the nearest tiles say: votes of labelled neighbours, and how many of those retrieved are of the same class.

numpy only. Vectors are compared by cosine. Whoever belongs to the same group never counts: the neighbouring tile of the
same slide is nearly the same picture, and every encoder would be perfect.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_slnpredict.errors import DataError

#: Similarities held at a time, about 130 MB.
_BLOCK = 16_000_000


def unit(vectors: ArrayLike) -> NDArray[np.float64]:
    """Return vectors (n, d) of length 1; one that is zero stays zero."""
    given = np.asarray(vectors, np.float64)
    length = np.linalg.norm(given, axis=1, keepdims=True)
    return np.asarray(np.divide(given, length, out=np.zeros_like(given), where=length > 0), np.float64)


def knn_votes(
    gallery: ArrayLike,
    labels: ArrayLike,
    queries: ArrayLike,
    classes: int,
    *,
    k: int = 20,
    temperature: float | None = 0.07,
    gallery_groups: ArrayLike | None = None,
    query_groups: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """Return each class's share of the votes of a query's k nearest neighbours, (q, c) float64, rows sum to 1.

    A neighbour of cosine s votes with weight ``exp(s / temperature)`` (Wu et al. 2018), or with 1.

    Parameters
    ----------
    gallery : (m, d)
    labels : (m,) int, 0 to c - 1
    queries : (q, d)
    classes : int
    k : int
        Fewer where there are fewer.
    temperature : float, optional
        None: every neighbour has one vote.
    gallery_groups, query_groups : (m,) and (q,), optional
        Neighbours of the query's own group do not vote.

    Raises
    ------
    DataError
        A query has no neighbour of another group.
    """
    truth = np.asarray(labels, np.int64)
    known, asked = unit(gallery), unit(queries)
    votes = np.zeros((len(asked), classes))
    for rows, cosine in _cosines(known, asked, gallery_groups, query_groups):
        nearest = _nearest(cosine, k)
        at = np.take_along_axis(cosine, nearest, axis=1)
        if not np.isfinite(at[:, 0]).all():
            raise DataError("a tile has no neighbour of another group", do="give tiles of more groups")
        # Relative to the nearest, which no exponential can overflow; those forbidden weigh nothing.
        weight = np.exp((at - at[:, :1]) / temperature) if temperature else np.isfinite(at).astype(np.float64)
        place = (np.arange(len(at))[:, None] * classes + truth[nearest]).ravel()
        votes[rows] = np.bincount(place, weight.ravel(), minlength=len(at) * classes).reshape(len(at), classes)
    return np.asarray(votes / votes.sum(axis=1, keepdims=True))


def retrieval_precision(
    vectors: ArrayLike,
    labels: ArrayLike,
    own: ArrayLike,
    at: Sequence[int] = (1, 5, 10),
    asked: NDArray[np.int64] | None = None,
) -> NDArray[np.float64]:
    """Return, for each question, the share of its class among the k tiles found first: (q, len(at)).

    Tiles with the same `own` (the question's slide, say) are not searched. Where fewer than k are left, the share is of
    those; where none is, NaN.

    Parameters
    ----------
    vectors : (n, d)
    labels : (n,) int
    own : (n,)
    at : sequence of int
        Numbers k of tiles looked at.
    asked : (q,) int64, optional
        Tiles that are questions; by default every one.
    """
    truth, known, places = np.asarray(labels), unit(vectors), np.asarray(own)
    which = np.arange(len(known)) if asked is None else asked
    precision = np.full((len(which), len(at)), np.nan)
    for rows, cosine in _cosines(known, known[which], places, places[which]):
        nearest = _nearest(cosine, max(at))
        allowed = np.isfinite(np.take_along_axis(cosine, nearest, axis=1))
        right = allowed & (truth[nearest] == truth[which[rows]][:, None])
        for column, k in enumerate(at):
            found = allowed[:, :k].sum(axis=1)
            hits = right[:, :k].sum(axis=1)
            precision[rows, column] = np.divide(hits, found, out=np.full(len(found), np.nan), where=found > 0)
    return precision


def chance_precision(labels: ArrayLike, own: ArrayLike) -> NDArray[np.float64]:
    """Return the precision a blind search would have for each tile as a question, (n,): its class's share elsewhere."""
    truth, place = (np.unique(np.asarray(values), return_inverse=True)[1].ravel() for values in (labels, own))
    both = np.zeros((place.max() + 1, truth.max() + 1))
    np.add.at(both, (place, truth), 1)
    same = both.sum(axis=0)[truth] - both[place, truth]
    others = len(truth) - both.sum(axis=1)[place]
    return np.asarray(np.divide(same, others, out=np.full(len(truth), np.nan), where=others > 0))


def class_distances(
    vectors: ArrayLike, labels: ArrayLike, own: ArrayLike, asked: NDArray[np.int64] | None = None
) -> NDArray[np.float64]:
    """Return each tile's mean distance to tiles of its class, and of other classes, (q, 2); NaN where there are none.

    Distances are between unit vectors, 0 to 2; tiles with the same `own` are left out. Parameters as
    `retrieval_precision`.
    """
    truth, known, places = np.asarray(labels), unit(vectors), np.asarray(own)
    which = np.arange(len(known)) if asked is None else asked
    found = np.full((len(which), 2), np.nan)
    for rows, cosine in _cosines(known, known[which], places, places[which]):
        allowed = np.isfinite(cosine)
        distance = np.sqrt(np.maximum(0.0, 2 - 2 * np.where(allowed, cosine, 1.0)))
        same = truth[which[rows]][:, None] == truth[None]
        for column, chosen in enumerate((allowed & same, allowed & ~same)):
            count = chosen.sum(axis=1)
            total = np.where(chosen, distance, 0.0).sum(axis=1)
            found[rows, column] = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
    return found


def _cosines(
    known: NDArray[np.float64],
    asked: NDArray[np.float64],
    known_groups: ArrayLike | None,
    asked_groups: ArrayLike | None,
) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Yield some rows of `asked` and their cosines to all of `known`, -inf where the group is the same."""
    if not len(known):
        raise DataError("no tiles to compare with")
    step = max(1, _BLOCK // len(known))
    for start in range(0, len(asked), step):
        rows = slice(start, min(start + step, len(asked)))
        cosine = asked[rows] @ known.T
        if known_groups is not None and asked_groups is not None:
            cosine[np.asarray(asked_groups)[rows][:, None] == np.asarray(known_groups)[None]] = -np.inf
        yield rows, cosine


def _nearest(cosine: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    """Return the columns of the k largest of each row, the largest first, the earlier one of equal ones."""
    k = min(k, cosine.shape[1])
    best = np.sort(np.argpartition(-cosine, k - 1, axis=1)[:, :k], axis=1)
    order = np.argsort(-np.take_along_axis(cosine, best, axis=1), axis=1, kind="stable")
    return np.asarray(np.take_along_axis(best, order, axis=1), np.int64)
