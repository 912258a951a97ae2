"""A slide, a grid, an encoder and an engine, all small and made by code."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from slide.fakes import ArraySlide

from napari_slnpredict.encode.architecture import Architecture
from napari_slnpredict.encode.engines import Device
from napari_slnpredict.encode.record import Encoder
from napari_slnpredict.errors import CorruptSlide
from napari_slnpredict.files import digest_bytes
from napari_slnpredict.slide.grid import GridSpec, TileGrid

TILE = 16


class Slide(ArraySlide):
    """An array slide with an identity, which may change under way."""

    def __init__(self, rows: int = 9, columns: int = 9, **options: Any) -> None:
        pixels = np.random.default_rng(5).integers(0, 256, (rows * TILE, columns * TILE, 3)).astype(np.uint8)
        super().__init__(pixels, 1.0, (1,), **options)
        self.content_id = digest_bytes(pixels.tobytes())
        self.changed = False

    def unchanged(self) -> None:
        if self.changed:
            raise CorruptSlide("changed while it was read", file=self.path)


def make_grid(rows: int = 9, columns: int = 9, slide_id: str = "array") -> TileGrid:
    """Every cell of the lattice is a tile."""
    cells = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), -1).reshape(-1, 2)
    n = len(cells)
    return TileGrid(
        spec=GridSpec(TILE, 1.0),
        slide_id=slide_id,
        slide_mpp=1.0,
        extent=(columns * TILE, rows * TILE),
        size_level0=float(TILE),
        locations=cells[:, ::-1].astype(np.int64) * TILE,
        tissue=np.ones(n, np.float32),
        component=np.ones(n, np.int32),
        cells=cells.astype(np.int32),
        shape=(rows, columns),
    )


def make_encoder(name: str = "fake", dim: int = 4, warning: str = "") -> Encoder:
    """A record alone; the engine beside it does the work."""
    return Encoder(
        name, digest_bytes(name), dim, TILE, (0.5, 2.0), (0.5,) * 3, (0.5,) * 3, "none", "network", warning=warning,
        architecture=Architecture("none"),
    )  # fmt: skip


class FakeEngine:
    """Features that are plain sums of pixels: equal to the bit however batches are cut.

    Parameters
    ----------
    seconds : float
        Taken by each pass.
    fail_at : int
        Number of the pass (from 1) that raises `error`; 0 never.
    poison : (k,) int or None
        Tiles whose feature is NaN, told by their first pixels.
    """

    precision = "float32"
    dim = 4
    tile_px = TILE

    def __init__(
        self,
        *,
        streams: int = 2,
        batch: int = 4,
        seconds: float = 0.0,
        fail_at: int = 0,
        error: Exception | None = None,
    ) -> None:
        self.streams, self.batch, self.seconds = streams, batch, seconds
        self.device = Device("cpu", "made by code")
        self.fail_at, self.error = fail_at, error or RuntimeError("a kernel failed")
        self.tiles_seen: list[NDArray[np.float32]] = []
        self.poison: NDArray[np.float32] | None = None
        self.notices: list[str] = []
        self.entered: set[int] = set()
        self.released = 0
        self._passes = 0
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        """Tiles embedded so far."""
        return sum(len(part) for part in self.tiles_seen)

    def enter_thread(self) -> None:
        self.entered.add(threading.get_ident())

    def release(self) -> None:
        self.released += 1

    def take_notices(self) -> list[str]:
        notices, self.notices = self.notices, []
        return notices

    def __call__(self, tiles: NDArray[np.uint8], *, fill: bool = True) -> NDArray[np.float32]:
        time.sleep(self.seconds)
        with self._lock:
            self._passes += 1
            if self._passes == self.fail_at:
                raise self.error
        features = fake_features(tiles)
        if self.poison is not None:
            features[(features == self.poison).all(axis=1)] = np.nan
        with self._lock:
            self.tiles_seen.append(features)
        return features


def fake_features(tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Sums of the three channels and of the first row, (k, 4) float32."""
    sums = tiles.sum(axis=(1, 2), dtype=np.int64)
    first = tiles[:, 0].sum(axis=(1, 2), dtype=np.int64)
    return np.concatenate([sums, first[:, None]], axis=1).astype(np.float32)


def expected(slide: Slide, grid: TileGrid) -> NDArray[np.float32]:
    """The features an uninterrupted run ends with."""
    pixels = slide.levels[0][0]
    tiles = np.stack([pixels[y : y + TILE, x : x + TILE] for x, y in grid.locations.tolist()])
    return fake_features(tiles)


def chunks_in(cache: Path) -> list[Path]:
    """The sealed chunks of a cache."""
    return sorted(cache.rglob("*.chunk"))
