"""Looking at a slide: our slide layer, napari bare on the same file's zarr, and napari-wsi, against numpy in memory.

    scripts/with_screen.sh .venv/bin/python benchmarks/view.py SLIDE --truth FOLDER [--rounds 5] [--async] [--quick]

FOLDER holds the decoded levels as ``level_0.npy``, ``level_1.npy``, ... (memory-mapped: the bound no reader can beat,
and the truth that the drawn pixels are compared with). Every run has a process and a window of its own; in each round
all subjects run one after the other, figures are ratios to the bound of the same round, medians over the rounds.

Milliseconds: ``open`` until the picture is complete; ``stall``, the longest gap in the event loop per camera step at
60 Hz (median, 95th percentile, worst); ``settle``, from the last step until the drawn pixels are true; ``jump``, a
far jump at 1:1 until they are. A picture that never comes true ends the run with an error. ``empty`` is the share of
the canvas that shows nothing while panning, ``mib`` what the process has grown by.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

STEP_SECONDS = 1 / 60
PATIENCE_SECONDS = 30.0


# --- subjects -----


def add_memory(viewer: Any, slide: Path, truth: list[np.ndarray]) -> Any:
    return viewer.add_image(truth, rgb=True)


def add_ours(viewer: Any, slide: Path, truth: list[np.ndarray]) -> Any:
    from napari_slnpredict.plugin import jobs
    from napari_slnpredict.plugin.display import Freshener
    from napari_slnpredict.plugin.layers import slide_layer
    from napari_slnpredict.slide.slide import open_slide

    opened = jobs.opened(open_slide(slide), {})
    data, arguments = slide_layer(opened.slide, opened.levels)
    layer = viewer.add_image(data, **arguments)
    layer.metadata["freshener"] = Freshener(layer, opened.pyramid)
    return layer


def add_bare(viewer: Any, slide: Path, truth: list[np.ndarray]) -> Any:
    import tiffslide

    group = tiffslide.TiffSlide(slide).zarr_group
    levels = [group[str(number)] for number in range(len(list(group.array_keys())))]
    return viewer.add_image(levels, rgb=True, contrast_limits=(0, 255))


def add_napari_wsi(viewer: Any, slide: Path, truth: list[np.ndarray]) -> Any:
    from napari_wsi.backends.openslide import OpenSlideStore

    return OpenSlideStore(slide, color_space="sRGB").to_viewer(viewer)[0]


SUBJECTS: dict[str, Callable[..., Any]] = {
    "memory": add_memory,
    "ours": add_ours,
    "bare zarr": add_bare,
    "napari-wsi": add_napari_wsi,
}


def import_first(subject: str) -> None:
    """Import what the subject needs, as an open dock has: imports are not what is compared here."""
    if subject == "ours":
        from napari_slnpredict.plugin.model_jobs import import_what_opening_needs

        import_what_opening_needs()
    elif subject == "bare zarr":
        import tiffslide  # noqa: F401
    elif subject == "napari-wsi":
        import napari_wsi.backends.openslide  # noqa: F401


# --- one run -----


def grown_mib() -> float:
    """Return this process's anonymous memory, MiB; not a number where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return float("nan")
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")), float("nan"))


class Window:
    """A napari window, its camera in level-0 pixels, and what is drawn in it."""

    def __init__(self, truth: list[np.ndarray]) -> None:
        import napari
        from qtpy.QtCore import Qt, QTimer

        self.truth = truth
        self.viewer = napari.Viewer(show=True)
        self.viewer.window._qt_window.setGeometry(0, 0, 1920, 1080)
        self.canvas = self.viewer.window._qt_viewer.canvas._scene_canvas
        self.worst = 0.0
        self.beat = time.perf_counter()
        self.true_at: float | None = None
        self.waiting = False
        self.empty: list[float] | None = None
        self.let_run(1.0)
        self.viewer.add_image([np.zeros((side, side, 3), np.uint8) for side in (2048, 512)])  # compiles the shaders
        self.let_run(0.5)
        self.viewer.layers.clear()
        self.canvas.events.draw.connect(self.drawn, position="last")
        self.timer = QTimer()
        self.timer.setTimerType(Qt.TimerType.PreciseTimer)
        self.timer.timeout.connect(self.tick)
        self.timer.start(1)
        self.let_run(0.3)

    def let_run(self, seconds: float) -> None:
        from qtpy.QtCore import QEventLoop, QTimer

        loop = QEventLoop()
        QTimer.singleShot(max(0, round(seconds * 1000)), loop.quit)
        loop.exec()

    def tick(self) -> None:
        now = time.perf_counter()
        self.worst, self.beat = max(self.worst, now - self.beat), now

    def stall(self) -> float:
        """Return the longest gap since the last call, milliseconds."""
        worst, self.worst = max(self.worst, time.perf_counter() - self.beat), 0.0
        return worst * 1e3

    def open(self, subject: str, slide: Path) -> float:
        before = time.perf_counter()
        layer = SUBJECTS[subject](self.viewer, slide, self.truth)
        corner = np.asarray(layer.data_to_world((0, 0)))[-2:]
        self.corner, self.scale = corner, np.asarray(layer.data_to_world((1, 1)))[-2:] - corner
        camera = self.viewer.scene.camera
        self.fit = (*((np.asarray(camera.center[-2:]) - corner) / self.scale), camera.zoom * self.scale[0])
        return self.until_true(before)

    def place(self, y: float, x: float, zoom: float) -> None:
        """Put the camera on a level-0 pixel; `zoom` is canvas pixels per level-0 pixel."""
        camera = self.viewer.scene.camera
        camera.zoom = zoom / self.scale[0]
        camera.center = (y * self.scale[0] + self.corner[0], x * self.scale[1] + self.corner[1])

    def drawn(self, event: object) -> None:
        from vispy.gloo import read_pixels

        if self.empty is not None:
            self.empty.append(float((read_pixels(alpha=False)[::16, ::16].max(axis=-1) < 3).mean()))
        if self.waiting and self.is_true(read_pixels(alpha=False)):
            self.true_at, self.waiting = time.perf_counter(), False

    def until_true(self, since: float) -> float:
        """Return the milliseconds from `since` until what is drawn is the truth."""
        self.waiting, self.true_at = True, None
        self.canvas.update()
        while self.true_at is None:
            if time.perf_counter() - since > PATIENCE_SECONDS:
                camera = self.viewer.scene.camera
                raise SystemExit(f"the picture never came true at {camera.center}, zoom {camera.zoom}")
            self.let_run(0.004)
        return (self.true_at - since) * 1e3

    def is_true(self, drawn: np.ndarray) -> bool:
        """Compare points of the canvas: exactly at 1:1, where several pixels share one by means of blocks."""
        height, width = drawn.shape[:2]
        camera = self.viewer.scene.camera
        zoom = camera.zoom * self.scale[0]
        y0, x0 = (np.asarray(camera.center[-2:]) - self.corner) / self.scale
        rows = np.rint(y0 + (np.arange(height) + 0.5 - height / 2) / zoom).astype(int)
        columns = np.rint(x0 + (np.arange(width) + 0.5 - width / 2) / zoom).astype(int)
        if zoom >= 0.999:
            inside = np.s_[2::5, 2::5]
            wanted = self.truth[0][np.ix_(rows[2::5], columns[2::5])]
            return bool((np.abs(drawn[inside].astype(int) - wanted).max(axis=-1) <= 2).mean() > 0.995)
        return self._blocks_are_true(drawn, rows, columns, zoom)

    def _blocks_are_true(self, drawn: np.ndarray, rows: np.ndarray, columns: np.ndarray, zoom: float) -> bool:
        factors = [self.truth[0].shape[0] / level.shape[0] for level in self.truth]
        number = max((i for i, factor in enumerate(factors) if factor <= 1.5 / zoom), default=0)
        level, factor = self.truth[number], factors[number]
        ys, xs = (rows / factor).astype(int), (columns / factor).astype(int)
        keep_y, keep_x = (ys >= 0) & (ys < level.shape[0]), (xs >= 0) & (xs < level.shape[1])
        wanted = np.asarray(level[ys[keep_y][0] : ys[keep_y][-1] + 1, xs[keep_x][0] : xs[keep_x][-1] + 1])
        wanted = wanted[ys[keep_y] - ys[keep_y][0]][:, xs[keep_x] - xs[keep_x][0]]
        pair = [means(picture) for picture in (drawn[keep_y][:, keep_x], wanted)]
        return bool((np.abs(pair[0] - pair[1]).max(axis=-1) < 20).mean() > 0.97)


def means(picture: np.ndarray, side: int = 16) -> np.ndarray:
    height, width = picture.shape[0] // side, picture.shape[1] // side
    cells = picture[: height * side, : width * side].reshape(height, side, width, side, 3)
    return cells.astype(np.float32).mean(axis=(1, 3))


def walk(window: Window, name: str, track: list[tuple[float, float, float]]) -> Iterator[tuple[str, float]]:
    """Follow a camera track at 60 Hz; yield figures."""
    window.place(*track[0])
    window.until_true(time.perf_counter())
    window.stall()
    stalls, begin = [], time.perf_counter()
    for number, place in enumerate(track):
        last = time.perf_counter()
        window.place(*place)
        window.let_run(max(begin + (number + 1) * STEP_SECONDS - time.perf_counter(), 0.001))
        stalls.append(window.stall())
    yield f"{name} settle", window.until_true(last)
    stalls.sort()
    yield f"{name} stall p50", stalls[len(stalls) // 2]
    yield f"{name} stall p95", stalls[int(0.95 * len(stalls))]
    yield f"{name} stall worst", stalls[-1]


def figures(window: Window, subject: str, slide: Path, quick: bool) -> dict[str, float]:
    """Open, pan, zoom, jump."""
    before = grown_mib()
    found = {"open": window.open(subject, slide)}
    height, width = window.truth[0].shape[:2]
    steps = 60 if quick else 120
    for name, zoom, y, x in (("pan 1:1", 1.0, 0.4, 0.36), ("pan 1:3.4", 0.29, 0.3, 0.3), ("pan 1:10", 0.1, 0.4, 0.4)):
        move = 17 / zoom
        track = [(int(height * y) + i * move + 0.3, int(width * x) + i * move + 0.3, zoom) for i in range(steps)]
        if zoom == 1.0:
            window.place(*track[0])
            window.until_true(time.perf_counter())
            window.empty = []
            for place in track:
                window.place(*place)
                window.let_run(STEP_SECONDS)
            found["empty while panning"], window.empty = statistics.fmean(window.empty), None
            track = [(place[0] + height / 8, place[1], place[2]) for place in track]
        found |= dict(walk(window, name, track))
    zooms = np.geomspace(window.fit[2], 2.0, 90)
    y, x = int(height * 0.47) + 0.3, int(width * 0.52) + 0.3  # no drawn pixel between two of the slide
    found |= dict(walk(window, "zoom in", [(y, x, float(zoom)) for zoom in zooms]))
    found |= dict(walk(window, "zoom out", [(y, x, float(zoom)) for zoom in zooms[::-1]]))
    random, jumps = np.random.default_rng(11), []
    for _ in range(6 if quick else 15):
        y, x = random.uniform(0.3, 0.7, 2)
        since = time.perf_counter()
        window.place(int(y * height) + 0.3, int(x * width) + 0.3, 1.0)
        jumps.append(window.until_true(since))
        window.let_run(0.05)
    found["jump p50"], found["jump worst"] = statistics.median(jumps), max(jumps)
    return found | {"mib": grown_mib() - before}


def run_one(subject: str, slide: Path, truth: Path, asynchronous: bool, quick: bool) -> None:
    os.environ["NAPARI_ASYNC"] = "1" if asynchronous else "0"
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NAPARI_CONFIG"] = str(Path(folder) / "settings.yaml")
        from napari.settings import get_settings

        get_settings().experimental.async_ = asynchronous
        import_first(subject)
        levels = [np.load(path, mmap_mode="r") for path in sorted(truth.glob("level_*.npy"))]
        print("FIGURES", json.dumps(figures(Window(levels), subject, slide, quick)), flush=True)
    os._exit(0)  # a subject's own threads shall not decide how long this takes


# --- all runs -----


def measured(subject: str, args: argparse.Namespace, asynchronous: bool) -> dict[str, float] | None:
    command = [sys.executable, "-W", "ignore", __file__, str(args.slide), "--truth", str(args.truth)]
    command += ["--subject", subject, *(["--async"] if asynchronous else []), *(["--quick"] if args.quick else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    line = next((line for line in done.stdout.splitlines() if line.startswith("FIGURES ")), None)
    if line is None:
        print(f"{subject}: {(done.stderr or done.stdout)[-400:]}", file=sys.stderr)
        return None
    found: dict[str, float] = json.loads(line.removeprefix("FIGURES "))
    return found


def report(rounds: list[dict[str, dict[str, float]]], mode: str) -> None:
    """Print medians of the bound, and of the ratios to it in the same round."""
    subjects = [subject for subject in SUBJECTS if any(subject in found for found in rounds)]
    print(f"\n{mode}: {len(rounds)} rounds; the bound in ms, then ratios to it (empty, mib: as measured)")
    print(f"{'':24}" + "".join(f"{subject:>12}" for subject in subjects))
    for name in rounds[0]["memory"]:
        bound = statistics.median(found["memory"][name] for found in rounds)
        cells = [f"{bound:12.4g}"]
        for subject in subjects[1:]:
            plain = name in ("mib", "empty while panning")
            values = [
                found[subject][name] / (1.0 if plain else found["memory"][name]) for found in rounds if subject in found
            ]
            cells.append(f"{statistics.median(values):12.3g}")
        print(f"{name:24}" + "".join(cells), flush=True)


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("slide", type=Path)
    ask.add_argument("--truth", type=Path, required=True)
    ask.add_argument("--rounds", type=int, default=5)
    ask.add_argument("--async", dest="asynchronous", action="store_true", help="napari slices in a thread; default: no")
    ask.add_argument("--quick", action="store_true", help="fewer steps and jumps")
    ask.add_argument("--only", default="", help="subjects beside the bound, by comma")
    ask.add_argument("--subject", choices=SUBJECTS, help=argparse.SUPPRESS)
    args = ask.parse_args()
    if args.subject:
        run_one(args.subject, args.slide, args.truth, args.asynchronous, args.quick)
        return
    wanted = ["memory", *(args.only.split(",") if args.only else list(SUBJECTS)[1:])]
    if importlib.util.find_spec("napari_wsi") is None and "napari-wsi" in wanted:
        wanted.remove("napari-wsi")
    rounds = []
    for _ in range(args.rounds):
        found = {subject: measured(subject, args, args.asynchronous) for subject in wanted}
        if found["memory"] is None:
            raise SystemExit("the bound itself could not be measured")
        rounds.append({subject: figures for subject, figures in found.items() if figures is not None})
    report(rounds, "async" if args.asynchronous else "sync")


if __name__ == "__main__":
    main()
