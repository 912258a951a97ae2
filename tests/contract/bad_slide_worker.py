"""Opens and reads slides that may do anything, each in a process of its own; run as a script by `test_bad_slides`.

    bad_slide_worker.py GOOD FOLDER < cases.json > results.json

The libraries are loaded once; every case runs in a fork, so that none can hurt the next, and its time and memory are
its own. `GOOD` is the slide all others were made of: their pixels are compared with its own.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import resource
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

#: A case that needs more than this is ended by the system: far above what the tests allow.
ADDRESS_SPACE = 12 << 30
SECONDS = 60


def status(field: str) -> float:
    """Return a memory figure of this process, MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return float(line.split()[1]) / 1024
    return 0.0


def first_look(path: Path) -> tuple[Any, dict[str, Any]]:
    """Open a slide and read 512 x 512 px, as a viewer does; return it (None if refused) and what was seen."""
    from napari_slnpredict.slide.slide import open_slide

    seen: dict[str, Any] = {"outcome": "open", "error": [], "text": []}
    slide = None
    memory, start = status("VmRSS"), time.perf_counter()
    try:
        slide = open_slide(path)
        x, y = (max(0, side // 2 - 256) for side in slide.dimensions)
        slide.read_region_mask((x, y), 0, (512, 512))
    except Exception as error:  # noqa: BLE001  what it raises is the result
        seen.update(outcome="refuse", error=[kind.__name__ for kind in type(error).__mro__], text=[str(error)])
        seen["trace"] = traceback.format_exc()
    seen.update(seconds=time.perf_counter() - start, memory_mb=status("VmHWM") - memory)
    return slide, seen


def second_look(slide: Any, truth: np.ndarray | None) -> dict[str, Any]:
    """Read all of level 0 and compare it with the good slide."""
    seen: dict[str, Any] = {"damaged": [], "missing": [], "wrong": 0, "compared": False}
    width, height = slide.dimensions
    if width * height <= 1 << 25:
        pixels, valid = slide.read_level(0, 0, 0, width, height)
        if truth is not None and pixels.shape == truth.shape:
            seen["compared"] = True
            seen["wrong"] = int((np.any(pixels != truth, axis=-1) & valid).sum())
        seen["invalid"] = int((~valid).sum())
        seen["boxes"] = boxes(valid)
    seen["damaged"] = [list(rectangle[1:]) for rectangle in slide.damaged if rectangle[0] == 0]
    seen.update(mpp=slide.mpp, text=list(slide.warnings), reader=slide.reader, shape=[height, width])
    seen["said"] = [repr(slide), slide.mpp_source, *slide.properties, *slide.properties.values()]
    return seen


def boxes(valid: np.ndarray, step: int = 240) -> list[list[int]]:
    """Return the lattice cells (x, y, w, h) that hold pixels that are not valid."""
    found = []
    for y in range(0, valid.shape[0], step):
        for x in range(0, valid.shape[1], step):
            cell = valid[y : y + step, x : x + step]
            if not cell.all():
                found.append([x, y, cell.shape[1], cell.shape[0]])
    return found


def one_case(path: Path, truth: np.ndarray | None) -> dict[str, Any]:
    """Look at one slide; everything that was printed or logged comes along."""
    printed = io.StringIO()
    logging.basicConfig(stream=printed, level=logging.DEBUG, force=True)
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        slide, seen = first_look(path)
        if slide is not None:
            with slide:
                seen.update(second_look(slide, truth))
    seen["printed"] = printed.getvalue()[:100_000]
    return seen


def in_a_fork(path: Path, truth: np.ndarray | None) -> dict[str, Any]:
    """Run one case in a child; what kills the child is the result."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
        signal.alarm(SECONDS)
        Path("/proc/self/clear_refs").write_text("5")  # the peak of memory counts from here
        try:
            seen = one_case(path, truth)
        except BaseException:  # noqa: BLE001  a fork must not run on into the loop of its parent
            seen = {
                "outcome": "crash",
                "error": ["crash"],
                "text": [traceback.format_exc()],
                "trace": traceback.format_exc(),
            }
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(json.dumps(seen).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    _, code = os.waitpid(child, 0)
    if code:
        return {"outcome": "killed", "error": [], "text": [f"ended by signal or exit {code}"], "seconds": SECONDS}
    result: dict[str, Any] = json.loads(answer)
    return result


def warm_up(good: Path) -> np.ndarray:
    """Load everything that opening a slide loads; return the good slide's level 0, (h, w, 3) uint8."""
    import tiffslide  # noqa: F401

    from napari_slnpredict.slide.slide import open_slide

    with open_slide(good) as slide:
        return slide.read_region((0, 0), 0, slide.dimensions)


def main() -> None:
    good, folder = Path(sys.argv[1]), Path(sys.argv[2])
    truth = warm_up(good)
    results = []
    for case in json.load(sys.stdin):
        made_of_good = case["path"].lower().endswith((".svs", ".ndpi"))
        results.append(in_a_fork(folder / case["path"], truth if made_of_good else None))
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
