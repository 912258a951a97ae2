"""Encoders known by a short name: rows of facts, no code.

Facts from the models' own pages and from TRIDENT's loaders; widths and numbers of parameters are checked against timm
by a test. Weights are never shipped or fetched here: the licence of most is accepted on their page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
#: Mean and spread of H&E tiles, as the H-optimus models were trained with.
HOPTIMUS = ((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517))
_SWIGLU = {"mlp_layer": "SwiGLUPacked", "act_layer": "SiLU"}


@dataclass(frozen=True)
class Preset:
    """One encoder that timm builds by itself.

    Attributes
    ----------
    name : str
    timm : str
        Network, with `kwargs`.
    pooling : str
        As `architecture.Architecture.pooling`.
    dim : int
        Length of a feature.
    millions : float
        Parameters, in millions.
    tile_px : int
    mpp : (float, float)
        um/px it was made for, a third either way.
    norm : (mean, std)
    source : str
        Repository on the Hugging Face hub.
    licence : str
    notice : str
        What follows from the licence for whoever uses it.
    """

    name: str
    timm: str
    dim: int
    millions: float
    source: str
    licence: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    pooling: str = "network"
    tile_px: int = 224
    mpp: tuple[float, float] = (0.375, 0.67)
    norm: tuple[tuple[float, float, float], tuple[float, float, float]] = IMAGENET
    notice: str = ""


_NOT_COMMERCIAL = "Not for commercial use; a model trained on its features inherits that."

PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            "uni", "vit_large_patch16_224", 1024, 303.4, "MahmoodLab/UNI", "CC-BY-NC-ND-4.0",
            {"img_size": 224, "patch_size": 16, "init_values": 1e-5, "dynamic_img_size": True},
            notice=_NOT_COMMERCIAL,
        ),
        Preset(
            "uni2-h", "vit_giant_patch14_224", 1536, 681.4, "MahmoodLab/UNI2-h", "CC-BY-NC-ND-4.0",
            {"img_size": 224, "patch_size": 14, "depth": 24, "num_heads": 24, "embed_dim": 1536, "mlp_ratio": 5.33334,
             "no_embed_class": True, "reg_tokens": 8, "init_values": 1e-5, "dynamic_img_size": True, **_SWIGLU},
            notice=_NOT_COMMERCIAL,
        ),
        Preset(
            "virchow2", "vit_huge_patch14_224", 2560, 631.2, "paige-ai/Virchow2", "CC-BY-NC-ND-4.0",
            {"mlp_ratio": 5.3375, "reg_tokens": 4, "init_values": 1e-5, "dynamic_img_size": True, **_SWIGLU},
            pooling="class+mean", notice=_NOT_COMMERCIAL,
        ),
        Preset(
            "h-optimus-0", "vit_giant_patch14_reg4_dinov2", 1536, 1134.8, "bioptimus/H-optimus-0", "Apache-2.0",
            {"img_size": 224, "global_pool": "token", "init_values": 1e-5}, norm=HOPTIMUS,
        ),
    )
}  # fmt: skip
