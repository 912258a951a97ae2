"""The tiles of a bag as a head reads them: undamaged only, a chunk at a time, in float32."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_slnpredict.errors import DataError
from napari_slnpredict.torch_door import import_torch

from .positions import centre_on_components

if TYPE_CHECKING:
    from torch import Tensor

#: Tiles read at once; 4,096 x 512 float32 are 8 MB, within the last cache of a usual CPU core.
CHUNK = 4096


@dataclass(frozen=True)
class BagTiles:
    """Tiles to be judged together.

    Attributes
    ----------
    features : (n, d) array
        Any float type; may be memory-mapped.
    kept : (m,) int64
        Rows of `features` that take part, ascending.
    places : (m, 2) float64 or None
        Centres, um from the centroid of the tile's piece of tissue, x then y.
    device : str
        Where chunks go.
    """

    features: Any
    kept: NDArray[np.int64]
    places: NDArray[np.float64] | None = field(default=None, repr=False)
    device: str = "cpu"

    def __len__(self) -> int:
        return len(self.kept)

    def chunks(self, size: int = CHUNK) -> Iterator[tuple[int, int, Tensor]]:
        """Yield (start, stop, features (stop - start, d) float32) over the kept tiles.

        Raises
        ------
        DataError
            A feature is not a finite number; the tiles are named.
        """
        for start in range(0, len(self.kept), size):
            rows = self.kept[start : start + size]
            yield start, start + len(rows), self._read(rows)

    def _read(self, rows: NDArray[np.int64]) -> Tensor:
        torch = import_torch()
        first, last = int(rows[0]), int(rows[-1]) + 1
        # A slice reads a memory map in order; picking rows one by one would seek. The copy makes it writable for torch.
        block = np.array(self.features[first:last])
        if len(rows) != last - first:
            block = block[rows - first]
        chunk: Tensor = torch.from_numpy(block).to(self.device, torch.float32)
        # The sum of a finite chunk may overflow only beyond 10^38; then the slow look clears it.
        if not bool(torch.isfinite(chunk.sum())):
            _refuse_nonfinite(torch.isfinite(chunk).all(1).cpu().numpy(), rows)
        return chunk

    def without(self, rows: NDArray[np.int64]) -> BagTiles:
        """Leave some rows out; the others keep their places, as if the tissue had been there but not been looked at."""
        stay = ~np.isin(self.kept, rows)
        return replace(self, kept=self.kept[stay], places=None if self.places is None else self.places[stay])


def _refuse_nonfinite(finite: NDArray[np.bool_], rows: NDArray[np.int64]) -> None:
    bad = rows[~finite]
    if len(bad):
        named = ", ".join(str(i) for i in bad[:5]) + (", ..." if len(bad) > 5 else "")
        raise DataError(
            f"the features of {len(bad)} tiles are not finite numbers (tiles {named})",
            do="embed the slide again; in half precision an overflow does this",
        )


def bag_tiles(
    features: Any,
    centres_um: ArrayLike | None = None,
    component: ArrayLike | None = None,
    damaged: ArrayLike | None = None,
    device: str = "cpu",
) -> BagTiles:
    """Return the tiles of a bag that a head may look at; damaged ones never reach it (promise R1)."""
    n = len(features)
    kept = np.arange(n, dtype=np.int64) if damaged is None else np.flatnonzero(~np.asarray(damaged, bool))
    places = None
    if centres_um is not None:
        pieces = None if component is None else np.asarray(component)[kept]
        places = centre_on_components(np.asarray(centres_um, np.float64)[kept], pieces)
    return BagTiles(features, kept.astype(np.int64), places, device)
