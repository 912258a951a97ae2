"""A model's folder: what is saved is loaded, what was touched is refused."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_slnpredict.bundles import bundle as module
from napari_slnpredict.bundles.bundle import (
    BrokenBundle,
    Bundle,
    find_bundle,
    front_matter,
    list_bundles,
    load_bundle,
    save_bundle,
)
from napari_slnpredict.errors import MissingWeights, ModelError, ResourceError, UnsafeFile
from napari_slnpredict.files import digest_file
from napari_slnpredict.settings import Settings


def make(folder: Path, **changes: Any) -> Bundle:
    """A small MIL bundle."""
    values: dict[str, Any] = {
        "name": folder.name,
        "kind": "mil",
        "model": {"type": "gated", "parameters": {"hidden": 4}},
        "tensors": {"weight": np.arange(6, dtype=np.float32).reshape(2, 3).T, "bias": np.zeros(2, np.float16)},
        "card": "# A model\n\nFor tests.\n",
        "task": {"name": "sln", "classes": ["negative", "positive"], "positive": "positive", "ordered": False},
        "encoder": {"name": "hne-small", "digest": "e" * 64},
        "grid": {"tile_px": 224, "mpp": 1.0, "overlap_px": 0, "min_tissue": 0.25},
        "licence": "BSD-3-Clause",
        "notice": "Demonstration.",
    }
    return save_bundle(folder, **{**values, **changes})


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "bundle.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_saved_is_loaded(tmp_path: Path) -> None:
    """A trained model would come back different."""
    saved = make(tmp_path / "m", extra_files={"training/folds.csv": b"fold,slide\n"})
    loaded = load_bundle(tmp_path / "m")
    assert loaded == saved
    assert loaded.classes == ("negative", "positive")
    assert loaded.positive == "positive"
    assert set(loaded.files) == {"weights.safetensors", "README.md", "training/folds.csv"}
    tensors = loaded.tensors()
    np.testing.assert_array_equal(tensors["weight"], np.arange(6, dtype=np.float32).reshape(2, 3).T)
    assert loaded.card.startswith("---\nlicense: ")
    assert [path.name for path in tmp_path.iterdir()] == ["m"], "part files were left"


def test_digest_covers_every_file(tmp_path: Path) -> None:
    """Two models that differ would share one digest, and results could not be told apart."""
    first, same = make(tmp_path / "a"), make(tmp_path / "b", name="a")
    assert first.digest == same.digest
    others = [
        make(tmp_path / "c", name="a", card="# Another\n"),
        make(tmp_path / "d", name="a", tensors={"weight": np.ones(1)}),
        make(tmp_path / "e", name="a", notice="x"),
    ]
    assert len({first.digest, *(other.digest for other in others)}) == 4


def test_saving_again_replaces_the_whole_folder(tmp_path: Path) -> None:
    """An old model's files would stay beside the new one's."""
    make(tmp_path / "m", extra_files={"old.txt": b"old"})
    make(tmp_path / "m")
    assert not (tmp_path / "m" / "old.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_model_that_would_not_load_replaces_nothing(tmp_path: Path) -> None:
    """A training that ended in NaN would destroy the good model of yesterday."""
    good = make(tmp_path / "m")
    with pytest.raises(UnsafeFile):
        make(tmp_path / "m", task={"classes": ["a", "a"]})
    assert load_bundle(tmp_path / "m") == good
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError):
        make(tmp_path / "file" / "m")


def change_weights(folder: Path) -> None:
    path = folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def link_outside(folder: Path) -> None:
    outside = folder.parent / "outside.safetensors"
    (folder / "weights.safetensors").rename(outside)
    (folder / "weights.safetensors").symlink_to(outside)


def name_file(name: str) -> Callable[[Path], None]:
    def tamper(folder: Path) -> None:
        (folder.parent / "secret.txt").write_text("secret")
        hashed = digest_file(folder.parent / "secret.txt")
        edit(folder, lambda content: content["files"].update({name: hashed}))

    return tamper


def put(name: str, content: bytes) -> Callable[[Path], None]:
    def tamper(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)

    return tamper


def manifest(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "bundle.json").write_text(text) and None


def setting(**values: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder, lambda content: content.update(values))


def folder_link(folder: Path) -> None:
    outside = folder.parent / "elsewhere"
    outside.mkdir()
    (outside / "note.txt").write_text("secret")
    (folder / "training").symlink_to(outside)
    hashed = digest_file(outside / "note.txt")
    edit(folder, lambda content: content["files"].update({"training/note.txt": hashed}))


def circle(folder: Path) -> None:
    (folder / "round").symlink_to("round")
    edit(folder, lambda content: content["files"].update({"round/note.txt": "0" * 64}))


TAMPERED: dict[str, tuple[Callable[[Path], None], str]] = {
    "one bit of the weights": (change_weights, "SHA-256"),
    "card edited": (put("README.md", b"---\n---\nbetter"), "SHA-256"),
    "weights behind a link": (link_outside, "outside"),
    "parent path": (name_file("../secret.txt"), "outside"),
    "absolute path": (name_file("/etc/hostname"), "outside"),
    "windows path": (name_file("..\\secret.txt"), "outside"),
    "drive": (name_file("C:secret.txt"), "outside"),
    "a folder behind a link": (folder_link, "outside"),
    "links in a circle": (circle, "no name of a file|outside"),
    "a name that ends early": (name_file("a\0b"), "no name of a file"),
    "a name too long": (name_file("x" * 5000), "no name of a file"),
    "an empty name": (name_file(""), "outside"),
    "pickle beside": (put("extra.pkl", b"x"), "pickle"),
    "checkpoint beside": (put("training/last.pt", b"x"), "pickle"),
    "bin beside": (put("pytorch_model.bin", b"x"), "pickle"),
    "disguised pickle": (put("notes.txt", pickle.dumps([1])), "pickle"),
    "no json": (manifest("{"), "JSON"),
    "deep json": (manifest('{"format":' + "[" * 100_000), "JSON"),
    "not utf-8": (put("bundle.json", b'{"format": 1, "name": "\xff"}'), "JSON"),
    "17 MB of manifest": (put("bundle.json", b" " * (17 << 20)), "larger than 16 MB"),
    "not a number": (manifest('{"format": NaN}'), "JSON"),
    "a list": (manifest("[]"), "format"),
    "no format": (manifest("{}"), "format"),
    "newer format": (setting(format=2), "reads format 1"),
    "format is true": (setting(format=True), "format"),
    "no files": (setting(files={}), "names no files"),
    "hash is no hash": (setting(files={"README.md": "abc"}), "SHA-256"),
    "kind": (setting(kind="wizard"), "kind"),
    "name": (setting(name="../x"), "name"),
    "name is a number": (setting(name=3), "not a text"),
    "model": (setting(model={}), "what its model is"),
    "model is text": (setting(model="gated"), "not a table"),
    "no classes": (setting(task={}), "classes"),
    "class twice": (setting(task={"classes": ["a", "a"]}), "classes"),
    "positive elsewhere": (setting(task={"classes": ["a", "b"], "positive": "c"}), "positive"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_what_was_touched_is_refused(name: str, tmp_path: Path) -> None:
    """A model that is not what was trained would answer as if it were."""
    make(tmp_path / "m")
    tamper, says = TAMPERED[name]
    tamper(tmp_path / "m")
    with pytest.raises(UnsafeFile, match=says) as caught:
        load_bundle(tmp_path / "m")
    assert str(tmp_path) not in str(caught.value), "an absolute path left the program"


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    """The user would not know which file to copy."""
    make(tmp_path / "m")
    (tmp_path / "m" / "weights.safetensors").unlink()
    with pytest.raises(MissingWeights, match=r"weights\.safetensors is missing"):
        load_bundle(tmp_path / "m")
    with pytest.raises(MissingWeights, match=r"no bundle\.json"):
        load_bundle(tmp_path)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    """A pipe in a model's folder would stop the program for ever."""
    made = make(tmp_path / "m")
    (tmp_path / "m" / "training").mkdir()
    (tmp_path / "m" / "training" / "loop").symlink_to(tmp_path / "m")
    os.mkfifo(tmp_path / "m" / "training" / "pipe")
    assert load_bundle(tmp_path / "m") == made
    (tmp_path / "m" / "weights.safetensors").unlink()
    os.mkfifo(tmp_path / "m" / "weights.safetensors")
    with pytest.raises(MissingWeights, match=r"weights\.safetensors is missing"):
        load_bundle(tmp_path / "m")
    (tmp_path / "m" / "bundle.json").unlink()
    os.mkfifo(tmp_path / "m" / "bundle.json")
    with pytest.raises(MissingWeights, match=r"no bundle\.json"):
        load_bundle(tmp_path / "m")


def test_a_model_of_not_a_number_is_not_saved_over_a_good_one(tmp_path: Path) -> None:
    """A training that went wrong would be found out at the first slide."""
    bundle = make(tmp_path / "m", tensors={"weight": np.array([1.0, np.nan], np.float32)})
    with pytest.raises(UnsafeFile, match="not finite"):
        bundle.tensors()


def test_weights_exchanged_after_loading_are_refused(tmp_path: Path) -> None:
    """Between check and use somebody could put other weights there."""
    loaded = make(tmp_path / "m")
    change_weights(tmp_path / "m")
    with pytest.raises(UnsafeFile, match="SHA-256"):
        loaded.tensors()
    with pytest.raises(MissingWeights, match="has no file other"):
        loaded.tensors("other.safetensors")


def test_found_by_name_and_by_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``--model name`` and ``--model folder`` would mean different things than they say."""
    monkeypatch.setattr(module, "SHIPPED", tmp_path / "shipped")
    settings = Settings(models=str(tmp_path / "models"))
    make(tmp_path / "shipped" / "demo")
    make(tmp_path / "models" / "demo", notice="mine")
    make(tmp_path / "models" / "own")
    make(tmp_path / "elsewhere" / "third")
    assert find_bundle("demo", settings).notice == "Demonstration."
    assert find_bundle("own", settings).name == "own"
    assert find_bundle(tmp_path / "elsewhere" / "third", settings).name == "third"
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert find_bundle("third", settings).name == "third"
    assert find_bundle("./third", settings).name == "third"
    with pytest.raises(MissingWeights, match="Known are demo, own"):
        find_bundle("demo-snl", settings)
    with pytest.raises(ModelError):
        find_bundle("missing/folder", settings)


def test_a_broken_model_is_listed_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One damaged model would hide all others, or itself."""
    monkeypatch.setattr(module, "SHIPPED", tmp_path / "shipped")
    settings = Settings(models=str(tmp_path / "models"))
    assert list_bundles(settings) == []
    make(tmp_path / "models" / "good")
    make(tmp_path / "models" / "bad")
    change_weights(tmp_path / "models" / "bad")
    bad, good = list_bundles(settings)
    assert isinstance(bad, BrokenBundle)
    assert "SHA-256" in str(bad.error)
    assert isinstance(good, Bundle)
    assert [entry.name for entry in list_bundles(settings, kinds=("encoder",))] == ["bad"]


def test_front_matter_is_yaml() -> None:
    """The hub would not read the card."""
    yaml = pytest.importorskip("yaml")
    fields = {"license": "bsd-3-clause", "tags": ["mil", "a: b"], "note": 'it\'s "so"\nand so'}
    text = front_matter(fields)
    assert yaml.safe_load(text.split("---")[1]) == fields
