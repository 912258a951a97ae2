"""Several heads that answer together: the mean of their logits, in every way it can be asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_slnpredict.bundles.bundle import save_bundle
from napari_slnpredict.errors import BundleMismatch
from napari_slnpredict.events import run
from napari_slnpredict.mil.ensemble import Ensemble
from napari_slnpredict.mil.head import Head, head_parts, load_head, make_head
from napari_slnpredict.mil.running import RunningAttention
from napari_slnpredict.mil.verdict import judge, leave_out_job, predict_inside

from .conftest import CLOSED, head_of, make_bag, make_module


def together(kind: str, count: int = 3) -> Head:
    return make_head(Ensemble([make_module(kind, seed=seed) for seed in range(count)]), ("a", "b", "c"))


def alone(kind: str, count: int = 3) -> list[Any]:
    return [run(judge(head_of(kind, seed=seed), make_bag(50))) for seed in range(count)]


def test_it_says_the_mean_of_its_members(kind: str) -> None:
    """An ensemble would answer like one of its members, or like none."""
    verdict, members = run(judge(together(kind), make_bag(50))), alone(kind)
    np.testing.assert_allclose(verdict.logits, np.mean([one.logits for one in members], axis=0), atol=1e-6)
    if kind == "max":
        assert verdict.attention is None
    else:
        np.testing.assert_allclose(verdict.attention, np.mean([one.attention for one in members], axis=0), atol=1e-7)
    if kind in CLOSED:
        np.testing.assert_allclose(verdict.evidence, np.mean([one.evidence for one in members], axis=0), atol=1e-6)
        spread = np.std([one.evidence for one in members], axis=0)
        np.testing.assert_allclose(verdict.tiles.disagreement(), spread, atol=1e-6)


def test_leaving_out_is_the_mean_of_leaving_out(kind: str) -> None:
    """The evidence of an ensemble would be a mean of something else."""
    head, bag = together(kind), make_bag(50)
    verdict = run(judge(head, bag))
    left = run(leave_out_job(head, bag, verdict, [3, 17])).logits
    members = [head_of(kind, seed=seed) for seed in range(3)]
    each = [run(leave_out_job(one, bag, run(judge(one, bag)), [3, 17])).logits for one in members]
    np.testing.assert_allclose(left, np.mean(each, axis=0), atol=1e-6)
    if kind in CLOSED:
        others = [i for i in range(50) if i not in (3, 17)]
        np.testing.assert_allclose(predict_inside(head, verdict, others), head.probabilities(left), atol=1e-6)


def test_the_map_while_it_runs_ends_as_the_final_one() -> None:
    """The map would jump at the end of a run."""
    head, bag = together("gated"), make_bag(50)
    running = RunningAttention(head, 50)
    assert running.available
    for part in (np.arange(30, 50), np.arange(30)):
        running.take(part, bag.features[part])
    np.testing.assert_allclose(running.share(), run(judge(head, bag)).share(), rtol=1e-5)
    told = running.explain(bag.features[7], tile=7)
    np.testing.assert_allclose(told.evidence, run(judge(head, bag)).evidence[7], atol=1e-6)
    assert told.share == pytest.approx(running.share()[7], rel=1e-5)


def saved(folder: Path, head: Head, kind: str, **changes: Any) -> Any:
    model, tensors = head_parts(head, kind)
    return save_bundle(
        folder / "ensemble", name="ensemble", kind="mil", model={**model, **changes}, tensors=tensors, card="# E",
        task={"name": "t", "classes": ["a", "b", "c"]}, encoder={"name": "fake", "digest": "e" * 64},
    )  # fmt: skip


def test_it_is_stored_and_comes_back(kind: str, tmp_path: Path) -> None:
    """The viewer would open another model than the one that was judged."""
    head = together(kind)
    loaded = load_head(saved(tmp_path, head, kind))
    bag = make_bag(50)
    np.testing.assert_array_equal(run(judge(loaded, bag)).logits, run(judge(head, bag)).logits)


@pytest.mark.parametrize("members", [0, 2, 65, "3", True])
def test_a_wrong_number_of_members_is_refused(members: Any, tmp_path: Path) -> None:
    """Members would stay random, or a stranger's bundle fill the memory."""
    with pytest.raises(BundleMismatch):
        load_head(saved(tmp_path, together("mean"), "mean", members=members))


def test_the_interval_is_that_of_one_more_member() -> None:
    """Members that agree would look as doubtful as members that do not, or the other way round."""
    bag = make_bag(50)
    verdict = run(judge(together("gated", 5), bag))
    members = alone("gated", 5)
    for i, name in enumerate(verdict.classes):
        low, high = verdict.interval[name]
        assert low < verdict.probabilities[i] < high
        p = np.array([one.probabilities[i] for one in members])
        odds = np.log(p / (1 - p))
        own = np.log(verdict.probabilities[i] / (1 - verdict.probabilities[i]))
        half = 2.7764451 * odds.std(ddof=1) * np.sqrt(1.2)
        assert low == pytest.approx(1 / (1 + np.exp(half - own)), rel=1e-3)
    same = make_head(Ensemble([make_module("gated") for _ in range(4)]), ("a", "b", "c"))
    found = run(judge(same, bag))
    assert found.interval["a"] == pytest.approx((found.probabilities[0],) * 2)
    assert run(judge(together("gated", 2), bag)).interval is None
    assert run(judge(head_of("gated"), bag)).interval is None
