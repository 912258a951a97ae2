from __future__ import annotations

import numpy as np
import pytest

from napari_slnpredict.mil.evidence import Largest, WeightedMean, region_evidence, softmax

RANDOM = np.random.default_rng(11)
N, C = 300, 3
INSTANCES = RANDOM.normal(size=(N, C)) * 3
SCORES = {
    "usual": RANDOM.normal(size=N) * 2,
    "equal (mean pooling)": np.zeros(N),
    "one tile holds 98 %": np.r_[np.log(0.98 / 0.02 * (N - 1)), np.zeros(N - 1)],
    "one tile holds all but 1e-30": np.r_[70.0, np.zeros(N - 1)],
    "one tile holds all in float64": np.r_[np.zeros(N - 1), 900.0],
    "two tiles hold all": np.r_[500.0, np.zeros(N - 2), 500.0],
    "scores far from zero": RANDOM.normal(size=N) - 5e4,
}


def brute_force(scores: np.ndarray, instances: np.ndarray, left_out: object) -> np.ndarray:
    """The weighted mean of the rest, in extended precision, from nothing but the definition."""
    stay = np.ones(len(scores), bool)
    stay[left_out] = False
    s, logits = scores[stay].astype(np.longdouble), instances[stay].astype(np.longdouble)
    e = np.exp(s - s.max())
    return np.asarray((e[:, None] * logits).sum(0) / e.sum(), np.float64)


@pytest.mark.parametrize("scores", SCORES.values(), ids=SCORES)
def test_evidence_is_the_leave_one_out_change(scores: np.ndarray) -> None:
    """Evidence that is not L - L(-i) is attention in disguise; it must hold when one tile dominates, too."""
    tiles = WeightedMean(scores, INSTANCES)
    whole = brute_force(scores, INSTANCES, [])
    expected = np.stack([whole - brute_force(scores, INSTANCES, [i]) for i in range(N)])
    np.testing.assert_allclose(tiles.logits, whole, atol=1e-10)
    np.testing.assert_allclose(tiles.evidence(), expected, atol=1e-8)


def test_evidence_is_the_published_closed_form() -> None:
    """a_i (l_i - L) / (1 - a_i), and the parts a_i (l_i - L) sum to nothing."""
    tiles = WeightedMean(SCORES["usual"], INSTANCES)
    a, parts = tiles.attention[:, None], tiles.attention[:, None] * (INSTANCES - tiles.logits)
    np.testing.assert_allclose(tiles.evidence(), parts / (1 - a), atol=1e-12)
    np.testing.assert_allclose(parts.sum(0), 0, atol=1e-12)


@pytest.mark.parametrize("scores", SCORES.values(), ids=SCORES)
@pytest.mark.parametrize("size", [1, 2, 40, N - 1])
def test_regions(scores: np.ndarray, size: int) -> None:
    """Without a region, inside it, and the region's closed form must tell one story."""
    region = np.random.default_rng(size).choice(N, size, replace=False)
    tiles, rest = WeightedMean(scores, INSTANCES), np.setdiff1d(np.arange(N), region)
    without, inside = tiles.logits_without(region), tiles.logits_inside(region)
    np.testing.assert_allclose(without, brute_force(scores, INSTANCES, region), atol=1e-8)
    np.testing.assert_allclose(inside, brute_force(scores, INSTANCES, rest), atol=1e-8)
    np.testing.assert_allclose(region_evidence(tiles, region), tiles.logits - without, atol=1e-12)


def test_region_closed_form() -> None:
    """a_S (l_S - L) / (1 - a_S) is what the region adds."""
    tiles, region = WeightedMean(SCORES["usual"], INSTANCES), np.arange(30, 90)
    a = tiles.attention[region].sum()
    expected = a * (tiles.logits_inside(region) - tiles.logits) / (1 - a)
    np.testing.assert_allclose(region_evidence(tiles, region), expected, atol=1e-10)


def test_mean_pooling_is_the_special_case() -> None:
    """Equal weights: (l_i - L) / (n - 1)."""
    tiles = WeightedMean(np.zeros(N), INSTANCES)
    np.testing.assert_allclose(tiles.evidence(), (INSTANCES - INSTANCES.mean(0)) / (N - 1), atol=1e-12)


@pytest.mark.parametrize("tied", [False, True])
def test_max_pooling(tied: bool) -> None:
    """The second largest takes over; of two equal leaders neither is needed."""
    instances = INSTANCES.copy()
    if tied:
        instances[7] = instances[100] = instances.max(0) + 1
    tiles = Largest(instances)
    expected = np.stack([instances.max(0) - np.delete(instances, i, 0).max(0) for i in range(N)])
    np.testing.assert_allclose(tiles.evidence(), expected, atol=1e-12)
    np.testing.assert_array_equal(tiles.logits_without(np.arange(50)), instances[50:].max(0))
    np.testing.assert_array_equal(tiles.logits_inside(np.arange(50)), instances[:50].max(0))


@pytest.mark.parametrize("tiles", [WeightedMean(np.zeros(1), INSTANCES[:1]), Largest(INSTANCES[:1])])
def test_a_bag_of_one_has_no_without(tiles: WeightedMean | Largest) -> None:
    """Nothing is left without the only tile: a number there would be an invention."""
    assert np.isnan(tiles.evidence()).all()
    assert tiles.logits_without(np.array([0])) is None
    assert tiles.logits_inside(np.array([], np.int64)) is None
    np.testing.assert_array_equal(tiles.logits, INSTANCES[0])


def test_attention_alone_is_not_evidence() -> None:
    """The reason this module exists: on a random model attention hardly ranks tiles as their evidence does."""
    tiles = WeightedMean(SCORES["usual"], INSTANCES)
    attention, evidence = (np.argsort(np.argsort(values)) for values in (tiles.attention, tiles.evidence()[:, 0]))
    assert abs(np.corrcoef(attention, evidence)[0, 1]) < 0.3


def test_softmax_of_large_numbers() -> None:
    """Scores of a thousand must not overflow."""
    np.testing.assert_allclose(softmax(np.array([1000.0, 1000.0, -1000.0])), [0.5, 0.5, 0])
