"""What a classifier could know of a slide without looking at its cells: the features of the no-shortcut tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.phantom.scene import PhantomSlide
from napari_slnpredict.phantom.tasks import write_slide

BINS = 8  # of 32 grey levels
FEATURES = ("colour histogram", "mean tile colour", "tissue area", "file size", "nucleus count")


def cheap_features(slide: PhantomSlide, folder: Path) -> dict[str, NDArray[np.float64]]:
    """Return the five kinds of features, each (k,) float64."""
    flat = slide.pixels.reshape(-1, 3)
    histogram = [np.bincount(flat[:, channel] >> 5, minlength=BINS) / len(flat) for channel in range(3)]
    rows, columns = (side // 128 for side in slide.pixels.shape[:2])
    tiles = slide.pixels[: rows * 128, : columns * 128].reshape(rows, 128, columns, 128, 3).mean(axis=(1, 3))
    on_tissue = slide.truth[: rows * 16, : columns * 16].reshape(rows, 16, columns, 16).astype(bool).mean((1, 3)) > 0.5
    file = write_slide(slide, folder / "slide.svs")
    return {
        "colour histogram": np.concatenate(histogram),
        "mean tile colour": tiles[on_tissue].mean(axis=0),
        "tissue area": np.array([np.count_nonzero(slide.truth)], np.float64),
        "file size": np.array([file.stat().st_size], np.float64),
        "nucleus count": np.array([slide.nuclei], np.float64),
    }
