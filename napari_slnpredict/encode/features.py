"""Features on disk: ``features.h5``, readable by TRIDENT's and CLAM's users, and what guards its reader.

The file is written once, at the end of a run, from sealed chunks (`store`): an HDF5 file that grows is lost whole when
the process is killed, and after a full disk it opens and reads as zeros without an error (measured).
"""

from __future__ import annotations

import errno
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import BundleMismatch, DataError
from napari_slnpredict.files import digest_json, write_file
from napari_slnpredict.slide.grid import GridSpec, TileGrid

FORMAT = "napari-slnpredict features 1"
BLOCK = 512
MAX_TILES = 20_000_000
#: Share of tissue tiles that may be damaged before no verdict is given (reliability R1).
MAX_DAMAGED = 0.01


@dataclass(frozen=True)
class Bag:
    """The features of one slide's tiles.

    Attributes
    ----------
    grid : TileGrid
    features : (n, d) float32 or float16
        Zero where `damaged`.
    encoder_digest, encoder_name, precision : str
    path : Path or None
        The file; None for a bag that was never written.
    damaged : (n,) bool
        Tiles that could not be read: they must not reach a model.
    """

    grid: TileGrid
    features: NDArray[Any] = field(repr=False)
    encoder_digest: str
    encoder_name: str
    precision: str
    path: Path | None = None
    damaged: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool), repr=False)

    def __post_init__(self) -> None:
        if len(self.damaged) != len(self.features):
            object.__setattr__(self, "damaged", np.zeros(len(self.features), bool))

    def __len__(self) -> int:
        return len(self.features)

    @property
    def dim(self) -> int:
        """Length of a feature."""
        return int(self.features.shape[1])

    @property
    def kept(self) -> NDArray[np.int64]:
        """Indices of the tiles a model may see."""
        return np.flatnonzero(~self.damaged)

    @property
    def too_damaged(self) -> bool:
        """Whether so many tiles are damaged that there is no verdict."""
        return bool(len(self) and self.damaged.mean() > MAX_DAMAGED)

    def require(self, encoder_digest: str) -> None:
        """Raise `BundleMismatch` unless the features come from that very encoder."""
        if encoder_digest != self.encoder_digest:
            raise BundleMismatch(
                f"the features come from the encoder {self.encoder_name} ({self.encoder_digest[:8]}), "
                f"the model was trained on another ({encoder_digest[:8]})",
                file=self.path,
                do="embed the slide again with the model's own encoder",
            )


def features_digest(encoder_digest: str, precision: str) -> str:
    """Return what names a folder of the cache: features of one encoder at one precision."""
    return digest_json({"encoder": encoder_digest, "precision": precision})


def magnification(mpp: float) -> int:
    """Return the objective a resolution is usually called by (TRIDENT's steps)."""
    for limit, name in ((0.16, 80), (0.2, 60), (0.3, 40), (0.6, 20), (1.2, 10), (2.4, 5)):
        if mpp < limit:
            return name
    return 1


def write_features(path: Path, bag: Bag, extra: dict[str, Any] | None = None) -> Path:
    """Write a bag as ``features.h5``: made in memory, put aside, read back, compared, renamed.

    Parameters
    ----------
    extra : dict, optional
        Further attributes of the root.

    Raises
    ------
    ResourceError
        No space or no rights; nothing is left behind.
    """
    return write_file(path, _image(bag, extra or {}), check=lambda part: _compare(part, bag))


def _image(bag: Bag, extra: dict[str, Any]) -> bytes:
    """Return the file's bytes, made in memory.

    HDF5 must not meet a full disk: its objects cannot be closed then, and the process dies at its end (measured).
    """
    import h5py

    grid, n = bag.grid, len(bag)
    with h5py.File(f"{secrets.token_hex(8)}.h5", "w", driver="core", backing_store=False, block_size=1 << 24) as file:
        blocks: dict[str, Any] = {"chunks": (min(BLOCK, n), bag.dim), "fletcher32": True} if n else {}
        features = file.create_dataset("features", data=bag.features, **blocks)
        features.attrs.update({"name": grid.slide_id, "savetodir": "None", "encoder": bag.encoder_name})
        coords = file.create_dataset("coords", data=grid.locations.astype(np.int64))
        coords.attrs.update(_trident_attributes(grid))
        file.create_dataset("tissue", data=grid.tissue)
        file.create_dataset("component", data=grid.component)
        file.create_dataset("cells", data=grid.cells)
        file.create_dataset("damaged", data=bag.damaged.astype(np.uint8))
        file.attrs.update({"format": FORMAT, **_own_attributes(bag), **extra})
        file.flush()
        image: bytes = file.id.get_file_image()
    return image


def _trident_attributes(grid: TileGrid) -> dict[str, Any]:
    return {
        "patch_size": grid.spec.tile_px,
        "patch_size_level0": round(grid.size_level0),
        "target_magnification": magnification(grid.spec.mpp),
        "level0_magnification": magnification(grid.slide_mpp),
        "overlap": grid.spec.overlap_px,
        "name": grid.slide_id,
        "savetodir": "None",
        "level0_width": grid.extent[0],
        "level0_height": grid.extent[1],
    }


def _own_attributes(bag: Bag) -> dict[str, Any]:
    grid = bag.grid
    return {
        "encoder": bag.encoder_name,
        "encoder_digest": bag.encoder_digest,
        "precision": bag.precision,
        "slide_id": grid.slide_id,
        "slide_mpp": grid.slide_mpp,
        "mpp": grid.spec.mpp,
        "tile_px": grid.spec.tile_px,
        "overlap_px": grid.spec.overlap_px,
        "min_tissue": grid.spec.min_tissue,
        "tile_size_level0": grid.size_level0,
        "lattice": np.array(grid.shape, np.int64),
        "lattice_origin": np.array(grid.origin, np.float64),
        "grid_digest": grid.digest,
    }


def _compare(part: Path, bag: Bag) -> None:
    """Read the file back, checksums included: a disk can take bytes and give back others."""
    import h5py

    try:
        with h5py.File(part, "r", locking=False) as file:
            features = file["features"]
            same = features.shape == bag.features.shape and file.attrs["grid_digest"] == bag.grid.digest
            for start in range(0, len(bag), BLOCK):
                rows = slice(start, start + BLOCK)
                same = same and np.array_equal(features[rows], bag.features[rows])
            same = same and np.array_equal(file["damaged"][:], bag.damaged)
    except (OSError, RuntimeError, KeyError) as error:
        raise OSError(errno.EIO, "the file does not read back") from error
    if not same:
        raise OSError(errno.EIO, "the file does not read back as it was written")


def read_features(path: Path | str) -> Bag:
    """Read a ``features.h5`` of ours, every block's checksum included.

    Raises
    ------
    DataError
        Not HDF5, not ours, an attribute or data set missing (named), links out of the file, impossible shapes, a
        flipped bit, tiles that are not finite (named).
    """
    path = Path(path)
    if not path.is_file():
        raise DataError("no such file", file=path, do="embed the slide first")
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as file:
            return _read(path, file)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise DataError("cannot be read as a feature file (damaged, or not HDF5)", file=path, do=_AGAIN) from error


_AGAIN = "delete it and embed the slide again"


def _read(path: Path, file: Any) -> Bag:
    if _attribute(path, file, "format", str) != FORMAT:
        raise DataError("is a feature file of another program or version", file=path, do=_AGAIN)
    features = _dataset(path, file, "features", 2)
    n = len(features)
    if features.dtype not in (np.float32, np.float16):
        raise DataError(f"holds features of type {features.dtype}", file=path, do=_AGAIN)
    grid = _grid(path, file, n)
    damaged = np.asarray(_dataset(path, file, "damaged", 1, n)[:]).astype(bool)
    values = np.asarray(features[:])
    wrong = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(wrong):
        raise DataError(
            f"the features of tile {wrong[0]} and {len(wrong) - 1} more are not finite", file=path, do=_AGAIN
        )
    return Bag(
        grid,
        values,
        _attribute(path, file, "encoder_digest", str),
        _attribute(path, file, "encoder", str),
        _attribute(path, file, "precision", str),
        path,
        damaged,
    )


def _grid(path: Path, file: Any, n: int) -> TileGrid:
    number: Callable[[str], float] = lambda name: _attribute(path, file, name, float)  # noqa: E731
    coords = _dataset(path, file, "coords", 2, n)
    rows, columns = (int(value) for value in _attribute(path, file, "lattice", np.ndarray))
    x, y = (float(value) for value in _attribute(path, file, "lattice_origin", np.ndarray))
    width, height = (int(_attribute(path, coords, name, float)) for name in ("level0_width", "level0_height"))
    spec = GridSpec(int(number("tile_px")), number("mpp"), int(number("overlap_px")), number("min_tissue"))
    grid = TileGrid(
        spec=spec,
        slide_id=_attribute(path, file, "slide_id", str),
        slide_mpp=number("slide_mpp"),
        extent=(width, height),
        size_level0=number("tile_size_level0"),
        locations=np.asarray(coords[:], np.int64),
        tissue=np.asarray(_dataset(path, file, "tissue", 1, n)[:], np.float32),
        component=np.asarray(_dataset(path, file, "component", 1, n)[:], np.int32),
        cells=np.asarray(_dataset(path, file, "cells", 2, n)[:], np.int32),
        shape=(rows, columns),
        origin=(x, y),
    )
    if grid.digest != _attribute(path, file, "grid_digest", str):
        raise DataError("its places are not those its grid_digest names", file=path, do=_AGAIN)
    return grid


def _attribute(path: Path, of: Any, name: str, kind: type) -> Any:
    if name not in of.attrs:
        raise DataError(f"the attribute {name} is missing", file=path, do=_AGAIN)
    value = of.attrs[name]
    if kind is np.ndarray:
        if np.shape(value) != (2,):
            raise DataError(f"the attribute {name} is not two numbers", file=path, do=_AGAIN)
        return value
    try:
        return kind(value.decode() if isinstance(value, bytes) else value)
    except (TypeError, ValueError) as error:
        raise DataError(f"the attribute {name} is not what it should be", file=path, do=_AGAIN) from error


def _dataset(path: Path, file: Any, name: str, ndim: int, n: int | None = None) -> Any:
    """Return a data set that lies in this very file and is no larger than it.

    HDF5 follows links to other files, virtual data sets and raw external storage: a feature file could read any file
    of the user's into a report.
    """
    import h5py

    link = file.get(name, getlink=True)
    if link is None:
        raise DataError(f"the data set {name} is missing", file=path, do=_AGAIN)
    if not isinstance(link, h5py.HardLink):
        raise DataError(f"the data set {name} is a link, perhaps to another file", file=path, do="do not use this file")
    data = file[name]
    if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external:
        raise DataError(f"the data set {name} takes its values from elsewhere", file=path, do="do not use this file")
    size = data.dtype.itemsize * int(np.prod(data.shape, dtype=object))
    if data.ndim != ndim or data.shape[0] > MAX_TILES or data.dtype.kind not in "fiu" or size > path.stat().st_size:
        raise DataError(f"the data set {name} has an impossible shape or type", file=path, do=_AGAIN)
    if data.compression is not None:
        raise DataError(f"the data set {name} is compressed, which this program never does", file=path, do=_AGAIN)
    if n is not None and data.shape[0] != n:
        raise DataError(f"the data set {name} has {data.shape[0]} rows for {n} tiles", file=path, do=_AGAIN)
    return data
