from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_slnpredict.bundles.bundle import Bundle, save_bundle
from napari_slnpredict.errors import BundleMismatch, SlnPredictError
from napari_slnpredict.events import run
from napari_slnpredict.mil.head import CLASS_NAMES, head_parts, load_head
from napari_slnpredict.mil.verdict import judge

from .conftest import head_of, make_bag


def save(folder: Path, aggregator: str = "gated", **changes: Any) -> Bundle:
    model, tensors = head_parts(head_of(aggregator), aggregator)
    tensors.update(changes.pop("tensors", {}))
    for name in changes.pop("drop", ()):
        del tensors[name]
    model["parameters"].update(changes.pop("parameters", {}))
    fields: dict[str, Any] = {
        "name": "test", "kind": "mil", "model": model, "tensors": tensors, "card": "# Test",
        "task": {"name": "t", "classes": ["a", "b", "c"], "positive": "a", "ordered": False},
        "encoder": {"name": "fake", "digest": "e" * 64}, "licence": "BSD-3-Clause", **changes,
    }  # fmt: skip
    return save_bundle(folder / "test", **fields)


def test_saved_and_loaded_is_the_same_head(kind: str, tmp_path: Path) -> None:
    """What was trained is what the viewer opens, to the bit."""
    bag = make_bag(40)
    loaded = load_head(save(tmp_path, kind))
    np.testing.assert_array_equal(run(judge(loaded, bag)).logits, run(judge(head_of(kind), bag)).logits)
    assert (loaded.temperature, loaded.encoder_digest) == (1.0, "e" * 64)
    assert not any(p.requires_grad for p in loaded.module.parameters())


def test_temperature_comes_from_the_calibration(tmp_path: Path) -> None:
    """A calibration that is stored and not used is a false promise."""
    assert load_head(save(tmp_path, calibration={"temperature": 1.7})).temperature == 1.7


@pytest.mark.parametrize(
    "changes",
    [
        {"task": {"name": "t", "classes": ["b", "a", "c"]}},
        {"task": {"name": "t", "classes": ["a", "b"]}},
        {"task": {"name": "t", "classes": ["a"]}},
        {"drop": ["head.bias"]},
        {"drop": [CLASS_NAMES]},
        {"tensors": {"extra": np.zeros(3, np.float32)}},
        {"tensors": {"head.bias": np.zeros(4, np.float32)}},
        {"tensors": {"head.bias": np.zeros(3, np.int32)}},
        {"tensors": {CLASS_NAMES: np.frombuffer(b"not json", np.uint8)}},
        {"tensors": {CLASS_NAMES: np.frombuffer(json.dumps({"a": 1}).encode(), np.uint8)}},
        {"tensors": {"embed.0.scale": np.zeros(12, np.float32)}},
        {"parameters": {"hidden": 17}},
        {"parameters": {"dim": 0}},
        {"parameters": {"dim": 1 << 40}},
        {"parameters": {"unknown": 1}},
        {"model": {"type": "transformer", "parameters": {"dim": 12}}},
        {"calibration": {"temperature": 0}},
        {"calibration": {"temperature": "warm"}},
        {"calibration": {"temperature": 1e9}},
        {"kind": "anomaly"},
    ],
    ids=repr,
)
def test_what_does_not_belong_together_is_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    """Anything loaded half leaves the rest random, or turns the answer round (promise R8)."""
    with pytest.raises(BundleMismatch):
        load_head(save(tmp_path, **changes))


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    """One NaN weight makes every answer NaN."""
    bundle = save(tmp_path)
    tensors = {**bundle.tensors(), "head.bias": np.array([0, np.nan, 0], np.float32)}

    class Broken:
        def __getattr__(self, name: str) -> Any:
            return (lambda: tensors) if name == "tensors" else getattr(bundle, name)

    with pytest.raises(SlnPredictError, match="finite"):
        load_head(Broken())  # type: ignore[arg-type]


def test_bundle_refuses_features_of_another_encoder(tmp_path: Path) -> None:
    """The digest in the bundle must reach the check."""
    bag = replace(make_bag(4), encoder_digest="0" * 64)
    with pytest.raises(BundleMismatch):
        run(judge(load_head(save(tmp_path)), bag))
