"""A day's work in one process: viewers opened, run and closed over and over, and nothing piles up.

napari has leaks of its own; the same number of bare viewers is opened and closed first, and what they leave behind is
not counted as ours.
"""

from __future__ import annotations

import ctypes
import gc
import os
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_slnpredict.plugin import launch
from napari_slnpredict.plugin.controller import controller_for
from napari_slnpredict.plugin.worker import running_threads

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")

#: Cycles before the first count: imports, caches and pools fill up once.
WARM_UP = 2
GROWTH_MB = 100.0


@dataclass(frozen=True)
class Count:
    """What this process holds."""

    memory_mb: float
    handles: int
    threads: int
    widgets: int
    timers: int
    objects: Counter[str]


def count() -> Count:
    """Count after everything that can go has gone."""
    from qtpy.QtCore import QTimer
    from qtpy.QtWidgets import QApplication

    for _ in range(3):
        QApplication.sendPostedEvents(None, 52)  # QEvent.DeferredDelete: what deleteLater() waits for
        QApplication.processEvents()
        gc.collect()
    give_back()
    objects = gc.get_objects()
    found = Counter(type(each).__name__ for each in objects if str(type(each).__module__).startswith("napari_sln"))
    return Count(
        memory_mb=anonymous_mb(),
        handles=len(os.listdir("/proc/self/fd")),
        threads=threading.active_count(),
        widgets=len(QApplication.allWidgets()),
        timers=sum(type(each) is QTimer for each in objects),
        objects=found,
    )


def give_back() -> None:
    """Let the allocator return what is free: what it keeps is no leak."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def anonymous_mb() -> float:
    """Memory of this process that no file stands behind."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def bare_cycle(make_viewer: Callable[..., Any], wait: Any) -> None:
    """napari by itself: a viewer, an image, a map, closed."""
    viewer = make_viewer()
    pixels = np.zeros((512, 512, 3), np.uint8)
    viewer.add_image([pixels, pixels[::4, ::4]], multiscale=True, rgb=True)
    viewer.add_image(np.zeros((16, 16), np.float32), scale=(32, 32))
    settle()
    viewer.close()


def our_cycle(make_viewer: Callable[..., Any], wait: Any, slide: Path, tiles: int) -> None:
    """A slide is opened, a run is started, a click is asked, and the window is closed in the middle of it."""
    viewer = make_viewer()
    launch.open_viewer([slide], model="random-sln", viewer=viewer)
    controller = controller_for(viewer)
    wait(lambda: controller.slides.current is not None or controller.problem is not None)
    controller.run()
    wait(lambda: controller.problem or (controller.runs.progress and controller.runs.progress.done >= tiles))
    assert controller.problem is None, controller.problem
    controller.ask_at(800.0, 700.0)
    keeper = controller.slides.current.keeper
    viewer.close()
    wait(lambda: keeper.closed and not running_threads(), seconds=5)


def settle() -> None:
    from qtpy.QtTest import QTest

    QTest.qWait(100)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A slide on disk and a model with random weights."""
    from models import save_random_model

    save_random_model(tmp_path / "models", tile_px=64)
    monkeypatch.setenv("SLNPREDICT_MODELS", str(tmp_path / "models"))
    return write_slide(tmp_path / "one.svs")


def write_slide(path: Path) -> Path:
    """Write a disc of pink texture on white, 1 um a pixel, large enough for some 400 tiles."""
    import tifffile

    side = 1536
    y, x = np.mgrid[:side, :side] / side - 0.5
    noise = np.random.default_rng(5).normal(0, 22, (side, side, 1))
    pink = np.clip(np.array([196.0, 120.0, 172.0]) + noise, 0, 255)
    pixels = np.where((x**2 + y**2 < 0.2)[..., None], pink, 245).astype(np.uint8)
    told = f"Aperio Image Library v11.2.1\n{side}x{side} [0,0 {side}x{side}] (256x256)|AppMag = 10|MPP = 1.0"
    tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb", compression="zlib", description=told)
    return path


def go_round(cycles: int, make_viewer: Callable[..., Any], wait: Any, slide: Path) -> None:
    """Open and close bare viewers, then as many of ours, and compare what is left."""
    for _ in range(WARM_UP):
        bare_cycle(make_viewer, wait)
        our_cycle(make_viewer, wait, slide, 1)
    start, bare = count(), max(3, cycles // 4)
    for _ in range(bare):
        bare_cycle(make_viewer, wait)
    before = count()
    for number in range(cycles):
        our_cycle(make_viewer, wait, slide, 1 + 20 * (number % 5))
    after = count()
    theirs = (before.memory_mb - start.memory_mb) / bare * cycles
    ours = after.memory_mb - before.memory_mb
    print(f"{cycles} viewers: {ours:+.1f} MB; bare ones {theirs:+.1f} MB")  # noqa: T201
    for name in ("handles", "threads", "widgets", "timers"):
        grown = getattr(after, name) - getattr(before, name)
        assert grown <= 2, f"{grown} {name} more after {cycles} viewers"
    left = {name: number for name, number in (after.objects - before.objects).items() if number >= cycles // 2}
    assert not left, f"objects of ours left behind: {left}"
    assert ours - max(theirs, 0.0) < GROWTH_MB


def test_ten_viewers_leave_nothing(make_viewer: Any, wait: Any, world: Path) -> None:
    """Each window would leave some megabytes, a thread or a file behind."""
    go_round(10, make_viewer, wait, world)


@pytest.mark.soak
@pytest.mark.timeout(5400)
def test_two_hundred_viewers_leave_nothing(make_viewer: Any, wait: Any, world: Path) -> None:
    """By the evening the machine would be out of memory or handles."""
    go_round(200, make_viewer, wait, world)
