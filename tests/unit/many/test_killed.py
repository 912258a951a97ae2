"""Processes that end in the middle of a slide, with the shipped network: nothing sealed is lost, nothing differs."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tell_fakes import write_slide

HERE = Path(__file__).parent
PATIENCE = 240.0
ONE = "from many.slow_worker import slow_down; slow_down(); from napari_slnpredict.cli.app import main; main()"
MANY = "from napari_slnpredict.cli.app import main; main()"


def start(folder: Path, out: str, code: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a prediction in a process of its own, with a cache of its own by the name of its output."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(path) for path in (HERE / "loopback", HERE.parent, HERE.parents[2])),
        "DASK_DISTRIBUTED__WORKER__PRELOAD": json.dumps([str(HERE / "slow_worker.py")]),
        "DASK_TEMPORARY_DIRECTORY": str(folder / "dask"),
        "SLNPREDICT_TEST_FOLDER": str(folder),
        "SLNPREDICT_CACHE": str(folder / f"cache-{out}"),
    }
    command = [sys.executable, "-c", code, "predict", "s", "--out", out, "--device", "cpu", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=folder
    )


def finish(process: subprocess.Popen[str], expected: int) -> str:
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == expected, said
    return said


def wait_for(ready: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def logged(kind: str, folder: Path) -> dict[int, list[int]]:
    logs = {int(path.name.split(".")[1]): path.read_text().split() for path in folder.glob(f"{kind}.*.log")}
    return {process: [int(line) for line in lines] for process, lines in logs.items()}


def results(out: Path) -> dict[str, tuple[bytes, dict[str, float]]]:
    """Return each slide's tiles.csv and probabilities."""
    found = {}
    for path in sorted(out.glob("*/prediction.json")):
        record = json.loads(path.read_text())
        found[path.parent.name] = ((path.parent / "tiles.csv").read_bytes(), record["probabilities"])
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two slides, and their results in ``reference``."""
    folder = tmp_path_factory.mktemp("killed")
    for name, width in (("a", 2048), ("b", 1920)):
        write_slide(folder / "s" / f"{name}.svs", size=(width, 1536))
    finish(start(folder, "reference", MANY), 0)
    assert len(results(folder / "reference")) == 2
    return folder


def forget_logs(folder: Path) -> None:
    for path in folder.glob("*.log"):
        path.unlink()


def test_a_killed_worker_costs_one_chunk(undisturbed: Path) -> None:
    """A worker killed in the middle would cost its slide's work, change its result, or be reported as a failure."""
    pytest.importorskip("distributed")
    folder = undisturbed
    forget_logs(folder)
    process = start(folder, "cluster", MANY, "--cluster", "local:2")
    wait_for(lambda: any(len(chunks) >= 2 for chunks in logged("sealed", folder).values()), process)
    victim = next(worker for worker, chunks in logged("sealed", folder).items() if len(chunks) >= 2)
    os.kill(victim, signal.SIGKILL)
    said = finish(process, 0)
    assert "its worker was lost; another goes on" in said
    assert results(folder / "cluster") == results(folder / "reference")
    assert not (folder / "cluster" / "failures.csv").exists()
    tiles = sum(record.count(b"\n") - 1 for record, _ in results(folder / "cluster").values())
    sealed, computed = logged("sealed", folder), logged("computed", folder)
    assert sum(map(sum, sealed.values())) == tiles, "a sealed chunk was computed again"
    # What arrived and was not sealed yet is less than a chunk.
    assert sum(map(sum, computed.values())) - tiles <= 32
    assert len(sealed) >= 2, "both workers had a slide"


def test_sigterm_seals_and_exits_130(undisturbed: Path) -> None:
    """At its walltime a job of an array would lose what it had computed, or count as done."""
    folder = undisturbed
    forget_logs(folder)
    process = start(folder, "shards", ONE, "--shard", "1/2")
    wait_for(lambda: any(len(chunks) >= 2 for chunks in logged("sealed", folder).values()), process)
    process.send_signal(signal.SIGTERM)
    said = finish(process, 130)
    assert "Shard 1/2: 1 of 2 slides." in said
    assert "the same command continues from there" in said
    kept = sum(map(sum, logged("sealed", folder).values()))
    # What arrives after the signal is sealed too.
    assert kept >= sum(map(sum, logged("computed", folder).values())), "what was computed was not sealed"
    forget_logs(folder)
    finish(start(folder, "shards", ONE, "--shard", "1/2"), 0)
    finish(start(folder, "shards", ONE, "--shard", "2/2"), 0)
    assert results(folder / "shards") == results(folder / "reference")
    tiles = sum(record.count(b"\n") - 1 for record, _ in results(folder / "shards").values())
    assert sum(map(sum, logged("computed", folder).values())) == tiles - kept
    with (folder / "shards" / "predictions.csv").open(newline="") as file:
        assert [row["slide_id"] for row in csv.DictReader(file)] == ["a", "b"]
