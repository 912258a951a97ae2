"""Loaded by dask into the workers of a test: a stand-in network, and slides that do harm by their names."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tell_fakes import StandInEmbed, install

HERE = Path(os.environ["SLNPREDICT_TEST_FOLDER"])
#: A test that was itself killed leaves nobody behind who waits for ever, seconds.
LONGEST = 300.0


class Embed(StandInEmbed):
    """The stand-in; slides called slow... take their time, and leave a mark when they are closed."""

    def __call__(self, slide: Any, *arguments: Any, **options: Any) -> Iterator[Any]:
        job = super().__call__(slide, *arguments, **options)
        if not slide.path.name.startswith("slow"):
            return (yield from job)
        mark(f"{slide.path.stem}-running")
        end = time.monotonic() + LONGEST
        try:
            while not (HERE / "release").exists() and time.monotonic() < end:
                yield next(StandInEmbed()(slide, *arguments, **options))
                time.sleep(0.05)
        finally:
            mark(f"{slide.path.stem}-closed")
        return (yield from job)


def mark(name: str) -> int:
    """Leave a mark, return how many of its kind there were before."""
    before = len(list(HERE.glob(f"{name}.*")))
    (HERE / f"{name}.{os.getpid()}-{time.time_ns()}").touch()
    return before


def dask_setup(worker: Any) -> None:
    import napari_slnpredict.slide.slide as slides

    install(pytest.MonkeyPatch(), Embed())
    really_open = slides.open_slide

    def open_slide(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name.startswith("poison"):
            mark("poisoned")
            time.sleep(0.3)
            os.kill(os.getpid(), signal.SIGKILL)
        if path.name.startswith("hiccup") and mark("hiccup") == 0:
            raise OSError(116, "Stale file handle")
        if path.name.startswith("odd"):
            raise RuntimeError(f"cannot read {path}")
        return really_open(path, *arguments, **options)

    slides.open_slide = open_slide
    if wrong := os.environ.get("SLNPREDICT_TEST_VERSIONS"):
        import napari_slnpredict.many.cluster_worker as cluster_worker

        real = cluster_worker.versions
        cluster_worker.versions = lambda: {**real(), "torch": wrong}
