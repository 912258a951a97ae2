"""Tiles to train on from HDF5, as PatchCamelyon has them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import DataError, one_line

from .tile_files import csv_lines
from .tile_table import SlideFacts, TileTable

#: um/px of PatchCamelyon: level 2 of slides scanned at 0.243.
PCAM_MPP = 0.972


class PcamTiles:
    """Tiles of an HDF5 file as PatchCamelyon has them; thread-safe.

    Parameters
    ----------
    pixels : Path
        With a dataset ``x`` (n, p, p, 3) uint8.
    labels : Path, optional
        With a dataset ``y`` of n numbers, 0 or 1: "normal" or "tumor" (tumour in the middle 32 px).
    meta : Path, optional
        CSV with a column ``wsi``: tiles of one slide are one group. Without it every tile is its own group, though
        neighbours are among them: say so beside any figure.
    """

    def __init__(
        self, pixels: Path, labels: Path | None = None, meta: Path | None = None, *, mpp: float | None = PCAM_MPP
    ) -> None:
        self._path, self.mpp = Path(pixels), mpp
        shape = _dataset(self._path, "x", lambda data: (data.shape, str(data.dtype)))
        if len(shape[0]) != 4 or shape[0][3] != 3 or shape[0][1] != shape[0][2] or shape[1] != "uint8":
            raise DataError(
                f"'x' is {shape[0]} {shape[1]}, not (n, p, p, 3) uint8", file=pixels, do="give PCam's _x.h5"
            )
        self.tile_px = int(shape[0][1])
        count = int(shape[0][0])
        self.table = _pcam_table(count, _pcam_labels(labels, count), _pcam_slides(meta, count))
        self._lock = threading.Lock()

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return tiles (k, p, p, 3)."""
        wanted, inverse = np.unique(np.asarray(rows, np.int64).reshape(-1), return_inverse=True)
        with self._lock:  # HDF5 has one lock anyway
            found = _dataset(self._path, "x", lambda data: np.asarray(data[wanted]))
        tiles: NDArray[np.uint8] = found[inverse.reshape(-1)]
        return tiles


def _dataset(path: Path, name: str, look: Callable[[Any], Any]) -> Any:
    """Open an HDF5 file, look at one dataset, close it."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            if not isinstance(file.get(name), h5py.Dataset):
                raise DataError(f"has no dataset {name!r}", file=path, do="give the file of PatchCamelyon's layout")
            return look(file[name])
    except OSError as error:
        raise DataError(
            f"cannot be read ({one_line(error, 120)})", file=path, do="unpack .h5.gz first, or fetch it again"
        ) from error


def _pcam_labels(path: Path | None, count: int) -> NDArray[np.int64]:
    if path is None:
        return np.full(count, -1, np.int64)
    labels = _dataset(path, "y", lambda data: np.asarray(data[()]).reshape(-1).astype(np.int64))
    if len(labels) != count or not np.isin(labels, (0, 1)).all():
        raise DataError(f"'y' is not {count} labels 0 or 1", file=path, do="give the _y.h5 of the same split")
    return np.asarray(labels, np.int64)


def _pcam_slides(path: Path | None, count: int) -> list[str]:
    if path is None:
        return []
    names = [(line.get("wsi") or "").strip() for line in csv_lines(path, "wsi")]
    if len(names) != count or not all(names):
        raise DataError(f"no column 'wsi' with {count} slides", file=path, do="give the _meta.csv of the same split")
    return names


def _pcam_table(count: int, labels: NDArray[np.int64], slides: list[str]) -> TileTable:
    names = list(dict.fromkeys(slides))
    place = {name: k for k, name in enumerate(names)}
    own = np.array([place[name] for name in slides], np.int64) if slides else np.full(count, -1, np.int64)
    return TileTable(
        slide=own,
        group=own if slides else np.arange(count),
        site=np.zeros(count, np.int64),
        centre_um=np.full((count, 2), np.nan),
        component=np.zeros(count, np.int32),
        label=labels,
        slides=tuple(SlideFacts(name, "") for name in names),
        classes=("normal", "tumor") if (labels >= 0).any() else (),
    )
