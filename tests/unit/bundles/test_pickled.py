"""Pickled checkpoints: read in a child, tensors only, nothing in them runs."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_slnpredict.bundles import pickled as module
from napari_slnpredict.bundles.pickled import convert_pickle, read_checkpoint
from napari_slnpredict.bundles.weights import read_tensors
from napari_slnpredict.errors import MissingWeights, ModelError, UnsafeFile
from napari_slnpredict.events import run
from napari_slnpredict.torch_door import import_torch


class Bomb:
    """Unpickling it would create a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_tensors_come_out_as_they_went_in(tmp_path: Path) -> None:
    """Converted weights would differ, or half precision be lost."""
    torch = import_torch()
    content = {
        "w": torch.arange(6, dtype=torch.float32).reshape(2, 3).T,
        "half": torch.ones(3, dtype=torch.bfloat16),
        "count": torch.tensor(7),
    }
    content["tied"] = content["w"]
    torch.save(content, tmp_path / "m.bin")
    run(convert_pickle(tmp_path / "m.bin", tmp_path / "m.safetensors"))
    back = read_tensors(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(back["w"], np.arange(6, dtype=np.float32).reshape(2, 3).T)
    np.testing.assert_array_equal(back["tied"], back["w"])
    np.testing.assert_array_equal(back["half"], np.ones(3, np.float32))
    assert back["count"] == 7


def test_a_bomb_in_a_child_does_nothing(tmp_path: Path) -> None:
    """A model file would run a stranger's code, in the child or here (promise R8)."""
    torch, marker = import_torch(), tmp_path / "ran"
    torch.save({"w": torch.zeros(2), "x": Bomb(marker)}, tmp_path / "m.bin")
    with pytest.raises(UnsafeFile, match=r"m\.bin: torch's restricted loader refuses"):
        run(convert_pickle(tmp_path / "m.bin", tmp_path / "m.safetensors"))
    assert not marker.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["m.bin"]


def archive(records: dict[str, bytes], packed: bool = False) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as target:
        for name, content in records.items():
            target.writestr(name, content)
    return stream.getvalue()


def saved(content: Any) -> bytes:
    stream = io.BytesIO()
    import_torch().save(content, stream)
    return stream.getvalue()


def hostile() -> dict[str, tuple[bytes, str]]:
    torch = import_torch()
    return {
        "packed": (archive({"archive/data.pkl": bytes(10_000_000)}, packed=True), "packed records"),
        "bare pickle": (pickle.dumps({"w": 1}), "no checkpoint of torch"),
        "empty": (b"", "no checkpoint of torch"),
        "no pickle in it": (archive({"archive/x": b"1"}), "restricted loader refuses"),
        "nested": (saved({"model": {"w": torch.zeros(2)}}), r"more than named tensors \(model\)"),
        "a list": (saved([torch.zeros(2)]), r"more than named tensors \(list\)"),
        "no tensors": (saved({}), "more than named tensors"),
        "stride 0": (saved({"w": torch.zeros(1).expand(10**9)}), "claims 4000 MB"),
    }


HOSTILE = ("packed", "bare pickle", "empty", "no pickle in it", "nested", "a list", "no tensors", "stride 0")


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_plain_checkpoint_is_refused(name: str, tmp_path: Path) -> None:
    """A crafted file would take the machine's memory, or load as something else."""
    content, says = hostile()[name]
    path = tmp_path / "m.bin"
    path.write_bytes(content)
    with pytest.raises(UnsafeFile, match=says):
        read_checkpoint(path)


def test_an_old_torch_reads_no_strangers_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The restricted loader had a hole before 2.6."""
    (tmp_path / "m.bin").write_bytes(saved({"w": import_torch().zeros(2)}))
    monkeypatch.setattr(import_torch(), "__version__", "2.5.1+cpu")
    with pytest.raises(ModelError, match=r"Update torch to 2\.6"):
        read_checkpoint(tmp_path / "m.bin")


def test_a_child_that_dies_is_an_error_about_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory limit would end the program, or leave it waiting."""
    (tmp_path / "m.bin").write_bytes(b"PK")
    real = subprocess.Popen

    def dies(command: list[str], **options: Any) -> Any:
        return real([sys.executable, "-c", "import os; os._exit(9)"], **options)

    monkeypatch.setattr(module.subprocess, "Popen", dies)
    with pytest.raises(UnsafeFile, match=r"m\.bin: the process that read it ended early"):
        run(convert_pickle(tmp_path / "m.bin", tmp_path / "m.safetensors"))
    with pytest.raises(MissingWeights, match="no such file"):
        run(convert_pickle(tmp_path / "absent.bin", tmp_path / "m.safetensors"))


def test_stopping_ends_the_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancelled conversion would go on in the background."""
    (tmp_path / "m.bin").write_bytes(b"PK")
    real, children = subprocess.Popen, []

    def sleeps(command: list[str], **options: Any) -> Any:
        children.append(real([sys.executable, "-c", "import time; time.sleep(60)"], **options))
        return children[-1]

    monkeypatch.setattr(module.subprocess, "Popen", sleeps)
    job = convert_pickle(tmp_path / "m.bin", tmp_path / "m.safetensors")
    next(job)
    job.close()
    assert children[0].poll() is not None
