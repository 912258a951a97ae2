"""Encoders known by a short name: rows of facts, no code.

Facts come from the models' own pages and from the loaders of TRIDENT and eva; widths, numbers of parameters and tokens
are checked against timm by a test. Weights are never shipped: the licence of most is accepted on their page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
#: Mean and spread of H&E tiles, as the H-optimus models were trained with.
HOPTIMUS = ((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517))
#: The same for Lunit's.
LUNIT = ((0.70322989, 0.53606487, 0.66096631), (0.21716536, 0.26081574, 0.20723464))
SAFETENSORS, PICKLED = "model.safetensors", "pytorch_model.bin"


@dataclass(frozen=True)
class Preset:
    """One encoder that timm builds by itself.

    Attributes
    ----------
    name : str
    timm : str
        Network, with `kwargs`.
    dim : int
        Length of a feature.
    millions : float
        Parameters, in millions.
    source : str
        Repository on the Hugging Face hub.
    licence : str
        An SPDX name, or the words of the model's page where it has none.
    kwargs : dict
    pooling : str
        As `architecture.Architecture.pooling`.
    tile_px : int
    tile_mpp : float
        um/px of the tiles it was published with: 224 px made of 256 px at 0.5 um/px are at 0.571.
    mpp : (float, float)
        um/px it was made for, a third either way.
    norm : (mean, std)
    interpolation : str
        How its authors resize; tiles here are read as `slide.blocks.INTERPOLATION` says.
    gated : bool
        Its page wants an account and a promise before it gives the weights.
    file : str
        Name of the weights in the repository.
    covers_trained : bool
        Whether its terms cover models trained on its features: those inherit the licence.
    notice : str
        What follows from the licence for whoever uses it.
    revision, sha256 : str
        The commit of the repository and the hash of `file` that ``--download`` takes; "": nobody has verified one
        here, the user gives both.
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
    tile_mpp: float = 0.5
    mpp: tuple[float, float] = (0.375, 0.67)
    norm: tuple[tuple[float, float, float], tuple[float, float, float]] = IMAGENET
    interpolation: str = "bilinear"
    gated: bool = True
    file: str = PICKLED
    covers_trained: bool = False
    notice: str = ""
    revision: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class Unsupported:
    """An encoder people ask for that is not offered, and why."""

    name: str
    source: str
    reason: str


_DYNAMIC = {"dynamic_img_size": True}
_SCALED = {"init_values": 1e-5, **_DYNAMIC}
_SWIGLU = {"mlp_layer": "SwiGLUPacked", "act_layer": "SiLU"}
_GIANT_REG4 = {"img_size": 224, "global_pool": "token", **_SCALED}
#: 256 px at 0.5 um/px made 224 px.
_FROM_256 = 0.5 * 256 / 224

_UNI_TERMS = (
    "for non-commercial academic research only, and so are models and data sets made from its features; no copy and no "
    "changed version may be passed on"
)
_NOT_COMMERCIAL = "not for commercial use; read its terms before you pass on a model trained on its features"
_OWN_TERMS = "read the terms on its page before any use but research"


def _kaiko(letter: str, patch: int, dim: int, millions: float, timm: str, **kwargs: Any) -> Preset:
    return Preset(
        f"kaiko-{letter}{patch}", timm, dim, millions, f"1aurent/{timm}.kaiko_ai_towards_large_pathology_fms",
        "kaiko-non-commercial", {**kwargs, **_DYNAMIC}, tile_mpp=_FROM_256, norm=HALF, gated=False, file=SAFETENSORS,
        notice=_NOT_COMMERCIAL,
    )  # fmt: skip


def _lunit(patch: int, revision: str = "", sha256: str = "") -> Preset:
    timm = f"vit_small_patch{patch}_224"
    return Preset(
        f"lunit-s{patch}", timm, 384, 21.7, f"1aurent/{timm}.lunit_dino", "lunit-non-commercial", _DYNAMIC, norm=LUNIT,
        gated=False, file=SAFETENSORS, notice=_NOT_COMMERCIAL, revision=revision, sha256=sha256,
    )  # fmt: skip


PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            "uni", "vit_large_patch16_224", 1024, 303.4, "MahmoodLab/UNI", "CC-BY-NC-ND-4.0",
            {"img_size": 224, "patch_size": 16, **_SCALED},
            tile_mpp=_FROM_256, covers_trained=True, notice=_UNI_TERMS,
        ),
        Preset(
            "uni2-h", "vit_giant_patch14_224", 1536, 681.4, "MahmoodLab/UNI2-h", "CC-BY-NC-ND-4.0",
            {"img_size": 224, "patch_size": 14, "depth": 24, "num_heads": 24, "embed_dim": 1536, "mlp_ratio": 5.33334,
             "no_embed_class": True, "reg_tokens": 8, **_SCALED, **_SWIGLU},
            tile_mpp=_FROM_256, covers_trained=True, notice=_UNI_TERMS,
        ),
        Preset(
            "virchow", "vit_huge_patch14_224", 2560, 631.2, "paige-ai/Virchow", "Apache-2.0",
            {"mlp_ratio": 5.3375, **_SCALED, **_SWIGLU}, pooling="class+mean", interpolation="bicubic",
        ),
        Preset(
            "virchow2", "vit_huge_patch14_224", 2560, 631.2, "paige-ai/Virchow2", "CC-BY-NC-ND-4.0",
            {"mlp_ratio": 5.3375, "reg_tokens": 4, **_SCALED, **_SWIGLU},
            pooling="class+mean", interpolation="bicubic", notice=_NOT_COMMERCIAL,
        ),
        Preset(
            "h-optimus-0", "vit_giant_patch14_reg4_dinov2", 1536, 1134.8, "bioptimus/H-optimus-0", "Apache-2.0",
            _GIANT_REG4, norm=HOPTIMUS,
        ),
        Preset(
            "h-optimus-1", "vit_giant_patch14_reg4_dinov2", 1536, 1134.8, "bioptimus/H-optimus-1",
            "academic, non-commercial", _GIANT_REG4, norm=HOPTIMUS, notice=_NOT_COMMERCIAL,
        ),
        Preset(
            "h0-mini", "vit_base_patch14_reg4_dinov2", 768, 85.7, "bioptimus/H0-mini", "non-commercial",
            {"img_size": 224, "mlp_ratio": 5.33334, **_SCALED, **_SWIGLU},
            norm=HOPTIMUS, interpolation="bicubic", file=SAFETENSORS, notice=_NOT_COMMERCIAL,
        ),
        Preset(
            "gigapath", "vit_giant_patch14_dinov2", 1536, 1135.0, "prov-gigapath/prov-gigapath", "Apache-2.0",
            {"img_size": 224, "patch_size": 16, "embed_dim": 1536, "depth": 40, "num_heads": 24, "mlp_ratio": 5.33334,
             **_DYNAMIC},
            interpolation="bicubic", notice=_OWN_TERMS,
        ),
        _kaiko("s", 16, 384, 21.7, "vit_small_patch16_224"),
        _kaiko("s", 8, 384, 21.7, "vit_small_patch8_224"),
        _kaiko("b", 16, 768, 85.8, "vit_base_patch16_224"),
        _kaiko("b", 8, 768, 85.8, "vit_base_patch8_224"),
        _kaiko("l", 14, 1024, 304.4, "vit_large_patch14_reg4_dinov2", img_size=518),
        _lunit(16),
        _lunit(  # as the hub's pages of the repository's tree and of the file show them
            8, "422e95dc63235e4b74356570f9ae05f88c773288",
            "0b7e0236ce430064b31485bbb6f85e661dc5eca0cde709e8f04d59f1c2b23e0b",
        ),
        Preset(
            "phikon", "vit_base_patch16_224", 768, 85.8, "1aurent/vit_base_patch16_224.owkin_pancancer",
            "owkin-non-commercial", _DYNAMIC, gated=False, file=SAFETENSORS, notice=_NOT_COMMERCIAL,
        ),
    )
}  # fmt: skip

_TRANSFORMERS = "needs the transformers library; timm does not build it"
_REMOTE_CODE = "needs transformers and runs code from its repository"
_OWN_PACKAGE = "needs a package of its own"

UNSUPPORTED = (
    Unsupported("phikon-v2", "owkin/phikon-v2", _TRANSFORMERS),
    Unsupported("midnight", "kaiko-ai/midnight", _TRANSFORMERS),
    Unsupported("hibou-b", "histai/hibou-b", _REMOTE_CODE),
    Unsupported("hibou-l", "histai/hibou-L", _REMOTE_CODE),
    Unsupported("keep", "Astaxanthin/KEEP", _REMOTE_CODE),
    Unsupported("conch", "MahmoodLab/CONCH", _OWN_PACKAGE),
    Unsupported("conch-1.5", "MahmoodLab/conchv1_5", _OWN_PACKAGE),
    Unsupported("musk", "xiangjx/musk", _OWN_PACKAGE),
    Unsupported("ctranspath", "Xiyue-Wang/TransPath", "needs a changed timm of its own"),
    Unsupported("openmidnight", "SophontAI/OpenMidnight", "is built by torch.hub code; its weights are a pickle"),
    Unsupported("genbio-pathfm", "genbio-ai/genbio-pathfm", "needs code of its own; its weights are a pickle"),
    Unsupported("gpfm", "majiabo/GPFM", "no licence was found"),
)
