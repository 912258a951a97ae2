"""Open, predict, map, click: the method of the program, one step a line.

`predict_slide` finds tissue, lays tiles over it, embeds them, lets the head judge the bag, and says what it means.
While it embeds it paints the attention known so far. `answer_click` explains one place of a finished prediction from
what is in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import BundleMismatch, NotBrightfield
from .events import Event, Job, Partial, Stage, Throttle, Warn
from .provenance import Stopwatch
from .settings import Settings
from .slide.grid import GridSpec, TileGrid, TileMap, map_tiles

if TYPE_CHECKING:
    from .bundles.bundle import Bundle
    from .encode.encoder import Encoder
    from .encode.engines import Device
    from .encode.features import Bag
    from .mil.verdict import Head, Verdict
    from .slide.slide import Slide
    from .slide.tissue import TissueMask

#: A slide this much coarser than the model is still called equal (scanners round their mpp).
SAME_SCALE = 1.02
#: Up to here a coarser slide is enlarged and answered with "not sure"; beyond, model and slide do not fit.
COARSEST = 2.0
#: Share of unreadable tissue tiles above which nothing is said (reliability R1).
MOST_DAMAGED = 0.01
#: Without a calibrated set, a leading class below this share of belief is not named (0.5: a coin).
LEAST_BELIEF = 0.6
#: At most four pictures of the growing map a second.
PAINT_SECONDS = 0.25

Order = Callable[[TileGrid, NDArray[np.int64]], NDArray[np.int64]]

NO_TISSUE = "No tissue found on this slide."


@dataclass(frozen=True)
class Prediction:
    """What was found on one slide.

    Attributes
    ----------
    slide_id, content_id, bundle_digest : str
    bundle, encoder
        The model that judged and the network that looked.
    grid : TileGrid
    bag : Bag or None
        None: there was no tissue to embed.
    verdict : Verdict or None
        None: no tissue, or too much of it unreadable.
    anomaly : None
        Place of the anomaly map.
    tissue : TissueMask
    seconds : dict of str to float
        Seconds per stage, and within them for read, decode, encode, write.
    warnings : tuple of str
    device : str
        Where it ran and why there.
    answer : str
        One sentence.
    sure : bool
        False when the sentence says that it is not.
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
        Empty, or why there is no answer.
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


def predict_slide(
    slide: Slide,
    model: Bundle | Head,
    *,
    settings: Settings,
    tissue: TissueMask | None = None,
    order: Order | None = None,
    device: Device | None = None,
) -> Job[Prediction]:
    """Predict one slide and say where the model looked.

    Parameters
    ----------
    slide : Slide
    model : Bundle or Head
        A bundle of kind "mil", or its head when it is loaded already.
    settings : Settings
    tissue : TissueMask, optional
        An edited mask; found on the slide when absent.
    order : callable, optional
        Asked before every chunk which of the remaining tiles come first (the viewer: those in view).
    device : Device, optional
        Chosen by `settings.device` when absent.

    Yields
    ------
    Stage, Progress, Warn, and Partial of kind "tissue", "grid", "attention".
    """
    from .encode.embed import embed
    from .encode.engines import choose_device
    from .mil.verdict import Head, judge, load_head
    from .slide.grid import lay_grid
    from .slide.tissue import find_tissue

    watch, warnings = Stopwatch(), list(slide.warnings)
    check_slide(slide)
    yield Stage("model", "Loading the model")
    with watch("model"):
        head = model if isinstance(model, Head) else load_head(model)
        encoder = encoder_of(head.bundle, settings)
        device = device or choose_device(settings.device)
    spec = grid_spec(head.bundle)
    coarser = check_scale(slide, spec, head.bundle.name)
    yield from _note(warnings, coarser, encoder.warning)

    yield Stage("tissue", "Finding tissue")
    with watch("tissue"):
        tissue = find_tissue(slide) if tissue is None else tissue
    yield Partial("tissue", tissue)
    yield Stage("grid", "Laying tiles over the tissue")
    with watch("grid"):
        grid = lay_grid(slide, tissue, spec)
    yield Partial("grid", grid)

    bag, verdict = None, None
    if len(grid):
        with watch("embed"):
            job = embed(
                slide, grid, encoder, cache=settings.cache_dir, device=device, order=order, batch=settings.batch,
                watch=watch,
            )  # fmt: skip
            bag = yield from _painted(job, head, grid, warnings)
        unreadable = _unreadable(bag)
        yield from _note(warnings, unreadable)
        slide.unchanged()
        if np.mean(bag.damaged) <= MOST_DAMAGED:
            yield Stage("judge", "Weighing the tiles")
            with watch("judge"):
                verdict = yield from _heard(judge(head, bag), warnings)
    else:
        slide.unchanged()
    answer, sure = say(head.bundle, verdict, len(grid), coarser, bag)
    return Prediction(
        slide_id=slide.slide_id,
        content_id=slide.content_id,
        bundle_digest=head.bundle.digest,
        bundle=head.bundle,
        encoder=encoder,
        grid=grid,
        bag=bag,
        verdict=verdict,
        tissue=tissue,
        seconds=dict(watch.seconds),
        warnings=tuple(dict.fromkeys(warnings)),
        device=f"{device.name} ({device.why})" if device.why else device.name,
        answer=answer,
        sure=sure,
    )


def check_slide(slide: Slide) -> None:
    """Refuse a slide that no model here can judge: fluorescence and the like, or without a scale."""
    if not slide.brightfield:
        raise NotBrightfield(
            f"not a brightfield slide ({slide.not_brightfield or 'unknown kind of image'})",
            file=slide.path,
            do="predict from a stained slide in transmitted light",
        )
    slide.require_mpp()


def encoder_of(bundle: Bundle, settings: Settings) -> Encoder:
    """Return the encoder a bundle was trained on, or say that another one is here under its name."""
    from .encode.encoder import load_encoder

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


def say(
    bundle: Bundle, verdict: Verdict | None, tiles: int, coarser: str = "", bag: Bag | None = None
) -> tuple[str, bool]:
    """Return the answer as a sentence a colleague would say, and whether it is sure."""
    if not tiles:
        return NO_TISSUE, False
    if verdict is None:
        damaged = int(np.sum(bag.damaged)) if bag is not None else 0
        return f"No verdict: {damaged:,} of {tiles:,} tissue tiles could not be read.", False
    domain = verdict.out_of_domain
    if domain is not None and not domain.get("inside", True):
        reason = str(domain.get("reason") or "unlike any training slide")
        return f"Outside what this model knows: {reason}.", False
    first = int(np.argmax(verdict.probabilities))
    name, belief = verdict.classes[first], float(verdict.probabilities[first])
    if coarser:
        return (
            f"Not sure: the slide is coarser than the model knows; {name} leads with probability {belief:.2f}.",
            False,
        )
    if verdict.conformal is not None and len(verdict.conformal) != 1:
        return _open_set(verdict, bundle), False
    if verdict.conformal is None and belief < max(LEAST_BELIEF, 1.2 / len(verdict.classes)):
        return f"Not sure: {name} leads with probability {belief:.2f} only.", False
    low, high = _interval(verdict, name)
    doubt = f" ({low:.2f} to {high:.2f})" if not math.isnan(low) else ""
    return f"{task_title(bundle)} {name}: probability {belief:.2f}{doubt}.", True


def task_title(bundle: Bundle) -> str:
    """Return the clinical question in a word or two: "SLN", "HER2", "Metastasis"."""
    title = bundle.task.get("title")
    if title:
        return str(title)
    name = str(bundle.task.get("name", "")).replace("-", " ").replace("_", " ").strip() or "This slide"
    return name.upper() if len(name.split()[0]) <= 4 and " " not in name else name[:1].upper() + name[1:]


def answer_click(slide: Slide, head: Head, prediction: Prediction, point_um: tuple[float, float]) -> ClickAnswer:
    """Explain the tile at a place, from what is in memory; only its picture is read.

    Parameters
    ----------
    point_um : (float, float)
        x and y in um from the slide's top-left corner.
    """
    from .slide.blocks import read_tile
    from .slide.grid import tile_at

    grid = prediction.grid
    x, y = point_um[0] / grid.slide_mpp, point_um[1] / grid.slide_mpp
    tile = tile_at(grid, x, y) if len(grid) else None
    if tile is None:
        return ClickAnswer(reason="no tissue here")
    place = (int(grid.locations[tile, 0]), int(grid.locations[tile, 1]))
    if prediction.bag is not None and prediction.bag.damaged[tile]:
        return ClickAnswer(tile, place, reason="this tile could not be read")
    picture = read_tile(slide, grid, tile)
    if prediction.verdict is None or prediction.bag is None:
        return ClickAnswer(tile, place, picture, reason="there is no verdict to explain")
    return ClickAnswer(tile, place, picture, **_explained(head, prediction.bag, prediction.verdict, tile))


def _explained(head: Head, bag: Bag, verdict: Verdict, tile: int) -> dict[str, Any]:
    from .mil.verdict import leave_out

    facts: dict[str, Any] = {}
    if verdict.attention is not None:
        attention = verdict.attention
        facts["attention"] = float(attention[tile])
        facts["share"] = float(attention[tile]) * len(attention)
        facts["rank"] = int(ranks(attention)[tile])
    if verdict.evidence is not None:
        facts["evidence"] = verdict.evidence[tile]
    without = leave_out(head, bag, verdict, tile)
    if isinstance(without, np.ndarray):
        facts["probabilities_without"] = without
        facts["delta"] = verdict.probabilities - without
    elif without is not None:
        without.close()  # a job: the viewer runs one of its own
    return facts


def ranks(values: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return the rank of each tile, (n,) int64: 1 is the largest value, equal ones by index, unknown ones last."""
    order = np.argsort(-np.where(np.isnan(values), -np.inf, values), kind="stable")
    places = np.empty(len(values), np.int64)
    places[order] = np.arange(1, len(values) + 1)
    return places


def scale_values(prediction: Prediction, scale: str) -> TileMap:
    """Return one number per tile on a scale a user can choose.

    Parameters
    ----------
    scale : str
        ``share`` (attention in times the mean), ``attention`` (sums to 1), ``rank`` (share of tiles looked at less,
        0 to 1), ``evidence:<class>`` (change of that class's logit).
    """
    verdict, grid = prediction.verdict, prediction.grid
    nothing = np.full(len(grid), np.nan)
    attention = verdict.attention if verdict is not None and verdict.attention is not None else nothing
    if scale == "share":
        return map_tiles(grid, attention * len(grid), "attention", "× mean")
    if scale == "attention":
        return map_tiles(grid, attention, "attention", "weight, all tiles sum to 1")
    if scale == "rank":
        below = (len(grid) - ranks(attention)) / max(1, len(grid) - 1)
        return map_tiles(grid, np.where(np.isnan(attention), np.nan, below), "attention", "share of tiles below")
    kind, _, name = scale.partition(":")
    if kind == "evidence" and name in prediction.bundle.classes:
        column = prediction.bundle.classes.index(name)
        known = verdict is not None and verdict.evidence is not None
        values = verdict.evidence[:, column] if known else nothing  # type: ignore[union-attr, index]
        return map_tiles(grid, values, f"evidence for {name}", "logit")
    raise ValueError(f"no scale {scale!r}")


def _painted(job: Job[Bag], head: Head, grid: TileGrid, warnings: list[str]) -> Job[Bag]:
    """Pass an embedding job's events on and turn its features into the attention known so far."""
    from .mil.verdict import RunningAttention

    running = RunningAttention(head, grid)
    may_paint = Throttle(PAINT_SECONDS)

    def paint(event: Event) -> Event | None:
        if not (isinstance(event, Partial) and event.kind == "features"):
            return event
        values = running.update(*event.data)
        return Partial("attention", map_tiles(grid, values * len(grid), "attention", "× mean")) if may_paint() else None

    return (yield from _heard(job, warnings, paint))


def _heard(job: Job[Any], warnings: list[str], see: Callable[[Event], Event | None] = lambda event: event) -> Job[Any]:
    """Drive an inner job, keep its warnings, and let `see` change or drop its events."""
    try:
        while True:
            try:
                event = next(job)
            except StopIteration as end:
                return end.value
            if isinstance(event, Warn):
                warnings.append(event.message)
            shown = see(event)
            if shown is not None:
                yield shown
    finally:
        job.close()


def _note(warnings: list[str], *messages: str) -> Generator[Event, None, None]:
    for message in messages:
        if message:
            warnings.append(message)
            yield Warn(message)


def _unreadable(bag: Bag) -> str:
    damaged = int(np.sum(bag.damaged))
    if not damaged:
        return ""
    return f"{damaged:,} of {len(bag.grid):,} tissue tiles could not be read and had no say."


def _interval(verdict: Verdict, name: str) -> tuple[float, float]:
    if not verdict.interval or name not in verdict.interval:
        return math.nan, math.nan
    low, high = verdict.interval[name]
    return float(low), float(high)


def _open_set(verdict: Verdict, bundle: Bundle) -> str:
    share = bundle.calibration.get("coverage", 0.9)
    names = ", ".join(str(name) for name in (verdict.conformal or ()))
    if not names:
        return f"Not sure: no class fits this slide at {share:.0%}."
    both = "both" if len(verdict.conformal or ()) == 2 else "all"
    return f"Not sure: {{{names}}} are {both} possible at {share:.0%}."
