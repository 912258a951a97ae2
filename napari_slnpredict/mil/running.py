"""What a head makes of the tiles seen so far, while the others are still being embedded."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.torch_door import import_torch

from .evidence import Floats, softmax
from .head import Head

if TYPE_CHECKING:
    from .pooling import Pooling


@dataclass(frozen=True)
class TileSoFar:
    """One tile among those seen so far.

    Attributes
    ----------
    tiles : int
        How many were looked at, this one among them.
    share : float or None
        Its attention in times the mean; None where the head has no attention, or where it is the only tile: alone it
        would hold all attention whatever it shows.
    evidence : (c,) float64 or None
        What it adds to the logits of those tiles (`evidence`); None where the head has no closed form, or alone.
    """

    tiles: int
    share: float | None = None
    evidence: Floats | None = field(default=None, repr=False)


class RunningAttention:
    """Attention over the tiles embedded so far: painted while embedding runs, asked by clicks from other threads.

    For plain and gated attention the raw score of a tile depends on that tile alone: once all tiles are seen, the
    running share is the final one. Other heads have nothing to paint early (`available` is False); those with a
    closed form still tell what a tile adds.

    Parameters
    ----------
    head : Head
    n_tiles : int
        Tiles of the whole grid.
    """

    def __init__(self, head: Head, n_tiles: int) -> None:
        self._head = head
        self._lock = threading.Lock()
        self._seen = np.zeros(n_tiles, bool)
        shape = head.module.per_tile
        self._scores = np.full((n_tiles, *shape), np.nan)
        self._logits = np.full((n_tiles, *shape, len(head.classes)), np.nan)

    @property
    def available(self) -> bool:
        """Whether this head's attention can be painted before all tiles are known."""
        return bool(self._head.module.streams)

    @property
    def tiles_seen(self) -> int:
        """Tiles looked at so far."""
        with self._lock:
            return int(self._seen.sum())

    def take(
        self, indices: NDArray[np.int64], features: NDArray[np.floating], damaged: NDArray[np.bool_] | None = None
    ) -> None:
        """Take in features just computed.

        Parameters
        ----------
        indices : (k,) int64
            Tiles of the grid.
        features : (k, d) float
        damaged : (k,) bool, optional
            Tiles no head may look at; rows that are not finite count as damaged too.
        """
        usable = np.isfinite(features).all(1)
        if damaged is not None:
            usable &= ~damaged
        tiles = np.asarray(indices)[usable]
        if not len(tiles):
            return
        found = self._instances(features[usable]) if self._head.closed_form else None
        with self._lock:
            self._seen[tiles] = True
            if found is not None:
                self._scores[tiles], self._logits[tiles] = found

    def share(self) -> NDArray[np.float32]:
        """Return attention times the number of tiles seen, (n,) float32; NaN where none was seen."""
        share = np.full(len(self._scores), np.nan, np.float32)
        if not self.available:
            return share
        with self._lock:
            seen = np.flatnonzero(self._seen)
            scores = self._scores[seen]
        if len(seen):
            # Over the tiles alone: an ensemble's attention is the mean of its members'.
            share[seen] = softmax(scores, axis=0).reshape(len(seen), -1).mean(axis=1) * len(seen)
        return share

    def update(
        self, indices: NDArray[np.int64], features: NDArray[np.floating], damaged: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float32]:
        """Take in features just computed (`take`) and return the share so far (`share`)."""
        self.take(indices, features, damaged)
        return self.share()

    def explain(self, feature: NDArray[np.floating], tile: int | None = None) -> TileSoFar:
        """Say what one tile is among those seen so far, itself included.

        Parameters
        ----------
        feature : (d,) float
        tile : int, optional
            Its index, so that it is not counted twice; None for a place that is no tile of the grid.
        """
        with self._lock:
            others = self._seen.copy()
            if tile is not None:
                others[tile] = False
            scores, logits = self._scores[others], self._logits[others]
        count = len(scores) + 1
        if count == 1 or not self._head.closed_form:
            return TileSoFar(count)
        own_score, own_logits = self._instances(np.asarray(feature)[None])
        pooling = cast("Pooling", self._head.module)
        together = pooling.pool(np.concatenate([scores, own_score]), np.concatenate([logits, own_logits]))
        attention = together.attention
        return TileSoFar(
            count, None if attention is None else float(attention[-1]) * count, np.array(together.evidence()[-1])
        )

    def _instances(self, features: NDArray[np.floating]) -> tuple[Floats, Floats]:
        """Return scores (k,) and instance logits (k, c) of features (k, d); of an ensemble, by member."""
        torch = import_torch()
        chunk = torch.from_numpy(np.array(features, np.float32)).to(self._head.device)
        with torch.inference_mode():
            scores, logits = cast("Pooling", self._head.module).instances(chunk)
        return scores.cpu().numpy().astype(np.float64), logits.cpu().numpy().astype(np.float64)
