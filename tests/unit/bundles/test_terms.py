"""Licences that go on: a model trained on features stands under the terms that came with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_slnpredict.bundles.bundle import load_bundle, save_bundle
from napari_slnpredict.bundles.terms import inherit, terms_of

UNI = {
    "name": "uni", "digest": "u" * 64, "licence": "CC-BY-NC-ND-4.0", "covers_trained": True,
    "notice": "for research only, and so are models trained on its features",
}  # fmt: skip
OPEN = {"name": "hne-small", "digest": "h" * 64, "licence": "Apache-2.0", "notice": "", "covers_trained": False}


def test_a_model_trained_on_covered_features_inherits_the_licence(tmp_path: Path) -> None:
    """A head trained on UNI's features would be passed on as BSD."""
    save_bundle(
        tmp_path / "m", name="m", kind="mil", model={"type": "gated", "parameters": {}}, card="# M\n",
        tensors={"w": np.zeros(2, np.float32)}, task={"classes": ["a", "b"]}, encoder=UNI, licence="BSD-3-Clause",
        notice="Demonstration.",
    )  # fmt: skip
    bundle = load_bundle(tmp_path / "m")
    assert bundle.licence == "CC-BY-NC-ND-4.0"
    assert bundle.notice.startswith("Demonstration. Encoder uni (CC-BY-NC-ND-4.0): for research only")
    assert 'license: "cc-by-nc-nd-4.0"' in bundle.card
    assert bundle.encoder["licence"] == "CC-BY-NC-ND-4.0"


@pytest.mark.parametrize(
    ("encoder", "licence", "notice"),
    [
        ({}, "BSD-3-Clause", "Mine."),
        ({"name": "x", "digest": "d"}, "BSD-3-Clause", "Mine."),
        (OPEN, "BSD-3-Clause", "Mine."),
        ({**UNI, "covers_trained": False}, "BSD-3-Clause", f"Mine. Encoder uni (CC-BY-NC-ND-4.0): {UNI['notice']}."),
        (UNI, "CC-BY-NC-ND-4.0", f"Mine. Encoder uni (CC-BY-NC-ND-4.0): {UNI['notice']}."),
        ({**UNI, "licence": ""}, "BSD-3-Clause", f"Mine. Encoder uni: {UNI['notice']}."),
    ],
)
def test_what_goes_on(encoder: dict[str, object], licence: str, notice: str) -> None:
    """Terms would be invented where there are none, or lost where there are."""
    assert inherit(encoder, "BSD-3-Clause", "Mine.") == (licence, notice)


def test_terms_are_said_once() -> None:
    """A model saved again would repeat the notice each time."""
    once = inherit(UNI, "", "")
    assert inherit(UNI, *once) == once
    assert terms_of("hne-small", "Apache-2.0", "") == "Encoder hne-small (Apache-2.0)."
