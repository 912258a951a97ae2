"""Long work beside the window: a plain thread, and a QObject that brings its events to the GUI thread.

What it holds to:

- A job ends once: done, stopped or failed, whatever it raised (napari's generator workers lose a RuntimeError).
- The job is closed in its own thread (`events.run`), so its ``finally`` clauses keep what was done.
- At most one wake-up waits in Qt's queue, however many events arrive.
- The QObject is a child of the window: when the window goes, the thread is told to stop and nobody is called any more.
  A result that nobody takes is handed to `discard` (an opened slide is closed).
- Threads start at the window's own priority: a niced thread that imports a module holds Python's lock while the system
  lets others run, and the window waits for both (seen on a busy machine: 4 s). `jobs.predict_job` steps back once all
  is imported.
"""

from __future__ import annotations

import atexit
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import QObject, Qt, Signal

from napari_slnpredict.errors import Cancelled
from napari_slnpredict.events import Event, Job, Partial, Progress, run

#: All threads of this module carry it: tests look for survivors by name.
THREAD_PREFIX = "slnpredict-"


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes
    ----------
    state : str
        ``done``, ``stopped`` or ``failed``.
    result : object
        What the job returned, when done.
    error : BaseException or None
        What it raised, when failed; without its traceback, which would keep its frames alive.
    details : str
        The traceback as text, for the user to copy.
    """

    state: str
    result: Any = None
    error: BaseException | None = None
    details: str = ""


class Mailbox:
    """Events on their way from the thread to the window."""

    def __init__(self, ring: Callable[[], None], discard: Callable[[Any], None]) -> None:
        self._lock = threading.Lock()
        self._items: list[Event | Outcome] = []
        self._waiting = False
        self._ring: Callable[[], None] | None = ring
        self._discard = discard

    def post(self, item: Event | Outcome) -> None:
        """Leave an item (any thread)."""
        with self._lock:
            if self._ring is not None:
                self._items.append(item)
                if not self._waiting:
                    self._waiting = True
                    self._ring()
                return
        self._throw_away(item)

    def take(self) -> list[Event | Outcome]:
        """Return and forget what has arrived (GUI thread)."""
        with self._lock:
            items, self._items, self._waiting = self._items, [], False
            return items

    def close(self) -> None:
        """Nobody reads any more; what lies here is thrown away."""
        with self._lock:
            self._ring = None
            items, self._items = self._items, []
        for item in items:
            self._throw_away(item)

    def _throw_away(self, item: Event | Outcome) -> None:
        if isinstance(item, Outcome) and item.state == "done":
            self._discard(item.result)


class JobThread(threading.Thread):
    """Drives one job from start to end."""

    def __init__(
        self,
        make_job: Callable[[], Job[Any]],
        mailbox: Mailbox,
        *,
        name: str,
        at_end: Callable[[], None],
        after: Sequence[threading.Thread],
    ) -> None:
        super().__init__(name=THREAD_PREFIX + name, daemon=True)
        self.stop = threading.Event()
        self._make_job: Callable[[], Job[Any]] | None = make_job
        self._mailbox, self._at_end, self._after = mailbox, at_end, after

    def run(self) -> None:
        """Thread body."""
        self._let_go_first()
        outcome = self._drive()
        self._make_job = None
        self._at_end()
        self._mailbox.post(outcome)

    def _let_go_first(self) -> None:
        """Wait for the jobs this one replaces or needs: two at once would only take the window's core."""
        for thread in self._after:
            while thread.is_alive() and not self.stop.is_set():
                thread.join(0.05)
        self._after = ()

    def _drive(self) -> Outcome:
        make_job = self._make_job
        if make_job is None or self.stop.is_set():
            return Outcome("stopped")
        try:
            return Outcome("done", run(make_job(), self._mailbox.post, self.stop.is_set))
        except Cancelled:
            return Outcome("stopped")
        except BaseException as error:  # noqa: BLE001 a thread's last word must reach the dock, whatever it is
            details = "".join(traceback.format_exception(error))
            return Outcome("failed", error=_bare(error), details=details)


def _bare(error: BaseException) -> BaseException:
    """Strip tracebacks: they hold frames, and those hold slides and arrays."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error


class Worker(QObject):
    """One job and its way back to the window.

    Parameters
    ----------
    make_job : callable
        Makes the job; called in the thread, so that its imports happen there.
    parent : QObject
        A child of the window.
    name : str
        Short name of the thread.
    discard : callable
        Given a result that arrived when nobody was there to take it.
    at_end : callable
        Called in the thread when the job has ended (releases what it held).
    after : sequence of Thread
        Threads that are waited for before the job is made.
    """

    happened = Signal(object)  # list of Event
    ended = Signal(object)  # Outcome
    _wake = Signal()

    def __init__(
        self,
        make_job: Callable[[], Job[Any]],
        parent: QObject,
        *,
        name: str,
        discard: Callable[[Any], None] = lambda result: None,
        at_end: Callable[[], None] = lambda: None,
        after: Sequence[threading.Thread] = (),
    ) -> None:
        super().__init__(parent)
        self._wake.connect(self._deliver, Qt.ConnectionType.QueuedConnection)
        mailbox = Mailbox(self._wake.emit, discard)
        thread = JobThread(make_job, mailbox, name=name, at_end=at_end, after=after)
        self._mailbox, self._thread = mailbox, thread
        self._finished = False
        self.destroyed.connect(lambda: _abandon(thread, mailbox))

    @property
    def running(self) -> bool:
        """Whether the end has not been delivered yet."""
        return not self._finished

    @property
    def thread_object(self) -> threading.Thread:
        """The thread itself, for a successor to wait for."""
        return self._thread

    @property
    def stopping(self) -> bool:
        """Whether a stop was asked for."""
        return self._thread.stop.is_set()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> bool:
        """Ask the job to stop after its present step; the end is still delivered."""
        self._thread.stop.set()
        return True

    def stopper(self) -> Callable[[], bool]:
        """Return a function that stops the job and holds nothing of the window."""
        stop = self._thread.stop

        def ask() -> bool:
            stop.set()
            return True

        return ask

    def abandon(self) -> None:
        """Stop, and hear nothing more."""
        self._finished = True
        _abandon(self._thread, self._mailbox)
        self.deleteLater()

    def _deliver(self) -> None:
        items = self._mailbox.take()
        outcome = next((item for item in items if isinstance(item, Outcome)), None)
        events = newest([item for item in items if not isinstance(item, Outcome)])
        if events and not self._finished:
            self.happened.emit(events)
        if outcome is not None and not self._finished:
            self._finished = True
            self.ended.emit(outcome)
            self.deleteLater()


def _abandon(thread: JobThread, mailbox: Mailbox) -> None:
    thread.stop.set()
    mailbox.close()


def newest(events: list[Event]) -> list[Event]:
    """Drop events that a later one of the same kind supersedes; the rest keep their order."""
    seen: set[str] = set()
    kept: list[Event] = []
    for event in reversed(events):
        key = "progress" if isinstance(event, Progress) else event.kind if isinstance(event, Partial) else ""
        if key and key in seen:
            continue
        seen.add(key)
        kept.append(event)
    return kept[::-1]


def running_threads() -> list[threading.Thread]:
    """Return the threads of this module that are alive."""
    return [thread for thread in threading.enumerate() if thread.name.startswith(THREAD_PREFIX)]


@atexit.register
def wait_for_threads(seconds: float = 5.0) -> bool:
    """Stop all jobs of the process and wait for their ends; True when none is left.

    Called before the interpreter leaves, whoever started napari: a daemon thread inside torch must not outlive it.
    """
    deadline = time.monotonic() + seconds
    for thread in running_threads():
        if isinstance(thread, JobThread):
            thread.stop.set()
    for thread in running_threads():
        thread.join(max(0.0, deadline - time.monotonic()))
    return not running_threads()
