"""What a head makes of the tiles seen so far: the map that grows, and clicks while it does."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from napari_slnpredict.events import run
from napari_slnpredict.mil.running import RunningAttention
from napari_slnpredict.mil.verdict import judge

from .conftest import CLOSED, head_of, make_bag


@pytest.mark.parametrize("kind", ["attention", "gated"])
def test_running_attention_ends_as_the_final_one(kind: str) -> None:
    """A map that jumps when embedding ends would have shown something else all the time."""
    head, bag = head_of(kind), make_bag(64)
    running = RunningAttention(head, 64)
    order = np.random.default_rng(0).permutation(64)
    first = running.update(order[:20], bag.features[order[:20]])
    assert np.isnan(first[order[20:]]).all()
    assert first[order[:20]].mean() == pytest.approx(1, abs=1e-5)
    last = running.update(order[20:], bag.features[order[20:]].astype(np.float16))
    np.testing.assert_allclose(last, run(judge(head, bag)).share(), rtol=5e-3)


def test_running_attention_skips_what_could_not_be_read() -> None:
    """A damaged tile is never painted."""
    running = RunningAttention(head_of("gated"), 4)
    features = make_bag(4).features
    features[1] = np.nan
    share = running.update(np.arange(4), features, np.array([False, False, True, False]))
    assert np.isnan(share).tolist() == [False, True, True, False]


@pytest.mark.parametrize("kind", ["mean", "max", "self-attention"])
def test_heads_without_early_maps_say_so(kind: str) -> None:
    """Half a self-attention is not an approximation of the whole: nothing is painted."""
    running = RunningAttention(head_of(kind), 4)
    assert not running.available
    assert np.isnan(running.update(np.arange(4), make_bag(4).features)).all()


@pytest.mark.parametrize("kind", CLOSED)
def test_a_click_so_far_is_the_verdict_on_those_tiles(kind: str) -> None:
    """A click during a run would say something else than the run that ends with these very tiles."""
    head, bag = head_of(kind), make_bag(30)
    verdict = run(judge(head, bag))
    running = RunningAttention(head, 30)
    running.take(np.arange(30), bag.features)
    for tile in (0, 7, 29):
        said = running.explain(bag.features[tile], tile)
        assert said.tiles == 30
        assert verdict.evidence is not None
        np.testing.assert_allclose(said.evidence, verdict.evidence[tile], rtol=1e-4, atol=1e-9)
        share = verdict.share()
        assert (said.share is None) == (share is None)
        if share is not None:
            assert said.share == pytest.approx(share[tile], rel=1e-4)


@pytest.mark.parametrize("kind", CLOSED)
def test_a_tile_not_seen_yet_is_counted_once_and_not_kept(kind: str) -> None:
    """A question would change the map, or a tile asked about twice would weigh double."""
    head, bag = head_of(kind), make_bag(30)
    running = RunningAttention(head, 30)
    running.take(np.arange(20), bag.features[:20])
    first = running.explain(bag.features[25], 25)
    again = running.explain(bag.features[25], 25)
    beside = running.explain(bag.features[25])
    assert first.tiles == again.tiles == beside.tiles == 21
    assert first.share == again.share == beside.share
    assert running.tiles_seen == 20
    running.take(np.array([25]), bag.features[25:26])
    assert running.explain(bag.features[25], 25).share == first.share


@pytest.mark.parametrize("kind", ["gated", "mean", "max", "self-attention"])
def test_never_a_bag_of_one(kind: str) -> None:
    """A lone tile would hold all attention and decide the slide, whatever it shows."""
    running = RunningAttention(head_of(kind), 4)
    said = running.explain(make_bag(4).features[2], 2)
    assert (said.tiles, said.share, said.evidence) == (1, None, None)


def test_self_attention_only_counts() -> None:
    """Part of a self-attention is no approximation of the whole: a share would be made up."""
    running = RunningAttention(head_of("self-attention"), 4)
    running.take(np.arange(3), make_bag(4).features[:3])
    said = running.explain(make_bag(4).features[3], 3)
    assert (said.tiles, said.share, said.evidence) == (4, None, None)


def test_asked_while_it_grows() -> None:
    """A click from another thread would see half an update: shares of some tiles and evidence of others."""
    head, bag = head_of("gated"), make_bag(400)
    running = RunningAttention(head, 400)
    wrong: list[object] = []

    def ask() -> None:
        while running.tiles_seen < 400:
            said = running.explain(bag.features[3], 3)
            if said.share is not None and not (np.isfinite(said.share) and np.isfinite(said.evidence).all()):
                wrong.append(said)

    thread = threading.Thread(target=ask)
    thread.start()
    for part in np.array_split(np.arange(400), 80):
        running.update(part, bag.features[part])
    thread.join()
    assert wrong == []
