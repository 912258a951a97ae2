"""What an engine is: uint8 tiles in, float32 features out, by whatever runs the network."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .device import Device

#: The reference: torch's own float32.
PRECISION = "float32"
#: What features can have been computed in, the most exact first. The name is part of a cached bag's digest.
PRECISIONS = (PRECISION, "openvino-float32", "openvino-bfloat16", "bfloat16")
#: How each is told to a user.
TITLES = {
    PRECISION: "torch float32",
    "openvino-float32": "OpenVINO float32",
    "openvino-bfloat16": "OpenVINO bf16",
    "bfloat16": "torch bf16",
}


class Engine(Protocol):
    """What embedding needs of whatever runs a network."""

    precision: str
    dim: int
    tile_px: int
    streams: int  # threads that should call it at the same time

    @property
    def batch(self) -> int:
        """Tiles a forward pass, at present."""

    @property
    def device(self) -> Device:
        """Where it runs, at present."""

    def __call__(self, tiles: NDArray[np.uint8], *, fill: bool = True) -> NDArray[np.float32]:
        """Return the features (k, d) float32 of tiles (k, p, p, 3) uint8; safe from several threads."""

    def enter_thread(self) -> None:
        """Prepare the calling thread; first line of each thread that reads for it or calls it."""

    def release(self) -> None:
        """End the use of many threads; last line of whoever started them."""

    def take_notices(self) -> list[str]:
        """Return what the user must be told, once."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of any engine means that memory ran out."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    wants = ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc")
    return any(want in text for want in wants)
