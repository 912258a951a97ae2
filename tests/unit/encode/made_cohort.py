"""Small slides of stained tissue with glass beside it, for the tests of sampling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from slide.made_slides import write_aperio
from slide.made_tiles import LAB_A, tile

SIDE = 640


def tissue_slide(path: Path, seed: int = 0, *, glass: bool = False, mpp: str = "1.0") -> Path:
    """Write a slide of 640 px whose left quarter is glass, or all of it."""
    pixels = tile(LAB_A, seed, SIDE).numpy().copy()
    pixels[:, : SIDE if glass else SIDE // 4] = 243
    # Glass without any noise looks like fill.
    noise = np.random.default_rng(seed).integers(-1, 2, pixels.shape)
    return write_aperio(path, [np.clip(pixels + noise, 0, 255).astype(np.uint8)], mpp=mpp)
