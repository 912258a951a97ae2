"""From a tile's features to its descriptor: the short unit vector by which tiles are compared."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.files import digest_bytes

#: Rows turned into descriptors at a time: a slide's features may be mapped from disk.
_BLOCK = 8192


@dataclass(frozen=True)
class Projection:
    """A linear map an encoder brings for its descriptors.

    Attributes
    ----------
    weight : (k, d) float32
    bias : (k,) float32
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of its numbers."""
        return digest_bytes(np.ascontiguousarray(self.weight).tobytes(), np.ascontiguousarray(self.bias).tobytes())


def describe(features: NDArray[Any], projection: Projection | None = None) -> NDArray[np.float32]:
    """Return descriptors of features: projected where the encoder says how, and of length 1.

    A feature that is zero throughout has no direction; its descriptor is zero, which is equally far from everything.

    Parameters
    ----------
    features : (n, d) float32 or float16
    projection : Projection, optional
        Without one the feature itself is the descriptor.

    Returns
    -------
    (n, k) float32, rows of length 1 or 0
    """
    width = features.shape[1] if projection is None else len(projection.weight)
    descriptors = np.empty((len(features), width), np.float32)
    for start in range(0, len(features), _BLOCK):
        rows = slice(start, start + _BLOCK)
        block = np.asarray(features[rows], np.float32)
        if projection is not None:
            block = block @ projection.weight.T + projection.bias
        length = np.linalg.norm(block, axis=1, keepdims=True)
        descriptors[rows] = np.divide(block, length, out=np.zeros_like(block), where=length > 0)
    return descriptors
