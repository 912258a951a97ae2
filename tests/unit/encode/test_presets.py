"""Rows of facts: each is the network its name means, pooled as published, on terms that are said."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from napari_slnpredict.encode.architecture import Architecture, build_network, load_tensors
from napari_slnpredict.encode.presets import PRESETS, UNSUPPORTED, Preset
from napari_slnpredict.errors import BundleMismatch
from napari_slnpredict.torch_door import import_torch

#: Length of a feature, millions of parameters, tokens before the patches: from the models' pages, not from the rows.
PUBLISHED = {
    "uni": (1024, 303.4, 1),
    "uni2-h": (1536, 681.4, 9),
    "virchow": (2560, 631.2, 1),
    "virchow2": (2560, 631.2, 5),
    "h-optimus-0": (1536, 1134.8, 5),
    "h-optimus-1": (1536, 1134.8, 5),
    "h0-mini": (768, 85.7, 5),
    "gigapath": (1536, 1135.0, 1),
    "kaiko-s16": (384, 21.7, 1),
    "kaiko-s8": (384, 21.7, 1),
    "kaiko-b16": (768, 85.8, 1),
    "kaiko-b8": (768, 85.8, 1),
    "kaiko-l14": (1024, 304.4, 5),  # with places for 518 px: 1.22 GB on its page
    "lunit-s16": (384, 21.7, 1),
    "lunit-s8": (384, 21.7, 1),
    "phikon": (768, 85.8, 1),
}


def architecture(preset: Preset, **changes: Any) -> Architecture:
    return Architecture(preset.timm, {**preset.kwargs, **changes}, preset.pooling)


def small(preset: Preset) -> Any:
    """The preset's network with one narrow block and four patches: the same family, the same pooling."""
    patch = int(preset.kwargs.get("patch_size", re.findall(r"patch(\d+)", preset.timm)[0]))
    return build_network(architecture(preset, depth=1, embed_dim=8, num_heads=2, img_size=2 * patch)), 2 * patch


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_is_the_network_it_names(name: str) -> None:
    """A row with a wrong argument would take no weights, or those of another network."""
    width, millions, prefix = PUBLISHED[name]
    preset = PRESETS[name]
    network = build_network(architecture(preset), "meta")
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)
    assert (preset.dim, preset.millions) == (width, millions)
    assert network.net.num_prefix_tokens == prefix
    torch = import_torch()
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, preset.tile_px, preset.tile_px, device="meta")).shape == (1, width)


def test_every_row_is_checked_and_says_its_terms() -> None:
    """A row nobody compared with its page, or one whose terms nobody sees."""
    assert set(PRESETS) == set(PUBLISHED)
    for preset in PRESETS.values():
        assert preset.licence
        assert preset.licence == "Apache-2.0" or preset.notice
        assert preset.mpp[0] < preset.tile_mpp < preset.mpp[1]
        assert bool(preset.revision) == bool(preset.sha256)
        assert not preset.revision or re.fullmatch(r"[0-9a-f]{40}", preset.revision)
    assert {name for name, preset in PRESETS.items() if preset.covers_trained} == {"uni", "uni2-h"}
    assert not {one.name for one in UNSUPPORTED} & set(PRESETS)
    assert all(one.reason for one in UNSUPPORTED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_tokens_become_a_feature_as_published(name: str) -> None:
    """Registers in the mean of the patches, or a mean where the class token is meant: silently wrong features."""
    torch, preset = import_torch(), PRESETS[name]
    network, side = small(preset)
    prefix = PUBLISHED[name][2]
    tokens = torch.full((2, prefix + 4, 8), 1000.0)  # registers: far from everything
    tokens[:, 0] = 1.0
    tokens[:, prefix:] = torch.tensor([2.0, 4.0, 6.0, 12.0])[:, None]
    network.net.forward_features = lambda pixels, **options: tokens
    got = network(torch.zeros(2, 3, side, side))
    wanted = [1.0] * 8 + [6.0] * 8 if preset.dim == 2560 else [1.0] * 8
    np.testing.assert_array_equal(got.numpy(), np.array([wanted, wanted], np.float32))


@pytest.mark.parametrize("name", ["uni", "virchow2", "h0-mini"])
def test_weights_of_another_network_are_refused(name: str) -> None:
    """A missing tensor stays random, an unknown one was made for something else: both load without strictness."""
    network, _ = small(PRESETS[name])
    tensors = {key.removeprefix("net."): value.numpy().copy() for key, value in network.state_dict().items()}
    load_tensors(network, tensors)
    with pytest.raises(BundleMismatch, match=r"lacks cls_token"):
        load_tensors(network, {key: value for key, value in tensors.items() if key != "cls_token"})
    with pytest.raises(BundleMismatch, match=r"holds mask_token, unknown"):
        load_tensors(network, {**tensors, "mask_token": np.zeros(8, np.float32)})
    with pytest.raises(BundleMismatch, match=r"pos_embed has shape"):
        load_tensors(network, {**tensors, "pos_embed": tensors["pos_embed"][:, 1:]})
