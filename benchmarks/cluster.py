"""Figure 8: ``--cluster local:2`` against two shards started by hand, and a worker killed with -9.

    .venv/bin/python benchmarks/cluster.py [--slides 8] [--size 9] [--rounds 1] [--folder DIR]

Makes synthetic slides (kept in DIR for the next time), then predicts all of them with the shipped model, every time
with a cold cache in a folder of its own:

- ``shards``: two processes with ``--shard 1/2`` and ``--shard 2/2`` at the same time, until the later one ends
- ``cluster``: one command with ``--cluster local:2``, from its start to its end
- ``shards, one core each`` with --pinned: the same shards, each held on one core

The order alternates between rounds. Then one more cluster run, in which the worker of a half-finished slide is killed
with -9: tiles.csv and probabilities must equal the shards', and the tiles computed more than once are counted.

Prints one JSON object: seconds (medians), ratios within each round, and what the killed run did.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from napari_slnpredict.events import run
from napari_slnpredict.phantom.tasks import make_cohort

SLNPREDICT = (sys.executable, "-m", "napari_slnpredict.cli.app")
#: Put into each worker of the killed run: writes down how many tiles came out of the network.
COUNTING = """
import os
from pathlib import Path
from napari_slnpredict.encode.workers import Workers

fetch = Workers.fetch

def counted(self, timeout):
    results = fetch(self, timeout)
    handle = os.open(os.environ["COUNTED_TILES"], os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.write(handle, "".join(f"{len(done.chunk)}\\n" for done in results).encode())
    os.close(handle)
    return results

def dask_setup(worker):
    Workers.fetch = counted
"""


def predict(table: Path, place: Path, *more: str, **environment: str) -> subprocess.Popen[bytes]:
    command = [*SLNPREDICT, "predict", str(table), "--out", str(place / "out"), "--cache", str(place / "cache"), *more]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=(place / "log").open("ab"), env={**os.environ, **environment}
    )


def wait(*processes: subprocess.Popen[bytes]) -> None:
    for process in processes:
        if process.wait() != 0:
            raise SystemExit(f"{process.args} ended with {process.returncode}")


def shards(table: Path, place: Path) -> None:
    wait(*(predict(table, place, "--shard", f"{index}/2") for index in (1, 2)))


def pinned_shards(table: Path, place: Path) -> None:
    processes = []
    for index, core in enumerate(sorted(os.sched_getaffinity(0))[:2], 1):
        process = predict(table, place, "--shard", f"{index}/2")
        os.sched_setaffinity(process.pid, {core})
        processes.append(process)
    wait(*processes)


def cluster(table: Path, place: Path) -> None:
    wait(predict(table, place, "--cluster", "local:2"))


def killed(table: Path, place: Path) -> dict[str, Any]:
    """Kill the worker of the first slide that has a sealed chunk; count what was computed."""
    preload = place / "counting.py"
    preload.write_text(COUNTING)
    counted = place / "counted"
    process = predict(
        table, place, "--cluster", "local:2",
        DASK_DISTRIBUTED__WORKER__PRELOAD=json.dumps([str(preload)]), COUNTED_TILES=str(counted),
    )  # fmt: skip
    chunk = None
    while chunk is None:
        if process.poll() is not None:
            raise SystemExit("the run ended before a chunk was sealed: larger slides are needed (--size)")
        time.sleep(0.01)
        chunk = next((place / "cache").glob("*/*/*/chunks/*.chunk"), None)
    lock = json.loads((chunk.parents[1] / "work.lock").read_text())
    os.kill(lock["pid"], signal.SIGKILL)
    sealed = len(list(chunk.parent.glob("*.chunk")))
    wait(process)
    tiles = sum(record["tiles"] for record in records(place).values())
    computed = sum(int(line) for line in counted.read_text().split())
    return {"chunks sealed at the kill": sealed, "tiles": tiles, "tiles computed again": computed - tiles}


def records(place: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for path in sorted((place / "out").glob("*/prediction.json")):
        found[path.parent.name] = json.loads(path.read_text())
    return found


def results(place: Path) -> dict[str, tuple[bytes, dict[str, float]]]:
    """Return tiles.csv and probabilities of each slide."""
    return {
        name: ((place / "out" / name / "tiles.csv").read_bytes(), record["probabilities"])
        for name, record in records(place).items()
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--slides", type=int, default=8)
    parser.add_argument("--size", type=float, default=9.0, help="mm")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--pinned", action="store_true")
    parser.add_argument("--no-kill", action="store_true")
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        table = run(make_cohort("sln", asked.slides, 5, "A", asked.folder or Path(scratch) / "slides", size=asked.size))
        arms = {"shards": shards, "cluster": cluster}
        if asked.pinned:
            arms["shards, one core each"] = pinned_shards
        seconds: dict[str, list[float]] = {name: [] for name in arms}
        found: dict[str, Any] = {}
        equal = True
        for round_ in range(asked.rounds):
            for name in sorted(arms, reverse=bool(round_ % 2)):
                place = Path(scratch) / f"{name}-{round_}"
                place.mkdir()
                start = time.perf_counter()
                arms[name](table, place)
                seconds[name].append(time.perf_counter() - start)
                found = found or results(place)
                equal = equal and len(found) == asked.slides and results(place) == found
        answer: dict[str, Any] = {
            "slides": asked.slides,
            "tiles": sum(record.count(b"\n") - 1 for record, _ in found.values()),
            "seconds": {name: round(statistics.median(times), 2) for name, times in seconds.items()},
            "cluster / shards": [round(c / s, 3) for c, s in zip(seconds["cluster"], seconds["shards"], strict=True)],
            "same bytes": equal,
        }
        if not asked.no_kill:
            place = Path(scratch) / "killed"
            place.mkdir()
            answer["killed"] = {**killed(table, place), "same bytes": results(place) == found}
    print(json.dumps(answer, indent=1))


if __name__ == "__main__":
    main()
