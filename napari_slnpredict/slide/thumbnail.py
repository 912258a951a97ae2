"""A small picture of a whole slide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .slide import Slide


def thumbnail(slide: Slide, max_px: int) -> NDArray[np.uint8]:
    """Return the whole slide with its longer side at most `max_px`: (h, w, 3) uint8; never upsampled."""
    from PIL import Image

    longer = max(slide.dimensions)
    level = max((k for k, size in enumerate(slide.level_dimensions) if max(size) >= min(max_px, longer)), default=0)
    pixels, _ = slide.read_level(level, 0, 0, *slide.level_dimensions[level])
    scale = min(1.0, max_px / max(pixels.shape[:2]))
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    if size == (pixels.shape[1], pixels.shape[0]):
        return pixels
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
