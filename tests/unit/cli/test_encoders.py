"""`slnpredict encoders`: a list that reads at any width, one encoder in full, and weights brought by hand."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from safetensors.numpy import save

from napari_slnpredict.cli import encoders as module
from napari_slnpredict.cli.app import main
from napari_slnpredict.encode.architecture import Architecture, build_network
from napari_slnpredict.encode.presets import PRESETS, UNSUPPORTED, Preset

TINY = Preset("tiny", "test_vit", 64, 0.37, "nobody/tiny", "CC-BY-NC-4.0", tile_px=64, notice="for tests only")


def leave(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return int(left.value.code or 0)


def test_the_list_says_what_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    """A name that fails only after an hour of waiting, or terms nobody saw."""
    assert leave("encoders", "--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["encoders"]}
    assert rows["uni"]["here"] is False
    assert rows["hne-small"]["here"] is True
    assert rows["hne-small"]["licence"] == "Apache-2.0"
    assert leave("encoders") == 0
    out = capsys.readouterr().out
    assert "CC-BY-NC-ND-4.0" in out
    assert UNSUPPORTED[0].name not in out
    assert leave("encoders", "--all") == 0
    out = capsys.readouterr().out
    for one in UNSUPPORTED:
        assert one.reason in out


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_a_terminal(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines wrapped in the middle are read by nobody."""
    monkeypatch.setattr(module, "_room", lambda: width)
    assert leave("encoders") == 0
    table = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert max(map(len, table)) <= width
    assert {"name", "here", "size", "features", "tiles,", "licence"} <= set(table[0].split())


def test_room_is_the_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is piped into a file would lose its last columns."""
    monkeypatch.setenv("COLUMNS", "77")
    monkeypatch.setattr(module.sys.stdout, "isatty", lambda: True, raising=False)
    assert module._room() == 77
    monkeypatch.setattr(module.sys.stdout, "isatty", lambda: False, raising=False)
    assert module._room() > 1000


def test_one_encoder_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    """The terms and the way to the weights would stand nowhere."""
    assert leave("encoders", "uni") == 0
    out = capsys.readouterr().out
    for words in ("MahmoodLab/UNI", "non-commercial academic research", "1024", "224 px at 0.571", "--weights FILE"):
        assert words in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 120
    assert leave("encoders", "phikon-v2") == 0
    assert "transformers" in capsys.readouterr().out
    assert leave("encoders", "unni") == 3
    assert "encoders --all" in capsys.readouterr().err
    assert leave("encoders", "virchow2", "--json") == 0
    assert json.loads(capsys.readouterr().out)["encoder"]["dim"] == 2560


def test_weights_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The way the error messages point to would not work."""
    monkeypatch.setitem(PRESETS, "tiny", TINY)
    network = build_network(Architecture("test_vit"))
    tensors = {name.removeprefix("net."): value.numpy() for name, value in network.state_dict().items()}
    file = tmp_path / "model.safetensors"
    file.write_bytes(save(tensors))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert leave("encoders", "tiny", "--weights", file, "--sha256", "0" * 64) == 3
    assert "SHA-256" in capsys.readouterr().err
    assert leave("encoders", "tiny", "--weights", file, "--sha256", digest, "--json") == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["weights"] == digest
    assert "Encoder tiny (CC-BY-NC-4.0): for tests only." in said.err
    models = Path(os.environ["SLNPREDICT_MODELS"])
    assert (models / "tiny.safetensors").read_bytes() == file.read_bytes()
    assert leave("encoders", "tiny") == 0
    assert "here      yes" in capsys.readouterr().out


def test_a_download_without_a_pin_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown file would be fetched because somebody asked for a name."""
    assert leave("encoders", "kaiko-s16", "--download") == 3
    error = capsys.readouterr().err
    assert "--revision and --sha256" in error
    assert "--weights" in error


@pytest.mark.parametrize("arguments", [("--download",), ("--weights", "x"), ("uni", "--download", "--weights", "x")])
def test_half_a_question_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    """Weights without a name would end anywhere."""
    assert leave("encoders", *arguments) == 2
