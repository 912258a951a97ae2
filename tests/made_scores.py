"""Score files in the exact layouts of other programs, made small."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray


def square(columns: int, rows: int, stride: float, left: float = 0, top: float = 0) -> NDArray[np.float64]:
    """Return the corners of a rectangle of tiles, (n, 2) float64, x before y, row by row."""
    y, x = np.mgrid[0:rows, 0:columns]
    return np.stack([left + x.ravel() * stride, top + y.ravel() * stride], axis=1).astype(np.float64)


def attention(n: int) -> NDArray[np.float64]:
    """Return weights that sum to one, all different."""
    weights = np.exp(np.linspace(0, 3, n))[np.random.default_rng(n).permutation(n)]
    return np.asarray(weights / weights.sum(), np.float64)


def _growing(file: h5py.File, name: str, data: NDArray[Any]) -> Any:
    """A data set that grows row by row, as CLAM and TRIDENT write it."""
    return file.create_dataset(name, data=data, maxshape=(None, *data.shape[1:]), chunks=(1, *data.shape[1:]))


def clam_blockmap(path: Path, corners: NDArray[Any], scores: NDArray[Any]) -> Path:
    """CLAM's block map: attention before the softmax, (n, 1), places, no attributes at all."""
    with h5py.File(path, "w") as file:
        _growing(file, "attention_scores", np.asarray(scores, np.float32).reshape(-1, 1))
        _growing(file, "coords", np.asarray(corners, np.int64))
    return path


def clam_patches(
    path: Path,
    corners: NDArray[Any],
    *,
    patch_size: int,
    level: int,
    downsample: float,
    level_dim: tuple[int, int],
    features: int = 0,
    scores: NDArray[Any] | None = None,
) -> Path:
    """CLAM's patches (and features, and scores somebody added), with CLAM's attributes on the places."""
    with h5py.File(path, "w") as file:
        places = _growing(file, "coords", np.asarray(corners, np.int64))
        places.attrs.update(
            {
                "patch_size": patch_size,
                "patch_level": level,
                "downsample": np.array([downsample, downsample]),
                "downsampled_level_dim": np.array(level_dim),
                "level_dim": np.array(level_dim),
                "name": path.stem,
                "save_path": "RESULTS/patches",
            }
        )
        if features:
            _growing(file, "features", np.zeros((len(corners), features), np.float32))
        if scores is not None:
            file["attention_scores"] = np.asarray(scores, np.float32)
    return path


def trident(
    path: Path,
    corners: NDArray[Any],
    *,
    size_level0: int,
    extent: tuple[int, int],
    scores: Mapping[str, NDArray[Any]] | None = None,
    features: int = 0,
    leave_out: Sequence[str] = (),
) -> Path:
    """TRIDENT's file: attributes on the places; scores under the names their users give them."""
    attributes = {
        "patch_size": 256, "patch_size_level0": size_level0, "level0_magnification": 40, "target_magnification": 20,
        "overlap": 0, "name": path.stem, "savetodir": "None", "level0_width": extent[0], "level0_height": extent[1],
    }  # fmt: skip
    with h5py.File(path, "w") as file:
        places = _growing(file, "coords", np.asarray(corners, np.int64))
        places.attrs.update({name: value for name, value in attributes.items() if name not in leave_out})
        for name, values in (scores or {}).items():
            file[name] = values
        if features:
            data = _growing(file, "features", np.zeros((len(corners), features), np.float32))
            data.attrs.update({"name": path.stem, "savetodir": "None", "encoder": "uni_v1"})
    return path


def stamp(
    path: Path,
    corners_um: NDArray[Any],
    *,
    tile_um: float | None,
    scores: Mapping[str, NDArray[Any]] | None = None,
    old: bool = False,
) -> Path:
    """STAMP's file: float places in um, attributes on the root, features under ``feats``."""
    with h5py.File(path, "w") as file:
        file["coords"] = np.asarray(corners_um, np.float32)
        file["feats"] = np.zeros((len(corners_um), 80), np.float16)
        for name, values in (scores or {}).items():
            file[name] = values
        if old and tile_um is not None:
            file.attrs.update({"extractor": "ctranspath", "unit": "um", "tile_size": tile_um})
        elif tile_um is not None:
            file.attrs.update(
                {"stamp_version": "2.3.0", "extractor": "uni2", "unit": "um", "tile_size_um": tile_um}
                | {"tile_size_px": 224, "code_hash": "0" * 8, "feat_type": "tile"}
            )
    return path


def table(path: Path, columns: Mapping[str, Any], delimiter: str = ",") -> Path:
    """Any table."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def wsinfer(path: Path, corners: NDArray[Any], size: int, probabilities: Mapping[str, NDArray[Any]]) -> Path:
    """WSInfer's table."""
    whole = np.asarray(corners, np.int64)
    side = np.full(len(whole), size)
    columns = {"minx": whole[:, 0], "miny": whole[:, 1], "width": side, "height": side}
    return table(path, columns | {f"prob_{name}": values for name, values in probabilities.items()})
