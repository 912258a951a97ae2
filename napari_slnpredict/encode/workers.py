"""Threads that read tiles and embed them: each decodes its own blocks and runs its own batches.

Tiles read and not yet embedded lie in one small pool. Whoever is free takes a batch from it, else decodes the next
block into it: nobody idles while there is work, the end of a slide included, and one batch at most is partly filled.
The pool never holds more than one block a thread. Decoders and engines release Python's lock, so threads are enough.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.slide.blocks import Tiles, read_block
from napari_slnpredict.slide.grid import TileGrid

from .engines.base import Engine
from .engines.device import step_back
from .store import Chunk

if TYPE_CHECKING:
    from napari_slnpredict.slide.slide import Slide

#: How long `stop` waits for threads that are inside a read or a forward pass (promise R12: all within 2 s).
STOP_SECONDS = 1.5
#: Whoever waits for results is woken by so many tiles, or after so long: each time costs the threads a moment.
_WAKE_TILES, _WAKE_SECONDS = 64, 0.01
#: How many threads stand aside for a moving camera, how often they look whether they may go on, and after how long
#: they do one task in any case.
_ASIDE_THREADS, _ASIDE_SECONDS, _ASIDE_MOST = 2, 0.03, 1.5


@dataclass(frozen=True)
class Done:
    """Some tiles embedded, and the seconds a thread spent on them."""

    chunk: Chunk
    read_seconds: float
    encode_seconds: float


class Workers:
    """As many threads as the engine has streams.

    Parameters
    ----------
    slide : Slide
    grid : TileGrid
    engine : Engine
    nice : int
        Linux only: how far the threads step back behind others (10 beside a window).
    pressed : callable, optional
        Whether somebody needs the processor just now (a camera that moves): meanwhile two threads stand aside, on a
        small machine all there are. Priorities alone do not keep a window's frames even, and other systems than
        Linux have none for threads.
    """

    def __init__(
        self,
        slide: Slide,
        grid: TileGrid,
        engine: Engine,
        nice: int = 0,
        pressed: Callable[[], bool] | None = None,
    ) -> None:
        self._slide, self._grid, self._engine, self._nice = slide, grid, engine, nice
        self._pressed = pressed
        self._stopped = threading.Event()
        self._results = _Results()
        count = max(1, engine.streams)
        self._pool = _Pool(self._results.news, least=count)
        self._ended = False
        self._threads = [
            threading.Thread(target=self._work, args=(i < _ASIDE_THREADS,), name=f"slnpredict-embed-{i}", daemon=True)
            for i in range(count)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def hungry(self) -> bool:
        """Whether another block should be given: few wait, so that what is urgent next is not behind a long queue."""
        return not self._ended and self._pool.is_low

    def give(self, block: NDArray[np.int64]) -> None:
        """Hand over the indices of a block of neighbouring tiles."""
        self._pool.give(block)

    def end(self) -> None:
        """Say that no more blocks come: the threads compute the last, partly filled batch and end."""
        self._ended = True
        self._pool.end()

    def fetch(self, timeout: float) -> list[Done]:
        """Return what is done, after waiting up to `timeout` seconds for news; raise what a thread raised."""
        self._results.news.wait(timeout)
        if self._results.error is not None:
            raise self._results.error  # what is done stays there for `left`
        return self._results.fetch()

    def stop(self) -> None:
        """Stop without computing what waits; threads inside a long pass end by themselves soon after."""
        self._stopped.set()
        self._pool.stop()
        deadline = time.monotonic() + STOP_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._engine.release()

    def left(self) -> list[Done]:
        """Return results nobody fetched; errors after a stop are of no interest."""
        return self._results.fetch()

    def _work(self, polite: bool) -> None:
        try:
            step_back(self._nice)
            self._engine.enter_thread()
            while (task := self._pool.next(self._engine.batch)) is not None:
                if isinstance(task, Tiles):
                    self._embed(task)
                else:
                    self._read(task)
                if polite:
                    self._stand_aside()
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to whoever waits for results
            self._results.fail(error)

    def _stand_aside(self) -> None:
        """Wait between two tasks while somebody else needs the processor, but never stand still for long."""
        until = time.monotonic() + _ASIDE_MOST
        while self._pressed is not None and self._pressed() and time.monotonic() < until:
            if self._stopped.wait(_ASIDE_SECONDS):
                return

    def _embed(self, tiles: Tiles) -> None:
        start = time.perf_counter()
        features = self._engine(tiles.pixels)
        chunk = Chunk(tiles.indices, features, tiles.damaged)
        self._results.add(Done(chunk, 0.0, time.perf_counter() - start))
        if self._pool.is_empty:
            self._results.news.set()

    def _read(self, block: NDArray[np.int64]) -> None:
        tiles: Tiles | None = None
        start = time.perf_counter()
        try:
            tiles = read_block(self._slide, self._grid, block)
        finally:
            self._pool.take_in(tiles)
        lost = tiles.indices[tiles.damaged]
        nothing = np.zeros((len(lost), self._engine.dim), np.float32)
        self._results.add(Done(Chunk(lost, nothing, np.ones(len(lost), bool)), time.perf_counter() - start, 0.0))


class _Pool:
    """Blocks to be read, and tiles read: what the threads take their work from.

    Parameters
    ----------
    low : Event
        Set when fewer than `least` blocks wait.
    """

    def __init__(self, low: threading.Event, least: int) -> None:
        self._low, self._least = low, least
        self._changed = threading.Condition()
        self._blocks: deque[NDArray[np.int64]] = deque()
        self._tiles: deque[Tiles] = deque()
        self._count = 0  # tiles in the pool
        self._reading = 0  # threads that will put tiles into it
        self._ended = self._stopped = False

    @property
    def is_low(self) -> bool:
        """Whether few blocks wait that nobody reads yet."""
        return len(self._blocks) < self._least

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left, so that whoever waits for results need not be patient."""
        return not (self._blocks or self._count or self._reading)

    def give(self, block: NDArray[np.int64]) -> None:
        with self._changed:
            self._blocks.append(block)
            self._changed.notify()

    def end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def take_in(self, tiles: Tiles | None) -> None:
        """Take in what a thread has read (None: it failed); damaged tiles stay out."""
        with self._changed:
            self._reading -= 1
            if tiles is not None:
                if tiles.damaged.any():
                    sound = ~tiles.damaged
                    tiles = Tiles(tiles.indices[sound], tiles.pixels[sound], tiles.damaged[sound])
                if len(tiles.indices):
                    self._tiles.append(tiles)
                    self._count += len(tiles.indices)
            self._changed.notify_all()

    def next(self, batch: int) -> Tiles | NDArray[np.int64] | None:
        """Return a batch to embed, else a block to read, else wait; None at the end."""
        with self._changed:
            while not self._stopped:
                # A partly filled batch costs as much as a full one: only when nothing can fill it any more.
                last = self._ended and not self._blocks and not self._reading
                if self._count >= batch or (last and self._count):
                    return self._take(batch)
                if self._blocks:
                    self._reading += 1
                    block = self._blocks.popleft()
                    if self.is_low and not self._ended:
                        self._low.set()
                    return block
                if last:
                    return None
                self._changed.wait()
            return None

    def _take(self, count: int) -> Tiles:
        """Take the first `count` tiles, fewer when there are fewer; usually a view of one block."""
        parts: list[Tiles] = []
        while count and self._tiles:
            first = self._tiles.popleft()
            if len(first.indices) > count:
                self._tiles.appendleft(_part(first, slice(count, None)))
                first = _part(first, slice(0, count))
            parts.append(first)
            count -= len(first.indices)
        self._count -= sum(len(part.indices) for part in parts)
        if len(parts) == 1:
            return parts[0]
        return Tiles(*(np.concatenate([getattr(part, name) for part in parts]) for name in _FIELDS))


_FIELDS = ("indices", "pixels", "damaged")


def _part(tiles: Tiles, rows: slice) -> Tiles:
    return Tiles(tiles.indices[rows], tiles.pixels[rows], tiles.damaged[rows])


class _Results:
    """What the threads have done and nobody has fetched yet; wakes whoever waits only as often as is worth it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: list[Done] = []
        self.error: Exception | None = None
        self._count = 0  # tiles in `_found`
        self._fetched = time.monotonic()
        self.news = threading.Event()

    def add(self, done: Done) -> None:
        with self._lock:
            self._found.append(done)
            self._count += len(done.chunk)
            worth = self._count >= _WAKE_TILES or time.monotonic() - self._fetched > _WAKE_SECONDS
        if worth:
            self.news.set()

    def fail(self, error: Exception) -> None:
        with self._lock:
            self.error = self.error or error
        self.news.set()

    def fetch(self) -> list[Done]:
        """Return everything since the last time."""
        self.news.clear()
        with self._lock:
            found, self._found, self._count = self._found, [], 0
            self._fetched = time.monotonic()
            return found
