"""Threads that read tiles and embed them: each takes a block, decodes it, and runs its own batches.

No queue of pixels lies between reading and computing, no thread waits for another, and memory is one block and one
batch a thread. Decoders and torch release the GIL, so threads are enough.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.slide.blocks import read_block
from napari_slnpredict.slide.grid import TileGrid

from .engines import Engine
from .store import Chunk

if TYPE_CHECKING:
    from napari_slnpredict.slide.slide import Slide

#: How long `stop` waits for threads that are inside a read or a forward pass (promise R12: all within 2 s).
STOP_SECONDS = 1.5


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
    """

    def __init__(self, slide: Slide, grid: TileGrid, engine: Engine, nice: int = 0) -> None:
        self._slide, self._grid, self._engine, self._nice = slide, grid, engine, nice
        self._jobs: queue.Queue[NDArray[np.int64] | None] = queue.Queue()
        self._results: queue.Queue[Done | Exception] = queue.Queue()
        self._stopping = threading.Event()
        self._ended = False
        self._threads = [
            threading.Thread(target=self._work, name=f"slnpredict-embed-{i}", daemon=True)
            for i in range(max(1, engine.streams))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def hungry(self) -> bool:
        """Whether another block should be given: few wait, so that what is urgent next is not behind a long queue."""
        return not self._ended and self._jobs.qsize() < len(self._threads)

    def give(self, block: NDArray[np.int64]) -> None:
        """Hand over the indices of a block of neighbouring tiles."""
        self._jobs.put(block)

    def end(self) -> None:
        """Say that no more blocks come: the threads compute their last, partly filled batches and end."""
        if not self._ended:
            self._ended = True
            for _ in self._threads:
                self._jobs.put(None)

    def next(self, timeout: float) -> Done | None:
        """Return a result, or None after `timeout` seconds; raise what a thread raised."""
        try:
            result = self._results.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(result, Exception):
            raise result
        return result

    def stop(self) -> None:
        """Stop without computing what waits; threads inside a long pass end by themselves soon after."""
        self._stopping.set()
        with contextlib.suppress(queue.Empty):
            while True:
                self._jobs.get_nowait()
        for _ in self._threads:
            self._jobs.put(None)
        deadline = time.monotonic() + STOP_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._engine.release()

    def left(self) -> Iterator[Done]:
        """Yield results nobody fetched; errors after a stop are of no interest."""
        with contextlib.suppress(queue.Empty):
            while True:
                result = self._results.get_nowait()
                if isinstance(result, Done):
                    yield result

    def _work(self) -> None:
        try:
            step_back(self._nice)
            self._engine.enter_thread()
            self._loop(_Carry())
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to whoever waits for results
            self._results.put(error)

    def _loop(self, carry: _Carry) -> None:
        while (block := self._jobs.get()) is not None and not self._stopping.is_set():
            start = time.perf_counter()
            tiles = read_block(self._slide, self._grid, block)
            carry.read_seconds += time.perf_counter() - start
            if tiles.damaged.any():
                lost = tiles.indices[tiles.damaged]
                nothing = np.zeros((len(lost), self._engine.dim), np.float32)
                self._results.put(Done(Chunk(lost, nothing, np.ones(len(lost), bool)), 0.0, 0.0))
            carry.add(tiles.indices[~tiles.damaged], tiles.pixels[~tiles.damaged])
            while len(carry) >= self._engine.batch and not self._stopping.is_set():
                self._embed(carry)
        while len(carry) and not self._stopping.is_set():
            self._embed(carry)

    def _embed(self, carry: _Carry) -> None:
        indices, pixels = carry.take(self._engine.batch)
        start = time.perf_counter()
        features = self._engine(pixels)
        seconds = time.perf_counter() - start
        chunk = Chunk(indices, features, np.zeros(len(indices), bool))
        self._results.put(Done(chunk, carry.read_seconds, seconds))
        carry.read_seconds = 0.0


class _Carry:
    """Tiles read and not yet embedded, because they do not fill a batch."""

    def __init__(self) -> None:
        self.indices: list[NDArray[np.int64]] = []
        self.pixels: list[NDArray[np.uint8]] = []
        self.read_seconds = 0.0

    def __len__(self) -> int:
        return sum(len(part) for part in self.indices)

    def add(self, indices: NDArray[np.int64], pixels: NDArray[np.uint8]) -> None:
        if len(indices):
            self.indices.append(indices)
            self.pixels.append(pixels)

    def take(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Return the first `count` tiles, fewer when there are fewer."""
        indices = np.concatenate(self.indices) if len(self.indices) > 1 else self.indices[0]
        pixels = np.concatenate(self.pixels) if len(self.pixels) > 1 else self.pixels[0]
        rest = slice(count, None)
        self.indices, self.pixels = ([indices[rest]], [pixels[rest]]) if len(indices) > count else ([], [])
        return indices[:count], pixels[:count]


def step_back(nice: int) -> None:
    """Lower this thread's priority (Linux keeps it by thread; torch's own threads inherit it).

    Measured: a network at nice 10 beside a panning viewer costs no stall over the idle viewer.
    """
    if nice > 0 and sys.platform.startswith("linux"):
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
