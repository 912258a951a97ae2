"""What changing the map costs beside a plain frame: 100,489 tiles over a slide.

A change is followed by the frame that shows it; a plain frame is a camera step with the same map on the screen. Two
times are taken of each: to the end of drawing the canvas, and until the window has nothing left to do (napari's layer
list and the dock are painted in a pass of their own, which composes the window a second time). Goal: drawing within
1.5 of a plain frame for values, limits and opacity; medians of several rounds taken in turns.

    xvfb-run -a -s "-screen 0 1920x1080x24" python benchmarks/overlay.py [--tiles 100489] [--rounds 15] [--json OUT]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("LIBGL_ALWAYS_SOFTWARE", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "gui"))

import numpy as np  # noqa: E402

GOAL = 1.5


class Stage:
    """A window with a slide and a finished map.

    Parameters
    ----------
    tiles : int
        About so many tiles, in a square.
    """

    def __init__(self, tiles: int) -> None:
        import napari
        from fakes import FakeSlide, fake_answer, fake_grid
        from qtpy.QtTest import QTest

        from napari_slnpredict.plugin import jobs, launch, slides
        from napari_slnpredict.plugin.controller import controller_for

        slide = FakeSlide(Path("fake.svs"), side=2048)
        opened = jobs.opened(slide, {})

        def open_job(*ignored: Any) -> Any:
            yield from ()
            return opened

        slides.open_job = open_job  # type: ignore[assignment]
        self.viewer = napari.Viewer(show=True, show_welcome_screen=False)
        self.viewer.window._qt_window.resize(1600, 1000)
        launch.open_viewer(["fake.svs"], viewer=self.viewer)
        self.controller = controller_for(self.viewer)
        while self.controller.slides.current is None:
            QTest.qWait(20)
        grid = fake_grid(slide, tiles=tiles)
        # The map fills the slide: as many tiles as asked for, each a few pixels large.
        self.tiles = len(grid)
        answered = fake_answer(slide, grid)
        self.controller._answered(answered)
        self.maps = self.controller.maps
        self.layer = self.maps.layer("attention")
        self.controller.camera.fit()
        QTest.qWait(1500)
        self.state = 0

    def frame(self, change: Callable[[], None]) -> tuple[float, float]:
        """Return the ms from a change to its picture, and until the window is idle."""
        from qtpy.QtWidgets import QApplication

        canvas = self.viewer.window._qt_viewer.canvas
        drawn: list[float] = []
        canvas._scene_canvas.events.draw.connect(lambda event: drawn.append(time.perf_counter()), position="last")
        QApplication.processEvents()
        start = time.perf_counter()
        drawn.clear()
        change()
        while not drawn:
            QApplication.processEvents()
        QApplication.processEvents()
        idle = time.perf_counter()
        canvas._scene_canvas.events.draw.disconnect(canvas._scene_canvas.events.draw.callbacks[-1])
        return (drawn[0] - start) * 1000, (idle - start) * 1000

    def changes(self) -> dict[str, Callable[[], None]]:
        """Return what is measured, by name; each call makes a real change."""
        maps, layer, camera = self.maps, self.layer, self.viewer.scene.camera

        def turn() -> int:
            self.state += 1
            return self.state % 2

        def plain() -> None:
            y, x = camera.center[-2:]
            camera.center = (y + (4.0 if turn() else -4.0), x)

        def values() -> None:
            maps.show_scale("rank" if turn() else "share")

        def some() -> None:
            """What a growing map does: 500 new tiles."""
            values = maps.values
            assert values is not None
            values[np.arange(500) + 500 * (self.state % 100)] = 1.0 + turn()
            maps._paint()

        def threshold() -> None:
            maps.set_threshold(0.2 * turn())

        def limits() -> None:
            layer.contrast_limits = (0.0, 0.5 + 0.2 * turn())

        def opacity() -> None:
            layer.opacity = 0.6 + 0.3 * turn()

        return {
            "plain frame": plain, "values (another scale)": values, "values (500 new tiles)": some,
            "threshold": threshold, "limits": limits, "opacity": opacity,
        }  # fmt: skip

    def measure(self, rounds: int) -> dict[str, Any]:
        """Return medians in ms and their ratios to a plain frame."""
        changes = self.changes()
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in changes}
        for number in range(rounds + 2):
            for name, change in changes.items():
                spent = self.frame(change)
                if number >= 2:  # the first rounds warm up
                    times[name].append(spent)
        medians = {name: np.median(np.asarray(each), axis=0) for name, each in times.items()}
        plain = medians["plain frame"]
        return {
            "tiles": self.tiles,
            "rounds": rounds,
            "ms_drawn_idle": {name: value.round(2).tolist() for name, value in medians.items()},
            "ratio_drawn_idle": {name: (value / plain).round(2).tolist() for name, value in medians.items()},
            "goal": GOAL,
        }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=317 * 317)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="overlay-") as folder:
        os.environ["NAPARI_CONFIG"] = str(Path(folder) / "napari.yaml")
        os.environ["SLNPREDICT_CACHE"] = str(Path(folder) / "cache")
        os.environ["SLNPREDICT_SETTINGS"] = str(Path(folder) / "settings.json")
        stage = Stage(chosen.tiles)
        result = stage.measure(max(5, chosen.rounds))
        stage.viewer.close()
        from napari_slnpredict.plugin.worker import wait_for_threads

        wait_for_threads()
    for name, (drawn, idle) in result["ms_drawn_idle"].items():
        ratios = result["ratio_drawn_idle"][name]
        sys.stdout.write(
            f"{name:26s} drawn {drawn:7.2f} ms = {ratios[0]:.2f} x plain   idle {idle:7.2f} ms = {ratios[1]:.2f}\n"
        )
    worst = max(ratios[0] for name, ratios in result["ratio_drawn_idle"].items() if name != "plain frame")
    sys.stdout.write(f"{result['tiles']:,} tiles, drawn: worst {worst:.2f} x plain (goal {GOAL})\n")
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
