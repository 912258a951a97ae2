"""Some tiles of a source as a source of their own: a part held back, a split."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .tile_table import TileData, TileTable


def subset(data: TileData, rows: NDArray[np.int64]) -> TileSubset:
    """Return rows of a source, in the order given, as a source; closing it closes the whole."""
    return TileSubset(data, np.asarray(rows, np.int64).reshape(-1))


class TileSubset:
    """Some rows of a source; a context manager."""

    def __init__(self, whole: TileData, rows: NDArray[np.int64]) -> None:
        self.whole, self.rows = whole, rows
        self.table: TileTable = whole.table.take(rows)
        self.tile_px, self.mpp = whole.tile_px, whole.mpp

    @property
    def notes(self) -> tuple[str, ...]:
        """What went wrong while reading."""
        return tuple(getattr(self.whole, "notes", ()))

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return tiles (k, p, p, 3)."""
        return self.whole.read(self.rows[np.asarray(rows, np.int64).reshape(-1)])

    def close(self) -> None:
        """Close what the source holds open."""
        getattr(self.whole, "close", lambda: None)()

    def __enter__(self) -> TileSubset:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
