"""What every aggregator shares. Loads torch: import it inside functions.

An aggregator answers in two ways: ``forward`` over a bag in memory (training, small bags; gradients), and `weigh`, a
job that walks over any number of tiles in chunks, can be cancelled between them, and ends in float64. Tests hold the
two together.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.events import Job
from napari_slnpredict.torch_door import import_torch

from .aggregators import Output
from .evidence import ClosedForm
from .positions import centre_on_components
from .tiles import BagTiles

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
else:
    torch = import_torch()
    nn = torch.nn


@dataclass(frozen=True)
class Weighed:
    """What an aggregator says of a bag, in float64.

    Attributes
    ----------
    logits : (c,) float64
    attention : (m,) float64 or None
        Over the tiles looked at; sums to 1.
    closed_form : ClosedForm or None
        Answers "without these tiles" at once, where the aggregator allows it.
    members : (k, c) float64 or None
        Each member's logits, of an ensemble.
    """

    logits: NDArray[np.float64]
    attention: NDArray[np.float64] | None = None
    closed_form: ClosedForm | None = None
    members: NDArray[np.float64] | None = None


class Aggregator(nn.Module):
    """From tile features to class logits.

    Parameters
    ----------
    parameters : dataclass
        An instance of the class's own ``Parameters``.
    dim : int
        Feature length d.
    classes : int
        Number of classes c.
    """

    #: Dataclass of plain-JSON parameters, declared with `aggregators.allowed`.
    Parameters: ClassVar[type[Any]]
    #: Whether leaving tiles out has a closed form.
    closed_form: bool = False
    #: Whether attention over the tiles seen so far means something while embedding still runs.
    streams: bool = False
    #: Shape of a tile's score; an ensemble has one a member.
    per_tile: tuple[int, ...] = ()

    def __init__(self, parameters: Any, dim: int, classes: int) -> None:
        super().__init__()
        self.options = parameters
        self.dim, self.classes = dim, classes

    def forward(self, features: Tensor, centres_um: Any = None, component: Any = None) -> Output:
        """Judge one bag held in memory.

        Parameters
        ----------
        features : (n, d) float32, n >= 1
        centres_um : (n, 2) float64 array, optional
            Centres of the tiles, um, x then y. Heads without positions ignore it.
        component : (n,) int array, optional
            Piece of tissue each tile lies on; places count from its centroid.
        """
        places = None if centres_um is None else centre_on_components(np.asarray(centres_um, np.float64), component)
        return self.look(features, places)

    @abstractmethod
    def look(self, features: Tensor, places: NDArray[np.float64] | None) -> Output:
        """Judge tiles held in memory, (n, d), at places (n, 2), um from the centroid of their piece of tissue."""

    def look_at_many(self, bags: Sequence[tuple[Tensor, NDArray[np.float64] | None]]) -> list[Output]:
        """Judge several bags, each given as features and places: a training step."""
        return [self.look(features, places) for features, places in bags]

    @abstractmethod
    def weigh(self, tiles: BagTiles) -> Job[Weighed]:
        """Judge any number of tiles, chunk by chunk."""

    def centre_logits(self) -> None:
        """Make the head's logits sum to zero over the classes; probabilities stay as they are.

        A softmax does not see what all logits share, so training leaves that part arbitrary, and evidence for a class
        would carry it. Without it a tile that speaks for one of two classes speaks against the other.
        """
        with torch.no_grad():
            for part in self.output_layer():
                part -= part.mean(0, keepdim=True)

    def output_layer(self) -> tuple[Tensor, Tensor]:
        """Return weight (c, L) and bias (c,) of the layer that gives logits."""
        head = self.get_submodule("head")
        return head.get_parameter("weight"), head.get_parameter("bias")


class Standardise(nn.Module):
    """Subtract a mean and divide by a scale, both fixed at training (identity until then)."""

    mean: Tensor
    scale: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    def forward(self, features: Tensor) -> Tensor:
        """Return (features - mean) / scale, (n, d)."""
        return (features - self.mean) / self.scale

    def fit(self, mean: NDArray[np.floating], scale: NDArray[np.floating]) -> None:
        """Take over the statistics of the training tiles; a constant feature keeps scale 1."""
        self.mean.copy_(torch.as_tensor(np.asarray(mean, np.float32)))
        self.scale.copy_(torch.as_tensor(np.where(np.asarray(scale) > 1e-6, scale, 1.0).astype(np.float32)))


def embedding(dim: int, hidden: int, dropout: float) -> tuple[nn.Module, int]:
    """Return the first layers, features (n, d) -> z (n, L), and L; without `hidden` z is the standardised feature."""
    if not hidden:
        return nn.Sequential(Standardise(dim), nn.Dropout(dropout)), dim
    return nn.Sequential(Standardise(dim), nn.Linear(dim, hidden), nn.ReLU(), nn.Dropout(dropout)), hidden
