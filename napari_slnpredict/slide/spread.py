"""One piece of work after the other, by this thread and a few helpers.

Helpers are started for one batch and have ended when it returns: a thread costs 50 us to start, a tile 150 us to
decode, and no pool is left over for a window to wait for. Decoders release the GIL.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import TypeVar

#: Work for which a helper is worth starting.
ITEMS_A_HELPER = 4
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

T = TypeVar("T")

# Many callers at once (dask, several slides) do not start more helpers together than there is something to do for.
_places = threading.BoundedSemaphore(max(CORES - 1, 7))


def spread(work: Callable[[T], object], items: Iterable[T], threads: int = CORES) -> None:
    """Do `work` for every item, in any order; raise the first error, after all threads have stopped.

    Parameters
    ----------
    work : callable
        Thread-safe.
    items : iterable
    threads : int
        At most so many at once, this one included.
    """
    waiting = deque(items)
    errors: list[BaseException] = []

    def run() -> None:
        while waiting:
            try:
                item = waiting.popleft()
            except IndexError:  # another thread was faster
                return
            try:
                work(item)
            except BaseException as error:  # noqa: BLE001  raised below, in the caller's thread
                errors.append(error)
                waiting.clear()

    helpers = _start(run, min(threads - 1, len(waiting) // ITEMS_A_HELPER))
    run()
    for helper in helpers:
        helper.join()
    if errors:
        raise errors[0]


def _start(run: Callable[[], None], wanted: int) -> list[threading.Thread]:
    def help_out() -> None:
        try:
            run()
        finally:
            _places.release()

    helpers: list[threading.Thread] = []
    while len(helpers) < wanted and _places.acquire(blocking=False):
        helper = threading.Thread(target=help_out, name="slnpredict-decode", daemon=True)
        try:
            helper.start()
        except RuntimeError:  # the system gives no more threads: then without
            _places.release()
            break
        helpers.append(helper)
    return helpers
