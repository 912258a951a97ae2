"""Loaded into processes of a test: the real network in small chunks, slowly, and a log of what was computed."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

CHUNK = 32
HERE = Path(os.environ["SLNPREDICT_TEST_FOLDER"])


def log(kind: str, count: int) -> None:
    """Append to this process's log; each line is one write, whole even when the process is killed next."""
    handle = os.open(HERE / f"{kind}.{os.getpid()}.log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.write(handle, f"{count}\n".encode())
    os.close(handle)


def slow_down() -> None:
    """Read slowly, seal every 32 tiles, and log what is computed and what is sealed."""
    from napari_slnpredict.encode import embed, store, workers

    embed.CHUNK_TILES = store.CHUNK_TILES = CHUNK
    seal, fetch, read = store.FeatureStore.seal, workers.Workers.fetch, workers.read_block

    def logged_seal(self: Any, chunk: Any) -> Any:
        path = seal(self, chunk)
        log("sealed", len(chunk))
        return path

    def logged_fetch(self: Any, timeout: float) -> Any:
        results = fetch(self, timeout)
        for done in results:
            log("computed", len(done.chunk))
        return results

    def slow_read(slide: Any, grid: Any, block: Any) -> Any:
        time.sleep(0.01 * len(block))
        return read(slide, grid, block)

    store.FeatureStore.seal = logged_seal  # type: ignore[method-assign]
    workers.Workers.fetch = logged_fetch  # type: ignore[method-assign]
    workers.read_block = slow_read  # type: ignore[attr-defined]


def dask_setup(worker: Any) -> None:
    slow_down()
