"""The user's tissue edits, kept beside the features: five of them, never one over another (reliability R14)."""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.files import write_file

KEPT = 5
FORMAT = 1
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TissueEdit:
    """A tissue mask drawn or corrected by hand.

    Attributes
    ----------
    pixels : (h, w) bool
    mpp : float
        um per mask px.
    """

    pixels: NDArray[np.bool_]
    mpp: float


def folder_of(cache: Path, content_id: str) -> Path:
    """Return where a slide's edits lie."""
    return cache / content_id / "edits"


def save(cache: Path, content_id: str, edit: TissueEdit) -> Path:
    """Write an edit as a new file and drop the oldest beyond `KEPT`."""
    folder = folder_of(cache, content_id)
    versions = _versions(folder)
    number = _number(versions[-1]) + 1 if versions else 1
    raw = io.BytesIO()
    np.savez_compressed(raw, format=FORMAT, pixels=np.packbits(edit.pixels), shape=edit.pixels.shape, mpp=edit.mpp)
    path = write_file(folder / f"tissue-{number:05d}.npz", raw.getvalue())
    for old in _versions(folder)[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def load(cache: Path, content_id: str) -> TissueEdit | None:
    """Return the newest edit that can be read; None when there is none."""
    for path in reversed(_versions(folder_of(cache, content_id))):
        try:
            with np.load(path, allow_pickle=False) as stored:
                if int(stored["format"]) != FORMAT:
                    continue
                height, width = (int(side) for side in stored["shape"])
                flat = np.unpackbits(stored["pixels"], count=height * width)
                return TissueEdit(flat.reshape(height, width).astype(bool), float(stored["mpp"]))
        except (OSError, ValueError, KeyError, EOFError) as error:
            _log.warning("%s is skipped: %s", path.name, error)
    return None


def forget(cache: Path, content_id: str) -> None:
    """Drop every edit of a slide: the tissue is found anew."""
    for path in _versions(folder_of(cache, content_id)):
        path.unlink(missing_ok=True)


def _versions(folder: Path) -> list[Path]:
    return sorted(folder.glob("tissue-*.npz"), key=_number) if folder.is_dir() else []


def _number(path: Path) -> int:
    digits = path.stem.rpartition("-")[2]
    return int(digits) if digits.isdigit() else 0
