"""From a slide to its descriptors: embedded, or found in the cache, or in an index that holds it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.bundles.bundle import MANIFEST, load_bundle
from napari_slnpredict.encode.descriptor import Projection, describe
from napari_slnpredict.errors import BundleMismatch
from napari_slnpredict.events import Job, Warn
from napari_slnpredict.pipeline import Order, check_scale, check_slide
from napari_slnpredict.slide.grid import GridSpec, TileGrid

from .pages import FEATURES, PROJECTION, Page, descriptor_digest, holds_words, page_of

if TYPE_CHECKING:
    from napari_slnpredict.encode.encoder import Encoder
    from napari_slnpredict.encode.engines import Engine, PlannedEngine
    from napari_slnpredict.slide.slide import Slide


@dataclass(frozen=True)
class Describer:
    """What makes descriptors, and of which tiles.

    Attributes
    ----------
    encoder : Encoder
    projection : Projection or None
        The layer that the encoder brings for its descriptors; None: the features themselves are the descriptors.
    spec : GridSpec
    """

    encoder: Encoder
    projection: Projection | None
    spec: GridSpec

    @property
    def digest(self) -> str:
        """What a page of such descriptors has as `encoder_digest`."""
        return descriptor_digest(self.encoder.digest, self.projection)

    @property
    def made_by(self) -> tuple[str, int, float]:
        """What makes two descriptors comparable: the digest, the tiles' side in px and their um/px."""
        return self.digest, self.spec.tile_px, self.spec.mpp

    @property
    def holds(self) -> str:
        """What the descriptors are, in words."""
        if self.projection is None:
            return holds_words(self.encoder.dim, FEATURES, self.encoder.name)
        return holds_words(len(self.projection.weight), PROJECTION, self.encoder.name)

    def __call__(self, features: NDArray[Any]) -> NDArray[np.float32]:
        """Return the descriptors (n, k) of features (n, d)."""
        return describe(features, self.projection)


@dataclass(frozen=True)
class Described:
    """The descriptors of one slide, and which of its tiles they belong to.

    Attributes
    ----------
    grid : TileGrid
        Of n tiles.
    page : Page
        Of the tiles that have a descriptor.
    tiles : (m,) int64
        The tile of each row of the page.
    """

    grid: TileGrid
    page: Page
    tiles: NDArray[np.int64] = field(repr=False)

    def on_grid(self, values: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Return a value for each tile, (n,) float32, of one for each row, (m,); NaN where a tile has none."""
        spread = np.full(len(self.grid), np.nan, np.float32)
        spread[self.tiles] = values
        return spread


def make_describer(encoder: Encoder, spec: GridSpec) -> Describer:
    """Return what makes an encoder's descriptors: by the layer its bundle brings for them, where it brings one."""
    encoder.check_grid(spec)
    return Describer(encoder, projection_of(encoder), spec)


def projection_of(encoder: Encoder) -> Projection | None:
    """Return the layer that an encoder's bundle brings for descriptors; None where there is none.

    Raises
    ------
    BundleMismatch
        The layer does not fit the encoder's features.
    """
    weights = getattr(encoder, "weights", None)  # an encoder of another package may have none
    if weights is None or not (weights.parent / MANIFEST).is_file():
        return None
    from napari_slnpredict.encode.trained import load_projection

    projection = load_projection(load_bundle(weights.parent))
    if projection is not None and projection.weight.shape[1:] != (encoder.dim,):
        raise BundleMismatch(
            f"its layer for descriptors takes {projection.weight.shape[-1]} features, its network gives {encoder.dim}",
            file=weights.parent,
            do="copy the model again",
        )
    return projection


def describe_slide(
    slide: Slide,
    describer: Describer,
    *,
    cache: Path,
    engine: Engine | PlannedEngine,
    grid: TileGrid | None = None,
    order: Order | None = None,
    nice: int = 0,
    pressed: Callable[[], bool] | None = None,
) -> Job[Described]:
    """Embed a slide's tissue tiles, or find their features in the cache, and return their descriptors.

    Parameters
    ----------
    slide : Slide
    describer : Describer
    cache : Path
        The cache's root.
    engine : Engine or PlannedEngine
        Of the describer's encoder.
    grid : TileGrid, optional
        Laid by the describer's spec, over edited tissue perhaps; by default over the tissue that is found.
    order, nice, pressed
        As for `encode.embed.embed`.

    Raises
    ------
    SlideError, BundleMismatch
        The slide and the encoder do not fit; or as `encode.embed.embed`.
    """
    from napari_slnpredict.encode.embed import embed

    from .asking import lay_tiles

    check_slide(slide)
    coarser = check_scale(slide, describer.spec, describer.encoder.name)
    if coarser:
        yield Warn(coarser)
    if grid is None:
        grid = (yield from lay_tiles(slide, describer.spec)).grid
    bag = yield from embed(
        slide, grid, describer.encoder, cache=cache, engine=engine, order=order, nice=nice, pressed=pressed
    )
    slide.unchanged()
    page = page_of(bag, slide.content_id, projection=describer.projection)
    # The cache may know the same network by another name.
    return Described(grid, replace(page, encoder=describer.encoder.name), bag.kept)


def described_from_page(page: Page, grid: TileGrid) -> Described | None:
    """Lay the descriptors that an index holds on a slide's grid; None where its tiles lie elsewhere (edited tissue)."""
    if len(page) > len(grid) or len(page) == 0 or abs(page.size_level0 - grid.size_level0) > 1e-6 * grid.size_level0:
        return None
    here = {(x, y): tile for tile, (x, y) in enumerate(grid.locations.tolist())}
    tiles = [here.get((x, y), -1) for x, y in page.places.tolist()]
    return None if -1 in tiles else Described(grid, page, np.asarray(tiles, np.int64))
