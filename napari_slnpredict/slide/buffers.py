"""Memory for decoded tiles, used again.

Fresh memory costs a page fault each 4 KB, and threads of one process take them one after the other: two threads that
decode into fresh arrays were measured a third slower than into used ones. So the memory of a tile that nobody holds
any more serves the next one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Bytes of unused memory kept for each size of tile.
SPARE_BYTES = 16 << 20


class Buffers:
    """Hands out arrays whose memory comes back by itself when the last view of them is gone. Thread-safe."""

    def __init__(self, spare_bytes: int = SPARE_BYTES) -> None:
        self._spare_bytes = spare_bytes
        # Lists are appended to and popped from without a lock: the garbage collector does so at any moment.
        self._spare: dict[int, list[_Memory]] = {}

    def take(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return an array of this shape with whatever content."""
        size = int(np.prod(shape))
        spare = self._spare.setdefault(size, [])
        try:
            memory = spare.pop()
        except IndexError:
            memory = _Memory(size)
        return np.asarray(_Lease(memory, shape, spare, self._spare_bytes // max(size, 1)))


class _Memory:
    """Some bytes and where they lie."""

    __slots__ = ("address", "array")

    def __init__(self, size: int) -> None:
        self.array = np.empty(size, np.uint8)
        self.address: int = self.array.__array_interface__["data"][0]


class _Lease:
    """What numpy holds as the owner of an array's memory, and lets go with the last view."""

    __slots__ = ("__array_interface__", "_memory", "_most", "_spare")

    def __init__(self, memory: _Memory, shape: tuple[int, ...], spare: list[_Memory], most: int) -> None:
        self._memory, self._spare, self._most = memory, spare, most
        self.__array_interface__: dict[str, Any] = {
            "shape": shape,
            "typestr": "|u1",
            "data": (memory.address, False),
            "version": 3,
        }

    def __del__(self) -> None:
        if len(self._spare) < self._most:
            self._spare.append(self._memory)
