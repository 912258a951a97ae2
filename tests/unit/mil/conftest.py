"""Bags and heads made by code."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from napari_slnpredict.errors import BundleMismatch
from napari_slnpredict.mil.aggregators import build_aggregator
from napari_slnpredict.mil.head import Head, make_head
from napari_slnpredict.slide.grid import GridSpec, TileGrid

CLOSED = ("mean", "max", "attention", "gated", "additive")
EVERY = (*CLOSED, "self-attention")
SMALL: dict[str, dict[str, Any]] = {
    "mean": {"hidden": 16},
    "max": {"hidden": 16},
    "attention": {"hidden": 16, "attention": 8},
    "gated": {"hidden": 16, "attention": 8},
    "additive": {"hidden": 16, "attention": 8},
    "self-attention": {"width": 32, "heads": 4},
}


@dataclass
class FakeBag:
    """What the heads use of a bag."""

    grid: TileGrid
    features: Any
    damaged: np.ndarray
    encoder_digest: str = "e" * 64
    extra: dict[str, Any] = field(default_factory=dict)

    def require(self, encoder_digest: str) -> None:
        if encoder_digest != self.encoder_digest:
            raise BundleMismatch("other encoder")


def make_bag(n: int, dim: int = 12, seed: int = 0, dtype: type = np.float32) -> FakeBag:
    """A bag of random features on a lattice of two pieces of tissue."""
    random = np.random.default_rng(seed)
    columns = max(1, int(np.sqrt(n)))
    cells = np.stack([np.arange(n) // columns, np.arange(n) % columns], 1).astype(np.int32)
    grid = TileGrid(
        spec=GridSpec(128, 1.0),
        slide_id="slide",
        slide_mpp=0.5,
        extent=(100_000, 100_000),
        size_level0=256.0,
        locations=cells[:, ::-1].astype(np.int64) * 256 + 40,
        tissue=np.ones(n, np.float32),
        component=(1 + (np.arange(n) >= n // 2)).astype(np.int32),
        cells=cells,
        shape=(int(cells[:, 0].max()) + 1, columns),
    )
    return FakeBag(grid, random.normal(size=(n, dim)).astype(dtype), np.zeros(n, bool))


def make_module(kind: str, dim: int = 12, classes: int = 3, seed: int = 0) -> Any:
    """An untrained aggregator with weights large enough to matter; positions switched on."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = build_aggregator(kind, SMALL[kind], dim, classes)
        with torch.no_grad():
            for name, value in module.named_parameters():
                value.mul_(2.0) if value.ndim > 1 else value.add_(0.1 * torch.randn_like(value))
                if name.endswith("positions.scale"):
                    value.fill_(0.7)
    return module.eval()


def head_of(kind: str, dim: int = 12, classes: int = 3, seed: int = 0) -> Head:
    """A head around `make_module`."""
    return make_head(make_module(kind, dim, classes, seed), tuple("abcdefgh"[:classes]))


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tensors here are tiny: on a busy machine two threads wait for each other far longer than they compute."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(params=EVERY)
def kind(request: pytest.FixtureRequest) -> str:
    """Every aggregator of the table in turn."""
    return str(request.param)
