from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_slnpredict.errors import BundleMismatch, Cancelled, DataError, ResourceError
from napari_slnpredict.events import Progress, Stage, Warn, run
from napari_slnpredict.mil import verdict as verdict_module
from napari_slnpredict.mil.verdict import judge, leave_out, leave_out_job, predict_inside

from .conftest import CLOSED, head_of, make_bag


def without(bag: Any, rows: list[int]) -> Any:
    """The bag with these tiles damaged: no head may look at them, all others keep their places."""
    fewer = make_bag(len(bag.features))
    fewer.features = bag.features
    fewer.damaged = np.isin(np.arange(len(bag.features)), rows)
    return fewer


def test_verdict_adds_up(kind: str) -> None:
    """Probabilities, attention and share are what their names say."""
    verdict = run(judge(head_of(kind), make_bag(90)))
    assert verdict.classes == ("a", "b", "c")
    assert verdict.probabilities.sum() == pytest.approx(1)
    np.testing.assert_allclose(verdict.probabilities, np.exp(verdict.logits) / np.exp(verdict.logits).sum())
    assert sorted(verdict.rank()) == list(range(1, 91))
    if kind == "max":
        assert verdict.attention is None
        assert verdict.share() is None
    else:
        assert verdict.attention.dtype == np.float64
        assert verdict.attention.sum() == pytest.approx(1)
        assert verdict.share().mean() == pytest.approx(1)
        assert verdict.rank()[verdict.attention.argmax()] == 1


@pytest.mark.parametrize("kind", CLOSED)
def test_leaving_out_is_judging_without(kind: str) -> None:
    """The instant answer to a click must be what judging the other tiles gives."""
    head, bag = head_of(kind), make_bag(60)
    verdict = run(judge(head, bag))
    for rows in ([0], [17], [3, 4, 5, 59]):
        again = run(judge(head, without(bag, rows)))
        np.testing.assert_allclose(leave_out(head, bag, verdict, rows), again.probabilities, atol=1e-6)
        np.testing.assert_allclose(run(leave_out_job(head, bag, verdict, rows)).logits, again.logits, atol=1e-6)
    single = run(leave_out_job(head, bag, verdict, 17))
    np.testing.assert_allclose(single.evidence, verdict.evidence[17], atol=1e-12)


def test_self_attention_answers_from_a_job() -> None:
    """Its leave-one-out is exact too; the tiles left keep their places relative to the whole tissue."""
    head, bag = head_of("self-attention"), make_bag(60)
    verdict = run(judge(head, bag))
    assert verdict.evidence is None
    assert leave_out(head, bag, verdict, 5) is None
    assert predict_inside(head, verdict, [5]) is None
    found = run(leave_out_job(head, bag, verdict, 5))
    # By the module itself, on a whole whose other tiles have not moved.
    import torch

    from napari_slnpredict.mil.positions import centre_on_components

    places = centre_on_components(bag.grid.centres_um, bag.grid.component)
    stay = np.arange(60) != 5
    module = head.module
    x = torch.cat([module.token, module.tokens(torch.from_numpy(bag.features[stay]), places[stay])])
    expected = module.head(module.norm(module.last.class_row(module.layers[0](x))[0])).numpy()
    np.testing.assert_allclose(found.logits, expected, atol=1e-5)
    np.testing.assert_allclose(found.evidence, verdict.logits - found.logits)


def test_damaged_tiles_are_not_looked_at(kind: str) -> None:
    """A tile that could not be read must neither sway the answer nor carry a number (promise R1)."""
    head, bag = head_of(kind), make_bag(50)
    bag.damaged[[3, 30]] = True
    clean = run(judge(head, bag))
    bag.features[[3, 30]] = np.nan
    verdict = run(judge(head, bag))
    np.testing.assert_array_equal(verdict.logits, clean.logits)
    assert not verdict.seen[[3, 30]].any()
    assert verdict.seen.sum() == 48
    assert set(verdict.rank()[[3, 30]]) == {49, 50}
    if verdict.attention is not None:
        assert (verdict.attention[[3, 30]] == 0).all()
    if verdict.evidence is not None:
        assert np.isnan(verdict.evidence[[3, 30]]).all()
        assert np.isfinite(verdict.evidence[verdict.seen]).all()
        np.testing.assert_allclose(leave_out(head, bag, verdict, [3]), verdict.probabilities)


def test_a_bag_of_one_has_an_answer_and_no_without(kind: str) -> None:
    """Nothing is left without the only tile; saying so beats a division by zero."""
    head, bag = head_of(kind), make_bag(1)
    verdict = run(judge(head, bag))
    assert np.isfinite(verdict.probabilities).all()
    assert leave_out(head, bag, verdict, 0) is None
    assert run(leave_out_job(head, bag, verdict, 0)) is None


@pytest.mark.parametrize("kind", CLOSED)
def test_inside_a_region(kind: str) -> None:
    """'Predict inside S' must be what a slide of only these tiles gives."""
    head, bag = head_of(kind), make_bag(40)
    verdict = run(judge(head, bag))
    alone = run(judge(head, without(bag, list(range(12, 40)))))
    np.testing.assert_allclose(predict_inside(head, verdict, np.arange(12)), alone.probabilities, atol=1e-6)
    assert predict_inside(head, verdict, []) is None


def test_no_usable_tile_is_an_error() -> None:
    """A softmax over nothing is no answer."""
    bag = make_bag(3)
    bag.damaged[:] = True
    with pytest.raises(DataError):
        run(judge(head_of("gated"), bag))


def test_features_that_are_no_numbers_are_named(kind: str) -> None:
    """A NaN would spread to every attention weight; the tile must be found again (promise R13)."""
    bag = make_bag(5000)
    bag.features[4321, 3] = np.inf
    with pytest.raises(DataError, match="4321"):
        run(judge(head_of(kind), bag))


def test_features_of_another_encoder_or_length_are_refused() -> None:
    """Numbers of one encoder mean nothing to a head trained on another's."""
    from dataclasses import replace

    with pytest.raises(BundleMismatch):
        run(judge(replace(head_of("gated"), encoder_digest="f" * 64), make_bag(5)))
    with pytest.raises(BundleMismatch, match="12"):
        run(judge(head_of("gated"), make_bag(5, dim=13)))


def test_temperature_softens_probabilities_only() -> None:
    """Calibration must not change what wins or what a tile adds."""
    from dataclasses import replace

    head, bag = head_of("gated"), make_bag(30)
    sharp, soft = run(judge(head, bag)), run(judge(replace(head, temperature=3.0), bag))
    np.testing.assert_array_equal(sharp.logits, soft.logits)
    assert soft.probabilities.max() < sharp.probabilities.max()
    expected = np.exp(soft.logits / 3) / np.exp(soft.logits / 3).sum()
    np.testing.assert_allclose(soft.probabilities, expected)


@pytest.mark.parametrize("kind", ["gated", "self-attention"])
def test_judging_tells_and_stops(kind: str) -> None:
    """A stage, progress, and an end when asked between chunks."""
    events: list[object] = []
    run(judge(head_of(kind), make_bag(30)), events.append)
    assert isinstance(events[0], Stage)
    assert any(isinstance(event, Progress) for event in events) or kind == "self-attention"
    with pytest.raises(Cancelled):
        run(judge(head_of("gated"), make_bag(30), cancelled=lambda: True))


def test_long_self_attention_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes of exact attention must be said before, not noticed after."""
    monkeypatch.setattr(verdict_module, "MANY_TILES", 10)
    events: list[object] = []
    run(judge(head_of("self-attention"), make_bag(30)), events.append)
    assert any(isinstance(event, Warn) and "self-attention" in event.message for event in events)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_no_memory_is_an_answer(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Out of memory must end as a sentence, other faults as themselves."""
    head = head_of("gated")

    def fail(*args: object) -> None:
        raise error

    monkeypatch.setattr(head.module, "instances", fail)
    with pytest.raises(ResourceError, match="memory"):
        run(judge(head, make_bag(5)))
    monkeypatch.setattr(head.module, "instances", lambda *args: (_ for _ in ()).throw(RuntimeError("other")))
    with pytest.raises(RuntimeError, match="other"):
        run(judge(head, make_bag(5)))


def test_a_full_accelerator_falls_back_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slide too large for the card still gets its answer, and the reader of it the reason."""
    from dataclasses import replace

    real, head = verdict_module._weigh, replace(head_of("gated"), device="cuda:0")

    def full(head: Any, tiles: Any, cancelled: Any) -> Any:
        if head.device != "cpu":
            raise ResourceError("not enough memory")
        return (yield from real(head, tiles, cancelled))

    monkeypatch.setattr(verdict_module, "_weigh", full)
    events: list[object] = []
    assert run(judge(head, make_bag(5)), events.append).probabilities.sum() == pytest.approx(1)
    assert any(isinstance(event, Warn) and "CPU" in event.message for event in events)
