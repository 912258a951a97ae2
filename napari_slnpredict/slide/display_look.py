"""How a slide's pixels are painted for the screen: as stored, or in other colours."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Look(Protocol):
    """How colours are shown: called with pixels as stored, from several threads at once."""

    @property
    def key(self) -> Hashable:
        """Under which tiles of this look are remembered; None: pixels are shown as stored, nothing is called."""

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return contiguous pixels (h, w, 3) as they are shown; the same wherever they lie in the slide."""


class AsStored:
    """Colours as they are in the file."""

    key = None

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return pixels as they are."""
        return pixels
