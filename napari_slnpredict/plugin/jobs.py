"""What runs beside the window: each function is a job (`events.Job`) for a `worker.Worker`.

They read files and import the heavy libraries; nothing here may touch napari or Qt.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.events import Job, Partial, Stage
from napari_slnpredict.settings import load_settings

from . import edits, last_view
from .display import Look, display_pyramid
from .keeper import Keeper
from .layers import paper_colour
from .model_jobs import NICE, Options, WarmModel, ready_job

if TYPE_CHECKING:
    from napari_slnpredict.pipeline import ClickAnswer, Prediction, SoFar
    from napari_slnpredict.slide.display import DisplayPyramid
    from napari_slnpredict.slide.grid import TileGrid

#: Side of the overview inset's picture, px.
OVERVIEW_PX = 220


@dataclass(frozen=True)
class Opened:
    """A slide ready to be shown.

    Attributes
    ----------
    keeper : Keeper
        Holds the open slide.
    look : Look
        How its colours are shown.
    pyramid : DisplayPyramid
        Its levels for the screen.
    overview : (h, w, 3) uint8
    paper : (float, float, float)
        Colour of its empty glass, 0 to 1.
    tissue_edit : (h, w) bool or None
        The user's tissue mask of an earlier session.
    last_view : LastView or None
        Where the user left it.
    """

    keeper: Keeper
    look: Look
    pyramid: DisplayPyramid = field(repr=False)
    overview: NDArray[np.uint8] = field(repr=False)
    paper: tuple[float, float, float]
    tissue_edit: edits.TissueEdit | None = None
    last_view: last_view.LastView | None = None

    @property
    def slide(self) -> Any:
        """The open slide."""
        return self.keeper.slide

    @property
    def levels(self) -> list[Any]:
        """The arrays of the layer, finest first: (h, w, 3) uint8."""
        return list(self.pyramid.levels)


@dataclass(frozen=True)
class Answered:
    """A finished run: the prediction and the loaded head, which clicks need."""

    prediction: Prediction
    head: Any


def open_job(path: Path, mpp: float | None, options: Options) -> Job[Opened]:
    """Open a slide and read what the first frame needs."""
    yield Stage("open", f"Opening {path.name}")
    from napari_slnpredict.slide.cache import shared_cache
    from napari_slnpredict.slide.slide import open_slide

    shared_cache(load_settings(**options).memory_mb)
    slide = open_slide(path, mpp=mpp)
    try:
        return opened(slide, options)
    except BaseException:
        slide.close()
        raise


def opened(slide: Any, options: Options) -> Opened:
    """Read what an open slide's first frame needs."""
    keeper, look = Keeper(slide), Look(slide.icc_profile())
    pyramid = display_pyramid(keeper, look)
    overview = pyramid.overview(OVERVIEW_PX)
    edit = edits.load(load_settings(**options).cache_dir, slide.content_id) if slide.mpp else None
    return Opened(keeper, look, pyramid, overview, paper_colour(overview), edit, last_view.load(slide.content_id))


def discard_opened(result: Opened) -> None:
    """Close a slide nobody took."""
    result.keeper.retire()


def predict_job(
    slide: Any,
    model: str,
    options: Options,
    warm: WarmModel,
    order: Callable[..., Any],
    moving: Callable[[], bool],
    edit: edits.TissueEdit | None,
) -> Job[Answered]:
    """Predict a slide with a model given by name, quietly while the camera is `moving`."""
    ready = yield from ready_job(model, options, warm)
    yield Partial("ready", ready)  # clicks use the same network
    from napari_slnpredict.encode.engines import step_back
    from napari_slnpredict.pipeline import predict_slide
    from napari_slnpredict.slide.tissue import tissue_from_mask

    step_back(NICE)
    tissue = tissue_from_mask(edit.pixels, edit.mpp) if edit is not None else None
    prediction = yield from predict_slide(
        slide,
        ready.head,
        settings=load_settings(**options),
        tissue=tissue,
        order=order,
        device=ready.device,
        encoder=ready.encoder,
        engine=ready.engine,
        nice=NICE,
        pressed=moving,
    )
    return Answered(prediction, ready.head)


def tissue_job(slide: Any) -> Job[Any]:
    """Find the tissue, for a user who wants to edit it before the first run."""
    yield Stage("tissue", "Finding tissue")
    from napari_slnpredict.pipeline import check_slide
    from napari_slnpredict.slide.tissue import find_tissue

    check_slide(slide)
    return find_tissue(slide)


def click_job(slide: Any, head: Any, prediction: Prediction, point_um: tuple[float, float]) -> Job[ClickAnswer]:
    """Explain a place of a finished prediction.

    Yields
    ------
    Partial
        Of kind "click", what is known at once, where the change without the tile takes another pass of the model.
    """
    yield Stage("click", "Looking here")
    from napari_slnpredict.pipeline import answer_click

    answer = answer_click(slide, head, prediction, point_um)
    verdict, bag = prediction.verdict, prediction.bag
    if answer.reason or answer.tile is None or verdict is None or bag is None or head.closed_form:
        return answer
    from napari_slnpredict.mil.verdict import leave_out_job

    yield Partial("click", answer)
    left = yield from leave_out_job(head, bag, verdict, answer.tile)
    if left is None:
        return answer
    return replace(
        answer,
        evidence=left.evidence,
        probabilities_without=left.probabilities,
        delta=verdict.probabilities - left.probabilities,
    )


def place_job(slide: Any, so_far: SoFar, engine: Any, point_um: tuple[float, float]) -> Job[ClickAnswer]:
    """Embed a place on the spot, while a run goes on, after it was stopped, or where the run left it out."""
    yield Stage("click", "Looking here")
    from napari_slnpredict.pipeline import answer_so_far

    answer = answer_so_far(slide, so_far, engine, point_um)
    # One tile alone is no map: its share would be 1 whatever it shows.
    if answer.tile is not None and so_far.running.available and so_far.running.tiles_seen > 1:
        yield Partial("attention", _painted(so_far))
    elif answer.tile is not None and answer.classes is not None:
        yield Partial("classes", so_far.running.classes())
    return answer


def first_click_job(
    slide: Any, model: str, options: Options, warm: WarmModel, edit: edits.TissueEdit | None, point_um: Any
) -> Job[ClickAnswer]:
    """Answer a click before any run: load the model, find the tissue, embed the one tile."""
    ready = yield from ready_job(model, options, warm)
    yield Partial("ready", ready)
    from napari_slnpredict.pipeline import bundle_of, check_scale, check_slide, grid_spec, lay_out
    from napari_slnpredict.slide.tissue import tissue_from_mask

    check_slide(slide)
    bundle = bundle_of(ready.head)
    check_scale(slide, grid_spec(bundle), bundle.name)
    tissue = tissue_from_mask(edit.pixels, edit.mpp) if edit is not None else None
    so_far = yield from lay_out(slide, ready.head, tissue=tissue)
    return (yield from place_job(slide, so_far, ready.engine, point_um))


def _painted(so_far: SoFar) -> Any:
    from napari_slnpredict.slide.grid import map_tiles

    return map_tiles(so_far.grid, so_far.running.share(), "attention", "× mean")


def pictures_job(slide: Any, grid: TileGrid, tiles: Sequence[int]) -> Job[dict[int, NDArray[np.uint8]]]:
    """Read the pictures of a few tiles."""
    yield Stage("pictures", "Reading tiles")
    from napari_slnpredict.slide.blocks import read_tile

    found: dict[int, NDArray[np.uint8]] = {}
    for tile in tiles:
        found[int(tile)] = read_tile(slide, grid, int(tile))
        yield Stage("pictures", "Reading tiles")
    return found


def save_edit_job(options: Options, content_id: str, edit: edits.TissueEdit) -> Job[Path]:
    """Keep the user's tissue edit beside, never over, the earlier ones."""
    yield Stage("edit", "Keeping your tissue edit")
    return edits.save(load_settings(**options).cache_dir, content_id, edit)


def save_job(slide: Any, prediction: Prediction, folder: Path, options: Options, mpp: float | None) -> Job[Path]:
    """Write every file of a prediction to `folder`/<slide id>, beside another slide's of the same name."""
    yield Stage("save", "Writing the report")
    from napari_slnpredict.export import Sheet, write_prediction
    from napari_slnpredict.files import check_writable

    check_writable(folder)
    settings = load_settings(**options)
    asked = {"model": prediction.bundle.name, "device": settings.device, "batch": settings.batch, "mpp": mpp}
    name = free_name(folder, prediction)
    write_prediction(slide, prediction, folder / name, Sheet(name, settings={**asked, "from": "viewer"}))
    return folder / name


def free_name(folder: Path, prediction: Prediction) -> str:
    """Return the slide's name for its folder; with a suffix where another slide has taken it."""
    try:
        there = json.loads((folder / prediction.slide_id / "prediction.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return prediction.slide_id
    same = isinstance(there, dict) and there.get("content_id") == prediction.content_id
    return prediction.slide_id if same else f"{prediction.slide_id}-{prediction.content_id[:8]}"
