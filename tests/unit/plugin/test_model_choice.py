"""Which bundles a user can choose as a model."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from napari_slnpredict.plugin.model_jobs import model_choice


@pytest.mark.parametrize(
    ("kind", "classes", "label"),
    [
        ("mil", ("negative", "positive"), "m (demonstration)"),
        ("encoder", ("normal", "tumour"), "m (tile classes)"),
        ("encoder", (), None),
        ("anomaly", (), None),
    ],
)
def test_only_what_says_something_of_a_slide(kind: str, classes: tuple[str, ...], label: str | None) -> None:
    """An encoder without classes would be offered and then refuse; one with them could not be chosen."""
    notice = "A demonstration." if kind == "mil" else ""
    choice = model_choice(SimpleNamespace(name="m", kind=kind, classes=classes, notice=notice, card=""))
    assert (None if choice is None else choice.label) == label
