"""Who may close a slide, and when.

napari closes nothing: a slide's file would stay open until the garbage collector comes by. The keeper closes it when
its layer is gone and the last job that reads it has ended, whichever is later, in whatever thread that happens.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class Keeper:
    """Holds one open slide.

    Parameters
    ----------
    slide : Slide
        Anything with ``close()``.
    """

    def __init__(self, slide: Any) -> None:
        self._slide: Any = slide
        self._lock = threading.Lock()
        self._users = 0
        self._retired = False
        self._at_leaving: list[Callable[[], None]] = []
        self.closed = False

    @property
    def slide(self) -> Any:
        """The slide; None once it is closed."""
        return self._slide

    def hold(self) -> Callable[[], None] | None:
        """Keep the slide open for a job; returns the function that lets go, or None when the slide is leaving."""
        with self._lock:
            if self._retired:
                return None
            self._users += 1
        released = threading.Event()

        def release() -> None:
            if not released.is_set():
                released.set()
                self._leave()

        return release

    def when_leaving(self, end: Callable[[], None]) -> None:
        """Call a function as soon as the layer is gone, also while somebody still reads: to end threads."""
        with self._lock:
            if not self._retired:
                self._at_leaving.append(end)
                return
        end()

    def retire(self) -> None:
        """The layer is gone: close as soon as nobody reads."""
        with self._lock:
            self._retired = True
            ends, self._at_leaving = self._at_leaving, []
        for end in ends:
            end()
        self._close_if_idle()

    def _leave(self) -> None:
        with self._lock:
            self._users -= 1
        self._close_if_idle()

    def _close_if_idle(self) -> None:
        with self._lock:
            if not self._retired or self._users or self.closed:
                return
            self.closed = True
            slide, self._slide = self._slide, None
        slide.close()
