"""Many slides on workers, and everything that may happen to them (the faults are `faulty_worker`'s).

Each test starts processes of its own that talk on the loopback address only; `loopback/sitecustomize.py` sees to it.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tell_fakes import make_bundle, write_slide

HERE = Path(__file__).parent
UNIT = HERE.parent
PATIENCE = 240.0

pytest.importorskip("distributed")


@dataclass
class Lab:
    """A folder with slides, a model, and processes that end with the test."""

    folder: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def slide(self, name: str, width: int = 320) -> Path:
        return write_slide(self.folder / "s" / f"{name}.svs", size=(width, 256))

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def environment(self, **more: str) -> dict[str, str]:
        root = UNIT.parents[1]
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(str(path) for path in (HERE / "loopback", UNIT, root)),
            "DASK_DISTRIBUTED__WORKER__PRELOAD": json.dumps([str(HERE / "faulty_worker.py")]),
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1",
            "DASK_TEMPORARY_DIRECTORY": str(self.folder / "dask"),
            "SLNPREDICT_TEST_FOLDER": str(self.folder),
            "SLNPREDICT_CACHE": str(self.folder / "cache"),
            **more,
        }

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=self.environment(**environment), cwd=self.folder, start_new_session=True,
        )  # fmt: skip
        self.started.append(process)
        return process

    def predict(self, cluster: str, *more: str, **environment: str) -> subprocess.Popen[str]:
        command = ["-m", "napari_slnpredict.cli.app", "predict", "s", "--model", "models/tiny-sln", "--out", "out"]
        return self.start(*command, "--cluster", cluster, *more, **environment)

    def scheduler(self) -> tuple[subprocess.Popen[str], str]:
        """Start a scheduler by hand; return it and its address."""
        process = self.start(
            "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
            "--scheduler-file", "scheduler.json",
        )  # fmt: skip
        where = self.folder / "scheduler.json"
        wait_for(where.is_file, process)
        return process, str(json.loads(where.read_text())["address"])

    def worker(self, address: str, **environment: str) -> subprocess.Popen[str]:
        return self.start(
            "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard", "--memory-limit", "0",
            **environment,
        )  # fmt: skip

    def marks(self, name: str) -> list[Path]:
        return list(self.folder.glob(f"{name}.*"))

    def rows(self, name: str) -> list[dict[str, str]]:
        with (self.out / name).open(newline="") as file:
            return list(csv.DictReader(file))


def wait_for(ready: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Wait until something is so; fail with what the process said when it ends before."""
    deadline = time.monotonic() + PATIENCE
    while not ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, said = process.communicate(timeout=PATIENCE)
    return process.returncode, out, said


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    make_bundle(tmp_path / "models" / "tiny-sln")
    lab = Lab(tmp_path)
    yield lab
    for process in lab.started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_failures_are_receipts(lab: Lab) -> None:
    """An error on one slide would end the run, be tried again and again, or take its worker's name for the slide's."""
    for name in ("a", "b", "hiccup"):
        lab.slide(name)
    (lab.folder / "s" / "odd.svs").write_text("x")
    (lab.folder / "s" / "text.svs").write_text("no slide")
    with socket.socket() as somebody:
        with contextlib.suppress(OSError):  # somebody has it already
            somebody.bind(("127.0.0.1", 8787))  # where dask likes to be: another run, on this machine
            somebody.listen()
        code, out, said = end(lab.predict("local:2", "--json"))
    assert code == 1, said
    assert {row["slide"]: row["error"] for row in lab.rows("failures.csv")} == {
        "odd.svs": "RuntimeError",
        "text.svs": "UnsupportedSlide",
    }
    assert str(lab.folder) not in (lab.out / "failures.csv").read_text()
    assert [row["slide_id"] for row in lab.rows("predictions.csv")] == ["a", "b", "hiccup"]
    assert len(lab.marks("hiccup")) == 2, "an error of the system is worth another try"
    result = json.loads(out)
    assert sorted(record["slide_id"] for record in result["results"]) == ["a", "b", "hiccup"]
    assert result["interrupted"] is False
    assert (lab.out / "a" / "run.json").is_file()
    assert re.search(r"^\[\d/5\] a\.svs  ", said, re.MULTILINE)
    assert "2 failed: " in said
    assert "distributed" not in said, "dask's own log is no text for users"


def test_a_slide_that_kills_its_workers_is_given_up(lab: Lab) -> None:
    """It would take down one worker after another, or the innocent slides beside it would be named."""
    for name in ("a", "b", "c", "poison"):
        lab.slide(name)
    code, _, said = end(lab.predict("local:2"))
    assert code == 1, said
    (row,) = lab.rows("failures.csv")
    assert (row["slide"], row["error"]) == ("poison.svs", "KilledWorker")
    assert "2 workers died" in row["message"]
    assert len(lab.marks("poisoned")) == 2
    assert [row["slide_id"] for row in lab.rows("predictions.csv")] == ["a", "b", "c"]


def test_one_stop_for_all(lab: Lab) -> None:
    """Ctrl-C, which reaches every process of a terminal, would kill workers in the middle of a chunk."""
    for name in ("slow-a", "slow-b", "slow-c"):
        lab.slide(name)
    for round_, number in enumerate((signal.SIGINT, signal.SIGTERM), 1):
        process = lab.predict("local:2", "--json")
        wait_for(lambda wanted=2 * round_: len(lab.marks("slow-*-running")) >= wanted, process)
        os.killpg(process.pid, number)
        code, out, said = end(process)
        assert code == 130, said
        assert len(lab.marks("slow-*-closed")) == 2 * round_, "jobs must be closed, so that their chunks are sealed"
        assert json.loads(out)["interrupted"] is True
        assert "the same command continues from there" in said
    (lab.folder / "release").touch()
    assert end(lab.predict("local:1"))[0] == 0
    assert len(lab.rows("predictions.csv")) == 3


def test_a_dead_scheduler_is_an_interrupt(lab: Lab) -> None:
    """The command would wait for ever, or call the slides failed."""
    for name in ("a", "slow-b"):
        lab.slide(name)
    scheduler, address = lab.scheduler()
    lab.worker(address)
    process = lab.predict(address)
    wait_for(lambda: lab.marks("slow-b-running"), process)
    scheduler.kill()
    code, _, said = end(process)
    assert code == 130, said
    assert "scheduler is gone" in said
    assert "1 of 2 slides are done" in said
    assert not (lab.out / "failures.csv").exists()
    worker = lab.started[1]
    wait_for(lambda: lab.marks("slow-b-closed"), worker)


def test_a_hand_started_cluster_stays_as_it_was(lab: Lab) -> None:
    """A scheduler that others use would be shut down, or keep tasks of ours; a stop would end its workers."""
    lab.slide("slow-a")
    scheduler, address = lab.scheduler()
    worker = lab.worker(address)
    process = lab.predict(address)
    wait_for(lambda: lab.marks("slow-a-running"), process)
    os.killpg(process.pid, signal.SIGINT)
    assert end(process)[0] == 130
    assert lab.marks("slow-a-closed")
    (lab.folder / "release").touch()
    assert end(lab.predict(address))[0] == 0
    assert scheduler.poll() is None
    assert worker.poll() is None


def test_other_versions_are_refused(lab: Lab) -> None:
    """Half the cohort would be computed by another torch than the other half."""
    lab.slide("a")
    _, address = lab.scheduler()
    worker = lab.worker(address, SLNPREDICT_TEST_VERSIONS="1.0")
    process = lab.predict(address)
    code, _, said = end(process)
    assert code == 3, said
    assert "has torch 1.0 (here " in said
    assert "Install the same versions everywhere" in said
    assert worker.poll() is None
    assert not (lab.out / "a").exists()


def test_a_worker_without_the_package_is_refused(lab: Lab, tmp_path: Path) -> None:
    """Every slide would fail with an error of pickle."""
    lab.slide("a")
    hidden = tmp_path / "hide.py"
    hidden.write_text("import sys\nsys.modules['napari_slnpredict'] = None\n")
    _, address = lab.scheduler()
    lab.worker(address, DASK_DISTRIBUTED__WORKER__PRELOAD=json.dumps([str(hidden)]))
    code, _, said = end(lab.predict(address))
    assert code == 3, said
    assert "cannot run napari-slnpredict" in said
    assert "install the same version there" in said.lower()


def test_nobody_answers(lab: Lab) -> None:
    """A wrong address would end in a page of dask's words."""
    lab.slide("a")
    code, _, said = end(lab.predict("tcp://127.0.0.1:9"))
    assert code == 3
    assert "no scheduler answers at tcp://127.0.0.1:9" in said
    assert len(said.strip().splitlines()) <= 2
