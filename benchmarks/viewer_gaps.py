"""How smooth the window stays while a model runs beside it, and how soon its map begins (figure 7).

Idle and embedding take turns within one run, so that what else the machine does hits both; napari's asynchronous
slicing off and on, each in a process of its own. Printed per mode, medians over the rounds:

- stall: the longest time the window's event loop did not run, per camera step of a pan at 60 Hz; p50, p95, worst while
  idle and while tiles are embedded, and the ratio of the two p95 (promise: 1.1);
- the same for the gaps between drawn frames;
- seconds from Run to the first coloured tile, model ready (promise: 3 s), and how many of the first tiles are in view;
- tiles per second meanwhile.

    xvfb-run -a -s "-screen 0 1920x1080x24" python benchmarks/viewer_gaps.py SLIDE [--model demo-sln] [--rounds 5]

`--work thread-sleep|thread-python|none` puts something else in place of the run, to tell what disturbs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("LIBGL_ALWAYS_SOFTWARE", "1")

import numpy as np

STEP_S = 1 / 60
#: Screen px a camera step moves, and how far the pan goes before it turns back.
STEP_PX, SPAN_PX = 12, 1800
MODES = ("sync", "async")


class Heart:
    """A fast timer of the window's thread: what lies between two beats is what the event loop was held up."""

    def __init__(self) -> None:
        from qtpy.QtCore import Qt, QTimer

        self._last, self._worst = time.perf_counter(), 0.0
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._beat)
        self._timer.start(1)

    def _beat(self) -> None:
        now = time.perf_counter()
        self._worst = max(self._worst, now - self._last)
        self._last = now

    def take(self) -> float:
        """Return the longest hold-up since the last call, s, the present one included."""
        worst = max(self._worst, time.perf_counter() - self._last)
        self._worst = 0.0
        return worst


class Pan:
    """Moves the camera to and fro at 60 Hz; notes hold-ups per step and when frames were drawn."""

    def __init__(self, viewer: Any) -> None:
        self._viewer, self._heart, self._step = viewer, Heart(), 0
        self._centre = np.asarray(viewer.scene.camera.center[-2:], float)
        self._drawn: list[float] = []
        viewer.window._qt_viewer.canvas._scene_canvas.events.draw.connect(self._draws)

    def _draws(self, event: object) -> None:
        self._drawn.append(time.perf_counter())

    def _move(self) -> None:
        self._step += 1
        along = (self._step * STEP_PX) % (2 * SPAN_PX)
        shift = (SPAN_PX - abs(along - SPAN_PX) - SPAN_PX / 2) / self._viewer.scene.camera.zoom
        self._viewer.scene.camera.center = tuple(self._centre + shift * np.array([0.5, 0.87]))

    def during(self, seconds: float, going: Callable[[], bool] = lambda: True) -> dict[str, list[float]]:
        """Pan while `going`, at most some seconds; return stalls per step and gaps between frames, ms."""
        self._drawn.clear()
        stalls: list[float] = []
        begin = time.perf_counter()
        self._heart.take()
        while (spent := time.perf_counter() - begin) < seconds and going():
            due = (int(spent / STEP_S) + 1) * STEP_S
            self._move()
            pause(max(0.001, begin + due - time.perf_counter()))
            stalls.append(1000 * self._heart.take())
        return {"stall": stalls, "frame": list(1000 * np.diff(self._drawn))}


def pause(seconds: float) -> None:
    """Let the event loop run."""
    from qtpy.QtCore import QEventLoop, QTimer

    loop = QEventLoop()
    QTimer.singleShot(max(0, round(seconds * 1000)), loop.quit)
    loop.exec()


def until(condition: Callable[[], Any], seconds: float = 300.0) -> float:
    """Run the event loop until a condition holds; return the seconds it took."""
    start = time.perf_counter()
    while not condition():
        if time.perf_counter() - start > seconds:
            raise TimeoutError
        pause(0.005)
    return time.perf_counter() - start


def spread(values: list[float]) -> dict[str, float]:
    """Return the middle, the 95th percentile and the worst."""
    found = np.quantile(values, (0.5, 0.95, 1.0)) if len(values) else np.full(3, np.nan)
    return dict(zip(("p50", "p95", "worst"), (round(float(value), 1) for value in found), strict=True))


class Disturbance:
    """What stands in for a run, to tell what disturbs the window."""

    def __init__(self, kind: str) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=getattr(self, kind.removeprefix("thread-")), daemon=True)
        self._thread.start()

    def sleep(self) -> None:
        """Wake up often and do nothing."""
        while not self._stop.is_set():
            time.sleep(0.002)

    def python(self) -> None:
        """Hold Python's lock whenever it is to be had."""
        while not self._stop.is_set():
            sum(range(1000))

    def end(self) -> None:
        """Stop."""
        self._stop.set()
        self._thread.join()


class Measured:
    """One window with a slide, measured in rounds."""

    def __init__(self, slide: Path, model: str, magnification: float, cache: Path) -> None:
        import napari

        from napari_slnpredict.plugin import launch
        from napari_slnpredict.plugin.controller import controller_for

        self.viewer = napari.Viewer(show=True)
        self.viewer.window._qt_window.resize(1600, 1000)
        launch.open_viewer([slide], model=model, viewer=self.viewer)
        self.controller, self._cache = controller_for(self.viewer), cache
        self.opened_s = until(lambda: self.controller.slides.current is not None)
        self.controller.runs.make_ready({})
        until(lambda: self.controller.runs._made_ready == model or self.controller.problem is not None)
        self._refuse_problems()
        self.controller.camera.magnify(magnification)
        self.pan = Pan(self.viewer)
        self.pan.during(2.0)  # what is in the file's cache and in ours is so for every round

    def _refuse_problems(self) -> None:
        problem = self.controller.problem
        if problem is not None:
            raise SystemExit(f"{problem.text}\n{problem.details}")

    def round(self, seconds: float, work: str) -> dict[str, Any]:
        """Pan idle, then beside a run."""
        idle = self.pan.during(seconds)
        if work != "run":
            disturbance = None if work == "none" else Disturbance(work)
            found = {"idle": idle, "busy": self.pan.during(seconds)}
            if disturbance is not None:
                disturbance.end()
            return found
        controller = self.controller
        shutil.rmtree(self._cache, ignore_errors=True)
        controller.run()
        first = until(lambda: self._painted() or controller.problem is not None)
        self._refuse_problems()
        tiles, in_view = self._first_tiles()
        busy = self.pan.during(seconds, lambda: controller.runs.running)
        rate = controller.runs.progress.per_second or 0.0
        controller.cancel()
        until(lambda: not controller.runs.running)
        pause(0.5)
        return {"idle": idle, "busy": busy, "first_s": first, "tiles": tiles, "in_view": in_view, "per_s": rate}

    def _painted(self) -> bool:
        values = self.controller.maps.values
        return values is not None and bool(np.isfinite(values).any())

    def _first_tiles(self) -> tuple[int, int]:
        maps, view = self.controller.maps, self.controller.camera.rectangle()
        came = np.flatnonzero(np.isfinite(maps.values))
        x, y = (maps.grid.locations[came] + maps.grid.size_level0 / 2).T
        seen = (x > view.left) & (x < view.right) & (y > view.top) & (y < view.bottom)
        return len(came), int(seen.sum())

    def tiles(self) -> int:
        """Tiles of the slide."""
        grid = self.controller.maps.grid
        return 0 if grid is None else len(grid)


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return medians over the rounds, and the ratios of each."""
    result: dict[str, Any] = {}
    for kind in ("stall", "frame"):
        p95 = [[spread(each[state][kind])["p95"] for each in rounds] for state in ("idle", "busy")]
        for state in ("idle", "busy"):
            parts = [spread(each[state][kind]) for each in rounds]
            result[f"{kind}_{state}_ms"] = {
                name: round(statistics.median(part[name] for part in parts), 1) for name in ("p50", "p95", "worst")
            }
        ratios = sorted(busy / idle for idle, busy in zip(*p95, strict=True))
        result[f"{kind}_p95_ratio"] = round(statistics.median(ratios), 3)
        result[f"{kind}_p95_ratios"] = [round(ratio, 2) for ratio in ratios]
    for name in ("first_s", "tiles", "in_view", "per_s"):
        if name in rounds[0]:
            result[name] = round(statistics.median(each[name] for each in rounds), 2)
    return result


def one_mode(chosen: argparse.Namespace, cache: Path) -> dict[str, Any]:
    """Measure in this process; the first round warms everything up and is not counted."""
    from napari.settings import get_settings

    get_settings().experimental.async_ = chosen.mode == "async"
    measured = Measured(chosen.slide, chosen.model, chosen.magnification, cache)
    measured.round(1.0, chosen.work)
    rounds = [measured.round(chosen.seconds, chosen.work) for _ in range(chosen.rounds)]
    result = {"mode": chosen.mode, "open_s": round(measured.opened_s, 2), "slide_tiles": measured.tiles()}
    measured.viewer.close()
    return {**result, **summary(rounds)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--model", default="demo-sln")
    parser.add_argument("--mode", choices=MODES, help="default: one after the other")
    parser.add_argument("--work", default="run", choices=("run", "none", "thread-sleep", "thread-python"))
    parser.add_argument("--magnification", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    if chosen.mode is None:
        for mode in MODES:
            subprocess.run([sys.executable, __file__, *sys.argv[1:], "--mode", mode], check=True)
        return
    work = Path(tempfile.mkdtemp(prefix="viewer-gaps-"))
    os.environ["SLNPREDICT_CACHE"] = str(work / "cache")
    os.environ["NAPARI_CONFIG"] = str(work / "napari.yaml")
    try:
        text = json.dumps(one_mode(chosen, work / "cache"), indent=1)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(text, flush=True)
    if chosen.json is not None:
        with chosen.json.open("a", encoding="utf-8") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()
