"""One place for settings, each with a known origin."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from napari_slnpredict.errors import DataError
from napari_slnpredict.settings import load_settings, settings_file, settings_with_origin


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CACHE", "MODELS", "DEVICE", "BATCH", "MEMORY_MB"):
        monkeypatch.delenv(f"SLNPREDICT_{name}", raising=False)


def test_option_beats_environment_beats_file_beats_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong order would silently ignore what the user has just typed."""
    assert load_settings().batch == 0
    settings_file().write_text(json.dumps({"batch": 8, "device": "cpu"}))
    assert load_settings().batch == 8
    monkeypatch.setenv("SLNPREDICT_BATCH", "16")
    assert load_settings().batch == 16
    settings, origin = settings_with_origin(batch=32, device=None)
    assert settings.batch == 32
    assert origin["batch"] == "option"
    assert origin["device"] == "file"
    assert origin["cache"] == "default"


def test_a_mistyped_name_is_refused() -> None:
    """A setting that is ignored because of a typing error is worse than an error."""
    settings_file().write_text(json.dumps({"devise": "cpu"}))
    with pytest.raises(DataError, match="devise"):
        load_settings()


@pytest.mark.parametrize("content", ["not json", "[1]"])
def test_a_broken_file_is_named(content: str) -> None:
    """The message must say which file to mend."""
    settings_file().write_text(content)
    with pytest.raises(DataError, match=r"settings\.json"):
        load_settings()


def test_a_wrong_kind_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """`SLNPREDICT_BATCH=many` must say so and not fail somewhere inside torch."""
    monkeypatch.setenv("SLNPREDICT_BATCH", "many")
    with pytest.raises(DataError, match="SLNPREDICT_BATCH"):
        load_settings()


def test_folders_have_defaults() -> None:
    """Nothing needs to be set for a first run."""
    assert load_settings().cache_dir != Path()
    assert load_settings().models_dir.name == "models"
