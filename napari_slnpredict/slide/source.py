"""What a reader of slides is: something that returns one stored tile at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

#: Background: what is outside a slide, was never scanned or could not be read looks like empty glass, and is masked.
WHITE = 255


class TileFault(Exception):
    """One tile cannot be decoded; the words say why. The slide goes on without it."""


class DriveSilent(OSError):
    """The drive or share did not answer in time: nothing is known about the tile, and asking again may help."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One decoded tile.

    Attributes
    ----------
    pixels : (h, w, 3) uint8
        Cut to the level's extent; white where not valid. Shared: never written to.
    valid : (h, w) bool or None
        False where nothing was scanned or nothing could be read; None where all is valid.
    fault : str
        Why (part of) it could not be decoded; empty when it is sound.
    """

    pixels: NDArray[np.uint8]
    valid: NDArray[np.bool_] | None = None
    fault: str = ""

    @property
    def nbytes(self) -> int:
        """Bytes held; a white tile is one pixel repeated by its strides and holds next to none."""
        held = self.pixels.nbytes if any(self.pixels.strides) else 0
        return held if self.valid is None or not any(self.valid.strides) else held + self.valid.nbytes


def white_tile(height: int, width: int, fault: str = "") -> Tile:
    """Return a tile without pixels: white, nowhere valid."""
    # Broadcast from one pixel: a sparse slide holds millions of these.
    pixels = np.broadcast_to(np.uint8(WHITE), (height, width, 3))
    return Tile(pixels, np.broadcast_to(np.False_, (height, width)), fault)


def over_white(pixels: NDArray[np.uint8], alpha: NDArray[np.uint8], *, premultiplied: bool) -> NDArray[np.uint8]:
    """Lay transparent pixels on white.

    Parameters
    ----------
    pixels : (h, w, 3) uint8
    alpha : (h, w) uint8
        255 is opaque.
    premultiplied : bool
        Whether the colours have been multiplied by alpha already.

    Returns
    -------
    (h, w, 3) uint8
    """
    cover = alpha[..., None].astype(np.uint16)
    colour = pixels.astype(np.uint16)
    if not premultiplied:
        colour = (colour * cover + 127) // 255
    laid: NDArray[np.uint8] = np.minimum(colour + (255 - cover), 255).astype(np.uint8)
    return laid


class Source(Protocol):
    """A way to read one slide. Thread-safe; `tile` may be called from any thread.

    A source may have `fleeting_tile` and `tile_rough` as `TileSource` has them; callers look for them and do without.
    """

    reader: str
    #: Width and height of every stored level, px.
    level_dimensions: tuple[tuple[int, int], ...]
    #: Width and height of the tiles of every stored level, px.
    tile_sizes: tuple[tuple[int, int], ...]
    #: The reader's own properties, unfiltered: for `scale` and the allow-list only, never shown.
    raw_properties: Mapping[str, str]

    def tile(self, level: int, column: int, row: int) -> Tile:
        """Read one tile. Raises `TileFault`."""
        ...

    def close(self) -> None:
        """Let go of every handle."""
        ...
