"""File > Open Sample: the synthetic slide that comes with the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from napari_slnpredict.errors import UnsupportedSlide

SUFFIXES = (".svs", ".tif", ".tiff")


def sample_path() -> Path:
    """Return the sample slide's file.

    Raises
    ------
    UnsupportedSlide
        The installation lacks it.
    """
    folder = Path(str(resources.files("napari_slnpredict"))) / "sample_data"
    slides = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if not slides:
        raise UnsupportedSlide("the sample slide is missing from this installation", do="install the package again")
    return slides[0]


def open_sample() -> list[Any]:
    """Return the sample slide as layer data."""
    from .reader import read_slides

    return list(read_slides(str(sample_path())))
