"""Stopping a long command: once is a wish, twice is an order.

The first Ctrl-C (or a SIGTERM, which is how schedulers announce the end of a job) sets one flag; the job ends at its
next event and keeps what was done. A second Ctrl-C ends the process at once: sealed chunks survive that too.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_FIRST = b"\nslnpredict: stopping; finished work is kept (Ctrl-C again stops at once)\n"


class Stop:
    """A flag that signals set; call it to ask whether to stop. Use as a context manager around the work."""

    def __init__(self) -> None:
        self._wanted = threading.Event()
        self._before: dict[int, Any] = {}

    def __call__(self) -> bool:
        return self._wanted.is_set()

    def __enter__(self) -> Stop:
        # Only the main thread may set handlers; elsewhere (tests, notebooks) the flag simply stays down.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._wanted.is_set() and number == signal.SIGINT:
            os._exit(130)
        if not self._wanted.is_set():
            self._wanted.set()
            # os.write: printing from a signal handler can meet a locked stream.
            os.write(2, _FIRST)
