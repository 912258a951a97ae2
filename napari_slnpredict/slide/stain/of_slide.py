"""The stain of a whole slide, and the whole slide in another stain.

One matrix a slide: with one a tile, neighbouring tiles and levels would differ in colour, and the view would flicker.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import DataError, SlideError
from napari_slnpredict.events import Job, Meter, Stage, Throttle, Warn
from napari_slnpredict.slide.blocks import plan_blocks, read_block
from napari_slnpredict.slide.grid import GridSpec, TileGrid, lay_grid
from napari_slnpredict.slide.overview import overview
from napari_slnpredict.slide.tissue import TissueMask, glass_colour
from napari_slnpredict.torch_door import import_torch

from .macenko import fit_macenko
from .matrix import TISSUE, Colour, ColourFit, FitSpec, Outcome, SlideColours, StainFit, StainMatrix, matrix_of
from .paint import Restainer
from .recolourer import Recolourer
from .reinhard import colours_of, fit_reinhard
from .vahadane import fit_vahadane

if TYPE_CHECKING:
    from napari_slnpredict.slide.slide import Slide

#: Tiles looked at, their side and resolution (a coarser slide is looked at as it is), px and um/px.
TILES, TILE_PX, MPP = 100, 224, 1.0
#: Share of a tile that should be tissue; where no tile has as much (thin biopsies), a tenth will do.
FULL_TISSUE, SOME_TISSUE = 0.6, 0.1
#: Below this angle JPEG's coarse colour is made visible when stains are taken apart (seen at 7 to 8), degrees.
LEAST_ANGLE = 9.0

#: Brown is looked for in every so many pixels along both axes, and told from this share of the tissue on: it was 0.0002
#: at most on 16 H&E slides, 0.03 to 0.4 on three with DAB. Melanin is brown too: told, not refused.
BROWN_EVERY, BROWN = 3, 0.005

_FITS = {"macenko": (fit_macenko, FitSpec(every=2)), "vahadane": (fit_vahadane, FitSpec(every=4, faintest=False))}


def slide_stain(
    slide: Slide, tissue: TissueMask, *, method: str = "macenko", tiles: int = TILES, spec: FitSpec | None = None
) -> Job[StainMatrix]:
    """Estimate the stain of a slide: the median over tiles spread over its tissue, always the same ones.

    Parameters
    ----------
    slide : Slide
        With a known scale.
    tissue : TissueMask
    method : str
        "macenko" or "vahadane".
    tiles : int
        Looked at at most.
    spec : FitSpec, optional
        Its white is replaced by the slide's own glass.

    Returns
    -------
    StainMatrix

    Raises
    ------
    SlideError
        No tile of it shows two stains.
    """
    if method not in _FITS:
        raise DataError(f"no stain of a slide by {method!r}", do=f"choose {' or '.join(_FITS)}")
    fit, usual = _FITS[method]
    grid, chosen = _spread_tiles(slide, tissue, tiles)
    yield Stage("stain", "Looking at the stain", len(chosen), "tiles")
    meter, now = Meter(len(chosen)), Throttle()
    spec = replace(spec or usual, white=_white(slide, tissue))
    found, brown = list[StainFit](), np.zeros(2)
    for pixels in _read(slide, grid, chosen):
        found.append(fit(import_torch().from_numpy(pixels), spec))
        brown += _brown(pixels, spec.white)
        meter.done += len(pixels)
        if now():
            yield meter.progress()
    matrix = replace(_median(slide, found, spec.white, method), brown=float(brown[0] / max(1.0, brown[1])))
    if matrix.brown >= BROWN and not matrix.is_brown:
        yield Warn(
            f"{matrix.brown:.1%} of the tissue of {slide.slide_id} is brown (an immunostain, or a pigment as melanin): "
            "only what the two stains explain changes colour"
        )
    if matrix.failed > matrix.tiles:
        yield Warn(f"the stain was found in {matrix.tiles} of {matrix.tiles + matrix.failed} places only")
    if matrix.angle < LEAST_ANGLE:
        yield Warn(
            f"its two stains are hardly apart ({matrix.angle:.0f} degrees): in another stain it may look blotchy"
        )
    return matrix


def slide_colours(slide: Slide, tissue: TissueMask, *, tiles: int = TILES) -> Job[SlideColours]:
    """Take mean and deviation of a slide's tissue, for Reinhard's method, over the tiles `slide_stain` looks at.

    Raises
    ------
    SlideError
        No tile of it has more than one colour.
    """
    grid, chosen = _spread_tiles(slide, tissue, tiles)
    yield Stage("stain", "Looking at the colours", len(chosen), "tiles")
    meter, now = Meter(len(chosen)), Throttle()
    found: list[ColourFit] = []
    for pixels in _read(slide, grid, chosen):
        found.append(fit_reinhard(import_torch().from_numpy(pixels)))
        meter.done += len(pixels)
        if now():
            yield meter.progress()
    colours = colours_of(found)
    if colours is None:
        raise SlideError(
            "no place of its tissue has more than one colour", file=slide.path, do="choose a stained slide"
        )
    return colours


def painter(
    source: StainMatrix | SlideColours, target: StainMatrix | SlideColours, file: Path | None = None
) -> Restainer | Recolourer:
    """Return what paints the source's pixels as the target's, for stains of one kind.

    Parameters
    ----------
    file : Path, optional
        The source's, for the message.

    Raises
    ------
    SlideError
        One of them holds a brown dye (immunohistochemistry): it would come out as eosin, or eosin as brown.
    """
    if isinstance(source, SlideColours) and isinstance(target, SlideColours):
        return Recolourer(source, target)
    if isinstance(source, SlideColours) or isinstance(target, SlideColours):
        raise ValueError("colours and dyes do not go together")
    if source.is_brown != target.is_brown:
        which = "it is" if source.is_brown else "the other slide is"
        raise SlideError(
            f"{which} stained brown, as in immunohistochemistry: brown and eosin would be taken for one another",
            file=file,
            do="choose a slide with the same two stains",
        )
    return Restainer(source, target)


def _spread_tiles(slide: Slide, tissue: TissueMask, tiles: int) -> tuple[TileGrid, NDArray[np.int64]]:
    """Return a grid over the tissue and some of its tiles, evenly spread over its order, which is the file's."""
    mpp = max(MPP, slide.require_mpp())
    grid = lay_grid(slide, tissue, GridSpec(TILE_PX, mpp, min_tissue=FULL_TISSUE))
    if len(grid) == 0:
        grid = lay_grid(slide, tissue, GridSpec(TILE_PX, mpp, min_tissue=SOME_TISSUE))
    count = min(tiles, len(grid))
    return grid, np.unique(np.linspace(0, len(grid) - 1, count).round().astype(np.int64))


def _white(slide: Slide, tissue: TissueMask) -> Colour:
    red, green, blue = (glass_colour(*overview(slide, tissue.mpp)) + 1).tolist()
    return red, green, blue


def _read(slide: Slide, grid: TileGrid, chosen: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
    """Yield tiles, neighbours together, damaged ones left out."""
    for block in plan_blocks(grid, chosen):
        tiles = read_block(slide, grid, block)
        if not tiles.damaged.all():
            yield tiles.pixels[~tiles.damaged]


def _brown(pixels: NDArray[np.uint8], white: Colour) -> NDArray[np.float64]:
    """Return how many of some pixels take more blue than green light, and of how many that are tissue: (2,)."""
    few = pixels[:, ::BROWN_EVERY, ::BROWN_EVERY].reshape(-1, 3).astype(np.float32)
    density = np.log(np.asarray(white, np.float32)) - np.log(few + 1)
    tissue = density.mean(axis=1) > TISSUE
    return np.array([(tissue & (density[:, 2] > density[:, 1])).sum(), tissue.sum()], np.float64)


def _median(slide: Slide, found: list[StainFit], white: Colour, method: str) -> StainMatrix:
    outcome = np.concatenate([fit.outcome.numpy() for fit in found]) if found else np.empty(0, np.int64)
    fine = outcome == Outcome.FINE
    if not fine.any():
        raise SlideError(
            "no place of its tissue shows two stains", file=slide.path, do="choose a slide with two stains, as H&E"
        )
    stains = np.median(np.concatenate([fit.stains.numpy() for fit in found])[fine], axis=0)
    strength = np.median(np.concatenate([fit.strength.numpy() for fit in found])[fine], axis=0)
    count = int(np.count_nonzero(fine))
    return matrix_of(stains, strength.tolist(), list(white), method, count, len(fine) - count)


def stained_levels(slide: Slide, source: StainMatrix, target: StainMatrix) -> list[Any]:
    """Return the slide in another stain: one lazy dask array (h, w, 3) uint8 per level, chunked as `Slide.levels()`.

    Parameters
    ----------
    slide : Slide
    source : StainMatrix
        The slide's own.
    target : StainMatrix
        What it shall look like.
    """
    from dask.base import tokenize

    paint = Restainer(source, target)
    return [
        level.map_blocks(
            paint,
            dtype=np.uint8,
            meta=np.empty((0, 0, 0), np.uint8),
            name=f"stained-{tokenize(level.name, repr(paint))}",
        )
        for level in slide.levels()
    ]
