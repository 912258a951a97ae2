"""From a slide, a grid and an encoder to a bag of features: the longest job of the program, resumable at any moment."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import DataError, ResourceError, SlnPredictError
from napari_slnpredict.events import Job, Meter, Partial, Stage, Throttle, Warn
from napari_slnpredict.files import check_writable, work_lock
from napari_slnpredict.provenance import Stopwatch
from napari_slnpredict.settings import load_settings
from napari_slnpredict.slide.blocks import plan_blocks
from napari_slnpredict.slide.grid import TileGrid

from .engines import PRECISION, Device, Engine, PlannedEngine, plan_engine
from .features import MAX_DAMAGED, Bag
from .record import Encoder
from .store import CHUNK_TILES, Chunk, FeatureStore, check_room
from .workers import Done, Workers

if TYPE_CHECKING:
    from napari_slnpredict.slide.slide import Slide

#: Asked for the order of work: (grid, remaining (k,) int64) -> the same tiles, the most urgent first.
Order: TypeAlias = Callable[[TileGrid, NDArray[np.int64]], NDArray[np.int64]]

#: A slow encoder seals sooner than every 512 tiles, so that a kill never costs more than this.
SEAL_SECONDS = 60.0
#: With an order, tiles handed out before it is asked again (about a second's work), and how far ahead is planned.
ROUND, HORIZON = 64, 2048
_ATTEMPTS = 3


def embed(
    slide: Slide,
    grid: TileGrid,
    encoder: Encoder,
    *,
    cache: Path,
    device: Device | None = None,
    order: Order | None = None,
    batch: int = 0,
    threads: int | None = None,
    nice: int = 0,
    pressed: Callable[[], bool] | None = None,
    watch: Stopwatch | None = None,
    engine: Engine | PlannedEngine | None = None,
) -> Job[Bag]:
    """Embed every tile of a grid, or find the features in the cache.

    Yields `Stage`, `Progress`, `Warn` and ``Partial("features", (indices (k,), features (k, d)))``, at most 20 events
    a second; damaged tiles have no features to tell. Closing the job keeps what was computed; the next one goes on
    from there and ends with the same features, bit by bit.

    Parameters
    ----------
    slide : Slide
    grid : TileGrid
    encoder : Encoder
    cache : Path
        The cache's root.
    device : Device, optional
        By default `engines.choose_device()`.
    order : callable, optional
        Asked again and again which tiles are wanted first (those in view); by default the file's order.
    batch, threads : int
        As `engines.make_engine`; 0 leaves the batch to the settings.
    nice : int
        10 beside a window: the threads step back behind it.
    pressed : callable, optional
        Whether somebody needs the processor just now, as a camera that moves: meanwhile two threads stand aside.
    watch : Stopwatch, optional
        Gets the seconds of ``read``, ``encode`` (summed over threads) and ``write``.
    engine : Engine or PlannedEngine, optional
        One for many slides; a planned one is made when the first slide needs it. With a planned one, features of any
        precision that it allows are taken from the cache.

    Raises
    ------
    BundleMismatch
        The tiles are not of the encoder's resolution or size.
    DataError
        A feature is not finite; the tile is named.
    CorruptSlide
        The slide's file changed meanwhile.
    ResourceError
        No memory, no disk, cache not writable.
    """
    encoder.check_grid(grid.spec)
    yield Stage("embed", f"Embedding tiles with {encoder.name}", len(grid), "tiles")
    if encoder.warning:
        yield Warn(encoder.warning)
    if len(grid) == 0:
        return Bag(grid, np.zeros((0, encoder.dim), np.float32), encoder.digest, encoder.name, PRECISION)
    if engine is None:
        settings = load_settings(cache=str(cache))
        engine = plan_engine(
            encoder, device, settings=settings, batch=batch or None, threads=threads, tile_px=grid.spec.tile_px,
            nice=nice,
        )  # fmt: skip

    def store_of(precision: str) -> FeatureStore:
        return FeatureStore(
            Path(cache), slide.content_id, grid, encoder_name=encoder.name, encoder_digest=encoder.digest,
            precision=precision, dim=encoder.dim,
        )  # fmt: skip

    bag, problem = _find_bag([store_of(precision) for precision in usable_precisions_of(engine)])
    if bag is None:
        if problem:
            yield Warn(f"{problem} It is computed again.")
        if isinstance(engine, PlannedEngine) and engine.made is None:
            check_writable(Path(cache))
            engine = yield from engine.ready()
            yield Stage("embed", f"Embedding tiles with {encoder.name}", len(grid), "tiles")
        store = store_of(engine.precision)
        check_writable(store.folder)
        check_room(store)
        bag = yield from _Run(slide, store, engine, order, nice, pressed, watch or Stopwatch()).job()
    else:
        store_of(bag.precision).remove_chunks()
        yield Partial("features", (bag.kept, bag.features[bag.kept]))
        yield Meter(len(grid), len(grid), len(grid)).progress()
    if bag.damaged.any():
        yield Warn(_damage(bag))
    return bag


def usable_precisions_of(engine: Engine | PlannedEngine) -> tuple[str, ...]:
    """Return the precisions whose cached features an engine allows: its own; a planned one several."""
    return engine.usable() if isinstance(engine, PlannedEngine) else (engine.precision,)


def _find_bag(stores: list[FeatureStore]) -> tuple[Bag | None, str]:
    """Return the first finished bag, and why a file that is there cannot be used."""
    problem = ""
    for store in stores:
        bag = store.open_bag()
        if bag is not None:
            return bag, ""
        problem = problem or store.problem
    return None, problem


def _damage(bag: Bag) -> str:
    lost, n = int(bag.damaged.sum()), len(bag)
    if bag.too_damaged:
        return (
            f"{lost} of {n} tiles lie on damaged parts of the file: more than {MAX_DAMAGED:.0%}, so there is no verdict"
        )
    return f"{lost} of {n} tiles lie on damaged parts of the file and were left out"


class _Run:
    """One run over one slide: what is done, what waits to be sealed, what comes next."""

    def __init__(
        self,
        slide: Slide,
        store: FeatureStore,
        engine: Engine,
        order: Order | None,
        nice: int,
        pressed: Callable[[], bool] | None,
        watch: Stopwatch,
    ) -> None:
        self.slide, self.store, self.engine, self.order = slide, store, engine, order
        self.nice, self.pressed, self.watch = nice, pressed, watch
        n = len(store.grid)
        self.done, self.given = np.zeros(n, bool), np.zeros(n, bool)
        self.waiting: list[Chunk] = []  # computed, not sealed
        self.fresh: list[Chunk] = []  # not yet told to whoever listens
        self.plan: deque[NDArray[np.int64]] = deque()
        self.planned_for = 0  # tiles handed out since the plan was made
        self.backwards = False
        self.sealed_at = time.monotonic()
        self.tell = Throttle(0.1)

    def job(self) -> Job[Bag]:
        """Compute what no chunk holds, seal it, join all; repeat where the disk lost something."""
        self._find_chunks()
        found = int(self.done.sum())
        meter = Meter(len(self.done), found, found)
        yield from self._report(meter, now=True)
        with work_lock(self.store.lock_path) as alone:
            # Somebody else is at the same slide: begin at the other end and meet in the middle.
            self.backwards = not alone
            for _ in range(_ATTEMPTS):
                bag = yield from self._compute(meter)
                if bag is not None:
                    return bag
                self.slide.unchanged()
                with self.watch("write"):
                    result = self.store.finish()
                if isinstance(result, Bag):
                    return result
                self.done[result] = self.given[result] = False
        raise ResourceError("the disk does not give back what was written", file=self.store.folder, do="check the disk")

    def _compute(self, meter: Meter) -> Job[Bag | None]:
        """Embed what is not done. Returns a bag when another process finished it first."""
        if self.done.all():
            return None
        workers = Workers(self.slide, self.store.grid, self.engine, self.nice, self.pressed)
        try:
            while not self.done.all():
                self._feed(workers)
                for result in workers.fetch(0.1):
                    self._take(result)
                if self._is_time_to_seal():
                    self._seal(CHUNK_TILES)
                    if self.store.path.is_file() and (bag := self.store.open_bag()) is not None:
                        self.store.remove_chunks()
                        return bag
                    self._find_chunks()
                for notice in self.engine.take_notices():
                    yield Warn(notice)
                meter.done = int(self.done.sum())
                yield from self._report(meter)
            self._seal(len(self.done))
            yield from self._report(meter, now=True)
            return None
        finally:
            workers.stop()
            self._keep(workers)

    def _find_chunks(self) -> None:
        for chunk in self.store.new_chunks():
            new = ~self.done[chunk.indices]
            self.done[chunk.indices] = True
            self.fresh.append(Chunk(chunk.indices[new], chunk.features[new], chunk.damaged[new]))

    def _feed(self, workers: Workers) -> None:
        while workers.hungry:
            block = self._next_block()
            if block is None:
                workers.end()
                return
            self.given[block] = True
            self.planned_for += len(block)
            workers.give(block)

    def _next_block(self) -> NDArray[np.int64] | None:
        if not self.plan or (self.order is not None and self.planned_for >= ROUND):
            self._make_plan()
        while self.plan:
            block = self.plan.popleft()
            block = block[~(self.done | self.given)[block]]
            if len(block):
                return block
        return None

    def _make_plan(self) -> None:
        self.planned_for = 0
        grid = self.store.grid
        remaining = np.flatnonzero(~(self.done | self.given))
        if self.order is None:
            self.plan = deque(plan_blocks(grid, remaining))
            if self.backwards:
                self.plan.reverse()
            return
        self.plan = deque(plan_blocks(grid, wanted_first(self.order(grid, remaining), remaining)[:HORIZON]))

    def _take(self, result: Done) -> None:
        """Accept tiles not known yet; refuse features that are not finite."""
        chunk = result.chunk
        self.watch.add("read", result.read_seconds)
        self.watch.add("encode", result.encode_seconds)
        wrong = np.flatnonzero(~np.isfinite(chunk.features).all(axis=1))
        if len(wrong):
            index = int(chunk.indices[wrong[0]])
            x, y = self.store.grid.locations[index].tolist()
            raise DataError(
                f"the features of tile {index} at ({x}, {y}) are not finite",
                file=self.slide.path,
                do="look at this place of the slide, or use another encoder",
            )
        new = ~self.done[chunk.indices]
        if new.any():
            self.done[chunk.indices] = True
            kept = Chunk(chunk.indices[new], chunk.features[new], chunk.damaged[new])
            self.waiting.append(kept)
            self.fresh.append(kept)

    def _is_time_to_seal(self) -> bool:
        count = sum(len(chunk) for chunk in self.waiting)
        return count >= CHUNK_TILES or (count > 0 and time.monotonic() - self.sealed_at > SEAL_SECONDS)

    def _seal(self, size: int) -> None:
        """Seal what waits, up to `size` tiles, in chunks of at most 512."""
        while self.waiting and size > 0:
            self.slide.unchanged()
            joined = _join(self.waiting)
            cut = min(CHUNK_TILES, size)
            with self.watch("write"):
                self._seal_one(_part(joined, slice(0, cut)))
            rest = _part(joined, slice(cut, None))
            self.waiting = [rest] if len(rest) else []
            size -= cut
        self.sealed_at = time.monotonic()

    def _seal_one(self, chunk: Chunk) -> None:
        try:
            self.store.seal(chunk)
        except ResourceError:
            # Another process that has just finished removes the chunks' folder under our feet.
            if self.store.open_bag() is None:
                raise

    def _keep(self, workers: Workers) -> None:
        """Seal what is finished when the job is closed or fails; what cannot be sealed was never promised."""
        with contextlib.suppress(SlnPredictError):
            for result in workers.left():
                self._take(result)
        with contextlib.suppress(SlnPredictError):
            self._seal(len(self.done))

    def _report(self, meter: Meter, now: bool = False) -> Job[None]:
        if not now and not self.tell():
            return
        if self.fresh:
            chunk = _join(self.fresh)
            self.fresh = []
            if not chunk.damaged.all():
                yield Partial("features", (chunk.indices[~chunk.damaged], chunk.features[~chunk.damaged]))
        yield meter.progress()


def wanted_first(wanted: NDArray[np.int64], remaining: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return `remaining` with the tiles of `wanted` first: an order may name tiles twice, too few, or done ones."""
    asked = np.asarray(wanted, np.int64).reshape(-1)
    asked = asked[np.isin(asked, remaining)]
    _, first = np.unique(asked, return_index=True)
    asked = asked[np.sort(first)]
    return np.concatenate([asked, remaining[~np.isin(remaining, asked)]])


def _join(chunks: list[Chunk]) -> Chunk:
    return Chunk(
        np.concatenate([chunk.indices for chunk in chunks]),
        np.concatenate([chunk.features for chunk in chunks]),
        np.concatenate([chunk.damaged for chunk in chunks]),
    )


def _part(chunk: Chunk, rows: slice) -> Chunk:
    return Chunk(chunk.indices[rows], chunk.features[rows], chunk.damaged[rows])
