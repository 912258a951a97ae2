"""What a reader found in a stranger's file, in the file's own units, and its way out of the child process."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import DataError

#: Tiles, columns and numbers a score file may hold: a slide of a metre's side at 40x has fewer.
MAX_TILES = 2_000_000
MAX_COLUMNS = 64
MAX_VALUES = 32_000_000

#: What the kinds are called in sentences.
PROGRAMS = {
    "clam": "CLAM",
    "trident": "TRIDENT",
    "stamp": "STAMP",
    "wsinfer": "WSInfer",
    "slnpredict": "slnpredict",
    "table": "a table",
    "h5": "an HDF5 file",
}


class ScoresError(DataError):
    """A score file that cannot be shown on this slide."""

    title = "These scores cannot be shown"


@dataclass(frozen=True)
class RawScores:
    """A score file as it stands.

    Attributes
    ----------
    kind : str
        A key of `PROGRAMS`.
    coords : (n, 2) float64
        Places, x before y, in `unit`.
    names : tuple of str
        The columns of `values`; empty where the file holds no scores.
    values : (n, k) float64
        NaN where a cell is empty.
    unit : str
        ``px`` (level 0), ``um``, or empty where the file does not say.
    centred : bool
        Places are the tiles' middles, else their top-left corners.
    size : float or None
        Side of a tile, in `unit`, or in pixels of `size_level` where that is given.
    size_level : int or None
        Level of the slide whose pixels `size` counts.
    extent : (int, int) or None
        Width and height of the slide's `extent_level` as the file has them.
    extent_level : int
    slides : tuple of str
        Names of the slides the file speaks of; empty where it does not say.
    slide_of : (n,) int32
        Index into `slides` of each row; empty with fewer than two slides.
    holds : str
        What the file holds besides scores: "features, 777 × 512".
    missing : tuple of str
        Attributes that would have told the size, for messages.
    """

    kind: str
    coords: NDArray[np.float64] = field(repr=False)
    names: tuple[str, ...]
    values: NDArray[np.float64] = field(repr=False)
    unit: str = ""
    centred: bool = False
    size: float | None = None
    size_level: int | None = None
    extent: tuple[int, int] | None = None
    extent_level: int = 0
    slides: tuple[str, ...] = ()
    slide_of: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32), repr=False)
    holds: str = ""
    missing: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.coords)


_ARRAYS = (("coords", np.float64), ("values", np.float64), ("slide_of", np.int32))


def pack(raw: RawScores) -> bytes:
    """Return a `RawScores` as bytes: a line of JSON, then the arrays."""
    plain: dict[str, Any] = {
        name: getattr(raw, name) for name in RawScores.__dataclass_fields__ if name not in dict(_ARRAYS)
    }
    plain["shapes"] = {name: getattr(raw, name).shape for name, _ in _ARRAYS}
    parts = [np.ascontiguousarray(getattr(raw, name), kind).tobytes() for name, kind in _ARRAYS]
    return json.dumps(plain).encode() + b"\n" + b"".join(parts)


def unpack(packed: bytes) -> RawScores:
    """Return what `pack` packed.

    Raises
    ------
    ValueError
        Not whole: the child ended early.
    """
    head, _, body = packed.partition(b"\n")
    plain: dict[str, Any] = json.loads(head)
    shapes, start = plain.pop("shapes"), 0
    for name, kind in _ARRAYS:
        count = int(np.prod(shapes[name]))
        plain[name] = np.frombuffer(body, kind, count, start).reshape(shapes[name])
        start += count * np.dtype(kind).itemsize
    for name in ("names", "slides", "missing"):
        plain[name] = tuple(plain[name])
    plain["extent"] = None if plain["extent"] is None else (plain["extent"][0], plain["extent"][1])
    return RawScores(**plain)
