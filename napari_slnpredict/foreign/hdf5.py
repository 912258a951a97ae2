"""Score files in HDF5: CLAM, TRIDENT, STAMP, ours, recognised by their data sets and attributes.

Runs in a child process (`child`): HDF5 follows links to other files, and its library has had heap overflows.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import one_line

from .raw import MAX_COLUMNS, MAX_TILES, MAX_VALUES, RawScores, ScoresError

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_PLACES = ("coords", "coordinates", "coord")
_FEATURES = frozenset(("features", "feats", "embeddings", "patch_embeddings", "feat", "feature"))
#: Numbers per tile that are no scores.
_NO_SCORES = frozenset(("tissue", "component", "cells", "damaged", "index", "cluster_id", "patch_id", "tile_id"))
#: Bytes of one block as it lies in memory: larger ones are no honest way to store tiles.
_MAX_BLOCK = 256 << 20
_HOSTILE = "do not use this file"


@dataclass
class _Told:
    """What attributes tell about places."""

    kind: str
    unit: str = ""
    size: float | None = None
    size_level: int | None = None
    extent: tuple[int, int] | None = None
    extent_level: int = 0
    slide: str = ""
    missing: tuple[str, ...] = field(default=())


def read_hdf5(path: Path) -> RawScores:
    """Read a score file in HDF5.

    Raises
    ------
    ScoresError
        No places, links out of the file, impossible shapes, damaged.
    """
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as file:
            return _read(path, file)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise ScoresError("cannot be read as HDF5 (damaged, or cut off)", file=path, do="copy it again") from error


def _read(path: Path, file: Any) -> RawScores:
    names = list(itertools.islice(file.keys(), 1000))
    place = next((name for name in _PLACES if name in names), None)
    if place is None:
        shown = ", ".join(one_line(name, 30) for name in names[:8]) or "nothing"
        raise ScoresError(f"holds no data set coords (it holds {shown})", file=path, do="give the file with the places")
    data = _dataset(path, file, place)
    if data.ndim != 2 or data.shape[1] != 2:
        raise ScoresError(f"{place} has the shape {data.shape}, not (n, 2)", file=path, do="give x and y of each tile")
    n = int(data.shape[0])
    if not 0 < n <= MAX_TILES:
        raise ScoresError(f"holds {n:,} tiles", file=path, do=f"1 to {MAX_TILES:,} can be shown")
    found, values, holds = _scores(path, file, [name for name in names if name != place], n)
    told = _told(file.attrs, data.attrs, set(names))
    return RawScores(
        kind=told.kind,
        coords=np.asarray(data[:], np.float64),
        names=found,
        values=np.concatenate(values, axis=1) if values else np.zeros((n, 0)),
        unit=told.unit,
        size=told.size,
        size_level=told.size_level,
        extent=told.extent,
        extent_level=told.extent_level,
        slides=(told.slide,) if told.slide else (),
        holds=holds,
        missing=told.missing,
    )


def _dataset(path: Path, file: Any, name: str) -> Any:
    """Return a data set of numbers that lies in this very file."""
    import h5py

    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise ScoresError(f"{one_line(name, 40)} is a link, perhaps to another file", file=path, do=_HOSTILE)
    data = file[name]
    if not isinstance(data, h5py.Dataset):
        raise ScoresError(f"{one_line(name, 40)} is a group, not a data set", file=path, do="give a flat file")
    if data.is_virtual or data.external:
        raise ScoresError(f"{one_line(name, 40)} takes its values from elsewhere", file=path, do=_HOSTILE)
    if data.dtype.kind not in "fiub":
        raise ScoresError(f"{one_line(name, 40)} holds no numbers", file=path, do="give numbers")
    if data.chunks is not None and int(np.prod(data.chunks, dtype=object)) * data.dtype.itemsize > _MAX_BLOCK:
        raise ScoresError(f"{one_line(name, 40)} is stored in impossible blocks", file=path, do=_HOSTILE)
    return data


def _scores(path: Path, file: Any, names: list[str], n: int) -> tuple[tuple[str, ...], list[NDArray[np.float64]], str]:
    """Return the names of the columns, their values in parts (n, k), and what else the file holds."""
    found: list[str] = []
    values: list[NDArray[np.float64]] = []
    holds = ""
    for name in names:
        if _is_passed_over(file, name):
            continue
        data = _dataset(path, file, name)
        shape = tuple(int(side) for side in data.shape)
        if name.lower() in _FEATURES or (len(shape) == 2 and shape[0] == n and shape[1] > MAX_COLUMNS):
            holds = f"features, {' × '.join(f'{side:,}' for side in shape)}"
            continue
        turned, columns = _turned(shape, n)
        if not columns or n * (len(found) + columns) > MAX_VALUES or len(found) + columns > MAX_COLUMNS:
            continue
        part = np.asarray(data[()], np.float64).reshape((columns, n) if turned else (n, columns))
        values.append(part.T if turned else part)
        label = one_line(name, 60)
        found += [label] if columns == 1 else [f"{label} {k}" for k in range(columns)]
    return tuple(found), values, holds


def _is_passed_over(file: Any, name: str) -> bool:
    """Whether something in this very file is no data set of numbers (a group, words), or numbers but no scores."""
    import h5py

    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        return False  # refused, not passed over
    data = file[name]
    return not isinstance(data, h5py.Dataset) or data.dtype.kind not in "fiub" or name in _NO_SCORES


def _turned(shape: tuple[int, ...], n: int) -> tuple[bool, int]:
    """Return whether a data set has tiles along its last axis, and its columns; 0 columns when it is not per tile."""
    sides = [side for side in shape if side != 1] or [1]
    if sides == [n] or n == 1 == sides[0]:
        return False, 1
    if len(sides) != 2 or min(sides) > MAX_COLUMNS:
        return False, 0
    if sides[0] == n:
        return False, sides[1]
    return (True, sides[0]) if sides[1] == n else (False, 0)


def _told(root: Any, places: Any, names: set[str]) -> _Told:
    """Recognise the program by what it writes, and take what it tells; nothing is guessed."""
    slide = _text(places, "name") or _text(root, "slide_id") or _text(root, "name")
    if (_text(root, "format") or "").startswith("napari-slnpredict"):
        return _told_by_us(root, places, slide)
    if any(name in places for name in ("patch_size_level0", "level0_magnification", "target_magnification")):
        return _told_by_trident(places, slide)
    if "patch_level" in places or "patch_size" in places:
        return _told_by_clam(places, slide)
    if any(name in root for name in ("tile_size_um", "stamp_version", "unit", "tile_size")):
        return _told_by_stamp(root, slide)
    if "attention_scores" in names:  # a block map: CLAM leaves its attributes in the file of features
        return _Told("clam", "px", slide=slide, missing=("patch_size", "patch_level"))
    return _Told("h5", slide=slide, missing=("any attribute about them",))


def _told_by_us(root: Any, places: Any, slide: str) -> _Told:
    size = _number(root, "tile_size_level0")
    return _Told("slnpredict", "px", size, None, _extent(places), 0, slide, ("tile_size_level0",))


def _told_by_trident(places: Any, slide: str) -> _Told:
    size = _number(places, "patch_size_level0")
    patch, level0, target = (
        _number(places, name) for name in ("patch_size", "level0_magnification", "target_magnification")
    )
    if size is None and patch and level0 and target:
        size = patch * level0 / target
    return _Told("trident", "px", size, None, _extent(places), 0, slide, ("patch_size_level0",))


def _told_by_clam(places: Any, slide: str) -> _Told:
    patch, level = _number(places, "patch_size"), _number(places, "patch_level")
    size = None if patch is None else patch * (_number(places, "custom_downsample") or 1.0)
    missing = tuple(name for name in ("patch_size", "patch_level") if _number(places, name) is None)
    if size is None or level is None:
        return _Told("clam", "px", slide=slide, missing=missing)
    told = _Told("clam", "px", size, int(level), None, int(level), slide)
    extent = _pair(places, "level_dim")
    told.extent = None if extent is None else (round(extent[0]), round(extent[1]))
    downsample = _pair(places, "downsample")
    if downsample is not None and downsample[0] > 0:
        told.size, told.size_level = size * downsample[0], None
    return told


def _told_by_stamp(root: Any, slide: str) -> _Told:
    if _number(root, "tile_size_um") is not None:  # from STAMP 2.1 on; places are in um whether or not it says so
        return _Told("stamp", "um", _number(root, "tile_size_um"), slide=slide)
    in_um = _text(root, "unit") == "um"
    return _Told("stamp", "um" if in_um else "", _number(root, "tile_size") if in_um else None, slide=slide,
                 missing=("tile_size_um",))  # fmt: skip


def _extent(places: Any) -> tuple[int, int] | None:
    width, height = _number(places, "level0_width"), _number(places, "level0_height")
    return (round(width), round(height)) if width and height else None


def _number(attributes: Any, name: str) -> float | None:
    """Return an attribute as a positive or zero number; None where it is absent, "None", or something else."""
    if name not in attributes:
        return None
    value = np.asarray(attributes[name]).reshape(-1)
    try:
        number = float(value[0]) if len(value) == 1 else np.nan
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) and number >= 0 else None


def _pair(attributes: Any, name: str) -> tuple[float, float] | None:
    """Return an attribute of two numbers, or of one twice."""
    if name not in attributes:
        return None
    value = np.asarray(attributes[name]).reshape(-1)
    if value.dtype.kind not in "fiu" or len(value) not in (1, 2):
        return None
    return float(value[0]), float(value[-1])


def _text(attributes: Any, name: str) -> str:
    value = attributes.get(name, "")
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return one_line(value, 200) if isinstance(value, str) and value != "None" else ""
