"""The one protocol of long work: a job is a generator of small events that returns its result.

``yield from`` composes steps. `run` drives a job for the command line and for the viewer alike. Closing a job cancels
it; its ``finally`` clauses keep what was done. A job yields at most some 20 events a second (`Throttle`): more than
that starves a window (measured: 100,000 events cost 300 ms gaps even when batched).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from .errors import Cancelled

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stage:
    """A named part of the work begins."""

    name: str  # stable identifier: "tissue", "grid", "embed", "judge", ...
    text: str  # what a user reads: "Finding tissue"
    total: int | None = None  # units of work in it, when known
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the current stage stands."""

    done: int
    total: int
    per_second: float | None = None
    seconds_left: float | None = None


@dataclass(frozen=True, slots=True)
class Partial:
    """A partial result that can be shown at once; `kind` says what `data` is.

    ======================  ==========================================================
    kind                    data
    ======================  ==========================================================
    ``tissue``              `slide.tissue.TissueMask`
    ``grid``                `slide.grid.TileGrid`
    ``features``            ``(indices (k,) int64, features (k, d))`` just computed or found
    ``so_far``              `explanation.SoFar`: grows while tiles are embedded; for questions asked meanwhile
    ``attention``           `slide.grid.TileMap`, NaN where nothing is known yet
    ``classes``             `tile_classes.TileClasses`, NaN where nothing is known yet
    ``step``, ``probe``     `encode.pretrain.Step`: a training's curve grows
    ``curve``               ``(steps, probes)`` of the training that is gone on with
    ``note``                a line for the user that is no warning
    ======================  ==========================================================
    """

    kind: str
    data: Any


@dataclass(frozen=True, slots=True)
class Warn:
    """Something the user must know; it also ends in `Prediction.warnings`."""

    message: str


Event: TypeAlias = Stage | Progress | Partial | Warn
Job: TypeAlias = Generator[Event, None, T]


def relay(
    job: Job[T],
    see: Callable[[Event], Event | None] = lambda event: event,
    cancelled: Callable[[], bool] = lambda: False,
) -> Job[T]:
    """Drive an inner job: the one loop that does so. `run` and every step that looks at another's events use it.

    The inner job is always closed, so that its ``finally`` clauses run here and not whenever the garbage collector
    comes by.

    Parameters
    ----------
    job : Job
    see : callable
        Given each event; what it returns is yielded in its place, None is not.
    cancelled : callable
        Asked after every event.

    Raises
    ------
    Cancelled
        When `cancelled()` became true.
    """
    try:
        while True:
            try:
                event = next(job)
            except StopIteration as end:
                result: T = end.value
                return result
            shown = see(event)
            if shown is not None:
                yield shown
            if cancelled():
                raise Cancelled("stopped", do="what was done is kept; run again to continue from there")
    finally:
        job.close()


def run(
    job: Job[T],
    on_event: Callable[[Event], None] = lambda event: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> T:
    """Drive a job to its end and return its result; `cancelled` is asked after every event.

    Raises
    ------
    Cancelled
        When `cancelled()` became true.
    """

    def swallow(event: Event) -> None:
        on_event(event)

    # Nothing is handed on, so the first step is the whole way.
    try:
        next(relay(job, swallow, cancelled))
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("a relay that swallows every event yields none")


@dataclass
class Throttle:
    """Says whether enough time has passed for another event."""

    seconds: float = 0.05
    _last: float = field(default=0.0, repr=False)

    def __call__(self) -> bool:
        now = time.monotonic()
        if now - self._last < self.seconds:
            return False
        self._last = now
        return True


@dataclass
class Meter:
    """Counts work done and turns it into `Progress` with a rate and the time left."""

    total: int
    done: int = 0
    found: int = 0  # of `done`, units that cost nothing (from a cache): not part of the rate
    _start: float = field(default_factory=time.monotonic, repr=False)

    def progress(self) -> Progress:
        """Return the present state; the rate counts only work done in this run."""
        seconds = time.monotonic() - self._start
        worked = self.done - self.found
        rate = worked / seconds if worked > 0 and seconds > 0 else None
        left = (self.total - self.done) / rate if rate else None
        return Progress(self.done, self.total, rate, left)
