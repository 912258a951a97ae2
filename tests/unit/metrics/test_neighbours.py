"""Neighbours and retrieval against loops that do exactly what the words say."""

from __future__ import annotations

import numpy as np
import pytest

from napari_slnpredict.errors import DataError
from napari_slnpredict.metrics import neighbours
from napari_slnpredict.metrics.neighbours import (
    chance_precision,
    class_distances,
    knn_votes,
    retrieval_precision,
    unit,
)

RNG = np.random.default_rng(2)
VECTORS = RNG.normal(size=(60, 7))
LABELS = RNG.integers(0, 3, 60)
OWN = np.repeat(np.arange(15), 4)


def votes_in_words(query: np.ndarray, k: int, temperature: float | None) -> np.ndarray:
    """The weighted vote of lightly's benchmark (Wu et al. 2018), one query at a time."""
    cosine = VECTORS @ query / np.linalg.norm(VECTORS, axis=1) / np.linalg.norm(query)
    nearest = sorted(range(60), key=lambda k: -cosine[k])[:k]
    votes = np.zeros(3)
    for k in nearest:
        votes[LABELS[k]] += np.exp(cosine[k] / temperature) if temperature else 1
    return votes / votes.sum()


@pytest.mark.parametrize("temperature", [0.07, 0.1, None])
def test_votes_are_those_of_the_published_benchmark(temperature: float | None) -> None:
    """kNN accuracies could not be compared with anybody's."""
    queries = RNG.normal(size=(25, 7)) * 3
    found = knn_votes(VECTORS, LABELS, queries, 3, k=20, temperature=temperature)
    expected = np.stack([votes_in_words(query, 20, temperature) for query in queries])
    assert found == pytest.approx(expected, abs=1e-12)
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).all()


def test_tiles_of_the_own_group_never_vote() -> None:
    """A tile's neighbour on the same slide is nearly the same picture: every encoder would be perfect."""
    groups = np.arange(60) % 2
    labels = groups.copy()  # every other group is of the other class
    found = knn_votes(VECTORS, labels, VECTORS, 2, k=5, gallery_groups=groups, query_groups=groups)
    assert (found.argmax(axis=1) != labels).all()
    with pytest.raises(DataError, match="no neighbour of another group"):
        knn_votes(VECTORS, labels, VECTORS, 2, gallery_groups=np.zeros(60), query_groups=np.zeros(60))


def precision_in_words(row: int, k: int) -> float:
    others = [j for j in range(60) if OWN[j] != OWN[row]]
    cosine = {j: VECTORS[j] @ VECTORS[row] / np.linalg.norm(VECTORS[j]) for j in others}
    first = sorted(others, key=lambda j: -cosine[j])[:k]
    return float(np.mean([LABELS[j] == LABELS[row] for j in first]))


def test_retrieval_leaves_out_the_own_slide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Precision with the question's own slide in the gallery says how alike neighbours are, nothing else."""
    monkeypatch.setattr(neighbours, "_BLOCK", 60 * 7)  # in several blocks
    found = retrieval_precision(VECTORS, LABELS, OWN, (1, 5, 10))
    expected = [[precision_in_words(row, k) for k in (1, 5, 10)] for row in range(60)]
    assert found == pytest.approx(np.array(expected))
    asked = np.array([40, 3])
    assert np.array_equal(retrieval_precision(VECTORS, LABELS, OWN, asked=asked), found[asked])


def test_classes_far_apart_are_found_and_shuffled_ones_are_chance() -> None:
    """A planted structure must give 1, none must give the base rate."""
    planted = np.eye(3)[LABELS] + 0.01 * VECTORS[:, :3]
    assert retrieval_precision(planted, LABELS, OWN, (5,)).mean() == 1.0
    rng = np.random.default_rng(0)
    labels, own = rng.integers(0, 2, 600), np.arange(600)
    blind = retrieval_precision(rng.normal(size=(600, 8)), labels, own, (10,)).mean()
    assert blind == pytest.approx(chance_precision(labels, own).mean(), abs=0.03)


def test_chance_is_the_share_of_the_class_elsewhere() -> None:
    """A base rate that counts the own slide would be too high where slides hold one class."""
    expected = [np.mean([LABELS[j] == LABELS[row] for j in range(60) if OWN[j] != OWN[row]]) for row in range(60)]
    assert chance_precision(LABELS, OWN) == pytest.approx(np.array(expected))
    assert np.isnan(chance_precision([0, 1], [3, 3])).all()
    assert np.isnan(retrieval_precision(VECTORS[:2], [0, 1], [3, 3])).all()


def test_distances_within_and_between_classes() -> None:
    """The ratio by label must not count tiles of the own slide, or the tile itself at distance 0."""
    found = class_distances(VECTORS, LABELS, OWN)
    known = unit(VECTORS)
    for row in (0, 17, 59):
        distance = np.linalg.norm(known - known[row], axis=1)
        elsewhere, same = OWN[row] != OWN, LABELS[row] == LABELS
        assert found[row, 0] == pytest.approx(distance[elsewhere & same].mean())
        assert found[row, 1] == pytest.approx(distance[elsewhere & ~same].mean())


def test_a_vector_without_direction_is_no_nan() -> None:
    """A black tile may have a feature of zeros."""
    assert np.isfinite(unit(np.zeros((2, 3)))).all()
    assert np.isfinite(knn_votes(VECTORS, LABELS, np.zeros((1, 7)), 3)).all()
    with pytest.raises(DataError, match="no tiles"):
        knn_votes(np.empty((0, 3)), [], np.zeros((1, 3)), 2)
