"""One place of a slide, embedded on the spot: what a click needs while thousands of other tiles are still waiting."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import DataError
from napari_slnpredict.slide.blocks import read_places
from napari_slnpredict.slide.grid import TileGrid

from .engines import Engine

if TYPE_CHECKING:
    from napari_slnpredict.slide.slide import Slide


@dataclass(frozen=True)
class Place:
    """A tile as the encoder saw it.

    Attributes
    ----------
    pixels : (p, p, 3) uint8
    feature : (d,) float32 or None
        None: part of the tile lies on a damaged part of the file, and no model may look at it.
    """

    pixels: NDArray[np.uint8] = field(repr=False)
    feature: NDArray[np.float32] | None = field(repr=False)


def embed_place(slide: Slide, grid: TileGrid, engine: Engine, corner: tuple[int, int]) -> Place:
    """Read one tile and embed it at once, past any run that is going on with the same engine.

    A batch of one: its feature may differ in the last bits from the one a run computes in a full batch, so it is
    shown and never stored.

    Parameters
    ----------
    slide : Slide
    grid : TileGrid
        Says how large and how fine; the place need not be one of its tiles.
    engine : Engine
        Called from this thread beside the threads of a run: it waits for one batch at most.
    corner : (int, int)
        x, y of the top-left corner, level-0 px.

    Raises
    ------
    DataError
        The feature is not finite.
    """
    pixels, damaged = read_places(slide, grid, np.array([corner], np.int64))
    if damaged[0]:
        return Place(pixels[0], None)
    engine.enter_thread()
    try:
        features = engine(pixels, fill=False)
    finally:
        engine.release()
    if not np.isfinite(features).all():
        raise DataError(f"the features of the tile at {corner} are not finite", file=slide.path, do="click elsewhere")
    return Place(pixels[0], np.asarray(features[0], np.float32))
