"""Why, here: what a model makes of one place of a slide, after a run, during one, and before any.

After a run everything comes from memory and only the picture is read. Before, the tile under the click is read and
embedded on the spot and set beside the tiles seen so far. A lone tile is never judged as if it were the slide.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from .slide.grid import TileGrid, cell_at, tile_at, tissue_in

if TYPE_CHECKING:
    from .encode.engines import Engine
    from .encode.features import Bag
    from .mil.head import Head
    from .mil.running import RunningAttention
    from .mil.verdict import Verdict
    from .pipeline import Prediction
    from .slide.slide import Slide
    from .slide.tissue import TissueMask
    from .tile_classes import Model, RunningClasses

NO_TISSUE = "no tissue here"
UNREADABLE = "this tile could not be read"
#: Less tissue than this is the rounding of a rim, not tissue.
LEAST_TISSUE = 1e-6


@dataclass(frozen=True)
class ClickAnswer:
    """What can be said about one place.

    Attributes
    ----------
    tile : int or None
        Index in the grid; None where `reason` says why there is no answer.
    location : (int, int) or None
        The tile's top-left corner, level-0 px.
    picture : (p, p, 3) uint8 or None
        The tile as the encoder saw it.
    attention, share : float or None
        Weight of the tile (all sum to 1) and the same in times the mean; None where the model has no attention.
    rank : int or None
        1 is the tile looked at most.
    evidence : (c,) float64 or None
        Change of each class's logit due to this tile.
    anomaly : None
    probabilities_without : (c,) float64 or None
        The slide's probabilities without this tile; None when only a longer job can tell.
    delta : (c,) float64 or None
        Probabilities with it minus without it.
    reason : str
        Empty, or why there is no answer, or only part of one.
    tissue : float or None
        Share of the tile that is tissue.
    tiles_so_far : int or None
        While there is no verdict: how many tiles share and evidence are relative to, this one among them.
    classes : dict of str to float, or None
        What the tile looks like, probability by class, where the encoder keeps a classifier of tiles.
    """

    tile: int | None = None
    location: tuple[int, int] | None = None
    picture: NDArray[np.uint8] | None = field(default=None, repr=False)
    attention: float | None = None
    share: float | None = None
    rank: int | None = None
    evidence: NDArray[np.float64] | None = None
    anomaly: None = None
    probabilities_without: NDArray[np.float64] | None = None
    delta: NDArray[np.float64] | None = None
    reason: str = ""
    tissue: float | None = None
    tiles_so_far: int | None = None
    classes: dict[str, float] | None = None


@dataclass(frozen=True)
class SoFar:
    """What is known of a slide before there is a verdict; it grows while a run goes on.

    Attributes
    ----------
    head : Head or TileHead
    grid : TileGrid
    tissue : TissueMask
        That the grid was laid over.
    edited : bool
        Whether a user drew on that tissue.
    running : RunningAttention or RunningClasses
        The tiles seen so far; safe to ask from any thread.
    """

    head: Model
    grid: TileGrid
    tissue: TissueMask = field(repr=False)
    edited: bool
    running: RunningAttention | RunningClasses = field(repr=False)

    def corner_at(self, point_um: tuple[float, float]) -> tuple[int, int] | None:
        """Return the corner of the tile at a place, of the grid or left out of it; None where there is nothing to say.

        Cheap: no file is read.
        """
        x, y = point_um[0] / self.grid.slide_mpp, point_um[1] / self.grid.slide_mpp
        tile = tile_at(self.grid, x, y) if len(self.grid) else None
        if tile is not None:
            return _corner(self.grid, tile)
        corner = cell_at(self.grid, x, y)
        # Where a user drew, a place without tissue may be tissue that was taken out.
        if corner is None or not (self.edited or tissue_in(self.tissue, self.grid, corner) > LEAST_TISSUE):
            return None
        return corner


def answer_click(slide: Slide, head: Model, prediction: Prediction, point_um: tuple[float, float]) -> ClickAnswer:
    """Explain the tile at a place, from what is in memory; only its picture is read.

    Parameters
    ----------
    point_um : (float, float)
        x and y in um from the slide's top-left corner.
    """
    from .slide.blocks import read_tile

    grid = prediction.grid
    x, y = point_um[0] / grid.slide_mpp, point_um[1] / grid.slide_mpp
    tile = tile_at(grid, x, y) if len(grid) else None
    if tile is None:
        return ClickAnswer(reason=NO_TISSUE)
    place = _corner(grid, tile)
    if prediction.bag is not None and prediction.bag.damaged[tile]:
        return ClickAnswer(tile, place, reason=UNREADABLE)
    picture = read_tile(slide, grid, tile)
    classes = prediction.tile_classes.named(tile) if prediction.tile_classes is not None else None
    if prediction.verdict is None or prediction.bag is None:
        why = "" if classes is not None else "there is no verdict to explain"
        return ClickAnswer(tile, place, picture, reason=why, classes=classes)
    facts = _explained(head, prediction.bag, prediction.verdict, tile)
    return ClickAnswer(tile, place, picture, **facts, classes=classes)


def _explained(head: Model, bag: Bag, verdict: Verdict, tile: int) -> dict[str, Any]:
    from .mil.verdict import leave_out

    facts: dict[str, Any] = {"rank": int(verdict.rank()[tile])}
    if verdict.attention is not None:
        facts["attention"] = float(verdict.attention[tile])
        facts["share"] = float(verdict.attention[tile]) * verdict.n_tiles
    if verdict.evidence is not None:
        facts["evidence"] = verdict.evidence[tile]
    without = leave_out(cast("Head", head), bag, verdict, tile)  # there is a verdict: a classifier of tiles gives none
    if without is not None:
        facts["probabilities_without"] = without
        facts["delta"] = verdict.probabilities - without
    return facts


def answer_so_far(slide: Slide, so_far: SoFar, engine: Engine, point_um: tuple[float, float]) -> ClickAnswer:
    """Explain a place while there is no verdict, or one that the verdict leaves out: it is embedded on the spot.

    Parameters
    ----------
    engine : Engine
        The run's own; it may be busy with the run at the same time.
    point_um : (float, float)
        x and y in um from the slide's top-left corner.
    """
    from .encode.place import embed_place
    from .tile_classes import TileHead

    corner = so_far.corner_at(point_um)
    if corner is None:
        return ClickAnswer(reason=NO_TISSUE)
    grid = so_far.grid
    tile = tile_at(grid, point_um[0] / grid.slide_mpp, point_um[1] / grid.slide_mpp) if len(grid) else None
    tissue, why = (float(grid.tissue[tile]), "") if tile is not None else _left_out(slide, so_far, corner)
    if tissue <= LEAST_TISSUE:
        return ClickAnswer(reason=NO_TISSUE)
    place = embed_place(slide, grid, engine, corner)
    if place.feature is None:
        return ClickAnswer(tile, corner, reason=UNREADABLE, tissue=tissue)
    said = so_far.running.explain(place.feature, tile)
    if tile is not None:
        so_far.running.take(np.array([tile]), place.feature[None])
    classes = so_far.head.named(place.feature) if isinstance(so_far.head, TileHead) else None
    if not why and not so_far.head.closed_form:
        why = "this model weighs all tiles together: what this one counts is known when the run has ended"
    return ClickAnswer(
        tile, corner, place.pixels, share=said.share, evidence=said.evidence, reason=why, tissue=tissue,
        tiles_so_far=said.tiles, classes=classes,
    )  # fmt: skip


def _left_out(slide: Slide, so_far: SoFar, corner: tuple[int, int]) -> tuple[float, str]:
    """Return how much tissue a tile has that is not in the grid, and why it is not."""
    from .slide.tissue import find_tissue

    share = tissue_in(so_far.tissue, so_far.grid, corner)
    if so_far.edited and share < so_far.grid.spec.min_tissue:
        found = tissue_in(find_tissue(slide), so_far.grid, corner)
        if found >= so_far.grid.spec.min_tissue:
            return found, "left out by the tissue layer as it was drawn: no part of the slide's answer"
    least = so_far.grid.spec.min_tissue
    return share, f"left out: {share:.0%} of this tile is tissue, the model takes tiles from {least:.0%}"


def _corner(grid: TileGrid, tile: int) -> tuple[int, int]:
    return int(grid.locations[tile, 0]), int(grid.locations[tile, 1])
