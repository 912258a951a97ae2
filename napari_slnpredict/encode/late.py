"""An engine that is made when it is first used: a batch whose features are all in the cache never loads a network."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, cast

from .engines import PRECISION, Engine


def late_engine(make: Callable[[], Engine]) -> Engine:
    """Return an engine that calls `make` once, at the first use of anything but its precision."""
    return cast("Engine", _Late(make))


class _Late:
    precision = PRECISION  # what the cache is asked by, before there is an engine

    def __init__(self, make: Callable[[], Engine]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._engine: Engine | None = None

    def _made(self) -> Engine:
        with self._lock:
            if self._engine is None:
                self._engine = self._make()
            return self._engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._made(), name)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._made()(*arguments, **options)
