"""Contrast across stains: what leaves the loss leaves it whole, and nothing else does."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from napari_slnpredict.encode.method import Batch
from napari_slnpredict.encode.simclr import nt_xent
from napari_slnpredict.encode.stain_invariant import StainInvariant, StainInvariantSettings, contrast_of_kept
from napari_slnpredict.errors import DataError

from .training_fakes import Tiles, stained


def a_batch(method: StainInvariant, count: int = 8, white: int = 0, seed: int = 0) -> Batch:
    """The first step's tiles, some of them glass."""
    data = Tiles()
    method.prepare(data.table, 32.0)
    rows = method.rows(0)[:count]
    tiles = torch.from_numpy(stained(count)).permute(0, 3, 1, 2).contiguous()
    tiles[:white] = 1.0
    return Batch(tiles, rows, 0, torch.Generator().manual_seed(seed))


def still(**changed: Any) -> StainInvariant:
    """A method whose views are not cropped or blurred, so that versions can be compared."""
    settings = StainInvariantSettings(batch=8, least_crop=1.0, same_geometry=True, **changed)
    return StainInvariant(settings)


def test_pairs_left_out_have_no_gradient_and_the_loss_is_that_of_the_others() -> None:
    """A failed tile would be a free positive: the network would be rewarded for nothing."""
    rng = torch.Generator().manual_seed(1)
    first, second = (torch.randn(6, 4, generator=rng, dtype=torch.float64, requires_grad=True) for _ in range(2))
    kept = torch.tensor([True, False, True, True, False, True])
    loss = contrast_of_kept(first, second, kept, 0.3)
    assert float(loss.detach()) == pytest.approx(float(nt_xent(first[kept], second[kept], 0.3).detach()), abs=1e-12)
    loss.backward()
    assert first.grad is not None
    assert (first.grad[~kept] == 0).all()
    assert (first.grad[kept].abs().sum(dim=1) > 0).all()


def test_a_batch_without_usable_pairs_costs_nothing_and_breaks_nothing() -> None:
    """A batch of glass would end a night's training."""
    first = torch.randn(4, 3, requires_grad=True)
    loss = contrast_of_kept(first, torch.randn(4, 3), torch.zeros(4, dtype=torch.bool), 0.2)
    loss.backward()
    assert float(loss.detach()) == 0
    method = still()
    batch = a_batch(method, white=8)
    assert torch.isfinite(method.views(batch)).all()
    assert not batch.notes["kept"].any()
    assert "100%" in method.notices()[0]


@pytest.mark.parametrize("normaliser", ["macenko", "vahadane", "reinhard"])
def test_the_target_s_own_pair_and_failed_tiles_leave_the_loss(normaliser: str) -> None:
    """An image contrasted with itself teaches nothing and looks like success."""
    method = still(normaliser=normaliser)
    batch = a_batch(method, white=2)
    both = method.views(batch)
    kept = batch.notes["kept"]
    assert not kept[:2].any()
    assert int(kept.sum()) == 5  # eight less two of glass less the target
    first, second = both.chunk(2)
    change = (first - second).abs().amax(dim=(1, 2, 3))
    lender = next(at for at in range(2, 8) if not kept[at])
    assert change[lender] < 0.02
    assert (change[kept] > 0.02).all()


def test_each_tile_can_have_its_own_target_and_the_reference_excludes_none() -> None:
    """One odd image would lend its stain to a whole batch."""
    method = still(target="reference")
    batch = a_batch(method)
    method.views(batch)
    assert batch.notes["kept"].all()
    each = still(target="each")
    batch = a_batch(each)
    each.views(batch)
    assert 4 <= int(batch.notes["kept"].sum()) <= 8
    with pytest.raises(DataError, match="batch, each, reference"):
        StainInvariant(StainInvariantSettings(target="nobody"))
    with pytest.raises(DataError, match="Reinhard"):
        StainInvariant(StainInvariantSettings(target="reference", normaliser="reinhard"))


def test_joint_training_adds_the_labels_of_both_versions_and_keeps_the_classifier() -> None:
    """`joint` would be `pretrain` under another name."""
    method = StainInvariant(StainInvariantSettings(batch=8, mode="joint"))
    batch = a_batch(method)
    heads = method.heads(6)
    method.views(batch)
    features = torch.randn(16, 6)
    out = heads(features)
    loss = method.loss(features, out, batch)
    labels = torch.from_numpy(np.tile(Tiles().label[batch.rows[:, 0]], 2))
    wanted = torch.nn.functional.cross_entropy(out["classes"], labels)
    assert loss.figures["labels"] == pytest.approx(float(wanted.detach()), abs=1e-6)
    contrast = loss.figures["contrast"]
    assert float(loss.total.detach()) == pytest.approx(contrast + float(wanted.detach()), abs=1e-5)
    assert set(method.kept(heads)) == {"classes.weight", "classes.bias"}
    alone = StainInvariant(StainInvariantSettings())
    alone.prepare(Tiles().table, 32.0)
    assert alone.kept(alone.heads(6)) == {}


@pytest.mark.parametrize("normaliser", ["macenko", "vahadane", "reinhard"])
def test_tiles_without_a_stain_are_counted_and_end_a_training_of_nothing_else(normaliser: str) -> None:
    """Blank, black or single-coloured tiles would be free positives; a blank cohort would train all night."""
    method = still(normaliser=normaliser)
    method.prepare(Tiles().table, 32.0)
    tiles = torch.from_numpy(stained(8)).permute(0, 3, 1, 2).contiguous()
    tiles[0], tiles[1], tiles[2] = 1.0, 0.0, torch.tensor([0.7, 0.4, 0.6])[:, None, None]
    tiles[3] = 1.0
    tiles[3, :, :6, :6] = torch.from_numpy(stained(1))[0, :6, :6].permute(2, 0, 1)  # 36 px of tissue
    batch = Batch(tiles, method.rows(0)[:8], 0, torch.Generator().manual_seed(0))
    seen = method.views(batch)
    assert torch.isfinite(seen).all()
    assert batch.notes["kept"].tolist()[:4] == [False] * 4
    assert int(batch.notes["kept"].sum()) == 3  # four with a stain, less the one that lends it
    assert "50%" in method.notices()[0]
    blank = Batch(torch.ones_like(tiles), method.rows(0)[:8], 0, torch.Generator().manual_seed(0))
    for _ in range(19):
        method.views(blank)
    with pytest.raises(DataError, match="no tile of the last 20 steps"):
        method.views(blank)
    method.views(batch)  # one good batch begins the count anew


def test_one_slide_s_own_stain_teaches_nothing() -> None:
    """A night on one slide would end with an encoder that is invariant to nothing."""
    table = Tiles().table
    alone = dataclasses.replace(table, group=np.zeros_like(table.group))
    with pytest.raises(DataError, match="target reference"):
        still().prepare(alone, 32.0)
    still(target="reference").prepare(alone, 32.0)
