"""Pooling heads: mean, max, attention, gated and additive attention. Loads torch: import it inside functions.

In all of them the slide's logits follow from what the head says of each tile alone (``l_i``, for a linear head
``W z_i + b``) and its weight; inference therefore never holds more than a chunk of features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.events import Job, Meter, Throttle
from napari_slnpredict.torch_door import import_torch

from .aggregators import Output, allowed
from .base import Aggregator, Weighed, embedding
from .evidence import ClosedForm, Floats, Largest, WeightedMean
from .tiles import BagTiles

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
else:
    torch = import_torch()
    nn = torch.nn


@dataclass(frozen=True)
class PoolingParameters:
    """Parameters of mean and max pooling.

    Attributes
    ----------
    hidden : int
        Length L of z; 0: the features themselves.
    dropout : float
        On z, in training.
    """

    hidden: int = allowed(256, 0, 8192)
    dropout: float = allowed(0.25, 0.0, 0.9)


@dataclass(frozen=True)
class AttentionParameters(PoolingParameters):
    """Parameters of attention pooling; `attention` is the width of the scoring layer."""

    attention: int = allowed(128, 1, 8192)


class Pooling(Aggregator):
    """A head that judges each tile by itself and pools the judgements."""

    closed_form = True

    def __init__(self, parameters: Any, dim: int, classes: int) -> None:
        super().__init__(parameters, dim, classes)
        self.embed, self.width = embedding(dim, parameters.hidden, parameters.dropout)
        self.head: nn.Module = nn.Linear(self.width, classes)

    def score(self, z: Tensor) -> Tensor:
        """Return attention before the softmax, (n,), of embedded tiles (n, L)."""
        return z.new_zeros(len(z))

    def instances(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores (n,) and instance logits (n, c) of features (n, d)."""
        z = self.embed(features)  # (n, L)
        return self.score(z), self.head(z)

    def look(self, features: Tensor, places: NDArray[np.float64] | None = None) -> Output:
        """Judge tiles by their weighted mean; places are not looked at."""
        return self.together(*self.instances(features))

    def together(self, scores: Tensor, logits: Tensor) -> Output:
        """Pool scores (n,) and instance logits (n, c), with gradients."""
        attention = torch.softmax(scores, 0)  # (n,), the maximum is subtracted inside
        return Output(attention @ logits, attention, scores, logits)

    def look_at_many(self, bags: Sequence[tuple[Tensor, NDArray[np.float64] | None]]) -> list[Output]:
        """Judge several bags; each tile is judged alone, so all bags go through in one piece."""
        sizes = [len(features) for features, _ in bags]
        scores, logits = self.instances(torch.cat([features for features, _ in bags]))
        parts = zip(torch.split(scores, sizes), torch.split(logits, sizes), strict=True)
        return [self.together(*part) for part in parts]

    def pool(self, scores: Floats, logits: Floats) -> ClosedForm:
        """Return the closed form over all tiles, float64."""
        return WeightedMean(scores, logits)

    def weigh(self, tiles: BagTiles) -> Job[Weighed]:
        """Judge any number of tiles; memory grows by a few numbers a tile."""
        scores, logits = np.empty(len(tiles)), np.empty((len(tiles), self.classes))
        meter, due = Meter(len(tiles)), Throttle()
        for start, stop, features in tiles.chunks():
            with torch.inference_mode():
                found = self.instances(features)
            scores[start:stop], logits[start:stop] = (part.cpu().numpy() for part in found)
            meter.done = stop
            if due() or stop == len(tiles):
                yield meter.progress()
        pooled = self.pool(scores, logits)
        return Weighed(pooled.logits, pooled.attention, pooled)


class MeanPooling(Pooling):
    """``L = w · mean(z) + b``: every tile counts the same."""

    Parameters: ClassVar[type[Any]] = PoolingParameters


class MaxPooling(Pooling):
    """Class by class the largest instance logit: one tile decides."""

    Parameters: ClassVar[type[Any]] = PoolingParameters

    def together(self, scores: Tensor, logits: Tensor) -> Output:
        """Take the largest of the instance logits (n, c), class by class."""
        return Output(logits.max(0).values, None, None, logits)

    def pool(self, scores: Floats, logits: Floats) -> ClosedForm:
        """Return the closed form over all tiles, float64."""
        return Largest(logits)

    def centre_logits(self) -> None:
        """Leave the logits alone: a maximum is taken class by class, so what they share is not free."""


class AttentionPooling(Pooling):
    """``s_i = w · tanh(V z_i)``, ``a = softmax(s)``, ``L = W (sum a_i z_i) + b`` (Ilse 2018, eq. 7 and 8)."""

    Parameters: ClassVar[type[Any]] = AttentionParameters
    streams = True

    def __init__(self, parameters: AttentionParameters, dim: int, classes: int) -> None:
        super().__init__(parameters, dim, classes)
        self.value = nn.Linear(self.width, parameters.attention)
        self.weight = nn.Linear(parameters.attention, 1, bias=False)  # a bias would not change the softmax

    def score(self, z: Tensor) -> Tensor:
        """Return attention before the softmax, (n,)."""
        scores: Tensor = self.weight(torch.tanh(self.value(z)))  # (n, 1)
        return scores[:, 0]


class GatedPooling(AttentionPooling):
    """``s_i = w · (tanh(V z_i) * sigmoid(U z_i))`` (Ilse 2018, eq. 9)."""

    def __init__(self, parameters: AttentionParameters, dim: int, classes: int) -> None:
        super().__init__(parameters, dim, classes)
        self.gate = nn.Linear(self.width, parameters.attention)

    def score(self, z: Tensor) -> Tensor:
        """Return attention before the softmax, (n,)."""
        scores: Tensor = self.weight(torch.tanh(self.value(z)) * torch.sigmoid(self.gate(z)))  # (n, 1)
        return scores[:, 0]


class AdditivePooling(GatedPooling):
    """``L = sum psi(a_i z_i) + b``: every tile's part of the logits is exact (Javed et al. 2022).

    ``psi`` is a network of two layers without biases. It is therefore positively homogeneous, ``psi(a z) = a psi(z)``:
    tiles of weight zero add nothing however many there are, the part of tile i is ``a_i psi(z_i)``, and leaving tiles
    out keeps its closed form.
    """

    def __init__(self, parameters: AttentionParameters, dim: int, classes: int) -> None:
        super().__init__(parameters, dim, classes)
        self.head = AdditiveHead(self.width, classes)

    def output_layer(self) -> tuple[Tensor, Tensor]:
        """Return weight (c, L) and bias (c,) of the layer that gives logits."""
        return self.get_parameter("head.out.weight"), self.get_parameter("head.bias")


class AdditiveHead(nn.Module):
    """``psi(z) + b``."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, max(8, width // 2), bias=False)
        self.out = nn.Linear(max(8, width // 2), classes, bias=False)
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, z: Tensor) -> Tensor:
        """Return what each tile says alone, (n, c)."""
        said: Tensor = self.out(torch.relu(self.inner(z))) + self.bias
        return said
