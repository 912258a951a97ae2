"""The cache of one slide's features: sealed chunks while a run lasts, one ``features.h5`` in the end.

A chunk is a file of its own, written aside, synced and renamed; its header names what it belongs to and holds a
checksum. So a killed run keeps every sealed chunk, a torn or foreign one is noticed and computed again, and two
processes at the same slide find each other's chunks and share the work.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import DataError, ResourceError
from napari_slnpredict.files import PART_SUFFIX, write_file
from napari_slnpredict.slide.grid import TileGrid

from .features import Bag, features_digest, read_features, write_features

CHUNK_TILES = 512
_MAGIC = b"SLNCHNK1"
_START = struct.Struct("<8sII")  # magic, length of the header, its checksum
_MAX_HEADER = 1 << 16
_STALE_SECONDS = 3600.0


@dataclass(frozen=True)
class Chunk:
    """Features of some tiles.

    Attributes
    ----------
    indices : (k,) int64
    features : (k, d) float32
    damaged : (k,) bool
    """

    indices: NDArray[np.int64]
    features: NDArray[np.float32]
    damaged: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.indices)


class FeatureStore:
    """One folder: ``<cache>/<content id>/<grid digest>/<features digest>``, digests cut to 16 characters.

    Parameters
    ----------
    cache : Path
    content_id : str
        Of the slide.
    grid : TileGrid
    encoder_name, encoder_digest, precision : str
    dim : int
        Length of a feature.
    """

    def __init__(
        self,
        cache: Path,
        content_id: str,
        grid: TileGrid,
        *,
        encoder_name: str,
        encoder_digest: str,
        precision: str,
        dim: int,
    ) -> None:
        self.grid, self.dim = grid, dim
        self.encoder_name, self.encoder_digest, self.precision = encoder_name, encoder_digest, precision
        self.content_id = content_id
        self.digest = features_digest(encoder_digest, precision)
        self.folder = Path(cache) / content_id / grid.digest[:16] / self.digest[:16]
        self.path = self.folder / "features.h5"
        #: Why a file that was there could not be used; "" when there was none, or it was good.
        self.problem = ""
        self._seen: set[str] = set()

    @property
    def chunk_folder(self) -> Path:
        """Where sealed chunks lie until the end."""
        return self.folder / "chunks"

    @property
    def lock_path(self) -> Path:
        """The lock that saves double work; nothing depends on it."""
        return self.folder / "work.lock"

    def open_bag(self) -> Bag | None:
        """Return the finished features, or None when there are none that are whole and ours."""
        self.problem = ""
        if not self.path.is_file():
            return None
        try:
            bag = read_features(self.path)
        except DataError as error:
            self.problem = str(error)
            return None
        theirs = (bag.grid.digest, bag.encoder_digest, bag.precision, bag.dim)
        if theirs != (self.grid.digest, self.encoder_digest, self.precision, self.dim):
            self.problem = f"{self.path.name}: belongs to another slide, grid or encoder"
            return None
        # The slide may have been renamed since: the grid of today names it.
        return replace(bag, grid=self.grid)

    def seal(self, chunk: Chunk) -> Path:
        """Write a chunk; once this returns, it survives a kill and a power failure."""
        payload = b"".join(
            (
                np.ascontiguousarray(chunk.indices, "<i8").tobytes(),
                np.ascontiguousarray(chunk.damaged, np.uint8).tobytes(),
                np.ascontiguousarray(chunk.features, "<f4").tobytes(),
            )
        )
        header = json.dumps({**self._identity(), "count": len(chunk), "crc": zlib.crc32(payload)}).encode()
        name = f"{int(chunk.indices.min()):08d}-{secrets.token_hex(6)}.chunk"
        content = _START.pack(_MAGIC, len(header), zlib.crc32(header)) + header + payload
        self._seen.add(name)
        return write_file(self.chunk_folder / name, content)

    def _identity(self) -> dict[str, Any]:
        return {
            "content_id": self.content_id,
            "grid_digest": self.grid.digest,
            "features_digest": self.digest,
            "dim": self.dim,
        }

    def new_chunks(self) -> Iterator[Chunk]:
        """Yield the sound chunks not yet seen by this store: an earlier run's, or another process's."""
        for path in sorted(self.chunk_folder.glob("*.chunk")):
            if path.name not in self._seen:
                self._seen.add(path.name)
                chunk = self._read(path)
                if chunk is not None:
                    yield chunk

    def _read(self, path: Path) -> Chunk | None:
        """Return a chunk, or None when it is torn, foreign, or gone."""
        try:
            content = path.read_bytes()
            magic, length, crc = _START.unpack_from(content)
            text = content[_START.size : _START.size + length]
            if magic != _MAGIC or length > _MAX_HEADER or zlib.crc32(text) != crc:
                return None
            header = json.loads(text)
            payload = content[_START.size + length :]
            count = int(header["count"])
        except (OSError, struct.error, ValueError, KeyError, TypeError):
            return None
        foreign = {name: header.get(name) for name in self._identity()} != self._identity()
        if foreign or len(payload) != count * (9 + 4 * self.dim) or zlib.crc32(payload) != header.get("crc"):
            return None
        indices = np.frombuffer(payload, "<i8", count)
        damaged = np.frombuffer(payload, np.uint8, count, 8 * count).astype(bool)
        features = np.frombuffer(payload, "<f4", count * self.dim, 9 * count).reshape(count, self.dim)
        if count and (indices.min() < 0 or indices.max() >= len(self.grid)):
            return None
        return Chunk(indices.astype(np.int64), features, damaged)

    def finish(self) -> Bag | NDArray[np.int64]:
        """Join the chunks into ``features.h5`` and remove them.

        Returns
        -------
        Bag or (k,) int64
            The bag; or the tiles that no sound chunk on the disk holds and that must be computed (again).
        """
        n = len(self.grid)
        features, damaged, known = np.zeros((n, self.dim), np.float32), np.zeros(n, bool), np.zeros(n, bool)
        for path in sorted(self.chunk_folder.glob("*.chunk")):
            chunk = self._read(path)
            if chunk is not None:
                features[chunk.indices], damaged[chunk.indices] = chunk.features, chunk.damaged
                known[chunk.indices] = True
        if not known.all():
            # Another process may just have joined and removed them.
            return self.open_bag() or np.flatnonzero(~known)
        bag = Bag(self.grid, features, self.encoder_digest, self.encoder_name, self.precision, self.path, damaged)
        write_features(self.path, bag, {"content_id": self.content_id, "features_digest": self.digest})
        self.remove_chunks()
        return bag

    def remove_chunks(self) -> None:
        """Remove what ``features.h5`` has made superfluous, and what killed processes left aside."""
        for path in self.chunk_folder.glob("*.chunk"):
            _remove(path)
        for folder in (self.folder, self.chunk_folder):
            for path in folder.glob(f".*{PART_SUFFIX}"):
                with contextlib.suppress(OSError):
                    if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                        _remove(path)
        with contextlib.suppress(OSError):
            self.chunk_folder.rmdir()


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def check_room(store: FeatureStore) -> None:
    """Raise `ResourceError` when the disk cannot hold the chunks and the final file beside them."""
    import shutil

    needed = 2 * len(store.grid) * (4 * store.dim + 64)
    folder = store.folder
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return
    if free < needed:
        raise ResourceError(
            f"the features of {len(store.grid)} tiles need {needed >> 20} MB; {free >> 20} MB are free",
            file=folder,
            do="free some space or choose another --cache",
        )
