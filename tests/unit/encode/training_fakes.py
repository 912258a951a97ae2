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
