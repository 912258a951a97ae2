"""The job protocol: what the command line and the viewer both stand on."""

from __future__ import annotations

import pytest

from napari_slnpredict.errors import Cancelled
from napari_slnpredict.events import Job, Meter, Progress, Stage, run


def counting(closed: list[str], steps: int = 5) -> Job[str]:
    try:
        yield Stage("count", "Counting", steps)
        for done in range(steps):
            yield Progress(done + 1, steps)
        return "counted"
    finally:
        closed.append("closed")


def test_run_returns_the_result_and_delivers_every_event() -> None:
    """A lost event would be a progress bar that stands still."""
    closed: list[str] = []
    seen: list[object] = []
    assert run(counting(closed), seen.append) == "counted"
    assert len(seen) == 6
    assert closed == ["closed"]


@pytest.mark.parametrize("after", range(1, 7))
def test_cancel_at_any_event_closes_the_job(after: int) -> None:
    """A job that is dropped instead of closed keeps its file handles and loses its last chunk."""
    closed: list[str] = []
    seen: list[object] = []
    with pytest.raises(Cancelled):
        run(counting(closed), seen.append, lambda: len(seen) >= after)
    assert closed == ["closed"]
    assert len(seen) == after


def test_composed_jobs_are_closed_to_the_innermost() -> None:
    """`yield from` must pass the close on: the embedding inside a prediction seals its chunk."""
    closed: list[str] = []

    def outer() -> Job[str]:
        try:
            return (yield from counting(closed))
        finally:
            closed.append("outer")

    with pytest.raises(Cancelled):
        run(outer(), cancelled=lambda: True)
    assert closed == ["closed", "outer"]


def test_a_runtime_error_inside_reaches_the_caller() -> None:
    """CUDA out of memory is a RuntimeError; the libraries' own generator workers swallow it."""
    closed: list[str] = []

    def failing() -> Job[None]:
        yield from counting(closed, 1)
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        run(failing())


def test_an_error_of_the_listener_closes_the_job() -> None:
    """A listener that fails must not leave a half-run generator behind."""
    closed: list[str] = []

    def listener(event: object) -> None:
        raise ValueError("cannot paint")

    with pytest.raises(ValueError, match="cannot paint"):
        run(counting(closed), listener)
    assert closed == ["closed"]


def test_the_rate_counts_only_work_done_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles found in the cache would otherwise promise a time left that is far too short."""
    clock = iter([10.0])
    monkeypatch.setattr("napari_slnpredict.events.time.monotonic", lambda: next(clock))
    meter = Meter(total=100, _start=0.0)
    meter.done, meter.found = 60, 40
    progress = meter.progress()
    assert progress.per_second == pytest.approx(2.0)
    assert progress.seconds_left == pytest.approx(20.0)
