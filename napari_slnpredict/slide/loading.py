"""Loading tiles for a screen: the newest view first, from its centre; what nobody looks at any more is not loaded.

A few threads of one's own take tiles from a stack that every new view replaces. A thread stuck in a read (a share that
went away) is given up and replaced, its tile tried again later, and somebody is told: a window must not wait for a
drive. Nothing here knows what a tile is; `make` does.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from .screen import Key

#: Every thread carries it: tests look for survivors by name.
THREAD_PREFIX = "tiles-"
MOST_THREADS = 4
#: A read that takes longer is given up (its thread may still come back), and tried again after a while; seconds.
PATIENCE, RETRY = 5.0, 10.0
#: Threads that may hang at a time: beyond that the drive is left alone until one comes back.
MOST_STUCK = 4
#: An unfinished picture is shown again when it has grown, this often at most; seconds.
PARTIAL = 0.2


@dataclass(eq=False)
class Flight:
    """One tile being loaded."""

    key: Key
    begun: float = field(default_factory=time.monotonic)
    given_up: bool = False


class Loader:
    """Loads tiles in threads.

    Parameters
    ----------
    make : callable
        Loads one tile, or returns False when the slide is leaving.
    parts : callable
        Which tiles must be loaded before a tile can be made cheaply; empty for most.
    arrived : callable
        Called from a thread when the picture shown last can be shown better; not again before the next `shown`.
    silent : callable
        Called from a thread with True when a read hangs, with False when none does any more.
    """

    def __init__(
        self,
        make: Callable[[Key], bool],
        parts: Callable[[Key], list[Key]],
        arrived: Callable[[], None],
        silent: Callable[[bool], None],
    ) -> None:
        self._make, self._parts, self._arrived, self._silent = make, parts, arrived, silent
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._done = threading.Condition(self._lock)
        self._stack: list[Key] = []
        self._errands: list[Key] = []
        self._parked: list[Key] = []
        self._parked_errands: list[Key] = []
        self._flying: dict[Key, Flight] = {}
        self._stuck: set[Flight] = set()
        self._later: dict[Key, float] = {}
        self._awaited: set[Key] = set()
        self._lacking: set[Key] = set()
        self._grown = self._told = self._closed = False
        self._shown_at = 0.0
        self._started = False

    # --- for the one who shows ---------------------------------------------------------------------------------------

    def load(self, wanted: Sequence[Key], ahead: Sequence[Key], until: float) -> None:
        """Replace what is to be loaded, and wait for what is wanted.

        Parameters
        ----------
        wanted : sequence of Key
            Lacking in the picture to be shown, most urgent first.
        ahead : sequence of Key
            Likely to be wanted next.
        until : float
            Time (`time.monotonic`) to return at the latest.
        """
        with self._lock:
            if self._closed:
                return
            self._parked.clear()
            self._stack = [key for key in (*reversed(ahead), *reversed(wanted)) if key not in self._flying]
            self._lacking.clear()
            self._awaited = {key for key in wanted if key not in self._later}
            if self._stack:
                self._start_threads()
                self._work.notify_all()
            while self._awaited and not self._closed:
                left = until - time.monotonic()
                if left <= 0:
                    break
                self._done.wait(left)
            self._awaited = set()

    def shown(self, lacking: Iterable[Key]) -> None:
        """Say what the picture that is shown now still lacks."""
        with self._lock:
            pending = {*self._stack, *self._flying, *self._parked, *self._later}
            lacking = set(lacking)
            self._lacking = lacking & pending
            self._grown = len(self._lacking) < len(lacking)  # some came in while the picture was put together
            self._told = False
            self._shown_at = time.monotonic()
            tell = self._telling()
        if tell:
            self._arrived()

    def errands(self, keys: Iterable[Key]) -> None:
        """Load these, in this order, when there is nothing else to do."""
        with self._lock:
            if self._closed:
                return
            self._errands = [*reversed(list(keys)), *self._errands]
            self._start_threads()
            self._work.notify_all()

    @property
    def is_silent(self) -> bool:
        """Whether a read hangs."""
        return bool(self._stuck)

    @property
    def idle(self) -> bool:
        """Whether nothing is being loaded or waits for it."""
        with self._lock:
            lists = (self._stack, self._flying, self._parked, self._errands, self._parked_errands)
            return not any(lists)

    def close(self) -> None:
        """End all threads, at once but for those inside a read."""
        with self._lock:
            self._closed = True
            self._stack, self._errands, self._parked, self._parked_errands = [], [], [], []
            self._lacking, self._awaited = set(), set()
            self._work.notify_all()
            self._done.notify_all()

    # --- threads -----------------------------------------------------------------------------------------------------

    def _start_threads(self) -> None:
        if self._started:
            return
        self._started = True
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        for _ in range(max(2, min(MOST_THREADS, cores))):
            self._start(self._run, "load")
        self._start(self._watch, "watch")

    @staticmethod
    def _start(body: Callable[[], None], name: str) -> None:
        threading.Thread(target=body, name=f"{THREAD_PREFIX}{name}", daemon=True).start()

    def _run(self) -> None:
        while (flight := self._take()) is not None:
            try:
                came, retry = self._make(flight.key), False
            except Exception:  # noqa: BLE001 a drive's deadline, no memory: others can be made, this one later
                came, retry = False, True
            if not self._land(flight, came, retry):
                return

    def _take(self) -> Flight | None:
        with self._lock:
            while not self._closed:
                key = self._next()
                if key is not None:
                    flight = Flight(key)
                    self._flying[key] = flight
                    return flight
                self._work.wait()
            return None

    def _next(self) -> Key | None:
        """Return the most urgent tile that can be made now."""
        while self._stack or self._errands:
            stack, parked = (self._stack, self._parked) if self._stack else (self._errands, self._parked_errands)
            key = stack.pop()
            if key in self._flying or key in self._later:
                continue
            before = self._parts(key)
            if not before:
                return key
            ready = [part for part in before if part not in self._flying and part not in self._later]
            if ready:
                stack.append(key)
                stack.extend(reversed(ready))
            else:
                parked.append(key)  # what it is made of is on its way
        return None

    def _land(self, flight: Flight, came: bool, retry: bool) -> bool:
        """Take note of a tile that was loaded; whether its thread goes on."""
        loud = False
        with self._lock:
            if self._flying.get(flight.key) is flight:
                del self._flying[flight.key]
            if flight in self._stuck:
                self._stuck.discard(flight)
                self._later.pop(flight.key, None)
                loud = not self._stuck
            if retry:
                self._later[flight.key] = time.monotonic() + RETRY
            if self._parked or self._parked_errands:
                self._stack.extend(self._parked)
                self._errands.extend(self._parked_errands)
                self._parked, self._parked_errands = [], []
                self._work.notify_all()
            self._awaited.discard(flight.key)
            if not self._awaited:
                self._done.notify_all()
            if came and flight.key in self._lacking:
                self._lacking.discard(flight.key)
                self._grown = True
            tell = self._telling()
            goes_on = not flight.given_up and not self._closed
        if tell:
            self._arrived()
        if loud:
            self._silent(False)
        return goes_on

    def _telling(self) -> bool:
        """Whether it is time to tell that the picture can be shown better; remembers that it was told."""
        complete = self._grown and not self._lacking
        grown = self._grown and time.monotonic() - self._shown_at >= PARTIAL
        tell = (complete or grown) and not self._told and not self._closed
        self._told |= tell
        return tell

    def _watch(self) -> None:
        """Thread body: unfinished pictures that grow, reads that hang, tiles to be tried again."""
        while True:
            with self._lock:
                if not self._closed:
                    # Nothing on its way: sleep until there is work (for a while, if a tile waits to be tried again).
                    busy = self._flying or self._stack or self._errands
                    self._work.wait(PARTIAL / 2 if busy else RETRY / 10 if self._later else None)
                if self._closed:
                    return
                self._try_again()
                quiet, tell = self._give_up(), self._telling()
            if tell:
                self._arrived()
            if quiet:
                self._silent(True)

    def _give_up(self) -> bool:
        """Replace threads that hang; whether there are new ones."""
        now = time.monotonic()
        late = [flight for flight in self._flying.values() if now - flight.begun > PATIENCE]
        for flight in late:
            flight.given_up = True
            del self._flying[flight.key]
            self._later[flight.key] = now + RETRY
            self._stuck.add(flight)
            if len(self._stuck) <= MOST_STUCK:
                self._start(self._run, "load")
        return bool(late)

    def _try_again(self) -> None:
        now = time.monotonic()
        ripe = [key for key, when in self._later.items() if when <= now]
        for key in ripe:
            del self._later[key]
            if key in self._lacking:
                self._stack.append(key)
        if ripe:
            self._work.notify_all()
