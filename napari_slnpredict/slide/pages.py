"""Large short-lived arrays in memory pages of their own.

Decoded tiles live for minutes, the pictures and halves made of them for milliseconds. In one heap the short-lived ones
leave holes between the others that the C library does not give back: a quarter of the tile cache's bound and more.
"""

from __future__ import annotations

import mmap

import numpy as np
from numpy.typing import NDArray


def pages(*shape: int) -> NDArray[np.uint8]:
    """Return a new array, zero, that gives its memory back to the system as soon as nobody holds it.

    Parameters
    ----------
    *shape : int

    Returns
    -------
    (*shape) uint8
    """
    length = int(np.prod(shape))
    if not length:
        return np.empty(shape, np.uint8)
    if hasattr(mmap, "MAP_PRIVATE"):
        memory = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    else:  # Windows
        memory = mmap.mmap(-1, length)
    return np.frombuffer(memory, np.uint8).reshape(shape)
