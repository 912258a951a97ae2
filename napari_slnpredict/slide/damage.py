"""Tiles that cannot be decoded: where they lie, and how they are told of."""

from __future__ import annotations

import math
from pathlib import Path

from napari_slnpredict.errors import CorruptSlide

from .pyramid import Pyramid, Region


def level0_box(pyramid: Pyramid, level: int, column: int, row: int) -> tuple[int, int, int, int, int]:
    """Return the level of a tile, and x, y, width, height of what it covers, level-0 px."""
    x, y, width, height = pyramid.tile_box(level, column, row)
    scale, full = pyramid.levels[level].downsample, pyramid.levels[0]
    left, top = int(x * scale), int(y * scale)
    right = min(math.ceil((x + width) * scale), full.width)
    bottom = min(math.ceil((y + height) * scale), full.height)
    return level, left, top, right - left, bottom - top


def damage_line(count: int) -> str:
    """Return the warning about the damaged tiles of a slide."""
    tiles = "1 damaged tile" if count == 1 else f"{count} damaged tiles"
    return f"{tiles} met so far: cannot be decoded, shown white, used for nothing"


def damage_error(pyramid: Pyramid, region: Region, path: Path) -> CorruptSlide:
    """Return the error for a rectangle with damaged tiles in it; it names the first."""
    (level, column, row), why = region.faults[0]
    _, x, y, _, _ = level0_box(pyramid, level, column, row)
    return CorruptSlide(
        f"the tile in column {column}, row {row} of level {level} (at {x}, {y}) is damaged: {why}",
        file=path,
        do="copy the slide again; without this tile it can still be looked at",
    )
