"""What a bundle says of its own limits reaches the verdict, and nothing else is believed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_slnpredict.bundles.bundle import tensor_bytes
from napari_slnpredict.errors import BundleMismatch
from napari_slnpredict.events import run
from napari_slnpredict.metrics.conformal import fit_conformal
from napari_slnpredict.mil.domain import fit_domain
from napari_slnpredict.mil.doubt import DOMAIN, calibration_entry
from napari_slnpredict.mil.head import load_head
from napari_slnpredict.mil.verdict import judge

from .conftest import make_bag
from .test_head import save

CLASSES = ("a", "b", "c")


def calibration(coverage: float = 0.9) -> dict[str, Any]:
    random = np.random.default_rng(1)
    labels = random.integers(0, 3, 300)
    said = random.dirichlet(np.ones(3), 300) + np.eye(3)[labels]
    return calibration_entry(1.5, fit_conformal(said / 2, labels, coverage), CLASSES)


def domain_file() -> dict[str, bytes]:
    bags = [np.random.default_rng(seed).normal(size=(40, 12)).astype(np.float32) for seed in range(12)]
    return {DOMAIN: tensor_bytes(fit_domain(bags, [str(i) for i in range(12)]).tensors())}


def test_a_calibrated_bundle_says_its_set_and_its_place(tmp_path: Path) -> None:
    """A calibration that is stored and never shown is a false promise."""
    head = load_head(save(tmp_path, calibration=calibration(), extra_files=domain_file()))
    bag = make_bag(60)
    verdict = run(judge(head, bag))
    held = head.doubt.sets.sets(verdict.probabilities)
    assert verdict.conformal == [name for name, inside in zip(CLASSES, held, strict=True) if inside]
    assert verdict.out_of_domain == head.doubt.domain.place(bag.features)
    bag.features = np.asarray(bag.features) + 50
    assert not run(judge(head, bag)).out_of_domain["inside"]


def test_damaged_tiles_do_not_make_a_slide_strange(tmp_path: Path) -> None:
    """Zeros in place of features that could not be read would put a good slide outside."""
    head = load_head(save(tmp_path, extra_files=domain_file()))
    bag = make_bag(60)
    bag.damaged = np.arange(60) < 30
    whole = run(judge(head, bag)).out_of_domain
    bag.features = np.where(bag.damaged[:, None], 1e4, bag.features).astype(np.float32)
    assert run(judge(head, bag)).out_of_domain == whole


def test_without_calibration_nothing_is_said(tmp_path: Path) -> None:
    """A model that was not calibrated would look as if it were."""
    verdict = run(judge(load_head(save(tmp_path, calibration={"temperature": 2.0})), make_bag(10)))
    assert verdict.conformal is None
    assert verdict.out_of_domain is None


@pytest.mark.parametrize(
    "change",
    [
        {"coverage": 1.0},
        {"coverage": "high"},
        {"coverage": None},
        {"least": {"a": 0.1, "b": 0.1}},
        {"least": {"a": 0.1, "b": 0.1, "d": 0.1}},
        {"least": {"a": 0.1, "b": 0.1, "c": 1.5}},
        {"least": [0.1, 0.1, 0.1]},
        {"cases": {"a": -1, "b": 3, "c": 4}},
        {"cases": {"a": True, "b": 3, "c": 4}},
    ],
    ids=repr,
)
def test_thresholds_that_promise_nothing_are_refused(change: dict[str, Any], tmp_path: Path) -> None:
    """A stranger's bundle would call every answer sure."""
    with pytest.raises(BundleMismatch):
        load_head(save(tmp_path, calibration=calibration() | change))
