"""Memory over many slides: a night's batch must end as small as it began."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tell_fakes import write_slide

# Runs in a process of its own: other tests' memory must not hide what a slide leaves behind.
PROGRAM = """
import gc, json, os, sys
import psutil
from napari_slnpredict.cli import batch
from napari_slnpredict.cli.app import main
resident = []
finish = batch.Screen.finish
def measured(self, *arguments, **options):
    finish(self, *arguments, **options)
    process = psutil.Process()
    resident.append([process.memory_info().rss, process.num_fds(), process.num_threads()])
batch.Screen.finish = measured
try:
    main(sys.argv[1:])
finally:
    open("resident.json", "w").write(json.dumps(resident))
"""


def measure(folder: Path, count: int) -> list[list[int]]:
    """Predict `count` slides with the shipped model; return bytes, open files and threads after each."""
    # Three sizes, each its own content: nothing is found in the cache.
    for k in range(count):
        write_slide(folder / "s" / f"{k:03}.svs", size=(384 + 128 * (k % 3), 384 + k))
    environment = {**os.environ, "SLNPREDICT_CACHE": str(folder / "cache")}
    command = [sys.executable, "-c", PROGRAM, "predict", "s", "--out", "out", "--device", "cpu"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    resident: list[list[int]] = json.loads((folder / "resident.json").read_text())
    assert len(resident) == count
    return resident


def slope(values: list[int]) -> float:
    """Return the change per slide, by medians of the first and the last third (one slide's peak does not count)."""
    third = len(values) // 3
    first, last = sorted(values[:third])[third // 2], sorted(values[-third:])[third // 2]
    return (last - first) / (len(values) - third)


@pytest.mark.parametrize(
    ("count", "megabytes"), [(24, 1.5), pytest.param(200, 0.1, marks=pytest.mark.soak)], ids=["ci", "soak"]
)
def test_memory_is_flat(tmp_path: Path, count: int, megabytes: float) -> None:
    """Each slide leaves its pixels, its files or its threads behind: a thousand of them end the run."""
    pytest.importorskip("psutil")
    resident = measure(tmp_path, count)
    warm = resident[count // 4 :]
    told = [round(row[0] / 2**20) for row in resident[:: max(1, count // 20)]]
    assert slope([row[0] for row in warm]) / 2**20 < megabytes, told
    assert warm[-1][1] <= warm[0][1] + 2, "open files"
    assert warm[-1][2] <= warm[0][2] + 2, "threads"
