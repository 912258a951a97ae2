"""A real model that needs no training: random weights of a small network, gated attention on top."""

from __future__ import annotations

from pathlib import Path

from napari_slnpredict.bundles.bundle import Bundle, save_bundle
from napari_slnpredict.encode.encoder import load_encoder
from napari_slnpredict.mil.aggregators import build_aggregator
from napari_slnpredict.mil.head import head_parts, make_head
from napari_slnpredict.torch_door import import_torch

NAME = "random-sln"


def save_random_model(
    models: Path,
    *,
    network: str = "mobilenetv3_small_050",
    kind: str = "gated",
    tile_px: int = 128,
    mpp: float = 1.0,
) -> Bundle:
    """Write a bundle into a folder of models."""
    torch = import_torch()
    encoder = load_encoder(f"random:{network}")
    torch.manual_seed(0)
    parameters = {"width": 32, "heads": 4} if kind == "self-attention" else {"hidden": 16, "attention": 8}
    module = build_aggregator(kind, parameters, encoder.dim, 2).eval()
    with torch.no_grad():
        for value in module.parameters():
            value.mul_(4.0)
    model, tensors = head_parts(make_head(module, ("negative", "positive")), kind)
    return save_bundle(
        models / NAME,
        name=NAME,
        kind="mil",
        model=model,
        tensors=tensors,
        card="# Random model\n\nRandom weights, for tests only.\n",
        task={"name": "sln", "classes": ["negative", "positive"], "positive": "positive", "ordered": False},
        encoder={"name": encoder.name, "digest": encoder.digest},
        grid={"tile_px": tile_px, "mpp": mpp, "overlap_px": 0, "min_tissue": 0.25},
        licence="BSD-3-Clause",
        notice="Random weights: for tests only. Not for diagnosis.",
    )
