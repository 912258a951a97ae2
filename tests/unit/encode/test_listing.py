"""The list of encoders: what can be named, on what terms, and what was measured; nothing heavy is loaded for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from napari_slnpredict.bundles import bundle as bundle_module
from napari_slnpredict.bundles.bundle import save_bundle
from napari_slnpredict.encode import listing as module
from napari_slnpredict.encode.encoder import GROUP, encoder_from_bundle
from napari_slnpredict.encode.gate import Gate, write_gate
from napari_slnpredict.encode.listing import list_encoders
from napari_slnpredict.encode.presets import PRESETS, UNSUPPORTED
from napari_slnpredict.settings import Settings


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    (tmp_path / "models").mkdir()
    monkeypatch.setattr(bundle_module, "SHIPPED", tmp_path / "none")
    return Settings(models=str(tmp_path / "models"), cache=str(tmp_path / "cache"))


def bundle(folder: Path, **changes: Any) -> Any:
    values: dict[str, Any] = {
        "name": folder.name,
        "kind": "encoder",
        "model": {"type": "timm", "parameters": {"timm": "test_resnet", "mpp": [1.0, 1.0], "dim": 96}},
        "tensors": {"a": np.zeros(3, np.float32)},
        "card": "# Mine\n",
        "grid": {"tile_px": 64, "mpp": 1.0},
        "licence": "BSD-3-Clause",
        "notice": "Mine.",
    }
    return save_bundle(folder, **{**values, **changes})


def test_it_tells_what_is_here_and_where_the_rest_comes_from(settings: Settings) -> None:
    """The user could not see which encoders can be used, on what terms, and how the others come."""
    bundle(settings.models_dir / "mine")
    bundle(settings.models_dir / "torn")
    (settings.models_dir / "torn" / "weights.safetensors").write_bytes(b"x")
    bundle(settings.models_dir / "odd", model={"type": "timm", "parameters": {"timm": 3}})
    (settings.models_dir / "resnet18.safetensors").write_bytes(save({"a": np.zeros(1)}))
    (settings.models_dir / "own.safetensors").write_bytes(save({"a": np.zeros(1)}))
    (settings.models_dir / "own.json").write_text("{}")
    (settings.models_dir / ".x.converted.safetensors").write_bytes(b"half")
    rows = {row.name: row for row in list_encoders(settings)}
    mine = rows["mine"]
    assert (mine.here, mine.dim, mine.source, mine.tile_px, mine.mpp) == (True, 96, "your models folder", 64, 1.0)
    assert (mine.licence, mine.notice) == ("BSD-3-Clause", "Mine.")
    assert not rows["torn"].here
    assert "SHA-256" in rows["torn"].remark
    assert not rows["odd"].here
    assert "not described" in rows["odd"].remark
    assert rows["timm:resnet18"].here
    assert any(name.startswith("local:") and name.endswith("own.safetensors") for name in rows)
    assert not any("converted" in name for name in rows)
    uni = rows["uni"]
    assert (uni.here, uni.gated, uni.megabytes, uni.licence) == (False, True, 303.4 * 4, "CC-BY-NC-ND-4.0")
    assert "huggingface.co/MahmoodLab/UNI" in uni.remark
    assert set(PRESETS) <= set(rows)
    assert all(row.supported for row in rows.values())


def test_what_is_not_supported_is_listed_with_its_reason(settings: Settings) -> None:
    """A user would look for the right spelling of an encoder that is not offered."""
    rows = {row.name: row for row in list_encoders(settings, everything=True) if not row.supported}
    assert set(rows) == {one.name for one in UNSUPPORTED}
    assert all(row.remark.startswith("not supported: ") and not row.here for row in rows.values())


def test_it_tells_what_was_measured(settings: Settings) -> None:
    """A user could not see that an encoder runs in float32 because it fails its gate."""
    made = bundle(settings.models_dir / "mine")
    encoder = encoder_from_bundle(made)
    rng = np.random.default_rng(0)
    good = rng.normal(size=(4, 96)).astype(np.float32)
    folder = settings.cache_dir / "engines" / encoder.digest[:16]
    write_gate(folder / "gate-bfloat16-64-x.safetensors", encoder, Gate("bfloat16", good, good))
    write_gate(folder / "gate-openvino-bfloat16-64-x.safetensors", encoder, Gate("openvino-bfloat16", good, -good))
    (row,) = [row for row in list_encoders(settings) if row.name == "mine"]
    assert row.passed == ["bfloat16"]
    assert "0.999 is needed" in row.gates["openvino-bfloat16"]


def test_preset_weights_with_their_origin_are_found_in_the_cache(settings: Settings) -> None:
    """Four gigabytes would be hashed for a list, or the gate of another file be shown."""
    (settings.models_dir / "uni.safetensors").write_bytes(save({"a": np.zeros(1)}))
    (row,) = [row for row in list_encoders(settings) if row.name == "uni"]
    assert row.here
    assert row.remark == ""
    origin = settings.models_dir / "uni.origin.json"
    origin.write_text(json.dumps({"format": 1, "name": "uni", "weights": "0" * 64, "source": "x"}))
    assert [row.here for row in list_encoders(settings) if row.name == "uni"] == [True]
    origin.write_text("{")
    (row,) = [row for row in list_encoders(settings) if row.name == "uni"]
    assert not row.here
    assert "where weights came from" in row.remark


def test_other_packages_are_listed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder added by a package could not be found."""

    class Entry:
        name, value = "theirs", "their_package:encoder"

    monkeypatch.setattr(module, "entry_points", lambda group: [Entry()] if group == GROUP else [])
    rows = {row.name: row for row in list_encoders(settings)}
    assert (rows["theirs"].source, rows["theirs"].here) == ("their_package:encoder", True)


def test_the_list_loads_no_torch() -> None:
    """A list would take the ten seconds of torch and timm."""
    code = (
        "import sys\nfrom napari_slnpredict.encode.listing import list_encoders\n"
        "from napari_slnpredict.settings import load_settings\nlist_encoders(load_settings(), True)\n"
        "sys.exit(bool({'torch', 'timm', 'openvino'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
