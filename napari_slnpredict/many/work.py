"""What is done with each slide of many, on this machine and on a worker of a cluster alike.

A `Plan` is small and travels: what to do, by names and digests. `Plan.ready` loads what every slide needs, once a
process. `do_slide` opens one slide, works on it and always answers with a `Receipt`; nothing large is ever in one, for
the results lie in the cache and in the output folder.
"""

from __future__ import annotations

import gc
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from napari_slnpredict.errors import BundleMismatch, Cancelled, ModelError, ResourceError, SlnPredictError
from napari_slnpredict.events import Event, Job, Stage, Warn, run
from napari_slnpredict.settings import Settings

from .out_folder import Failure
from .slides import Input, Label, Named

if TYPE_CHECKING:
    from napari_slnpredict.encode.encoder import Encoder
    from napari_slnpredict.encode.engines import Device, PlannedEngine
    from napari_slnpredict.encode.features import Bag
    from napari_slnpredict.slide.grid import GridSpec
    from napari_slnpredict.slide.slide import Slide
    from napari_slnpredict.tile_classes import Model

OnEvent = Callable[[Event], None]
Stopped = Callable[[], bool]

#: Resolution of tiles for encoders that take any (20x; methods' default), um/px.
DEFAULT_MPP = 0.5


@dataclass(frozen=True)
class Receipt:
    """What came of one slide.

    Attributes
    ----------
    record : dict or None
        What ``--json`` prints of a finished slide; None when it is not finished.
    line : str
        What a user reads at its end.
    failure : tuple or None
        (name, kind of error, message).
    ends_run : int
        Not 0: the environment failed, no other slide will do better; the exit code.
    stopped : bool
        Ended because somebody asked; what was sealed is kept.
    again : bool
        A failure of the system, perhaps of a moment: worth another try elsewhere.
    trace : str
        The traceback of an unexpected error, where it was asked for.
    """

    record: dict[str, Any] | None = None
    line: str = ""
    failure: Failure | None = None
    ends_run: int = 0
    stopped: bool = False
    again: bool = False
    trace: str = ""


class Work(Protocol):
    """A plan made ready: called with an opened slide."""

    def __call__(
        self, slide: Slide, item: Input, label: Label, on_event: OnEvent, stop: Stopped
    ) -> tuple[dict[str, Any], str]:
        """Work on one slide; return its record and the line to show."""


@dataclass(frozen=True)
class Plan(ABC):
    """What both kinds of work need to know.

    Attributes
    ----------
    settings : Settings
    out : Path or None
    mpp : float or None
        um/px for slides whose table row gives none.
    reader : str or None
    debug : bool
        Keep the traceback of an unexpected error.
    """

    settings: Settings
    out: Path | None = None
    mpp: float | None = None
    reader: str | None = None
    debug: bool = False

    @abstractmethod
    def ready(self, threads: int | None = None) -> Work:
        """Load what every slide needs; `threads` are the cores to use, by default all."""

    def given_mpp(self, item: Input) -> float | None:
        """Return the um/px that somebody gave for a slide."""
        return item.mpp if item.mpp is not None else self.mpp


def do_slide(plan: Plan, ready: Callable[[], Work], slide: Named, on_event: OnEvent, stop: Stopped) -> Receipt:
    """Open a slide and work on it.

    Parameters
    ----------
    ready : callable
        Gives the plan's work; called within, so that its errors become a receipt too.
    """
    from napari_slnpredict.slide.slide import open_slide

    item, label = slide.item, slide.label
    try:
        work = ready()
        with open_slide(item.path, plan.given_mpp(item), reader=plan.reader) as opened:
            record, line = work(opened, item, label, on_event, stop)
    except Cancelled:
        return Receipt(stopped=True)
    except Exception as error:  # noqa: BLE001 - whatever a library raises on one slide, the others go on
        return failed(slide, error, trace=plan.debug)
    finally:
        # Pictures of a slide hang in reference cycles (figures, jobs, errors). Python's own collection is so late that
        # 60 slides held 130 MB more than one; this one takes a tenth of a second.
        gc.collect()
    return Receipt(record, line)


def failed(slide: Named, error: Exception, trace: bool = False) -> Receipt:
    """Return the receipt of a slide that failed; its message holds no path and, with a pseudonym, no name."""
    shown = slide.label.shown
    expected = isinstance(error, SlnPredictError)
    if expected:
        message = slide.label.hide(slide.item.path, error)
    elif isinstance(error, MemoryError):
        message = f"{shown}: not enough memory for this slide. Close other programs and run again."
    else:
        # A stranger's message may hold a path or a property of the slide; its kind is enough for a file.
        message = f"{shown}: unexpected {type(error).__name__}. Run this slide again with --debug."
    if slide.item.source:
        message += f" ({slide.item.source})"
    # The wrong model or tile size is a matter between model and slide; no model, no disk: of every slide.
    environment = isinstance(error, (ResourceError, ModelError)) and not isinstance(error, BundleMismatch)
    return Receipt(
        failure=(shown, type(error).__name__, message),
        ends_run=error.exit_code if environment and isinstance(error, SlnPredictError) else 0,
        again=isinstance(error, OSError),
        trace=traceback_of(error) if trace and not expected else "",
    )


def traceback_of(error: BaseException) -> str:
    """Return an error's traceback as text."""
    return "".join(traceback.format_exception(error))


# ---------------------------------------------------------------------------------------------------------- predict


@dataclass(frozen=True)
class PredictPlan(Plan):
    """Predict and write a folder of results a slide.

    Attributes
    ----------
    model : str
        Name or folder of a bundle.
    digest : str
        The bundle's, as whoever made the plan found it; "" when it was not looked up.
    origin : str
    pseudonym : bool
    """

    model: str = ""
    digest: str = ""
    origin: str = "qupath"
    pseudonym: bool = False

    def ready(self, threads: int | None = None) -> Predicting:
        """Load the model and its encoder's record, choose the device."""
        from napari_slnpredict.bundles.bundle import find_bundle
        from napari_slnpredict.encode.engines import choose_device, plan_engine
        from napari_slnpredict.pipeline import bundle_of, encoder_of, grid_spec
        from napari_slnpredict.tile_classes import judge_of, load_model

        bundle = find_bundle(self.model, self.settings)
        same_digest("model", bundle.name, bundle.digest, self.digest)
        device = choose_device(self.settings.device)
        head = load_model(bundle, device.first)
        encoder, tile_px = encoder_of(bundle_of(head), self.settings), grid_spec(bundle).tile_px
        engine = plan_engine(
            encoder, device, settings=self.settings, threads=threads, tile_px=tile_px, judge=judge_of(head)
        )
        return Predicting(self, head, encoder, device, engine)


@dataclass(frozen=True)
class Predicting:
    """What every slide of a batch is judged with."""

    plan: PredictPlan
    head: Model
    encoder: Encoder
    device: Device
    engine: PlannedEngine

    def __call__(
        self, slide: Slide, item: Input, label: Label, on_event: OnEvent, stop: Stopped
    ) -> tuple[dict[str, Any], str]:
        """Predict one slide and write its folder."""
        from napari_slnpredict.export import Sheet, write_prediction
        from napari_slnpredict.pipeline import predict_slide

        assert self.plan.out is not None
        job = predict_slide(
            slide, self.head, settings=self.plan.settings, device=self.device, encoder=self.encoder, engine=self.engine
        )
        prediction = run(job, on_event, stop)
        on_event(Stage("write", "Writing results"))
        name = label.name(slide.content_id)
        record = write_prediction(
            slide, prediction, self.plan.out / name, Sheet(name, self.plan.origin, self._facts(item))
        )
        return record, prediction.answer

    def _facts(self, item: Input) -> dict[str, Any]:
        """Return the settings that could change a result; no folder among them."""
        plan, settings = self.plan, self.plan.settings
        return {
            "device": settings.device,
            "engine": settings.engine,
            "batch": settings.batch,
            "memory_mb": settings.memory_mb,
            "mpp": plan.given_mpp(item),
            "reader": plan.reader,
            "pseudonym": plan.pseudonym,
        }


# ------------------------------------------------------------------------------------------------------------ embed


@dataclass(frozen=True)
class EmbedPlan(Plan):
    """Compute features into the cache and, with an output folder, a file a slide.

    Attributes
    ----------
    encoder : str
        Name of an encoder.
    digest : str
        The encoder's, as whoever made the plan found it; "" when it was not looked up.
    tile_mpp : float or None
        um/px of the tiles; None: the encoder's.
    """

    encoder: str = ""
    digest: str = ""
    tile_mpp: float | None = None

    def ready(self, threads: int | None = None) -> Embedding:
        """Load the encoder's record, choose the device."""
        from napari_slnpredict.encode.encoder import load_encoder
        from napari_slnpredict.encode.engines import choose_device, plan_engine

        device = choose_device(self.settings.device)
        encoder = load_encoder(self.encoder, self.settings)
        same_digest("encoder", encoder.name, encoder.digest, self.digest)
        spec = tile_spec(encoder, self.tile_mpp)
        engine = plan_engine(encoder, device, settings=self.settings, threads=threads, tile_px=spec.tile_px)
        return Embedding(self, encoder, device, engine, spec)


@dataclass(frozen=True)
class Embedding:
    """What every slide of a batch is embedded with."""

    plan: EmbedPlan
    encoder: Encoder
    device: Device
    engine: PlannedEngine
    spec: GridSpec

    def __call__(
        self, slide: Slide, item: Input, label: Label, on_event: OnEvent, stop: Stopped
    ) -> tuple[dict[str, Any], str]:
        """Embed one slide's tissue tiles."""
        from napari_slnpredict.encode.features import write_features

        name = label.name(slide.content_id)
        bag = run(self._embedded(slide), on_event, stop)
        record: dict[str, Any] = {"slide_id": name, "content_id": slide.content_id, "tiles": 0}
        if bag is None:
            return record, "No tissue found on this slide."
        encoder = {key: getattr(self.encoder, key) for key in ("name", "digest", "licence", "notice")}
        dim = int(bag.features.shape[1])
        record |= {"tiles": len(bag.grid), "features": dim, "precision": bag.precision, "encoder": encoder}
        if self.plan.out is not None:
            # The cache's own file carries the name the slide had when it was first embedded.
            bag = replace(bag, grid=replace(bag.grid, slide_id=name))
            facts = {"content_id": slide.content_id, "encoder_licence": self.encoder.licence}
            write_features(self.plan.out / f"{name}.h5", bag, facts)
            record["file"] = f"{name}.h5"
        return record, f"{len(bag.grid):,} tiles of {dim} features"

    def _embedded(self, slide: Slide) -> Job[Bag | None]:
        from napari_slnpredict.encode.embed import embed
        from napari_slnpredict.pipeline import check_scale, check_slide
        from napari_slnpredict.slide.grid import lay_grid
        from napari_slnpredict.slide.tissue import find_tissue

        check_slide(slide)
        coarser = check_scale(slide, self.spec, self.encoder.name)
        if coarser:
            yield Warn(coarser)
        yield Stage("tissue", "Finding tissue")
        grid = lay_grid(slide, find_tissue(slide), self.spec)
        if not len(grid):
            return None
        cache = self.plan.settings.cache_dir
        bag: Bag = yield from embed(slide, grid, self.encoder, cache=cache, device=self.device, engine=self.engine)
        slide.unchanged()
        return bag


def tile_spec(encoder: Encoder, mpp: float | None = None) -> GridSpec:
    """Return the tiles to embed: of the encoder's size, at `mpp`, else as published, else as near 0.5 as it takes."""
    from napari_slnpredict.slide.grid import GridSpec

    low, high = encoder.mpp
    usual = encoder.tile_mpp if encoder.tile_mpp is not None else min(max(DEFAULT_MPP, low), high)
    spec = GridSpec(tile_px=encoder.tile_px, mpp=float(mpp if mpp is not None else usual))
    encoder.check_grid(spec)
    return spec


def same_digest(kind: str, name: str, found: str, wanted: str) -> None:
    """Raise `ResourceError` when a name means another model here than where the run was started."""
    if wanted and found != wanted:
        raise ResourceError(
            f"{kind} {name} is {found[:12]} on this worker and {wanted[:12]} where the run was started",
            do="give every worker the same models folder",
        )
