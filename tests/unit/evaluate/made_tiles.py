"""Tiles in memory with planted structure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.encode.tile_table import SlideFacts, TileTable

PX = 16


class Planted:
    """Tiles whose brightness of one corner says the class; slides of patients, places on a grid.

    Patient p has one slide of `each` tiles; classes alternate between patients unless `mixed`.
    """

    tile_px, mpp = PX, 1.0

    def __init__(
        self, patients: int = 12, each: int = 12, *, classes: int = 2, mixed: bool = True, sites: int = 0, seed: int = 0
    ) -> None:
        rng = np.random.default_rng(seed)
        n = patients * each
        slide = np.repeat(np.arange(patients), each)
        label = (np.arange(n) if mixed else slide) % classes
        self.pixels = rng.integers(60, 200, (n, PX, PX, 3)).astype(np.uint8)
        self.pixels[:, :4, :4] = (label * (255 // max(1, classes - 1)))[:, None, None, None]
        place = np.tile(np.stack([np.arange(each) * 250.0, np.zeros(each)], axis=1), (patients, 1))
        self.table = TileTable(
            slide=slide,
            group=slide,
            site=slide % sites + 1 if sites else np.zeros(n, np.int64),
            centre_um=place,
            component=np.ones(n, np.int32),
            label=label,
            slides=tuple(SlideFacts(f"s{k}", f"content{k}", f"p{k}", "") for k in range(patients)),
            classes=tuple("abcdefg"[:classes]),
        )

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return tiles."""
        return self.pixels[rows]


def corner(tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A feature that holds the class, and a constant."""
    bright = tiles[:, :4, :4, 0].mean(axis=(1, 2)) / 255
    return np.stack([bright, 1 - bright, np.full(len(tiles), 0.1)], axis=1).astype(np.float32)


def noise(tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A feature that holds nothing of the class, the same for the same tile."""
    rows = [np.random.default_rng(int(tile[8:, 8:].astype(np.int64).sum())).normal(size=6) for tile in tiles]
    return np.asarray(rows, np.float32)
