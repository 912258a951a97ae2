"""What is asked with: tiles at places of a slide, from an index where it has them, else embedded on the spot."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import DataError
from napari_slnpredict.events import Job, Partial, Stage
from napari_slnpredict.explanation import LEAST_TISSUE, NO_TISSUE, UNREADABLE
from napari_slnpredict.slide.grid import GridSpec, TileGrid, cell_at, tile_at, tissue_in

from .pages import Page

if TYPE_CHECKING:
    from napari_slnpredict.encode.engines import Engine, PlannedEngine
    from napari_slnpredict.slide.slide import Slide
    from napari_slnpredict.slide.tissue import TissueMask

    from .describing import Describer


@dataclass(frozen=True)
class Laid:
    """The tiles laid over a slide."""

    tissue: TissueMask = field(repr=False)
    grid: TileGrid


@dataclass(frozen=True)
class Asked:
    """A tile that is asked with.

    Attributes
    ----------
    content_id, slide_id : str
    corner : (int, int)
        x, y of its top-left corner, level-0 px.
    size_level0 : float
        Its side, level-0 px.
    descriptor : (k,) float32
    made_by : (str, int, float)
        What made the descriptor, as a page's `encoder_digest`, `tile_px`, `mpp`.
    picture : (p, p, 3) uint8 or None
        As the encoder saw it, where it was embedded on the spot.
    """

    content_id: str
    slide_id: str
    corner: tuple[int, int]
    size_level0: float
    descriptor: NDArray[np.float32] = field(repr=False)
    made_by: tuple[str, int, float]
    picture: NDArray[np.uint8] | None = field(default=None, repr=False)


def lay_tiles(slide: Slide, spec: GridSpec, tissue: TissueMask | None = None) -> Job[Laid]:
    """Find the tissue (or take the one given) and lay tiles over it."""
    from napari_slnpredict.pipeline import check_slide
    from napari_slnpredict.slide.grid import lay_grid
    from napari_slnpredict.slide.tissue import find_tissue

    check_slide(slide)
    yield Stage("tissue", "Finding tissue")
    if tissue is None:
        tissue = find_tissue(slide)
    laid = Laid(tissue, lay_grid(slide, tissue, spec))
    yield Partial("laid", laid)
    return laid


def corner_at(laid: Laid, x: float, y: float) -> tuple[int, int] | None:
    """Return the corner of the tile at a place (level-0 px), of the grid or with too little tissue for it.

    None on glass and off the slide. No file is read.
    """
    grid = laid.grid
    tile = tile_at(grid, x, y) if len(grid) else None
    if tile is not None:
        left, top = grid.locations[tile].tolist()
        return left, top
    corner = cell_at(grid, x, y)
    return None if corner is None or tissue_in(laid.tissue, grid, corner) <= LEAST_TISSUE else corner


def asked_of(page: Page, x: float, y: float) -> Asked | None:
    """Return the tile of a page at a place (level-0 px); None where it has none there."""
    row = page.row_at(x, y)
    if row is None:
        return None
    left, top = page.places[row].tolist()
    made_by = page.encoder_digest, page.tile_px, page.mpp
    return Asked(page.content_id, page.slide_id, (left, top), page.size_level0, np.array(page.exact[row]), made_by)


def ask_place(
    slide: Slide, describer: Describer, laid: Laid, engine: Engine | PlannedEngine, x: float, y: float
) -> Asked:
    """Read and embed the tile at a place (level-0 px) at once.

    Raises
    ------
    DataError
        There is no tissue, or the file is damaged there.
    """
    from napari_slnpredict.encode.place import embed_place

    corner = corner_at(laid, x, y)
    if corner is None:
        raise DataError(f"{NO_TISSUE} ({x:,.0f}, {y:,.0f} px)", file=slide.path, do="choose a place on the tissue")
    place = embed_place(slide, laid.grid, engine, corner)
    if place.feature is None:
        raise DataError(f"{UNREADABLE} ({x:,.0f}, {y:,.0f} px)", file=slide.path, do="choose another place")
    descriptor = describer(place.feature[None])[0]
    size, made_by = laid.grid.size_level0, describer.made_by
    return Asked(slide.content_id, slide.slide_id, corner, size, descriptor, made_by, place.pixels)
