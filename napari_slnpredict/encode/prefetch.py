"""Reading hidden behind computing: the tiles of coming steps are read while the present one is learned from."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray


def prefetch(
    read: Callable[[NDArray[np.int64]], NDArray[np.uint8]],
    plan: Callable[[int], NDArray[np.int64]],
    first: int,
    last: int,
    *,
    ahead: int = 3,
    threads: int = 1,
) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.uint8]]]:
    """Yield step, rows and tiles of the steps from `first` up to `last` (not included), in order.

    Which tiles a step has depends on `plan` alone, never on which thread was faster.

    Parameters
    ----------
    read : callable
        Rows (k,) int64 -> tiles (k, p, p, 3) uint8; called from other threads.
    plan : callable
        Step -> rows of any shape; they are read in flat order.
    ahead : int
        Steps whose tiles may wait in memory.
    """
    pool = ThreadPoolExecutor(threads, "tiles")
    waiting: deque[tuple[int, NDArray[np.int64], Future[NDArray[np.uint8]]]] = deque()
    planned = first
    try:
        for _ in range(first, last):
            while planned < last and len(waiting) <= ahead:
                rows = plan(planned)
                waiting.append((planned, rows, pool.submit(read, rows.ravel())))
                planned += 1
            step, rows, tiles = waiting.popleft()
            yield step, rows, tiles.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
