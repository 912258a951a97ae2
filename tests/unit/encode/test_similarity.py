"""Similarity by place: the loss against plain numbers, pairs against their definition."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_slnpredict.encode.similarity import PairPlanner, Pairs, PairSpec, margin_loss, near_far
from napari_slnpredict.encode.tile_table import SlideFacts, TileTable
from napari_slnpredict.errors import DataError


def a_table(side: int = 20, slides: int = 2, stride_um: float = 128.0, seed: int = 0) -> TileTable:
    """Square slides of side x side tiles, cut into two pieces of tissue down the middle."""
    columns, rows = np.meshgrid(np.arange(side), np.arange(side))
    centres = (np.stack([columns.ravel(), rows.ravel()], axis=1) + 0.5) * stride_um
    n, k = side * side, slides
    slide = np.repeat(np.arange(k), n)
    return TileTable(
        slide, slide, np.zeros(n * k, np.int64), np.tile(centres, (k, 1)),
        np.tile(np.where(columns.ravel() < side // 2, 1, 2), k).astype(np.int32), np.full(n * k, -1),
        tuple(SlideFacts(f"s{i}", f"c{i}", f"p{i}") for i in range(k)),
    )  # fmt: skip


def unit(seed: int, b: int = 6, k: int = 5) -> torch.Tensor:
    """Random unit vectors in double precision."""
    rows = torch.randn(b, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(rows, dim=1)


def test_loss_equals_its_formula_written_out() -> None:
    """A sign the wrong way round would teach the opposite."""
    first, second = unit(0), unit(1)
    far = torch.tensor([True, False, True, True, False, False])
    distances = np.linalg.norm(first.numpy() - second.numpy(), axis=1)
    wanted = np.mean(
        [max(0.0, 1.3 - d) ** 2 if is_far else d**2 for d, is_far in zip(distances, far.tolist(), strict=True)]
    )
    assert float(margin_loss(first, second, far, 1.3)) == pytest.approx(wanted, abs=1e-6)


def test_equal_vectors_of_a_far_pair_have_a_finite_gradient() -> None:
    """A collapsed start would turn every weight into NaN at the first step."""
    first = unit(0).float().requires_grad_()
    margin_loss(first, unit(0).float(), torch.ones(6, dtype=torch.bool)).backward()
    assert first.grad is not None
    assert torch.isfinite(first.grad).all()


def test_random_directions_far_apart_cost_nothing_at_the_default_margin() -> None:
    """A margin beyond what random vectors reach drives all descriptors to two poles."""
    first, second = torch.eye(6), torch.eye(6).roll(1, 0)
    assert float(margin_loss(first, second, torch.ones(6, dtype=torch.bool))) == 0


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 1000))
def test_pairs_are_as_near_and_as_far_as_they_say(seed: int, step: int) -> None:
    """Overlapping near tiles would make the task pixel matching; far pairs on other slides teach stain."""
    table, spec = a_table(), PairSpec()
    pairs = PairPlanner(table, spec, 128.0).draw(32, seed, step)
    apart = table.centre_um[pairs.first] - table.centre_um[pairs.second]
    distance = np.hypot(*apart.T)
    assert (table.slide[pairs.first] == table.slide[pairs.second]).all()
    assert (distance[pairs.far] >= spec.far_um).all()
    near = ~pairs.far
    assert (distance[near] <= spec.near_um).all()
    assert (np.abs(apart[near]).max(axis=1) >= 127).all()
    assert (table.component[pairs.first] == table.component[pairs.second])[near].all()


def test_a_step_draws_the_same_pairs_every_time_and_another_step_others() -> None:
    """A resumed training would see other pairs than an uninterrupted one."""
    planner = PairPlanner(a_table(), PairSpec(), 128.0)
    again = PairPlanner(a_table(), PairSpec(), 128.0)
    np.testing.assert_array_equal(planner.draw(16, 1, 5).second, again.draw(16, 1, 5).second)
    assert (planner.draw(16, 1, 5).first != planner.draw(16, 1, 6).first).any()


def test_half_of_the_far_pairs_at_least_lie_on_one_piece_and_slides_count_equally() -> None:
    """Far would mean another piece of tissue; one huge slide would be all that is learnt from."""
    small, large = a_table(12, 1, 256.0), a_table(40, 1, 128.0)
    joined = TileTable(
        *(np.concatenate([getattr(small, name), getattr(large, name) + add]) for name, add in
          (("slide", 1), ("group", 1), ("site", 0), ("centre_um", 0), ("component", 0), ("label", 0))),
        (*small.slides, *large.slides),
    )  # fmt: skip
    pairs = PairPlanner(joined, PairSpec(), 128.0).draw(600, 0, 0)
    one_piece = joined.component[pairs.first] == joined.component[pairs.second]
    assert one_piece[pairs.far].mean() > 0.5
    assert 0.4 < (joined.slide[pairs.first] == 0).mean() < 0.6


def test_anchors_without_a_partner_are_counted_and_tissue_too_small_is_refused() -> None:
    """A biopsy without far pairs would silently teach that everything is alike."""
    spec = PairSpec(far_um=2400)
    pairs = PairPlanner(a_table(20, 1), spec, 128.0).draw(200, 0, 0)
    assert pairs.without_far > 0
    with pytest.raises(DataError, match="1700 um"):
        PairPlanner(a_table(6, 1), PairSpec(), 128.0)
    nowhere = a_table(4, 1)
    with pytest.raises(DataError, match="known place"):
        PairPlanner(
            TileTable(nowhere.slide, nowhere.group, nowhere.site, nowhere.centre_um * np.nan, nowhere.component,
                      nowhere.label, nowhere.slides),
            PairSpec(), 128.0,
        )  # fmt: skip


def test_near_far_is_one_half_for_chance_and_one_for_a_map_of_the_place() -> None:
    """A figure that cannot tell them apart would praise any encoder."""
    table = a_table(20, 1)
    pairs = PairPlanner(table, PairSpec(), 128.0).draw(400, 0, 0)
    place = (table.centre_um / 5000).astype(np.float32)
    auc, ratio = near_far(place, pairs)
    assert auc == 1
    assert ratio > 4
    chance = np.random.default_rng(0).standard_normal((len(table), 8)).astype(np.float32)
    assert near_far(chance, pairs)[0] == pytest.approx(0.5, abs=0.08)
    assert isinstance(pairs, Pairs)
