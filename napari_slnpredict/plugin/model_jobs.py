"""Jobs that find the models a user can choose, and make one ready before Run is pressed.

Like all jobs they touch neither napari nor Qt.
"""

from __future__ import annotations

import importlib
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from napari_slnpredict.errors import SlnPredictError
from napari_slnpredict.events import Job, Partial, Stage
from napari_slnpredict.settings import load_settings

#: What the viewer's Preferences page adds to the core's settings (`settings.load_settings`).
Options = dict[str, Any]
#: What a folder must hold to be chosen.
ANSWERS = "choose a slide model, or an encoder that keeps tile classes"
#: Niceness of the threads that compute beside the window (Linux: per thread).
NICE = 10


@dataclass(frozen=True)
class ModelChoice:
    """A model the user can choose.

    Attributes
    ----------
    name : str
        What `find_bundle` understands.
    label : str
    card : str
        Markdown.
    notice : str
    problem : str
        Why it cannot be used; empty when it can.
    terms : str
        Its licence and its encoder's, in a sentence each.
    """

    name: str
    label: str
    card: str = field(default="", repr=False)
    notice: str = ""
    problem: str = ""
    terms: str = ""


def import_what_opening_needs() -> None:
    """Half a second of imports that the first slide would otherwise wait for (napari's thumbnail imports scipy)."""
    for name in ("napari_slnpredict.slide.slide", "tiffslide", "scipy.ndimage", "simplejpeg", "imagecodecs"):
        importlib.import_module(name)


def models_job(options: Options) -> Job[list[ModelChoice]]:
    """List the models that can be chosen, shipped ones first; bring in meanwhile what opening a slide will need."""
    yield Stage("models", "Looking for models")
    import_what_opening_needs()
    from napari_slnpredict.bundles.bundle import list_bundles

    return [
        choice
        for entry in list_bundles(load_settings(**options), ("mil", "encoder"))
        if (choice := model_choice(entry)) is not None
    ]


def model_choice(entry: Any) -> ModelChoice | None:
    """Return a bundle as a choice; None for bundles that answer no question (encoders without a tile classifier)."""
    kind = getattr(entry, "kind", "mil")
    classes = kind == "encoder" and bool(entry.classes)
    if kind != "mil" and not classes:
        return None
    problem = str(getattr(entry, "error", "") or "")
    name = str(entry.name)
    notice = str(getattr(entry, "notice", "") or "")
    demonstration = " (demonstration)" if "demonstration" in notice.lower() else ""
    demonstration = " (tile classes)" if classes else demonstration
    label = f"{name}{demonstration}" + (" (cannot be used)" if problem else "")
    return ModelChoice(name, label, str(getattr(entry, "card", "") or ""), notice, problem, _terms(entry))


def _terms(entry: Any) -> str:
    from napari_slnpredict.bundles.terms import terms_of

    licence, encoder = str(getattr(entry, "licence", "") or ""), getattr(entry, "encoder", None) or {}
    told = [f"Licence of the model: {licence}." if licence else ""]
    if encoder.get("name"):
        told.append(terms_of(*(str(encoder.get(key, "")) for key in ("name", "licence", "notice"))))
    return " ".join(part for part in told if part)


def folder_model_job(folder: Path) -> Job[ModelChoice]:
    """Check a folder the user chose."""
    yield Stage("models", f"Checking {folder.name}")
    from napari_slnpredict.bundles.bundle import load_bundle

    bundle = load_bundle(folder)
    choice = model_choice(bundle)
    if choice is None:
        raise SlnPredictError("this model answers no question about slides", file=folder, do=ANSWERS)
    return replace(choice, name=str(folder), label=f"{choice.label} · {folder.name}")


@dataclass(frozen=True)
class Ready:
    """A model that can start at once.

    Attributes
    ----------
    wanted : tuple
        Model, device, engine and batch as asked for.
    digest : str
        The bundle's.
    head, encoder, engine, device
    """

    wanted: tuple[str, str, str, int]
    digest: str
    head: Any = field(repr=False)
    encoder: Any = field(repr=False)
    engine: Any = field(repr=False)
    device: Any


class WarmModel:
    """Keeps the model that was made ready last; written by one job's thread, read by another's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ready: Ready | None = None

    def get(self, wanted: tuple[str, str, str, int], digest: str) -> Ready | None:
        """Return the model when it is the one wanted and its bundle has not changed on disk."""
        with self._lock:
            ready = self._ready
        return ready if ready is not None and ready.wanted == wanted and ready.digest == digest else None

    def network_of(self, digest: str, tile_px: int) -> Any:
        """Return the network that runs an encoder already, None where it is another one or made for other tiles."""
        with self._lock:
            ready = self._ready
        if ready is None or ready.encoder.digest != digest or ready.engine.tile_px != tile_px:
            return None
        return ready.engine

    def put(self, ready: Ready) -> None:
        """Keep a model in place of the former."""
        with self._lock:
            self._ready = ready


def ready_job(model: str, options: Options, warm: WarmModel) -> Job[Ready]:
    """Choose a device and build the model there; done before Run is pressed, Run starts at once."""
    yield Stage("device", "Looking for a device")
    from napari_slnpredict.bundles.bundle import find_bundle
    from napari_slnpredict.encode.engines import available_cores, choose_device, plan_engine
    from napari_slnpredict.pipeline import encoder_of, grid_spec
    from napari_slnpredict.tile_classes import judge_of, load_model

    settings = load_settings(**options)
    device = choose_device(settings.device)
    yield Partial("device", device)
    yield Stage("model", "Loading the model")
    bundle = find_bundle(model, settings)
    wanted = (model, settings.device, settings.engine, settings.batch)
    ready = warm.get(wanted, bundle.digest)
    if ready is not None:
        yield Partial("device", ready.device)
        return ready
    head = load_model(bundle)
    yield Stage("model", "Loading the model")
    encoder = encoder_of(bundle, settings)
    yield Stage("model", "Loading the model")
    # One core stays free for the window.
    threads = max(1, available_cores() - 1)
    tile_px = grid_spec(bundle).tile_px
    engine = plan_engine(
        encoder, device, settings=settings, threads=threads, tile_px=tile_px, judge=judge_of(head), nice=NICE
    )
    device = (yield from engine.ready()).device
    yield Partial("device", device)
    ready = Ready(wanted, bundle.digest, head, encoder, engine, device)
    warm.put(ready)
    _import_the_rest()
    return ready


def _import_the_rest() -> None:
    """Import what a run needs later: not in a thread that has stepped back (see `worker`)."""
    import skimage.draw
    import skimage.filters
    import skimage.measure
    import skimage.morphology  # noqa: F401

    import napari_slnpredict.encode.embed
    import napari_slnpredict.slide.tissue  # noqa: F401
