"""What runs inside a worker of a cluster: one slide a task, opened, read and written here.

A task answers with a `Receipt` whatever happens, tells its progress to the client by small log events, and reads a flag
between blocks: raised by the client to stop, and taken as raised when the worker is leaving or the scheduler is gone.
"""

from __future__ import annotations

import functools
import hashlib
import os
import signal
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from napari_slnpredict.errors import ResourceError
from napari_slnpredict.events import Event, Progress, Stage, Throttle, Warn
from napari_slnpredict.provenance import versions

from .slides import Named
from .work import Plan, Receipt, Work, do_slide, failed

#: Libraries whose version may differ between the machines: no result depends on them.
MAY_DIFFER = frozenset({"napari"})
#: A worker tells its progress this seldom, and looks this seldom whether it is to stop.
TELL_SECONDS, LOOK_SECONDS = 0.5, 0.5

#: Tasks of one process take turns: the engine fills the cores already. (Workers should have one thread.)
_TURN = threading.Lock()


@dataclass(frozen=True)
class Task:
    """One slide for a worker.

    Attributes
    ----------
    run : str
        Names the run: the topic of its messages and its flag.
    place, attempt : int
        Which slide of the run, and how often it was handed out before.
    threads : mapping of str to int
        Cores a worker may use, by `Facts.group`.
    versions : mapping of str to str
        What the client has installed.
    """

    run: str
    place: int
    attempt: int
    slide: Named
    plan: Plan
    threads: Mapping[str, int]
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Facts:
    """What a worker is.

    Attributes
    ----------
    versions : dict of str to str
    group : str
        The same for workers that share cores.
    cores : int
        How many these are.
    gpus : str or None
        CUDA_VISIBLE_DEVICES; None where it is not set.
    host : str
    """

    versions: dict[str, str]
    group: str
    cores: int
    gpus: str | None
    host: str


def facts() -> Facts:
    """Describe this worker."""
    host = socket.gethostname()
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    group = hashlib.sha256(f"{host} {cores}".encode()).hexdigest()[:16]
    return Facts(versions(), group, max(1, len(cores)), os.environ.get("CUDA_VISIBLE_DEVICES"), host)


def differing(here: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    """Return what is installed in other versions there than here, as ``torch 2.4.0 (here 2.5.1)``.

    The build of a version (``+cu124``, ``+cpu``) does not count: a client may have no GPU.
    """
    different = []
    for name in sorted((here.keys() | there.keys()) - MAY_DIFFER):
        ours, theirs = here.get(name, "none"), there.get(name, "none")
        if name == "python":
            ours, theirs = ours.rpartition(".")[0], theirs.rpartition(".")[0]
        if ours.partition("+")[0] != theirs.partition("+")[0]:
            different.append(f"{name} {theirs} (here {ours})")
    return different


def work_on(task: Task) -> Receipt:
    """Do a task; runs in the worker's thread."""
    from distributed import Event as Flag
    from distributed import get_worker

    worker = get_worker()
    tell = _Teller(worker, task)
    tell("began")
    found = facts()
    different = differing(task.versions, found.versions)
    if different:
        text = f"a worker has {', '.join(different)}"
        return failed(task.slide, ResourceError(text, do="install the same versions everywhere"))
    flag = _Flag(worker, Flag(task.run))
    threads = task.threads.get(found.group)
    with _TURN:
        if flag():
            return Receipt(stopped=True)
        return do_slide(task.plan, lambda: _ready(task.plan, threads), task.slide, tell.event, flag)


@functools.lru_cache(maxsize=1)
def _ready(plan: Plan, threads: int | None) -> Work:
    """Load model and network once a process, not once a slide."""
    return plan.ready(threads)


def dask_setup(worker: Any) -> None:
    """Prepare a process of ``local:N``: dask runs this before its first task.

    Ctrl-C and a job scheduler's SIGTERM reach every process of a terminal or job. The client answers them, by the
    flag; a worker that died of them would lose what it has not sealed.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


class _Teller:
    """Sends events to the client, small and seldom; pictures and features stay here."""

    def __init__(self, worker: Any, task: Task) -> None:
        self._worker, self._task = worker, task
        self._may_tell = Throttle(TELL_SECONDS)

    def __call__(self, kind: str, *facts: Any) -> None:
        message = {"place": self._task.place, "attempt": self._task.attempt, "worker": self._worker.address}
        self._worker.log_event(self._task.run, {**message, "kind": kind, "facts": list(facts)})

    def event(self, event: Event) -> None:
        if isinstance(event, Stage):
            self("stage", event.name, event.text, event.total, event.unit)
        elif isinstance(event, Warn):
            self("warn", event.message)
        elif isinstance(event, Progress) and self._may_tell():
            self("progress", event.done, event.total, event.per_second, event.seconds_left)


def heard(kind: str, facts: list[Any]) -> Event | None:
    """Return the event a message tells, or None where it tells none."""
    if kind == "stage":
        return Stage(*facts)
    if kind == "progress":
        return Progress(*facts)
    return Warn(*facts) if kind == "warn" else None


class _Flag:
    """Whether to stop: asked after every event of a job, looked up on the scheduler now and then."""

    def __init__(self, worker: Any, flag: Any) -> None:
        self._worker, self._flag = worker, flag
        self._may_look = Throttle(LOOK_SECONDS)
        self._raised = False

    def __call__(self) -> bool:
        if not self._raised and self._may_look():
            self._raised = self._leaving() or self._is_set()
        return self._raised

    def _leaving(self) -> bool:
        from distributed import Status

        return self._worker.status not in (Status.running, Status.paused)

    def _is_set(self) -> bool:
        try:
            return bool(self._flag.is_set())
        except Exception:  # noqa: BLE001 - whatever dask raises, the scheduler does not answer
            # Nobody can fetch the result: seal and end; the next run goes on from there.
            return True
