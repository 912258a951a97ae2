"""The worker on its own: every end arrives, nothing floods, nothing outlives its window."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from qtpy.QtCore import QObject

from napari_slnpredict.errors import CorruptSlide
from napari_slnpredict.events import Partial, Progress, Stage
from napari_slnpredict.plugin.worker import Outcome, Worker, newest, running_threads, wait_for_threads


@pytest.fixture
def parent(qtbot: Any) -> Iterator[QObject]:
    window = QObject()
    yield window
    window.deleteLater()


def finish(worker: Worker, wait: Any) -> Outcome:
    ends: list[Outcome] = []
    worker.ended.connect(ends.append)
    worker.start()
    wait(lambda: ends)
    assert len(ends) == 1
    return ends[0]


def counting(n: int = 5) -> Any:
    for k in range(n):
        yield Progress(k, n)
    return n


def test_result_arrives_in_the_gui_thread(parent: QObject, wait: Any) -> None:
    """A result would be painted from another thread, and napari would crash."""
    worker = Worker(counting, parent, name="t")
    threads: list[threading.Thread] = []
    worker.ended.connect(lambda outcome: threads.append(threading.current_thread()))
    assert finish(worker, wait).result == 5
    assert threads == [threading.main_thread()]


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA out of memory"), ValueError("x"), MemoryError(), SystemExit(1), CorruptSlide("cut")]
)
def test_every_error_arrives(parent: QObject, wait: Any, error: BaseException) -> None:
    """A RuntimeError (out of memory on a GPU) would vanish, as in napari's own workers."""

    def failing() -> Any:
        yield Stage("a", "A")
        raise error

    outcome = finish(Worker(failing, parent, name="t"), wait)
    assert outcome.state == "failed"
    assert outcome.error is error
    assert outcome.error.__traceback__ is None
    assert "Traceback" in outcome.details


def test_import_error_in_making_the_job_arrives(parent: QObject, wait: Any) -> None:
    """A missing library would leave a run that never ends."""

    def broken() -> Any:
        raise ImportError("no torch")

    assert finish(Worker(broken, parent, name="t"), wait).state == "failed"


def test_stop_runs_finally_in_the_thread(parent: QObject, wait: Any) -> None:
    """What was computed would be lost on Cancel."""
    closed: list[threading.Thread] = []

    def long() -> Any:
        try:
            while True:
                time.sleep(0.005)
                yield Progress(1, 2)
        finally:
            closed.append(threading.current_thread())

    worker = Worker(long, parent, name="t")
    ends: list[Outcome] = []
    worker.ended.connect(ends.append)
    worker.start()
    wait(lambda: running_threads())
    time.sleep(0.03)
    start = time.perf_counter()
    worker.stop()
    wait(lambda: ends)
    assert time.perf_counter() - start < 2
    assert ends[0].state == "stopped"
    assert closed[0] is not threading.main_thread()


def test_many_events_wake_the_window_rarely(parent: QObject, wait: Any) -> None:
    """A fast job would freeze the window."""
    worker = Worker(lambda: counting(20_000), parent, name="t")
    batches: list[int] = []
    worker.happened.connect(lambda events: batches.append(len(events)))
    finish(worker, wait)
    assert max(batches) <= 3  # only the newest progress of each batch is handed on


def test_abandoned_result_is_thrown_away(parent: QObject, wait: Any) -> None:
    """A slide opened for a window that closed meanwhile would stay open."""
    gone: list[Any] = []
    at_end: list[bool] = []

    def slow() -> Any:
        time.sleep(0.1)
        yield Stage("open", "Opening")
        return "slide"

    worker = Worker(slow, parent, name="t", discard=gone.append, at_end=lambda: at_end.append(True))
    worker.start()
    worker.abandon()
    wait(lambda: at_end)
    assert gone in ([], ["slide"])

    def instant() -> Any:
        if False:
            yield
        return "slide"

    worker = Worker(instant, parent, name="t", discard=gone.append)
    gone.clear()
    worker.start()
    while running_threads():
        time.sleep(0.005)
    worker.abandon()  # the end lies in the mailbox, undelivered
    assert gone == ["slide"]


def test_window_gone_stops_the_job(qtbot: Any, wait: Any) -> None:
    """A closed window would leave its thread running."""
    window = QObject()

    def endless() -> Any:
        while True:
            time.sleep(0.005)
            yield Progress(1, 2)

    worker = Worker(endless, window, name="t")
    worker.start()
    wait(lambda: running_threads())
    del worker
    window.deleteLater()
    wait(lambda: not running_threads(), seconds=2)


def test_waiting_at_the_end_of_the_program(parent: QObject) -> None:
    """The interpreter would leave while a thread is inside torch."""

    def endless() -> Any:
        while True:
            time.sleep(0.005)
            yield Progress(1, 2)

    Worker(endless, parent, name="t").start()
    assert wait_for_threads(2)


def test_newest_keeps_order_and_what_cannot_be_superseded() -> None:
    """A stage would be skipped, or an old map painted over a new one."""
    a, b = Stage("a", "A"), Stage("b", "B")
    events = [
        a,
        Progress(1, 9),
        Partial("attention", 1),
        b,
        Progress(2, 9),
        Partial("attention", 2),
        Partial("grid", 3),
    ]
    assert newest(events) == [a, b, Progress(2, 9), Partial("attention", 2), Partial("grid", 3)]
