"""Small tiles and methods for tests of training."""

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.encode.encoder import load_encoder
from napari_slnpredict.encode.record import Encoder
from napari_slnpredict.encode.tile_table import SlideFacts, TileTable

PX = 32


def start() -> Encoder:
    """A network of a second."""
    return load_encoder("random:test_resnet")


class Tiles:
    """Tiles in memory: coloured noise, two patients, each on a square of tissue."""

    tile_px, mpp = PX, 1.0

    def __init__(self, side: int = 12, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        n = 2 * side * side
        columns, rows = np.meshgrid(np.arange(side), np.arange(side))
        centres = np.tile(np.stack([columns.ravel(), rows.ravel()], axis=1) * 200.0, (2, 1))
        slide = np.repeat([0, 1], n // 2)
        self.label = (centres[:, 0] > centres[:, 0].mean()).astype(np.int64)
        colours = rng.integers(60, 200, (n, 1, 1, 3)) + 40 * self.label[:, None, None, None]
        noise = rng.integers(-30, 30, (n, PX, PX, 3))
        self.pixels = np.clip(colours + noise, 0, 255).astype(np.uint8)
        slides = tuple(SlideFacts(f"s{i}", f"c{i}", f"p{i}") for i in range(2))
        self.table = TileTable(
            slide, slide, np.zeros(n, np.int64), centres, np.ones(n, np.int32), self.label, slides, ("a", "b")
        )

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return tiles."""
        return self.pixels[rows]


def stained(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Return tiles of two dyes in varying amounts and tints, (count, PX, PX, 3), 0 to 1."""
    rng = np.random.default_rng(seed)
    dyes = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
    own = dyes + 0.08 * rng.random((count, 2, 3))
    own /= np.linalg.norm(own, axis=2, keepdims=True)
    amounts = rng.gamma(2.0, 0.35, (count, PX, PX, 2)) + 0.15
    density = np.einsum("bhws,bsc->bhwc", amounts, own)
    return np.exp(-density).astype(np.float32)
