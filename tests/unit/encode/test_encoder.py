"""Encoders by name: the weights asked for, or an error that says where they go; never others in their place."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from napari_slnpredict.bundles.bundle import Bundle, load_bundle, save_bundle
from napari_slnpredict.encode import encoder as module
from napari_slnpredict.encode import record as record_module
from napari_slnpredict.encode.architecture import Architecture, build_network
from napari_slnpredict.encode.encoder import encoder_from_bundle, load_encoder
from napari_slnpredict.encode.engines import Device, make_engine
from napari_slnpredict.encode.presets import PRESETS, Preset
from napari_slnpredict.encode.record import Encoder, encoder_from_parts
from napari_slnpredict.errors import BundleMismatch, MissingWeights, ModelError, UnsafeFile
from napari_slnpredict.settings import Settings
from napari_slnpredict.slide.grid import GridSpec
from napari_slnpredict.torch_door import import_timm, import_torch

TINY = "test_resnet"
PX = 64


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "models").mkdir()
    return Settings(models=str(tmp_path / "models"))


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    """Weights of the tiny network, its classifier included, as they lie on the hub."""
    torch, timm = import_torch(), import_timm()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = timm.create_model(TINY, pretrained=False)
    return {name: value.numpy().copy() for name, value in network.state_dict().items()}


def headless(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: value for name, value in weights.items() if not name.startswith("fc.")}


def run(encoder: Encoder, seed: int = 0) -> np.ndarray:
    torch = import_torch()
    pixels = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, 3, PX, PX)).astype(np.float32))
    with torch.inference_mode():
        return np.asarray(encoder.build()(pixels).numpy())


def make_bundle(folder: Path, weights: dict[str, np.ndarray], **parameters: Any) -> Bundle:
    values: dict[str, Any] = {"timm": TINY, "kwargs": {"num_classes": 0}, "mean": [0.5] * 3, "std": [0.25] * 3}
    return save_bundle(
        folder,
        name=folder.name,
        kind="encoder",
        model={"type": "timm", "parameters": {**values, "mpp": [0.9, 1.1], **parameters}},
        tensors=weights,
        card="# Tiny\n",
        grid={"tile_px": PX, "mpp": 1.0, "overlap_px": 0, "min_tissue": 0.25},
        licence="BSD-3-Clause",
        notice="For tests.",
    )


def card(path: Path, weights: dict[str, np.ndarray], **changes: Any) -> Path:
    """Weights with a card beside them."""
    path.write_bytes(save(weights))
    facts = {
        "timm": f"create_model('{TINY}', num_classes=0)", "mean": [0.5] * 3, "std": [0.25] * 3,
        "input_size": [3, PX, PX], "features": 96, "licence": "CC0",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }  # fmt: skip
    path.with_suffix(".json").write_text(json.dumps({**facts, **changes}))
    return path


def test_random_is_seeded_and_says_so() -> None:
    """Random features would be taken for trained ones, or differ from run to run."""
    encoder = load_encoder(f"random:{TINY}")
    assert "random weights" in encoder.warning
    np.testing.assert_array_equal(run(encoder), run(load_encoder(f"random:{TINY}")))
    assert encoder.digest == load_encoder(f"random:{TINY}").digest
    torch = import_torch()
    torch.manual_seed(1)
    first = torch.rand(1)
    torch.manual_seed(1)
    load_encoder(f"random:{TINY}").build()
    assert torch.equal(torch.rand(1), first), "the user's own random numbers were disturbed"


def test_a_timm_network_loads_its_weights_strictly(settings: Settings, weights: dict[str, np.ndarray]) -> None:
    """A layer left random would go unnoticed: its features are as smooth as any."""
    path = settings.models_dir / f"{TINY}.safetensors"
    path.write_bytes(save(weights))
    encoder = load_encoder(f"timm:{TINY}", settings)
    assert encoder.warning == ""
    assert encoder.dim == 96
    assert encoder.weights == path
    timm, torch = import_timm(), import_torch()
    plain = timm.create_model(TINY, num_classes=0).eval()
    plain.load_state_dict({name: torch.from_numpy(value) for name, value in headless(weights).items()})
    pixels = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, PX, PX)).astype(np.float32))
    with torch.inference_mode():
        np.testing.assert_array_equal(run(encoder), plain(pixels).numpy())
    name = next(name for name in weights if name.endswith("conv1.weight"))
    for broken in (
        {k: v for k, v in weights.items() if k != name},
        {**weights, "layer9.weight": np.zeros(3, np.float32)},
        {**weights, name: weights[name][:-1]},
    ):
        path.write_bytes(save(broken))
        with pytest.raises(BundleMismatch, match=r"lacks|unknown to the network|has shape"):
            load_encoder(f"timm:{TINY}", settings).build()


def test_half_precision_is_stored_and_single_is_computed(tmp_path: Path, weights: dict[str, np.ndarray]) -> None:
    """Weights stored as float16 would make the whole network half as precise, or not load."""
    half = {k: v.astype(np.float16) if v.dtype == np.float32 and v.ndim == 4 else v for k, v in weights.items()}
    rounded = {k: v.astype(weights[k].dtype) for k, v in half.items()}
    stored = encoder_from_bundle(make_bundle(tmp_path / "half", headless(half)))
    whole = encoder_from_bundle(make_bundle(tmp_path / "whole", headless(rounded)))
    assert all(parameter.dtype == import_torch().float32 for parameter in stored.build().parameters())
    np.testing.assert_array_equal(run(stored), run(whole))


def test_without_weights_the_message_says_where_they_go(settings: Settings) -> None:
    """The user would not know what to do, or would get random features."""
    with pytest.raises(MissingWeights) as caught:
        load_encoder("timm:resnet18.a1_in1k", settings)
    message = str(caught.value)
    assert str(settings.models_dir / "resnet18.a1_in1k.safetensors") in message
    assert "huggingface.co/timm/resnet18.a1_in1k" in message
    with pytest.raises(
        MissingWeights, match=r"uni\.safetensors.*pytorch_model\.bin from huggingface\.co/MahmoodLab/UNI"
    ):
        load_encoder("uni", settings)
    with pytest.raises(MissingWeights, match=r"no encoder 'hne-smal'.*timm:NAME"):
        load_encoder("hne-smal", settings)


@pytest.mark.parametrize(
    "name", ["timm:hf-hub:foo/bar", "timm:local-dir:/tmp", "random:https://x", "timm:../x", "random:", "timm:a b"]
)
def test_names_that_reach_out_are_refused(name: str) -> None:
    """timm would take such a name to the network, or to any folder."""
    with pytest.raises(UnsafeFile, match="not the name of a timm network"):
        load_encoder(name)


def test_an_unknown_network_is_said() -> None:
    """A mistyped name would end in timm's traceback."""
    with pytest.raises(ModelError, match="knows no network 'resnet_18'"):
        load_encoder("random:resnet_18")


def test_a_bundle_is_an_encoder(tmp_path: Path, settings: Settings, weights: dict[str, np.ndarray]) -> None:
    """The shipped encoder, or one the user trained, would not be found or not be what was trained."""
    make_bundle(settings.models_dir / "mine", headless(weights))
    encoder = load_encoder("mine", settings)
    assert (encoder.name, encoder.dim, encoder.tile_px, encoder.mpp) == ("mine", 96, PX, (0.9, 1.1))
    assert (encoder.mean, encoder.std, encoder.licence, encoder.notice) == (
        (0.5,) * 3, (0.25,) * 3, "BSD-3-Clause", "For tests.",
    )  # fmt: skip
    again = load_encoder(f"local:{settings.models_dir / 'mine'}", settings)
    assert again.digest == encoder.digest
    np.testing.assert_array_equal(run(encoder), run(again))
    encoder.check_grid(GridSpec(PX, 1.0))
    with pytest.raises(BundleMismatch, match=r"0\.9 to 1\.1 um/px"):
        encoder.check_grid(GridSpec(PX, 2.0))


def test_a_projection_sets_the_width(tmp_path: Path, weights: dict[str, np.ndarray]) -> None:
    """A trained projection would be left out or random."""
    random = np.random.default_rng(0)
    matrix, offset = random.normal(size=(16, 96)).astype(np.float32), random.normal(size=16).astype(np.float32)
    tensors = {**headless(weights), "projection.weight": matrix, "projection.bias": offset}
    bare = encoder_from_bundle(make_bundle(tmp_path / "bare", headless(weights)))
    encoder = encoder_from_bundle(make_bundle(tmp_path / "p", tensors, projection=16, dim=16))
    assert encoder.dim == 16
    np.testing.assert_allclose(run(encoder), run(bare) @ matrix.T + offset, rtol=1e-4, atol=1e-4)
    with pytest.raises(BundleMismatch, match="lacks projection"):
        encoder_from_bundle(make_bundle(tmp_path / "q", headless(weights), projection=16)).build()
    with pytest.raises(BundleMismatch, match="length 12; its network gives 16"):
        encoder_from_bundle(make_bundle(tmp_path / "r", tensors, projection=16, dim=12))


def test_the_digest_covers_what_decides_the_numbers(
    tmp_path: Path, weights: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two encoders with different features would share a cache, and a model accept the other's."""
    base = headless(weights)
    first = next(iter(base))
    changed = {**base, first: base[first] + 1}
    encoders = [
        encoder_from_bundle(make_bundle(tmp_path / f"e{i}", tensors, **parameters))
        for i, (tensors, parameters) in enumerate(
            [
                (base, {}),
                (changed, {}),
                (base, {"mean": [0.4] * 3}),
                (base, {"std": [0.3] * 3}),
                (base, {"kwargs": {"output_stride": 16}}),
            ]
        )
    ]
    monkeypatch.setattr(record_module, "INTERPOLATION", "nearest/0")
    encoders.append(encoder_from_bundle(load_bundle(tmp_path / "e0")))
    assert len({encoder.digest for encoder in encoders}) == len(encoders)
    monkeypatch.undo()
    same = encoder_from_bundle(make_bundle(tmp_path / "other-name", base))
    assert same.digest == encoders[0].digest, "a name or a card decides no number"


def test_weights_exchanged_before_building_are_refused(tmp_path: Path, weights: dict[str, np.ndarray]) -> None:
    """The digest would name weights that were not used."""
    encoder = encoder_from_bundle(make_bundle(tmp_path / "m", headless(weights)))
    assert encoder.weights is not None
    data = bytearray(encoder.weights.read_bytes())
    data[-2] ^= 1
    encoder.weights.write_bytes(data)
    with pytest.raises(UnsafeFile, match="SHA-256"):
        encoder.build()


PARAMETERS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no network": ({"timm": None}, UnsafeFile, "not described"),
    "no class token": ({"timm": "test_vit2", "kwargs": {}, "pooling": "class+mean"}, ModelError, "no class token"),
    "a checkpoint path": ({"kwargs": {"checkpoint_path": "x.pth"}}, UnsafeFile, "not allowed"),
    "pretrained": ({"kwargs": {"pretrained": True}}, UnsafeFile, "not allowed"),
    "a config": ({"kwargs": {"pretrained_cfg": {"url": "https://x"}}}, UnsafeFile, "not allowed"),
    "an overlay": ({"kwargs": {"pretrained_cfg_overlay": {"file": "x"}}}, UnsafeFile, "not allowed"),
    "nested values": ({"kwargs": {"layers": {"a": 1}}}, UnsafeFile, "not a plain value"),
    "unknown layer": ({"kwargs": {"norm_layer": "os.system"}}, ModelError, "not known"),
    "unknown argument": ({"kwargs": {"wings": 2}}, ModelError, "cannot build"),
    "unknown pooling": ({"pooling": "median"}, ModelError, "median"),
    "projection is text": ({"projection": "wide"}, UnsafeFile, "not described"),
    "two means": ({"mean": [0.5, 0.5]}, UnsafeFile, "three numbers"),
    "mpp is text": ({"mpp": "fine"}, UnsafeFile, "not described"),
    "mpp upside down": ({"mpp": [2.0, 1.0]}, UnsafeFile, "scale of 2.0 to 1.0"),
    "no mpp": ({"mpp": [0, 1]}, UnsafeFile, "scale of 0 to 1"),
    "std of nothing": ({"std": [0.5, 0, 0.5]}, UnsafeFile, "std that is not above 0"),
    "a million layers": ({"timm": "test_vit", "kwargs": {"depth": 1_000_000}}, UnsafeFile, "not a plain value"),
    "a layer of a terabyte": ({"timm": "test_vit", "kwargs": {"embed_dim": 1 << 40}}, UnsafeFile, "not a plain value"),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_hostile_bundles_build_nothing(name: str, tmp_path: Path, weights: dict[str, np.ndarray]) -> None:
    """A bundle's JSON would reach the network, the disk, or a traceback."""
    parameters, error, says = PARAMETERS[name]
    bundle = make_bundle(tmp_path / "m", headless(weights), **parameters)
    with pytest.raises(error, match=says):
        encoder_from_bundle(bundle)


def test_a_network_larger_than_its_file_is_never_built(tmp_path: Path, weights: dict[str, np.ndarray]) -> None:
    """A kilobyte of weights would take the machine's memory."""
    encoder = encoder_from_bundle(make_bundle(tmp_path / "m", headless(weights), projection=1 << 28))
    assert encoder.dim == 1 << 28
    with pytest.raises(BundleMismatch, match="lacks projection"):
        encoder.build()


@pytest.mark.parametrize("side", [0, -64, 5000, "wide"])
def test_tiles_of_no_size_are_refused(side: Any, tmp_path: Path, weights: dict[str, np.ndarray]) -> None:
    """A tile of a gigapixel would be read first and refused by the memory."""
    bundle = make_bundle(tmp_path / "m", headless(weights))
    with pytest.raises(UnsafeFile, match="not described"):
        encoder_from_bundle(dataclasses.replace(bundle, grid={**bundle.grid, "tile_px": side}))
    endless = {"type": "timm", "parameters": {**bundle.model["parameters"], "mpp": [1.0, float("inf")]}}
    with pytest.raises(UnsafeFile, match=r"scale of 1\.0 to inf"):
        encoder_from_bundle(dataclasses.replace(bundle, model=endless))


def test_a_head_is_not_an_encoder(tmp_path: Path, weights: dict[str, np.ndarray]) -> None:
    """``--encoder demo-sln`` would build something."""
    bundle = dataclasses.replace(make_bundle(tmp_path / "m", headless(weights)), kind="mil")
    with pytest.raises(BundleMismatch, match="of kind mil"):
        encoder_from_bundle(bundle)


def test_local_weights_with_a_card(tmp_path: Path, weights: dict[str, np.ndarray]) -> None:
    """The user's own safetensors would load into another network than they belong to."""
    path = card(tmp_path / "w.safetensors", headless(weights))
    encoder = load_encoder(f"local:{path}")
    bundled = encoder_from_bundle(make_bundle(tmp_path / "b", headless(weights)))
    np.testing.assert_array_equal(run(encoder), run(bundled))
    assert (encoder.dim, encoder.tile_px, encoder.licence) == (96, PX, "CC0")


CARDS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "code": ({"timm": "__import__('os').system('touch x')"}, UnsafeFile, "says no create_model"),
    "code as argument": ({"timm": f"create_model('{TINY}', a=open('x','w'))"}, UnsafeFile, "more than plain values"),
    "arguments unpacked": ({"timm": f"create_model('{TINY}', **dict(a=1))"}, UnsafeFile, "plain|names no network"),
    "a remark not understood": ({"timm": f"create_model('{TINY}') then prune"}, UnsafeFile, "then prune"),
    "no text": ({"timm": 3}, UnsafeFile, "says no create_model"),
    "deep": ({"timm": "create_model(" + "(" * 5000}, UnsafeFile, "says no create_model"),
    "another hash": ({"sha256": "0" * 64}, UnsafeFile, "SHA-256"),
    "another width": ({"features": 95}, BundleMismatch, "length 95; its network gives 96"),
    "no size": ({"input_size": []}, UnsafeFile, "input_size"),
    "a huge size": ({"input_size": [3, 9000, 9000]}, UnsafeFile, "input_size"),
    "std of nothing": ({"std": [0.0, 0.5, 0.5]}, UnsafeFile, "std that is not above 0"),
    "infinite mean": ({"mean": [0.5, 0.5, 1e999]}, UnsafeFile, "JSON"),
}


@pytest.mark.parametrize("name", CARDS)
def test_hostile_cards_run_nothing(
    name: str, tmp_path: Path, weights: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card's text would be evaluated."""
    monkeypatch.chdir(tmp_path)
    changes, error, says = CARDS[name]
    path = card(tmp_path / "w.safetensors", headless(weights), **changes)
    with pytest.raises(error, match=says):
        load_encoder(f"local:{path}")
    assert not (tmp_path / "x").exists()


def test_local_paths_that_are_no_weights(tmp_path: Path, weights: dict[str, np.ndarray]) -> None:
    """A checkpoint with code inside would be opened, or the message would not help."""
    pickled = tmp_path / "model.pt"
    pickled.write_bytes(b"PK\x03\x04rest")
    with pytest.raises(UnsafeFile, match="pickle"):
        load_encoder(f"local:{pickled}")
    with pytest.raises(MissingWeights, match="no such file"):
        load_encoder(f"local:{tmp_path / 'absent.safetensors'}")
    path = card(tmp_path / "w.safetensors", headless(weights))
    path.with_suffix(".json").write_text("{}")
    with pytest.raises(UnsafeFile, match="does not say timm, mean"):
        load_encoder(f"local:{path}")
    path.with_suffix(".json").write_text("no json")
    with pytest.raises(UnsafeFile, match="JSON"):
        load_encoder(f"local:{path}")
    path.with_suffix(".json").unlink()
    with pytest.raises(MissingWeights, match=r"w\.json is missing"):
        load_encoder(f"local:{path}")


def test_a_preset_loads_from_the_models_folder(
    settings: Settings, weights: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights put where the message said would not be found."""
    preset = Preset("tiny", TINY, 96, 0.37, "nobody/tiny", "CC0", tile_px=PX, notice="nothing")
    monkeypatch.setitem(PRESETS, "tiny", preset)
    (settings.models_dir / "tiny.safetensors").write_bytes(save(headless(weights)))
    encoder = load_encoder("tiny", settings)
    assert (encoder.dim, encoder.notice) == (96, "nothing")
    assert run(encoder).shape == (2, 96)


def test_class_and_mean_leaves_the_registers_out() -> None:
    """Registers mixed into the mean of the patches: Virchow2's features would be silently wrong."""
    torch = import_torch()
    architecture = Architecture("vit_tiny_patch16_224", {"depth": 1, "reg_tokens": 3, "img_size": PX}, "class+mean")
    network = build_network(architecture)
    pixels = torch.randn(2, 3, PX, PX)
    with torch.inference_mode():
        tokens = network.net.forward_features(pixels)
        wanted = torch.cat([tokens[:, 0], tokens[:, 4:].mean(1)], 1)
        assert torch.allclose(network(pixels), wanted, atol=1e-6)


def test_a_width_is_found_without_weights() -> None:
    """Architectures whose pooled width is not num_features (MobileNetV3) would get a wrong length."""
    encoder = encoder_from_parts(
        "x", Architecture("mobilenetv3_small_050"), weights=None, mean=(0.5,) * 3, std=(0.5,) * 3, tile_px=PX
    )
    assert encoder.dim == run(encoder).shape[1] == 1024


def test_other_packages_add_encoders(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry point would be documented and dead."""

    class Entry:
        name, value = "theirs", "their_package:encoder"

        def load(self) -> Any:
            return lambda given: load_encoder(f"random:{TINY}", given)

    monkeypatch.setattr(module, "entry_points", lambda group: [Entry()] if group == module.GROUP else [])
    assert load_encoder("theirs", settings).dim == 96

    def broken(given: Settings) -> Encoder:
        raise ZeroDivisionError("their mistake")

    for factory, says in ((broken, "their_package:encoder fails .*their mistake"), (lambda given: 3, "no Encoder")):
        monkeypatch.setattr(Entry, "load", lambda self, factory=factory: factory)
        with pytest.raises(ModelError, match=says):
            load_encoder("theirs", settings)


def test_a_package_brings_a_network_of_its_own(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoders that timm does not build could not be added at all, as the documentation says they can."""
    torch = import_torch()

    class Mean(torch.nn.Module):  # type: ignore[misc,name-defined]
        def forward(self, tiles: Any) -> Any:
            return tiles.mean(dim=(2, 3))

    @dataclasses.dataclass(frozen=True)
    class Own(Encoder):
        def build(self) -> Any:
            return Mean().eval()

    own = Own("own", "d" * 64, 3, PX, (0.5, 1.0), (0.5,) * 3, (0.25,) * 3, "", "network")

    class Entry:
        name, value = "own", "their_package:encoder"

        def load(self) -> Any:
            return lambda given: own

    monkeypatch.setattr(module, "entry_points", lambda group: [Entry()])
    encoder = load_encoder("own", settings)
    engine = make_engine(encoder, Device("cpu", ""), settings=settings, threads=1)
    tiles = np.random.default_rng(0).integers(0, 256, (2, PX, PX, 3)).astype(np.uint8)
    np.testing.assert_allclose(engine(tiles), (tiles.mean((1, 2)) / 255 - 0.5) / 0.25, atol=1e-5)


CARDED = {
    "mobilenetv2_100_in1k_coral_ptq": (1280, True),
    "resnet18_layer1-3_in1k_torchvision": (256, True),
    "resnet50_layer1-3_in1k_keras": (1024, False),
}


@pytest.mark.parametrize("name", CARDED)
def test_the_real_weights_load(name: str, shared: Path) -> None:
    """Real weights with their real cards would not load, or their batch norm would be trained away."""
    dim, folded = CARDED[name]
    encoder = load_encoder(f"local:{shared / 'weights' / name}.safetensors")
    assert (encoder.dim, encoder.tile_px) == (dim, 224)
    network = encoder.build()
    assert network.frozen == folded
    network.train()
    assert network.training != folded
    assert run(encoder).shape == (2, dim)
    if name.startswith("resnet50"):
        assert (network.net.layer2[0].conv1.stride, network.net.layer2[0].conv2.stride) == ((2, 2), (1, 1))
        assert (network.net.layer3[0].conv1.stride, network.net.layer3[0].conv2.stride) == ((2, 2), (1, 1))
