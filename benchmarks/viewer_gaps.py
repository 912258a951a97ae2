"""How smooth the window stays while a model runs beside it, and how soon it answers.

Measures, in one process and in turns (idle, embedding, idle, ...):

- gaps between frames while the camera pans at 60 Hz, idle and while tiles are embedded (promise: p95 within 50 ms);
- seconds from Run to the first coloured tile, with the model ready (promise: 3 s), and which tiles came first;
- seconds from a click to its answer at 20,000 tiles (promise: 0.3 s).

    xvfb-run -a -s "-screen 0 1920x1080x24" python benchmarks/viewer_gaps.py SLIDE [--model NAME|DIR] [--rounds 3]

Without a model of your own a small network with random weights stands in (its speed is that of a trained one).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("LIBGL_ALWAYS_SOFTWARE", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "gui"))

import numpy as np  # noqa: E402


class Frames:
    """Moves the camera at 60 Hz and notes when each frame was drawn."""

    def __init__(self, viewer: Any) -> None:
        from qtpy.QtCore import QTimer

        self.times: list[float] = []
        self._viewer, self._angle = viewer, 0.0
        self._centre = np.asarray(viewer.scene.camera.center[-2:])
        self._reach = 0.15 * np.asarray(viewer.canvas.size) / viewer.scene.camera.zoom
        self._timer = QTimer()
        self._timer.timeout.connect(self._step)
        viewer.window._qt_viewer.canvas._scene_canvas.events.draw.connect(self._drawn)

    def _step(self) -> None:
        self._angle += 0.05
        turn = np.array([np.sin(self._angle), np.cos(self._angle)])
        self._viewer.scene.camera.center = tuple(self._centre + turn * self._reach)

    def _drawn(self, event: object) -> None:
        self.times.append(time.perf_counter())

    def during(self, condition: Any, seconds: float) -> list[float]:
        """Pan until the condition ends or the time is over; return the gaps between frames, s."""
        from qtpy.QtTest import QTest

        self.times.clear()
        self._timer.start(16)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end and condition():
            QTest.qWait(20)
        self._timer.stop()
        return list(np.diff(self.times))


def summary(gaps: list[float]) -> dict[str, float]:
    """Return the middle, the 95th percentile and the worst gap, ms."""
    ms = np.asarray(gaps) * 1000
    return {"p50": round(float(np.median(ms)), 1), "p95": round(float(np.quantile(ms, 0.95)), 1), "worst": round(float(ms.max()), 1), "frames": len(gaps)}  # fmt: skip  # noqa: E501


def until(condition: Any, seconds: float = 300.0) -> float:
    """Run the event loop until a condition holds; return the seconds it took."""
    from qtpy.QtTest import QTest

    start = time.perf_counter()
    while not condition():
        if time.perf_counter() - start > seconds:
            raise TimeoutError
        QTest.qWait(5)
    return time.perf_counter() - start


def measure(slide: Path, model: str, rounds: int, seconds: float, cache: Path) -> dict[str, Any]:
    """Open, run and click; see the top of this file."""
    import napari

    from napari_slnpredict.plugin import launch
    from napari_slnpredict.plugin.controller import controller_for

    viewer = napari.Viewer(show=True)
    viewer.window._qt_window.resize(1600, 1000)
    launch.open_viewer([slide], model=model, viewer=viewer)
    controller = controller_for(viewer)
    opened = until(lambda: controller.slides.current is not None)
    controller.run()
    until(lambda: controller.answered is not None or controller.problem is not None)
    if controller.problem is not None:
        raise SystemExit(f"{controller.problem.text}\n{controller.problem.details}")
    grid = controller.maps.grid
    frames = Frames(viewer)
    result: dict[str, Any] = {"tiles": len(grid), "open_s": round(opened, 2), "rounds": []}
    controller.camera.magnify(5)
    frames._reach = 0.15 * np.asarray(viewer.canvas.size) / viewer.scene.camera.zoom
    for _ in range(rounds):
        idle = frames.during(lambda: True, seconds)
        shutil.rmtree(cache, ignore_errors=True)
        controller.run()

        def painted() -> bool:
            return controller.maps.values is not None and bool(np.isfinite(controller.maps.values).any())

        first = until(painted)
        came = np.flatnonzero(np.isfinite(controller.maps.values))
        view = controller.camera.rectangle()
        x, y = (grid.locations[came] + grid.size_level0 / 2).T
        seen = (x > view.left) & (x < view.right) & (y > view.top) & (y < view.bottom)
        busy = frames.during(lambda: controller.runs.running, seconds)
        progress = controller.runs.progress
        controller.cancel()
        until(lambda: not controller.runs.running)
        result["rounds"].append(
            {
                "idle_ms": summary(idle),
                "embedding_ms": summary(busy),
                "first_map_s": round(first, 2),
                "first_tiles": len(came),
                "of_them_in_view": int(seen.sum()),
                "tiles_per_s": round(progress.per_second or 0, 1) if progress else None,
            }
        )
    viewer.close()
    return result


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--model", help="name or folder; default: a small network with random weights")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="viewer-gaps-"))
    os.environ["SLNPREDICT_CACHE"] = str(work / "cache")
    os.environ["NAPARI_CONFIG"] = str(work / "napari.yaml")
    model = chosen.model
    if model is None:
        os.environ["SLNPREDICT_MODELS"] = str(work / "models")
        # In a process of its own: torch must not come in before the window here, as it would not for a user.
        import subprocess

        code = f"from pathlib import Path; import models; models.save_random_model(Path({str(work / 'models')!r}), tile_px=64)"  # noqa: E501
        subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT / "tests" / "gui")
        model = "random-sln"
    try:
        result = measure(chosen.slide, model, chosen.rounds, chosen.seconds, work / "cache")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    text = json.dumps(result, indent=1)
    print(text)
    if chosen.json is not None:
        chosen.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
