from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from napari_slnpredict.errors import BundleMismatch
from napari_slnpredict.events import Progress, run
from napari_slnpredict.mil import tiles as tiles_module
from napari_slnpredict.mil.aggregators import AGGREGATORS, build_aggregator
from napari_slnpredict.mil.tiles import bag_tiles

from .conftest import EVERY, SMALL, make_bag, make_module


def weights_of(module: Any) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy().astype(np.float64) for name, value in module.state_dict().items()}


def linear(w: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def reference(kind: str, w: dict[str, np.ndarray], features: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Every aggregator once more, in float64 numpy, as its paper writes it."""
    x = (features - w["embed.0.mean"]) / w["embed.0.scale"]
    z = np.maximum(linear(w, "embed.1", x), 0)
    if kind == "self-attention":
        return self_attention(w, z, places)
    if kind == "max":
        return linear(w, "head", z).max(0)
    s = np.zeros(len(z))
    if kind != "mean":
        gate = 1 / (1 + np.exp(-linear(w, "gate", z))) if kind in ("gated", "additive") else 1.0
        s = linear(w, "weight", np.tanh(linear(w, "value", z)) * gate)[:, 0]
    a = softmax(s)
    if kind == "additive":
        parts = linear(w, "head.out", np.maximum(linear(w, "head.inner", a[:, None] * z), 0))
        return parts.sum(0) + w["head.bias"]
    return linear(w, "head", a @ z)


def layer_norm(w: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    y = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    return y * w[f"{name}.weight"] + w[f"{name}.bias"]


def self_attention(w: dict[str, np.ndarray], z: np.ndarray, places: np.ndarray, heads: int = 4) -> np.ndarray:
    from scipy.special import erf

    waves = 256.0 * 256.0 ** (np.arange(16) / 15)
    angles = places[:, :, None] * 2 * np.pi / waves
    codes = np.concatenate([np.sin(angles), np.cos(angles)], 2).reshape(len(z), -1)
    x = np.concatenate([w["token"], z + w["positions.scale"] * linear(w, "positions.project", codes)])
    for layer in ("layers.0", "last"):  # all rows in both: what only the class row computes must not differ
        y = layer_norm(w, f"{layer}.before_attention", x)
        q, k, v = (linear(w, f"{layer}.{part}", y).reshape(len(y), heads, -1) for part in ("query", "key", "value"))
        weights = softmax(np.einsum("qhd,khd->hqk", q, k) / np.sqrt(q.shape[2]))
        x = x + linear(w, f"{layer}.out", np.einsum("hqk,khd->qhd", weights, v).reshape(len(y), -1))
        y = linear(w, f"{layer}.mlp.0", layer_norm(w, f"{layer}.before_mlp", x))
        x = x + linear(w, f"{layer}.mlp.2", y * (1 + erf(y / np.sqrt(2))) / 2)
    return linear(w, "head", layer_norm(w, "norm", x[:1]))[0]


def centred(bag: Any) -> np.ndarray:
    centres, piece = bag.grid.centres_um, bag.grid.component
    means = np.stack([centres[piece == p].mean(0) for p in (1, 2)])
    return np.asarray(centres - means[piece - 1])


def forward(module: Any, bag: Any) -> Any:
    with torch.no_grad():
        return module(torch.from_numpy(bag.features), bag.grid.centres_um, bag.grid.component)


def weigh(module: Any, bag: Any) -> Any:
    return run(module.weigh(bag_tiles(bag.features, bag.grid.centres_um, bag.grid.component)))


@pytest.mark.parametrize("n", [2, 40, 300])
def test_forward_is_the_paper(kind: str, n: int) -> None:
    """Weights copied into a plain float64 network must give the same logits."""
    module, bag = make_module(kind), make_bag(n)
    module.embed[0].fit(np.linspace(-1, 1, 12), np.linspace(0.5, 2, 12))
    expected = reference(kind, weights_of(module), bag.features.astype(np.float64), centred(bag))
    np.testing.assert_allclose(forward(module, bag).logits.numpy(), expected, atol=1e-5)


def test_chunked_inference_is_the_forward_pass(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is trained must be what is used: chunks must not change logits or attention."""
    import napari_slnpredict.mil.self_attention as sa

    monkeypatch.setattr(tiles_module.BagTiles.chunks, "__defaults__", (37,))
    monkeypatch.setattr(sa, "PAIRS_AT_ONCE", 1)
    module, bag = make_module(kind), make_bag(301)
    whole, chunked = forward(module, bag), weigh(module, bag)
    np.testing.assert_allclose(chunked.logits, whole.logits.numpy(), atol=1e-5)
    if whole.attention is not None:
        np.testing.assert_allclose(chunked.attention, whole.attention.numpy(), rtol=1e-4, atol=1e-8)
        assert chunked.attention.sum() == pytest.approx(1, abs=1e-12)


def test_order_of_tiles_does_not_count(kind: str) -> None:
    """A slide read in another order is the same slide."""
    module, bag = make_module(kind), make_bag(120)
    order = np.random.default_rng(1).permutation(120)
    places = bag.grid.centres_um[order], bag.grid.component[order]
    again = run(module.weigh(bag_tiles(bag.features[order], *places)))
    found = weigh(module, bag)
    np.testing.assert_allclose(again.logits, found.logits, atol=1e-5)
    if found.attention is not None:
        np.testing.assert_allclose(again.attention, found.attention[order], rtol=1e-3, atol=1e-7)


def test_place_on_the_glass_does_not_count(kind: str) -> None:
    """Where on the glass the section was put says nothing about the patient."""
    module, bag = make_module(kind), make_bag(120)
    elsewhere = bag.grid.centres_um + np.array([31_000.0, -250.0])
    moved = run(module.weigh(bag_tiles(bag.features, elsewhere, bag.grid.component)))
    np.testing.assert_allclose(moved.logits, weigh(module, bag).logits, atol=1e-5)


def test_places_do_count_for_self_attention() -> None:
    """Positions that reach no logit would make every relation between tiles invisible."""
    module, bag = make_module("self-attention"), make_bag(120)
    shuffled = np.random.default_rng(0).permutation(bag.grid.centres_um)
    moved = run(module.weigh(bag_tiles(bag.features, shuffled, bag.grid.component)))
    assert np.abs(moved.logits - weigh(module, bag).logits).max() > 1e-3


def test_places_start_at_nothing() -> None:
    """A head learns from tiles first; places count once they help (scale initialised at 0)."""
    module = build_aggregator("self-attention", SMALL["self-attention"], 12, 2)
    assert module.positions.scale.tolist() == [0.0]
    assert build_aggregator("self-attention", {"positions": "none", "width": 16}, 12, 2).positions is None


def test_a_bag_of_one(kind: str) -> None:
    """A biopsy of one tile is a slide."""
    module, bag = make_module(kind), make_bag(1)
    found = weigh(module, bag)
    assert np.isfinite(found.logits).all()
    np.testing.assert_allclose(found.logits, forward(module, bag).logits.numpy(), atol=1e-5)
    assert found.attention is None or found.attention.tolist() == [1.0]


@pytest.mark.parametrize("kind", ["mean", "max", "attention", "gated", "additive"])
def test_a_bag_twice_is_the_same_bag(kind: str) -> None:
    """Every tile doubled must not change a pooled logit."""
    module, bag = make_module(kind), make_bag(60)
    doubled = run(module.weigh(bag_tiles(np.concatenate([bag.features, bag.features]))))
    np.testing.assert_allclose(doubled.logits, weigh(module, bag).logits, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_features_of_any_float_type(kind: str, dtype: type) -> None:
    """Features on disk are half precision; arithmetic is not."""
    module, bag = make_module(kind), make_bag(50)
    bag.features = bag.features.astype(np.float16).astype(np.float32)
    expected = weigh(module, bag).logits
    bag.features = bag.features.astype(dtype)
    np.testing.assert_allclose(weigh(module, bag).logits, expected, atol=1e-6)


def test_memory_mapped_features(kind: str, tmp_path: Any) -> None:
    """A read-only map must be neither written to nor copied whole, and torch must not warn about it."""
    module, bag = make_module(kind), make_bag(50)
    expected = weigh(module, bag).logits
    stored = np.memmap(tmp_path / "features", np.float32, "w+", shape=bag.features.shape)
    stored[:] = bag.features
    stored.flush()
    bag.features = np.memmap(tmp_path / "features", np.float32, "r", shape=stored.shape)
    np.testing.assert_allclose(weigh(module, bag).logits, expected, atol=1e-6)


def test_additive_parts_sum_to_the_logit() -> None:
    """A tile's contribution must be its share of the very logit that is shown."""
    module, bag = make_module("additive"), make_bag(80)
    found = weigh(module, bag)
    bias = module.head.bias.detach().double().numpy()
    parts = found.attention[:, None] * (found.closed_form.instance_logits - bias)
    np.testing.assert_allclose(parts.sum(0) + bias, found.logits, atol=1e-9)


def test_centred_logits_keep_the_probabilities(kind: str) -> None:
    """Centring removes what a softmax cannot see, nothing else; a maximum is left alone."""
    module, bag = make_module(kind), make_bag(50)
    before = weigh(module, bag).logits
    module.centre_logits()
    after = weigh(module, bag).logits
    np.testing.assert_allclose(after - after.mean(), before - before.mean(), atol=1e-5)
    assert kind == "max" or abs(after.sum()) < 1e-5


def test_progress_and_a_stop_between_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes of self-attention without an event can be neither shown nor cancelled."""
    import napari_slnpredict.mil.self_attention as sa

    monkeypatch.setattr(sa, "PAIRS_AT_ONCE", 1)
    monkeypatch.setattr(sa, "Throttle", lambda: lambda: True)
    bag = make_bag(700)
    job = make_module("self-attention").weigh(bag_tiles(bag.features, bag.grid.centres_um, bag.grid.component))
    events = [next(job) for _ in range(6)]
    job.close()
    assert all(isinstance(event, Progress) for event in events)


def test_large_scores_do_not_overflow() -> None:
    """A confident model in half precision on the way to NaN."""
    module, bag = make_module("gated"), make_bag(30)
    with torch.no_grad():
        module.weight.weight.mul_(1e4)
    assert np.isfinite(weigh(module, bag).logits).all()
    assert np.isfinite(forward(module, bag).logits.numpy()).all()


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("gated", {"hiden": 3}),
        ("gated", {"hidden": -1}),
        ("gated", {"hidden": 10**9}),
        ("gated", {"hidden": 3.5}),
        ("gated", {"hidden": True}),
        ("gated", {"dropout": float("nan")}),
        ("self-attention", {"positions": "learnt"}),
        ("self-attention", {"width": 30, "heads": 8}),
        ("transformer", {}),
    ],
)
def test_parameters_are_read_strictly(kind: str, parameters: dict[str, Any]) -> None:
    """A misspelt or hostile parameter must not build another network than the one that was trained."""
    with pytest.raises(BundleMismatch):
        build_aggregator(kind, parameters, 12, 2)


def test_whole_numbers_may_stand_for_fractions() -> None:
    """JSON writers drop the point of 0.0."""
    assert build_aggregator("gated", {"dropout": 0}, 4, 2).options.dropout == 0.0


def test_every_aggregator_is_tested_here() -> None:
    """A new line in the table without a reference is a claim without a test."""
    assert set(AGGREGATORS) == set(EVERY)


def test_the_table_is_light() -> None:
    """The window lists aggregators and holds verdicts without waiting for torch."""
    code = "import napari_slnpredict.mil.verdict, napari_slnpredict.mil.aggregators, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"
