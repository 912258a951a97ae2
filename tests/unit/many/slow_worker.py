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
    """Seal every 32 tiles, wait after each chunk, and log both."""
    from napari_slnpredict.encode import embed, store, workers

    embed.CHUNK_TILES = store.CHUNK_TILES = CHUNK
    seal, following = store.FeatureStore.seal, workers.Workers.next

    def slow_seal(self: Any, chunk: Any) -> Any:
        path = seal(self, chunk)
        log("sealed", len(chunk))
        time.sleep(0.15)
        return path

    def counted(self: Any, timeout: float) -> Any:
        done = following(self, timeout)
        if done is not None:
            log("computed", len(done.chunk))
        return done

    store.FeatureStore.seal = slow_seal  # type: ignore[method-assign]
    workers.Workers.next = counted  # type: ignore[method-assign]


def dask_setup(worker: Any) -> None:
    slow_down()
