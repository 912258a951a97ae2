"""Weights brought by name: compared with the network, whole, and never others than those that were brought."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from pathlib import Path
from typing import Any
from urllib.request import Request

import numpy as np
import pytest
from safetensors.numpy import save

from napari_slnpredict.encode.architecture import Architecture, build_network
from napari_slnpredict.encode.encoder import load_encoder
from napari_slnpredict.encode.obtain import download_weights, how_to_obtain, named, origin_path, take_weights
from napari_slnpredict.encode.presets import PRESETS, Preset
from napari_slnpredict.errors import BundleMismatch, MissingWeights, UnsafeFile
from napari_slnpredict.events import run
from napari_slnpredict.settings import Settings
from napari_slnpredict.torch_door import import_torch

REVISION = "89abcdef0123456789abcdef0123456789abcdef"
#: A transformer of the presets' family, small: two patches a side, one register.
KWARGS = {"depth": 1, "embed_dim": 8, "num_heads": 2, "img_size": 32, "reg_tokens": 1, "dynamic_img_size": True}
TINY = Preset(
    "tiny", "vit_tiny_patch16_224", 16, 0.01, "nobody/tiny", "CC-BY-NC-ND-4.0", KWARGS, pooling="class+mean",
    tile_px=32, covers_trained=True, notice="for tests only",
)  # fmt: skip


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setitem(PRESETS, "tiny", TINY)
    return Settings(models=str(tmp_path / "models"))


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    torch = import_torch()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        network = build_network(Architecture(TINY.timm, KWARGS, "class+mean"))
    return {name.removeprefix("net."): value.numpy().copy() for name, value in network.state_dict().items()}


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def features(settings: Settings) -> np.ndarray:
    torch = import_torch()
    pixels = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32))
    with torch.inference_mode():
        return np.asarray(load_encoder("tiny", settings).build()(pixels).numpy())


def test_safetensors_are_taken_and_remembered(
    tmp_path: Path, settings: Settings, tensors: dict[str, np.ndarray]
) -> None:
    """The weights a user downloaded by hand could not be used, or nobody would know which they were."""
    file = write(tmp_path / "model.safetensors", save(tensors))
    path = run(take_weights("tiny", file, settings, sha256(file.read_bytes()).upper()))
    assert path == settings.models_dir / "tiny.safetensors"
    assert file.is_file()
    encoder = load_encoder("tiny", settings)
    assert (encoder.dim, encoder.tile_mpp, encoder.covers_trained) == (16, 0.5, True)
    assert (encoder.licence, encoder.notice) == ("CC-BY-NC-ND-4.0", "for tests only")
    assert features(settings).shape == (2, 16)
    record = json.loads(origin_path(path).read_text())
    assert record["weights"] == record["file_sha256"] == sha256(file.read_bytes()) == encoder.sha256
    assert (record["source"], record["brought"], record["file"]) == ("", "by hand", file.name)
    assert record["licence"] == "CC-BY-NC-ND-4.0"
    assert sorted(p.name for p in settings.models_dir.iterdir()) == ["tiny.origin.json", "tiny.safetensors"]


def test_a_pickled_checkpoint_is_converted_once(
    tmp_path: Path, settings: Settings, tensors: dict[str, np.ndarray]
) -> None:
    """Half of the public encoders are pickles: they would need another tool, or be unpickled beside the window."""
    torch = import_torch()
    file = tmp_path / "pytorch_model.bin"
    torch.save({name: torch.from_numpy(value) for name, value in tensors.items()}, file)
    run(take_weights("tiny", file, settings))
    from_pickle = features(settings)
    again = write(tmp_path / "again.safetensors", save(tensors))
    run(take_weights("tiny", again, settings))
    np.testing.assert_array_equal(features(settings), from_pickle)
    assert sorted(p.name for p in settings.models_dir.iterdir()) == ["tiny.origin.json", "tiny.safetensors"]


def test_weights_exchanged_later_are_refused(
    tmp_path: Path, settings: Settings, tensors: dict[str, np.ndarray]
) -> None:
    """Features would be kept under the name of weights that did not make them."""
    path = run(take_weights("tiny", write(tmp_path / "w.safetensors", save(tensors)), settings))
    path.write_bytes(save({**tensors, "cls_token": tensors["cls_token"] + 1}))
    with pytest.raises(UnsafeFile, match="SHA-256"):
        load_encoder("tiny", settings).build()
    origin_path(path).write_text("[]")
    with pytest.raises(UnsafeFile, match="record of where"):
        load_encoder("tiny", settings)


def bad(tensors: dict[str, np.ndarray]) -> dict[str, tuple[bytes, type[Exception], str]]:
    nan = tensors["norm.bias"].copy()
    nan[3] = np.nan
    return {
        "missing": (save({k: v for k, v in tensors.items() if k != "reg_token"}), BundleMismatch, "lacks reg_token"),
        "extra": (save({**tensors, "head.bias": nan}), BundleMismatch, "holds head.bias"),
        "shape": (save({**tensors, "norm.bias": nan[:4]}), BundleMismatch, "has shape"),
        "nan": (save({**tensors, "norm.bias": nan}), UnsafeFile, "not finite"),
        "cut": (save(tensors)[:-9], UnsafeFile, "ends after"),
        "a web page": (b"<!DOCTYPE html><p>log in</p>", UnsafeFile, "no checkpoint of torch"),
        "a pickle": (pickle.dumps({"a": 1}), UnsafeFile, "no checkpoint of torch"),
    }


@pytest.mark.parametrize("name", ["missing", "extra", "shape", "nan", "cut"])
def test_what_does_not_fit_is_refused_and_changes_nothing(
    name: str, tmp_path: Path, settings: Settings, tensors: dict[str, np.ndarray]
) -> None:
    """A wrong file would take the place of the right one, and be found out an hour later."""
    good = run(take_weights("tiny", write(tmp_path / "good.safetensors", save(tensors)), settings)).read_bytes()
    content, error, says = bad(tensors)[name]
    with pytest.raises(error, match=says):
        run(take_weights("tiny", write(tmp_path / "bad.safetensors", content), settings))
    assert (settings.models_dir / "tiny.safetensors").read_bytes() == good
    assert len(list(settings.models_dir.iterdir())) == 2


def test_another_hash_than_the_page_says_is_refused(
    tmp_path: Path, settings: Settings, tensors: dict[str, np.ndarray]
) -> None:
    """The hash a user copied from the page would be decoration."""
    file = write(tmp_path / "w.safetensors", save(tensors))
    with pytest.raises(UnsafeFile, match="SHA-256 differs"):
        run(take_weights("tiny", file, settings, "0" * 64))
    with pytest.raises(MissingWeights, match="no such file"):
        run(take_weights("tiny", tmp_path / "absent", settings))
    assert not settings.models_dir.exists()


def answer(content: bytes) -> Any:
    """An opener that gives this content whatever is asked."""

    class Answer(io.BytesIO):
        status = 200
        headers = {"Content-Length": str(len(content))}  # noqa: RUF012 - a stand-in

    return lambda request: Answer(content)


@pytest.mark.parametrize("pickled", [False, True])
def test_a_download_becomes_the_encoder(
    pickled: bool, settings: Settings, tensors: dict[str, np.ndarray], tmp_path: Path
) -> None:
    """What was fetched would be used without being checked, or lie beside where it is looked for."""
    content = save(tensors)
    if pickled:
        torch = import_torch()
        torch.save({name: torch.from_numpy(value) for name, value in tensors.items()}, tmp_path / "p.bin")
        content = (tmp_path / "p.bin").read_bytes()
    asked: list[Request] = []

    def opener(request: Request) -> Any:
        asked.append(request)
        return answer(content)(request)

    path = run(download_weights("tiny", settings, REVISION, sha256(content), opener=opener))
    assert asked[0].full_url.endswith(f"nobody/tiny/resolve/{REVISION}/pytorch_model.bin")
    record = json.loads(origin_path(path).read_text())
    assert (record["source"], record["brought"]) == ("nobody/tiny", "by download")
    assert (record["revision"], record["file_sha256"]) == (REVISION, sha256(content))
    assert load_encoder("tiny", settings).sha256 == record["weights"] == sha256(path.read_bytes())
    assert features(settings).shape == (2, 16)
    assert sorted(p.name for p in settings.models_dir.iterdir()) == ["tiny.origin.json", "tiny.safetensors"]


def test_a_download_that_is_no_such_network_is_refused(settings: Settings) -> None:
    """A file that is what its hash says, and is not this encoder."""
    content = save({"a": np.zeros(3, np.float32)})
    with pytest.raises(BundleMismatch, match="lacks"):
        run(download_weights("tiny", settings, REVISION, sha256(content), opener=answer(content)))
    assert not (settings.models_dir / "tiny.safetensors").exists()


def test_nothing_is_fetched_unpinned(settings: Settings) -> None:
    """A branch's newest file would be trusted because it came."""

    def never(request: Request) -> Any:
        raise AssertionError("the network was used")

    for revision, digest in (("", ""), (REVISION, ""), ("", "a" * 64)):
        with pytest.raises(MissingWeights, match=r"no verified commit.*--revision and --sha256.*--weights"):
            run(download_weights("tiny", settings, revision, digest, opener=never))
    with pytest.raises(UnsafeFile, match="no branch"):
        run(download_weights("tiny", settings, "main", "a" * 64, opener=never))
    for name in PRESETS:
        wanted = named(name)
        assert "--weights FILE" in how_to_obtain(wanted)
        assert wanted.source in how_to_obtain(wanted)


def test_timm_names_take_weights_with_their_classifier(tmp_path: Path, settings: Settings) -> None:
    """The hub's files hold a classifier that no encoder needs: each would be refused."""
    import_torch()
    network = build_network(Architecture("test_vit"), "cpu")
    content = {name.removeprefix("net."): value.numpy() for name, value in network.state_dict().items()}
    file = write(tmp_path / "w.safetensors", save({**content, "head.weight": np.zeros((3, 64), np.float32)}))
    path = run(take_weights("timm:test_vit", file, settings))
    assert path.name == "test_vit.safetensors"
    load_encoder("timm:test_vit", settings).build()
    with pytest.raises(MissingWeights, match="no weights can be brought for 'hne-small'"):
        named("hne-small")
