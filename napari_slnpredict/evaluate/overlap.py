"""Whether an encoder has seen what it is to be judged on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.encode.tile_table import TileTable
from napari_slnpredict.errors import one_line

#: Characters kept of the SHA-256 of a picture's name.
NAME_DIGITS = 16


def picture_digest(name: str) -> str:
    """Return what stands for a picture's name in a bundle's list of what was seen."""
    return hashlib.sha256(name.encode()).hexdigest()[:NAME_DIGITS]


def overlap_words(training: Mapping[str, Any], table: TileTable, rows: NDArray[np.int64]) -> str:
    """Return what of some tiles a training has seen, "" where it says of nothing.

    Parameters
    ----------
    training : mapping
        A bundle's ``training``: ``slides`` (content ids, or ids), ``patients``, ``files`` (`picture_digest`).
    table : TileTable
    rows : (k,) int64
        The tiles judged on.
    """
    seen = {key: frozenset(map(str, training.get(key) or ())) for key in ("slides", "patients", "files")}
    facts = [table.slides[k] for k in np.unique(table.slide[rows]).tolist() if k >= 0]
    slides = sorted({f.slide_id for f in facts if {f.content_id, f.slide_id} & seen["slides"] - {""}})
    patients = sorted({f.patient for f in facts if f.patient and f.patient in seen["patients"]})
    files: set[str] = set()
    if seen["files"] and table.names:
        names = {table.names[row] for row in rows.tolist()} - {""}
        files = {name for name in names if picture_digest(name) in seen["files"]}
    found = [
        f"{len(of)} {what} ({one_line(', '.join(of[:3]), 80)}{' ...' if len(of) > 3 else ''})"
        for what, of in (("slides", slides), ("patients", patients), ("pictures", sorted(files)))
        if of
    ]
    return ", ".join(found)
