"""A whole search as one job: places of a slide, the tiles there, the nearest of an index, their pictures."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_slnpredict.errors import DataError, MissingWeights
from napari_slnpredict.events import Job
from napari_slnpredict.slide.grid import GridSpec

from .asking import Asked, ask_place, asked_of, lay_tiles
from .describing import make_describer
from .gallery import Found
from .index import Index
from .leaving_out import NOTHING, OWN_SLIDE, LeftOut, own_patients, own_slides
from .nearest import question, search
from .pages import Page
from .pictures import PICTURE_PX, read_pictures, square_picture

if TYPE_CHECKING:
    from napari_slnpredict.settings import Settings
    from napari_slnpredict.slide.slide import Slide


@dataclass(frozen=True)
class Place:
    """A place on a slide.

    Attributes
    ----------
    x, y : float
        From the slide's top-left corner.
    unit : str
        ``px`` (level 0) or ``um``.
    """

    x: float
    y: float
    unit: str = "px"

    def in_px(self, mpp: float) -> tuple[float, float]:
        """Return it in level-0 px of a slide with `mpp` um/px."""
        times = 1.0 if self.unit == "px" else 1.0 / mpp
        return self.x * times, self.y * times


@dataclass(frozen=True)
class Wish:
    """What is searched for.

    Attributes
    ----------
    slide : str
        A file, or a slide's name in the index.
    like, unlike : tuple of Place
    top : int
    left_out : str
        One of `leaving_out`'s words.
    patient : str
        The slide's, where the index does not know it.
    encoder : str
        Name of the index's encoder here; "": the one the index says.
    mpp, reader
        As for `open_slide`.
    pictures : bool
        Read those of the tiles found.
    """

    slide: str
    like: tuple[Place, ...]
    unlike: tuple[Place, ...] = ()
    top: int = 20
    left_out: str = NOTHING
    patient: str = ""
    encoder: str = ""
    mpp: float | None = None
    reader: str | None = None
    pictures: bool = False


def search_index(index: Index, wish: Wish, settings: Settings) -> Job[tuple[Found, dict[str, str]]]:
    """Search an index for what looks like some places of a slide.

    Returns
    -------
    Found
    dict of str to str
        The slides whose pictures could not be read, by name, and why.

    Raises
    ------
    DataError
        No such slide, no tissue at a place, no patient where one is needed.
    BundleMismatch
        The encoder here is not the index's (both named).
    """
    from napari_slnpredict.slide.slide import open_slide

    own, path = _slide_of(index, wish.slide)
    with open_slide(path, wish.mpp, reader=wish.reader) if path else nullcontext() as slide:
        if slide is not None:
            own = index.page(slide.content_id)
        asked = yield from _ask(index, wish, settings, slide, own)
        found = _nearest(index, wish, asked, own)
        if not wish.pictures:
            return found, {}
        pictures = yield from read_pictures(found.hits, index.slide_of, own=slide)
        shown = [None if slide is None else _picture(slide, tile) for tile in asked]
    names = {page.content_id: page.slide_id for page in index.pages}
    missing = {names[content_id]: why for content_id, why in pictures.missing.items()}
    return replace(found, pictures=pictures.found, asked_pictures=shown), missing


def _picture(slide: Slide, tile: Asked) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return square_picture(slide, tile.corner, tile.size_level0, PICTURE_PX)


def _slide_of(index: Index, named: str) -> tuple[Page | None, Path | None]:
    """Return a slide's page and its file; without a file where only the index still knows it."""
    path = Path(named)
    if path.exists():
        return None, path
    page = next((page for page in index.pages if page.slide_id == named), None)
    if page is None:
        raise DataError(
            "is no file, and no slide of the index", file=named, do="give a slide's file, or its name in the index"
        )
    where = index.slide_of(page)
    return page, where if where is not None and where.exists() else None


def _ask(index: Index, wish: Wish, settings: Settings, slide: Slide | None, own: Page | None) -> Job[list[Asked]]:
    """Return the tiles at the places: those the index has from there, the others embedded."""
    if slide is not None:
        mpp = float(slide.require_mpp())
    else:
        assert own is not None
        mpp = own.tile_px * own.mpp / own.size_level0
    points = [place.in_px(mpp) for place in (*wish.like, *wish.unlike)]
    tiles = [asked_of(own, *point) if own is not None else None for point in points]
    lacking = [number for number, tile in enumerate(tiles) if tile is None]
    if lacking:
        embedded = yield from _embed(index, wish, settings, slide, [points[number] for number in lacking])
        for number, tile in zip(lacking, embedded, strict=True):
            tiles[number] = tile
    return [tile for tile in tiles if tile is not None]


def _embed(
    index: Index, wish: Wish, settings: Settings, slide: Slide | None, points: Sequence[tuple[float, float]]
) -> Job[list[Asked]]:
    from napari_slnpredict.encode.encoder import load_encoder
    from napari_slnpredict.encode.engines import choose_device, plan_engine

    first = index.first
    assert first is not None
    if slide is None:
        raise DataError(
            f"the index has no tile at one of the places on {wish.slide}, whose file is not where it was",
            file=index.folder,
            do="give the slide's file",
        )
    try:
        encoder = load_encoder(wish.encoder or first.encoder, settings)
    except MissingWeights as error:
        if wish.encoder:
            raise
        raise MissingWeights(
            f"the index's encoder, {first.encoder}, is not here under that name",
            file=index.folder,
            do="say where it is with --encoder local:FOLDER",
        ) from error
    tile = first.tile_px, first.mpp
    describer = make_describer(encoder, GridSpec(*tile))
    index.require(describer.digest, describer.holds, tile, f"the {encoder.name} here gives")
    engine = plan_engine(encoder, choose_device(settings.device), settings=settings, tile_px=first.tile_px)
    laid = yield from lay_tiles(slide, describer.spec)
    yield from engine.ready()
    return [ask_place(slide, describer, laid, engine, *point) for point in points]


def _nearest(index: Index, wish: Wish, asked: Sequence[Asked], own: Page | None) -> Found:
    like, unlike = asked[: len(wish.like)], asked[len(wish.like) :]
    wanted = joined(like, unlike)
    left_out = _left_out(index, wish, asked[0], own)
    pages = [page for page in index.pages if not left_out.test(page)]
    hits = search(pages, wanted, wish.top, without=rows_of(pages, asked))
    first = index.first
    assert first is not None
    return Found(hits, like, unlike, first.holds, sum(len(page) for page in pages), len(pages), left_out.words)


def _left_out(index: Index, wish: Wish, asked: Asked, own: Page | None) -> LeftOut:
    if wish.left_out == NOTHING:
        return LeftOut()
    if wish.left_out == OWN_SLIDE:
        return own_slides([asked.content_id], [asked.slide_id])
    patient = wish.patient or (own.patient if own is not None else "")
    if not patient:
        raise DataError(
            f"the index does not say whose slide {asked.slide_id} is",
            file=index.folder,
            do="say whose it is, or leave out its slide only",
        )
    return own_patients(index.pages, [asked.content_id], [patient])


def joined(like: Sequence[Asked], unlike: Sequence[Asked] = ()) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Return the question of some tiles, (k,) float32."""
    against = np.stack([tile.descriptor for tile in unlike]) if unlike else None
    return question(np.stack([tile.descriptor for tile in like]), against)


def rows_of(pages: Sequence[Page], asked: Sequence[Asked]) -> list[tuple[str, int]]:
    """Return where the tiles asked with stand in the pages: they are not named as found."""
    rows = []
    for tile in asked:
        page = next((page for page in pages if page.content_id == tile.content_id), None)
        half = tile.size_level0 / 2
        row = page.row_at(tile.corner[0] + half, tile.corner[1] + half) if page is not None else None
        if row is not None:
            rows.append((tile.content_id, row))
    return rows
