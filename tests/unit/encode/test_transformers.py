"""Vision transformers, as most public encoders are: trained further, at other tile sizes, and in other engines."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from napari_slnpredict.encode.architecture import Architecture, build_network
from napari_slnpredict.encode.encoder import encoder_from_bundle, load_encoder
from napari_slnpredict.encode.engines import Device, make_engine
from napari_slnpredict.encode.pretrain import pretrain
from napari_slnpredict.encode.record import Encoder, encoder_from_parts, for_tiles
from napari_slnpredict.encode.simclr import SimClr, SimClrSettings
from napari_slnpredict.encode.trained import save_pretrained
from napari_slnpredict.errors import BundleMismatch
from napari_slnpredict.events import run
from napari_slnpredict.settings import Settings
from napari_slnpredict.torch_door import import_torch

from .training_fakes import PX, Tiles

KWARGS = {"depth": 2, "embed_dim": 16, "num_heads": 2, "img_size": 64, "reg_tokens": 2, "init_values": 1e-5}
SETTINGS = SimClrSettings(steps=3, batch=8)


def transformer(pooling: str = "class+mean", **changes: object) -> Encoder:
    """A small network of the presets' family, with random weights, made for tiles of 64 px."""
    return encoder_from_parts(
        "tiny-vit", Architecture("vit_tiny_patch16_224", {**KWARGS, **changes}, pooling), weights=None,
        mean=(0.5,) * 3, std=(0.5,) * 3, tile_px=64, licence="CC-BY-NC-ND-4.0", notice="for research only",
    )  # fmt: skip


@pytest.mark.parametrize("pooling", ["network", "class+mean"])
def test_a_transformer_is_trained_further_at_another_size(pooling: str, tmp_path: Path) -> None:
    """The public encoders could be looked at, but not begun from; or only with tiles of their own size."""
    torch = import_torch()
    start = dataclasses.replace(for_tiles(transformer(pooling), PX), covers_trained=True)
    assert (start.tile_px, start.dim) == (PX, 32 if pooling == "class+mean" else 16)
    method, tiles = SimClr(SETTINGS), Tiles()
    trained = run(pretrain(tiles, start, method, tmp_path / "run", device="cpu"))
    before = start.build().state_dict()
    moved = {name for name, value in trained.network.state_dict().items() if not torch.equal(value, before[name])}
    # All that the output depends on: places of patches too, resampled as they are. The last register is read by nobody.
    assert {"net.pos_embed", "net.cls_token", "net.reg_token", "net.patch_embed.proj.weight"} <= moved
    bundle = save_pretrained(tmp_path / "mine", "mine", start, trained, method, tiles.table, tile_px=PX, mpp=1.0)
    encoder = encoder_from_bundle(bundle)
    pixels = torch.rand(2, 3, PX, PX)
    with torch.inference_mode():
        assert torch.equal(encoder.build()(pixels), trained.network(pixels))
    assert (encoder.licence, encoder.covers_trained) == ("CC-BY-NC-ND-4.0", True)
    assert "tiny-vit (CC-BY-NC-ND-4.0): for research only" in bundle.notice
    assert encoder.entry()["covers_trained"] is True


def test_the_same_weights_at_another_size_are_another_encoder() -> None:
    """Features of 32 px tiles would be taken for those of 64 px tiles, or a network run on tiles it cannot take."""
    encoder = transformer()
    assert for_tiles(encoder, 64) is encoder
    other = for_tiles(encoder, 32)
    assert (other.tile_px, other.architecture.kwargs["dynamic_img_size"]) == (32, True)
    assert other.digest != encoder.digest
    assert (
        build_network(other.architecture).state_dict().keys() == build_network(encoder.architecture).state_dict().keys()
    )
    convolutional = load_encoder("random:test_resnet")
    assert for_tiles(convolutional, 96).digest == convolutional.digest
    with pytest.raises(BundleMismatch, match=r"cannot take tiles of 40 px.*tiles of 64 px"):
        for_tiles(encoder, 40)


def test_at_its_own_size_resampling_places_changes_nothing() -> None:
    """``dynamic_img_size``, which presets set, would shift every published feature."""
    torch = import_torch()
    fixed, moving = transformer(), transformer(dynamic_img_size=True)
    pixels = torch.from_numpy(np.random.default_rng(0).random((2, 3, 64, 64), np.float32))
    with torch.inference_mode():
        assert torch.equal(fixed.build()(pixels), moving.build()(pixels))


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed")
def test_openvino_takes_a_transformer_with_registers(tmp_path: Path) -> None:
    """The largest encoders, which need it most, would run in the slowest engine, or give other features there."""
    encoder = for_tiles(transformer(mlp_layer="SwiGLUPacked", act_layer="SiLU"), PX)
    settings = Settings(cache=str(tmp_path), engine="openvino-float32")
    engine = make_engine(encoder, Device("cpu", ""), settings=settings, batch=2, threads=1)
    pixels = np.random.default_rng(0).integers(0, 256, (3, PX, PX, 3)).astype(np.uint8)
    torch = import_torch()
    with torch.inference_mode():
        wanted = encoder.build()((torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5).numpy()
    assert engine.precision == "openvino-float32"
    np.testing.assert_allclose(engine(pixels), wanted, atol=1e-5)
