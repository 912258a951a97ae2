"""Open, predict, map, click: the method of the program, one step a line.

`predict_slide` finds tissue, lays tiles over it, embeds them, lets the head judge the bag, and says what it means.
While it embeds it paints the attention known so far. `answer_click` explains one place of a finished prediction from
what is in memory; `answer_so_far` embeds the place on the spot while there is none (`explanation`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .answer import say
from .bundles.bundle import Bundle
from .errors import BundleMismatch, NotBrightfield
from .events import Event, Job, Partial, Stage, Throttle, Warn, relay
from .explanation import ClickAnswer, SoFar, answer_click, answer_so_far
from .provenance import Stopwatch
from .settings import Settings
from .slide.grid import GridSpec, TileGrid, TileMap, map_tiles
from .tile_classes import Model, RunningClasses, TileClasses, TileHead, judge_of, kept_by, load_model

if TYPE_CHECKING:
    from .encode.encoder import Encoder
    from .encode.engines import Device, Engine, PlannedEngine
    from .encode.features import Bag
    from .mil.verdict import Verdict
    from .slide.slide import Slide
    from .slide.tissue import TissueMask

__all__ = [
    "ClickAnswer", "Prediction", "SoFar", "answer_click", "answer_so_far", "bundle_of", "check_scale", "check_slide",
    "encoder_of", "grid_spec", "lay_out", "predict_slide", "scale_values",
]  # fmt: skip

#: A slide this much coarser than the model is still called equal (scanners round their mpp).
SAME_SCALE = 1.02
#: Up to here a coarser slide is enlarged and answered with "not sure"; beyond, model and slide do not fit.
COARSEST = 2.0
#: At most four pictures of the growing map a second.
PAINT_SECONDS = 0.25

Order = Callable[[TileGrid, NDArray[np.int64]], NDArray[np.int64]]


@dataclass(frozen=True)
class Prediction:
    """What was found on one slide.

    Attributes
    ----------
    bundle, encoder
        The model that judged and the network that looked.
    bag : Bag or None
        None: there was no tissue to embed.
    verdict : Verdict or None
        None: no tissue, or too much of it unreadable, or the model is a classifier of tiles alone.
    seconds : dict of str to float
        Per stage, and within them for read, decode, resize, encode, write (summed over threads).
    device : str
        Where it ran and why there.
    answer : str
        One sentence.
    sure : bool
        False when the sentence says that it is not.
    tile_classes : TileClasses or None
        What each tile looks like, where the encoder keeps a classifier of tiles.
    """

    slide_id: str
    content_id: str
    bundle_digest: str
    bundle: Bundle
    encoder: Encoder
    grid: TileGrid
    bag: Bag | None
    verdict: Verdict | None
    tissue: TissueMask
    seconds: dict[str, float]
    warnings: tuple[str, ...]
    device: str
    answer: str
    sure: bool
    anomaly: None = None
    tile_classes: TileClasses | None = None

    @property
    def reason(self) -> str:
        """Why the slide as a whole was not judged; empty when it was."""
        if self.verdict is not None:
            return ""
        if self.bag is None:
            return "no tissue"
        return "damaged tiles" if self.bag.too_damaged else "tile classes only"


def predict_slide(
    slide: Slide,
    model: Bundle | Model,
    *,
    settings: Settings,
    tissue: TissueMask | None = None,
    order: Order | None = None,
    device: Device | None = None,
    encoder: Encoder | None = None,
    engine: Engine | PlannedEngine | None = None,
    threads: int | None = None,
    nice: int = 0,
    pressed: Callable[[], bool] | None = None,
) -> Job[Prediction]:
    """Predict one slide and say where the model looked.

    Parameters
    ----------
    slide : Slide
    model : Bundle, Head or TileHead
        A bundle of kind "mil", or of an encoder that keeps a classifier of tiles; or its head when it is loaded.
    settings : Settings
    tissue : TissueMask, optional
        An edited mask; found on the slide when absent.
    order : callable, optional
        Asked before every chunk which of the remaining tiles come first (the viewer: those in view).
    device : Device, optional
        Chosen by `settings.device` when absent.
    encoder, engine : Encoder, Engine, optional
        The bundle's encoder (`encoder_of`) and its network, made ready before for many slides.
    threads, nice, pressed
        As for `encode.embed.embed`; beside a window nice 10, and `pressed` while its camera moves.

    Yields
    ------
    Stage, Progress, Warn, and Partial of kind "tissue", "grid", "so_far", "attention" or "classes".
    """
    from .encode.embed import embed
    from .encode.engines import choose_device, plan_engine
    from .mil.verdict import judge

    watch, warnings = Stopwatch(), list[str]()
    check_slide(slide)
    yield from (Warn(text) for text in slide.warnings)
    yield Stage("model", "Loading the model")
    with watch("model"):
        device = device or choose_device(settings.device)
        head = load_model(model, device.first) if isinstance(model, Bundle) else model
        bundle = bundle_of(head)
        encoder = encoder or encoder_of(bundle, settings)
    spec = grid_spec(bundle)
    engine = engine or plan_engine(
        encoder, device, settings=settings, threads=threads, tile_px=spec.tile_px, judge=judge_of(head), nice=nice
    )
    coarser = check_scale(slide, spec, bundle.name)
    if coarser:
        warnings.append(coarser)
        yield Warn(coarser)
    so_far = yield from lay_out(slide, head, tissue=tissue, watch=watch)
    tissue, grid = so_far.tissue, so_far.grid

    bag, verdict, classes = None, None, None
    if len(grid):
        before = slide.seconds_spent
        with watch("embed"):
            job = embed(
                slide, grid, encoder, cache=settings.cache_dir, device=device, order=order, batch=settings.batch,
                threads=threads, nice=nice, pressed=pressed, watch=watch, engine=engine,
            )  # fmt: skip
            bag = yield from relay(job, _Painter(so_far, warnings).see)
        _split_reading(watch, before, slide.seconds_spent)
        slide.unchanged()
        if not bag.too_damaged:
            with watch("judge"):
                tile_head = head if isinstance(head, TileHead) else kept_by(encoder)
                classes = tile_head.of(bag) if tile_head is not None else None
                if not isinstance(head, TileHead):
                    verdict = yield from relay(judge(head, bag), _Painter(so_far, warnings).see)
    else:
        slide.unchanged()
        if tissue.area_mm2 > 0:
            area = f"{tissue.area_mm2:.2g} mm²"
            warnings.append(f"The tissue found ({area}) is too little for a tile of {grid.spec.tile_um:g} µm.")
    answer, sure = say(bundle, verdict, len(grid), coarser, bag, classes)
    return Prediction(
        slide_id=slide.slide_id,
        content_id=slide.content_id,
        bundle_digest=bundle.digest,
        bundle=bundle,
        encoder=encoder,
        grid=grid,
        bag=bag,
        verdict=verdict,
        tissue=tissue,
        seconds=dict(watch.seconds),
        warnings=tuple(dict.fromkeys((*slide.warnings, *warnings))),
        device=str(ran_on(engine, device, bag)),
        answer=answer,
        sure=sure,
        tile_classes=classes,
    )


def lay_out(
    slide: Slide, head: Model, *, tissue: TissueMask | None = None, watch: Stopwatch | None = None
) -> Job[SoFar]:
    """Find the tissue and lay the head's tiles over it: what a run begins with, and a click before any run.

    Parameters
    ----------
    tissue : TissueMask, optional
        An edited mask; found on the slide when absent.
    watch : Stopwatch, optional
        Gets the seconds of ``tissue`` and ``grid``.

    Yields
    ------
    Stage, and Partial of kind "tissue", "grid", "so_far".
    """
    from .mil.running import RunningAttention
    from .slide.grid import lay_grid
    from .slide.tissue import find_tissue

    watch, edited = watch or Stopwatch(), tissue is not None
    yield Stage("tissue", "Finding tissue")
    with watch("tissue"):
        tissue = find_tissue(slide) if tissue is None else tissue
    yield Partial("tissue", tissue)
    yield Stage("grid", "Laying tiles over the tissue")
    with watch("grid"):
        grid = lay_grid(slide, tissue, grid_spec(bundle_of(head)))
    yield Partial("grid", grid)
    running = RunningClasses(head, grid) if isinstance(head, TileHead) else RunningAttention(head, len(grid))
    so_far = SoFar(head, grid, tissue, edited, running)
    yield Partial("so_far", so_far)
    return so_far


def ran_on(engine: Engine | PlannedEngine, device: Device, bag: Bag | None) -> Device:
    """Return where and by what the features were computed, as far as this run knows."""
    from .encode.engines import TITLES, PlannedEngine

    made = engine.made if isinstance(engine, PlannedEngine) else engine
    if made is not None and (bag is None or made.precision == bag.precision):
        return made.device
    return device if bag is None else replace(device, how=f"{TITLES.get(bag.precision, bag.precision)}, from the cache")


def check_slide(slide: Slide) -> None:
    """Refuse a slide that no model here can judge: fluorescence and the like, or without a scale."""
    if not slide.brightfield:
        raise NotBrightfield(
            f"not a brightfield slide ({slide.not_brightfield or 'unknown kind of image'})",
            file=slide.path,
            do="predict from a stained slide in transmitted light",
        )
    slide.require_mpp()


def bundle_of(head: Model) -> Bundle:
    """Return the bundle a head came from; a head in training has none and cannot predict from slides."""
    if head.bundle is None:
        raise BundleMismatch("this head has no bundle, so its encoder and tiles are unknown", do="save it as a bundle")
    return head.bundle


def encoder_of(bundle: Bundle, settings: Settings) -> Encoder:
    """Return the encoder a bundle was trained on (or is), or say that another one is here under its name."""
    from .encode.encoder import encoder_from_bundle, load_encoder

    if bundle.kind == "encoder":
        return encoder_from_bundle(bundle)
    wanted = bundle.encoder
    encoder = load_encoder(str(wanted["name"]), settings)
    if encoder.digest != wanted["digest"]:
        raise BundleMismatch(
            f"model {bundle.name} was trained on features of {wanted['name']} {str(wanted['digest'])[:12]}, but the "
            f"{encoder.name} here is {encoder.digest[:12]}",
            do="use the encoder the model came with, or train the model again",
        )
    return encoder


def grid_spec(bundle: Bundle) -> GridSpec:
    """Return the tiles a bundle was trained on."""
    grid = bundle.grid
    return GridSpec(
        tile_px=int(grid["tile_px"]),
        mpp=float(grid["mpp"]),
        overlap_px=int(grid.get("overlap_px", 0)),
        min_tissue=float(grid.get("min_tissue", 0.25)),
    )


def check_scale(slide: Slide, spec: GridSpec, model: str) -> str:
    """Return a warning when the slide is coarser than the model, "" when it is fine enough.

    Raises
    ------
    BundleMismatch
        More than twice as coarse: enlarging invents what the model was trained to see.
    """
    mpp = slide.require_mpp()
    times = mpp / spec.mpp
    if times <= SAME_SCALE:
        return ""
    if times > COARSEST * SAME_SCALE:
        raise BundleMismatch(
            f"has {mpp:.3g} µm/px, {times:.2g} times coarser than the {spec.mpp:.3g} µm/px of model {model}",
            file=slide.path,
            do=f"use a scan of {COARSEST * spec.mpp:.3g} µm/px or finer, or a model trained at this resolution",
        )
    return (
        f"The slide has {mpp:.3g} µm/px, coarser than the model's {spec.mpp:.3g}: its tiles were enlarged "
        f"{times:.2g} times, so the answer is not sure."
    )


def scale_values(prediction: Prediction, scale: str) -> TileMap:
    """Return one number per tile on a scale a user can choose.

    Parameters
    ----------
    scale : str
        ``share`` (attention in times the mean), ``attention`` (sums to 1), ``rank`` (share of tiles looked at less,
        0 to 1), ``evidence:<class>`` (change of that class's logit).
    """
    verdict, grid = prediction.verdict, prediction.grid
    kind, _, name = scale.partition(":")
    unit = {"share": "× mean", "attention": "weight, all tiles sum to 1", "rank": "share of tiles looked at less"}
    if kind not in (*unit, "evidence") or (kind == "evidence" and name not in prediction.bundle.classes):
        raise ValueError(f"no scale {scale!r}")
    values: NDArray[np.floating] | None = None
    if verdict is not None and kind == "evidence":
        values = None if verdict.evidence is None else verdict.evidence[:, prediction.bundle.classes.index(name)]
    elif verdict is not None and kind == "rank":
        values = (len(grid) - verdict.rank()) / max(1, len(grid) - 1)
    elif verdict is not None:
        values = verdict.share() if kind == "share" else verdict.attention
    # What could not be read was not looked at: nothing is known there, which is not zero.
    seen = verdict.seen if verdict is not None and values is not None else np.zeros(len(grid), bool)
    values = np.where(seen, 0.0 if values is None else values, np.nan)
    if kind == "evidence":
        return map_tiles(grid, values, f"evidence for {name}", "logit")
    return map_tiles(grid, values, "attention", unit[kind])


def _split_reading(watch: Stopwatch, before: dict[str, float], after: dict[str, float]) -> None:
    """Split the reading of tiles into bytes read, decoding, and bringing tiles to the model's resolution."""
    cut = watch.seconds.get("read", 0.0)
    for part in ("read", "decode"):
        watch.seconds[part] = after[part] - before[part]
    watch.seconds["resize"] = max(0.0, cut - watch.seconds["read"] - watch.seconds["decode"])


class _Painter:
    """Looks at the events of embedding and judging: keeps warnings, turns features into the attention known so far."""

    def __init__(self, so_far: SoFar, warnings: list[str]) -> None:
        self._so_far, self._warnings = so_far, warnings
        self._may_paint = Throttle(PAINT_SECONDS)

    def see(self, event: Event) -> Event | None:
        """Return what is shown in place of an event; None: nothing."""
        if isinstance(event, Warn):
            self._warnings.append(event.message)
        if not (isinstance(event, Partial) and event.kind == "features"):
            return event
        running = self._so_far.running
        running.take(*event.data)
        if isinstance(running, RunningClasses):
            return Partial("classes", running.classes()) if self._may_paint() else None
        if not (running.available and self._may_paint()):
            return None
        return Partial("attention", map_tiles(self._so_far.grid, running.share(), "attention", "× mean"))
