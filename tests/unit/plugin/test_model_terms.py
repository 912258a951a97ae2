"""The terms of a model are read where its card is read."""

from __future__ import annotations

from types import SimpleNamespace

from napari_slnpredict.plugin.model_jobs import model_choice


def test_a_models_terms_name_its_encoders() -> None:
    """The viewer would show a card without the licence under which its encoder was given."""
    encoder = {"name": "uni", "licence": "CC-BY-NC-ND-4.0", "notice": "for research only", "covers_trained": True}
    entry = SimpleNamespace(
        name="m", kind="mil", classes=("a", "b"), notice="Mine.", card="# M", licence="CC-BY-NC-ND-4.0", encoder=encoder
    )
    choice = model_choice(entry)
    assert choice is not None
    assert choice.terms == ("Licence of the model: CC-BY-NC-ND-4.0. Encoder uni (CC-BY-NC-ND-4.0): for research only.")
