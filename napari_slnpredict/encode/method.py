"""What a way of training an encoder is: which tiles a step reads, what the network sees of them, and the loss.

A method is one file and a line in `methods`. `pretrain` runs any of them; the command line and the viewer make their
flags and fields from its settings, a frozen dataclass whose fields say what they mean (`option`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.torch_door import import_torch

from .option import option

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from .tile_table import TileTable


@dataclass(frozen=True)
class Schedule:
    """Settings every method has."""

    steps: int = option(600, "Steps of training", low=1, main=True)
    batch: int = option(64, "Tiles (or pairs of tiles) a step, over all devices", low=2, main=True)
    rate: float = option(
        3e-4,
        "Highest learning rate; it rises over a twentieth of the steps, then falls as a cosine",
        low=0,
        main=True,
    )
    weight_decay: float = option(1e-4, "Weight decay of AdamW", low=0)
    seed: int = option(0, "Everything random follows from this and the step's number", low=0)
    checkpoint_minutes: float = option(5.0, "How much work a killed run may cost", "min", low=0)
    probe_every: int = option(100, "Steps between looks at tiles that are kept apart", low=1)
    patience: int = option(0, "Looks without gain after which training stops early; 0 never does", low=0)


@dataclass(frozen=True)
class Batch:
    """The part of a step that one device works on.

    Attributes
    ----------
    tiles : (r * b, 3, p, p) float32, 0 to 1
        Tiles of `r` roles one after the other: a pair's first tiles, then its second ones.
    rows : (b, r) int64
        Of the tile table.
    step : int
    rng : torch.Generator
        Seeded by seed, step and device.
    notes : dict
        What `views` found and `loss` needs.
    """

    tiles: Tensor = field(repr=False)
    rows: NDArray[np.int64]
    step: int
    rng: Generator
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Loss:
    """What a step costs, and what is worth showing of it.

    Attributes
    ----------
    total : scalar tensor
    figures : mapping of str to float
    vectors : (m, k) tensor
        In which a collapse would show.
    far : (pairs,) tensor or None
        Distances of far pairs.
    """

    total: Tensor
    figures: Mapping[str, float]
    vectors: Tensor = field(repr=False)
    far: Tensor | None = field(default=None, repr=False)


class Method(Protocol):
    """One way to train."""

    name: ClassVar[str]

    @property
    def settings(self) -> Schedule:
        """How long, how fast, and all else that was chosen."""

    def prepare(self, table: TileTable, tile_um: float) -> None:
        """Look at the tiles there are. Raises `DataError` when they do not do for this method."""

    def rows(self, step: int) -> NDArray[np.int64]:
        """Return the tiles of a step, (b, r) int64: a function of the seed and the step alone."""

    def heads(self, width: int) -> Any:
        """Return the layers after the encoder's features of `width`: an nn.Module, (m, width) -> tensor or tuple."""

    def views(self, batch: Batch) -> Tensor:
        """Return what the network sees, (m, 3, p, p) float32, 0 to 1."""

    def loss(self, features: Tensor, out: Any, batch: Batch) -> Loss:
        """Return the loss of features (m, width) and the heads' output on one device's part of a step."""

    def kept(self, heads: Any) -> dict[str, Any]:
        """Return the tensors of the heads that belong to the encoder afterwards, by name; empty when none do."""

    def notices(self) -> list[str]:
        """Return what the user must be told at the end: tiles left out, partners not found."""


def draw_rows(table: TileTable, count: int, seed: int, step: int) -> NDArray[np.int64]:
    """Return `count` rows, every group (patient) equally often, no tile twice while there are enough of it.

    A batch with many tiles of one slide is full of false negatives, and a large slide would otherwise be all there is.
    """
    rng = np.random.default_rng([seed, step])
    groups = np.unique(table.group)
    drawn = rng.permutation(np.resize(rng.permutation(groups), count))
    rows = np.empty(count, np.int64)
    for group in np.unique(drawn):
        at, own = np.flatnonzero(drawn == group), np.flatnonzero(table.group == group)
        rows[at] = rng.choice(own, len(at), replace=len(own) < len(at))
    return rows


def gather(vectors: Tensor) -> Tensor:
    """Return the vectors of all devices, one after the other; the gradient finds its way back to each.

    Every device then computes the same joint loss. Its gradient arrives once per device and is averaged over devices,
    so that the result is that of one process with the joint batch.
    """
    torch = import_torch()
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return vectors

    class Gathered(torch.autograd.Function):  # type: ignore[misc,name-defined]
        """All devices' rows; backwards, each device's rows get the gradients of all."""

        @staticmethod
        def forward(ctx: Any, own: Tensor) -> Tensor:
            parts = [torch.empty_like(own) for _ in range(torch.distributed.get_world_size())]
            torch.distributed.all_gather(parts, own.contiguous())
            return torch.cat(parts)  # type: ignore[no-any-return]

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            total = gradient.contiguous().clone()
            torch.distributed.all_reduce(total)
            return total.chunk(torch.distributed.get_world_size())[torch.distributed.get_rank()]  # type: ignore[no-any-return]

    gathered: Tensor = Gathered.apply(vectors)
    return gathered
