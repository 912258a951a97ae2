"""Open to first complete frame: our viewer against a bare napari on the same file's zarr pyramid.

    scripts/with_screen.sh .venv/bin/python benchmarks/open_slide.py SLIDE [--rounds 5]

Each opening has a process of its own, in which an empty window (ours: with its dock) stands already; the clock starts
with the wish to open and includes every import, scan and check. It stops at the first frame whose middle equals the
last picture. Both subjects are read back in the same way after each draw. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

SUBJECTS = ("bare zarr", "ours")
SETTLE_SECONDS = 2.0


def open_bare(viewer, path: Path) -> None:
    import tiffslide

    slide = tiffslide.TiffSlide(path)
    levels = [slide.zarr_group[str(level)] for level in range(slide.level_count)]
    viewer.add_image(levels, multiscale=True, rgb=True, contrast_limits=(0, 255))


def measure(subject: str, path: Path) -> float:
    """Return the seconds from the wish to the first frame that equals the last."""
    import napari
    import numpy as np
    from qtpy.QtWidgets import QApplication

    viewer = napari.Viewer(show=True)
    viewer.window.resize(1531, 1031)
    if subject == "ours":
        from napari_slnpredict.plugin.launch import open_viewer

        open_viewer(viewer=viewer)
    canvas = viewer.window._qt_viewer.canvas.native
    let_settle = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < let_settle:
        QApplication.processEvents()
    frames: list[tuple[float, np.ndarray]] = []

    def middle() -> np.ndarray:
        image = canvas.grabFramebuffer()
        pixels = np.frombuffer(image.constBits().asstring(image.sizeInBytes()), np.uint8)
        pixels = pixels.reshape(image.height(), -1, 4)[:, : image.width(), :3]
        height, width = pixels.shape[:2]
        return pixels[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4].astype(np.int16)

    start = time.perf_counter()
    viewer.window._qt_viewer.canvas._scene_canvas.events.draw.connect(
        lambda event: frames.append((time.perf_counter() - start, middle())), position="last"
    )
    if subject == "ours":
        open_viewer([path], viewer=viewer)
    else:
        open_bare(viewer, path)
    until = None
    while until is None or time.perf_counter() < until:
        QApplication.processEvents()
        if until is None and len(viewer.layers) and frames:
            until = time.perf_counter() + SETTLE_SECONDS
        if time.perf_counter() - start > 60:
            raise SystemExit(f"{subject}: nothing was drawn in a minute")
    last = middle()
    if last.std() < 5:
        raise SystemExit(f"{subject}: the final picture is blank")
    done = next(seconds for seconds, frame in frames if frame.shape == last.shape and abs(frame - last).mean() < 2)
    viewer.close()
    return done


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("slide", type=Path)
    ask.add_argument("--rounds", type=int, default=5)
    ask.add_argument("--subject", choices=SUBJECTS, help=argparse.SUPPRESS)
    args = ask.parse_args()
    if args.subject:
        print("SECONDS", measure(args.subject, args.slide))
        return
    seconds: dict[str, list[float]] = {subject: [] for subject in SUBJECTS}
    for _ in range(args.rounds):
        for subject in SUBJECTS:
            done = subprocess.run(
                [sys.executable, __file__, str(args.slide), "--subject", subject],
                capture_output=True,
                text=True,
                check=False,
            )
            line = next((line for line in done.stdout.splitlines() if line.startswith("SECONDS")), None)
            if line is None:
                raise SystemExit(f"{subject} failed:\n{done.stdout[-500:]}\n{done.stderr[-1500:]}")
            seconds[subject].append(float(line.split()[1]))
    median = {subject: statistics.median(values) for subject, values in seconds.items()}
    print(json.dumps({"seconds": seconds, "median": median, "ratio": median["ours"] / median["bare zarr"]}, indent=1))


if __name__ == "__main__":
    main()
