"""Which encoder describes tiles, made ready beside the window; and the index that is looked in."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_slnpredict.events import Job, Stage
from napari_slnpredict.retrieval import Index
from napari_slnpredict.settings import load_settings

from .model_jobs import NICE, Options, WarmModel

if TYPE_CHECKING:
    from napari_slnpredict.retrieval import Describer


@dataclass(frozen=True)
class Prepared:
    """An encoder that can be asked at once."""

    wanted: tuple[Any, ...]
    describer: Describer
    engine: Any = field(repr=False)


class Warm:
    """Keeps the encoder prepared last; written by one job's thread, read by another's.

    Parameters
    ----------
    models : WarmModel
        The model made ready for Run: its network serves here too where it is of the same encoder.
    """

    def __init__(self, models: WarmModel) -> None:
        self._lock = threading.Lock()
        self._prepared: Prepared | None = None
        self.models = models

    def get(self, wanted: tuple[Any, ...]) -> Prepared | None:
        """Return the encoder when it is the one wanted."""
        with self._lock:
            prepared = self._prepared
        return prepared if prepared is not None and prepared.wanted == wanted else None

    def put(self, prepared: Prepared) -> None:
        """Keep an encoder in place of the former."""
        with self._lock:
            self._prepared = prepared


def encoders_job(options: Options) -> Job[list[str]]:
    """List the encoders whose weights are here."""
    yield Stage("encoders", "Looking for encoders")
    from napari_slnpredict.encode.listing import list_encoders

    return [row.name for row in list_encoders(load_settings(**options)) if row.here]


def index_job(folder: Path) -> Job[Index]:
    """Read an index."""
    yield Stage("index", f"Reading the index {folder.name}")
    from napari_slnpredict.retrieval import open_index

    return open_index(folder)


def prepare_job(name: str, index: Index | None, options: Options, warm: Warm) -> Job[Prepared]:
    """Make ready what describes tiles; refuse it for an index of other descriptors.

    The network itself is made when a tile must be embedded: what an index or the cache holds needs none.
    """
    settings = load_settings(**options)
    first = index.first if index is not None else None
    tile = None if first is None else (first.tile_px, first.mpp)
    wanted = (name, tile, settings.device, settings.engine, settings.batch, str(settings.cache_dir))
    prepared = warm.get(wanted)
    if prepared is None:
        yield Stage("encoder", "Loading the encoder")
        prepared = _prepared(name, tile, settings, wanted, warm.models)
        warm.put(prepared)
    describer = prepared.describer
    if index is not None:
        spec = describer.spec
        index.require(
            describer.digest, describer.holds, (spec.tile_px, spec.mpp), f"the chosen {describer.encoder.name} gives"
        )
    return prepared


def _prepared(
    name: str, tile: tuple[int, float] | None, settings: Any, wanted: tuple[Any, ...], models: WarmModel
) -> Prepared:
    from napari_slnpredict.encode.encoder import load_encoder
    from napari_slnpredict.encode.engines import available_cores, choose_device, plan_engine
    from napari_slnpredict.many.work import tile_spec
    from napari_slnpredict.retrieval import make_describer
    from napari_slnpredict.slide.grid import GridSpec

    encoder = load_encoder(name, settings)
    spec = tile_spec(encoder) if tile is None else GridSpec(*tile)
    describer = make_describer(encoder, spec)
    engine = models.network_of(encoder.digest, spec.tile_px)
    if engine is None:
        engine = plan_engine(
            encoder, choose_device(settings.device), settings=settings, threads=max(1, available_cores() - 1),
            tile_px=spec.tile_px, nice=NICE,
        )  # fmt: skip
    return Prepared(wanted, describer, engine)


def warm_job(name: str, index: Index | None, options: Options, warm: Warm) -> Job[None]:
    """Build the network before the first click needs it."""
    prepared = yield from prepare_job(name, index, options, warm)
    yield from build_network(prepared)


def build_network(prepared: Prepared) -> Job[None]:
    """Build the network, unless it is built."""
    ready = getattr(type(prepared.engine), "ready", None)
    if ready is not None:
        yield from ready(prepared.engine)
