"""A head as the judge of an encoder's gate: the probabilities of a slide made of the check tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.encode.features import Bag
from napari_slnpredict.encode.gate import Judge
from napari_slnpredict.events import run
from napari_slnpredict.slide.grid import GridSpec, TileGrid

from .verdict import judge

if TYPE_CHECKING:
    from .verdict import Head

_TILE = 256


def check_judge(head: Head) -> Judge | None:
    """Return the judge for `encode.gate`; None for a head in training, which has no calibrated probabilities yet."""
    if head.bundle is None:
        return None

    def probabilities(features: NDArray[np.float32]) -> NDArray[np.floating]:
        bag = Bag(_square(len(features)), features, head.encoder_digest, "check tiles", "float32")
        found: NDArray[np.floating] = run(judge(head, bag)).probabilities
        return found

    return probabilities


def _square(n: int) -> TileGrid:
    """Lay `n` tiles row by row in a square, as neighbours on one piece of tissue."""
    side = max(1, int(np.ceil(np.sqrt(n))))
    cells = np.stack(np.divmod(np.arange(n), side), axis=1).astype(np.int32)
    return TileGrid(
        spec=GridSpec(_TILE, 1.0),
        slide_id="check",
        slide_mpp=1.0,
        extent=(side * _TILE, side * _TILE),
        size_level0=float(_TILE),
        locations=cells[:, ::-1].astype(np.int64) * _TILE,
        tissue=np.ones(n, np.float32),
        component=np.ones(n, np.int32),
        cells=cells,
        shape=(side, side),
    )
