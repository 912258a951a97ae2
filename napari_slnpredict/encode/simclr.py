"""Contrastive learning of tiles: two views of one tile shall lie close, views of others far.

After Chen, Kornblith, Norouzi and Hinton, "A simple framework for contrastive learning of visual representations"
(2020), with views made for H&E (`augment`). The encoder's features are what is used afterwards, never the projection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import DataError
from napari_slnpredict.torch_door import import_torch

from .augment import ViewSpec, views
from .method import Batch, Loss, Schedule, draw_rows, gather
from .option import option

if TYPE_CHECKING:
    from torch import Tensor

    from .tile_table import TileTable


def nt_xent(first: Tensor, second: Tensor, temperature: float = 0.2) -> Tensor:
    """Return the normalised-temperature cross-entropy of two sets of views, a scalar.

    For 2b unit vectors, view i's loss is the cross-entropy of choosing its partner among all the others by cosine over
    `temperature`. A collapsed network ends at ``log(2 b - 1)``.

    Parameters
    ----------
    first, second : (b, d)
        Row i of both comes from one tile. Computed in float32, or in float64 when given that.
    """
    torch = import_torch()
    b = len(first)
    joined = torch.cat([first, second])
    vectors = torch.nn.functional.normalize(joined if joined.dtype == torch.float64 else joined.float(), dim=1)
    likeness = vectors @ vectors.T / temperature  # (2 b, 2 b)
    # A view is not its own neighbour; -inf before the soft-max, which half precision could not hold.
    itself = torch.eye(2 * b, dtype=torch.bool, device=likeness.device)
    likeness = likeness.masked_fill(itself, float("-inf"))
    partner = torch.arange(2 * b, device=likeness.device).roll(b)
    loss: Tensor = torch.nn.functional.cross_entropy(likeness, partner)
    return loss


def projection_head(width: int, out: int) -> Any:
    """Return the two layers between features and the space of the loss."""
    torch = import_torch()
    return torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.ReLU(), torch.nn.Linear(width, out))


@dataclass(frozen=True)
class SimClrSettings(Schedule):
    """Settings of `SimClr`."""

    temperature: float = option(0.2, "Temperature of the loss", low=0.01, high=10)
    projection: int = option(128, "Width of the space the loss is computed in", low=2)
    least_crop: float = option(
        0.4, "Least share of a tile's area a view keeps; less would change its magnification", low=0.05, high=1
    )
    stain_jitter: float = option(0.3, "How far views change the amount of each dye, as a share", low=0, high=1)
    blur_px: float = option(1.0, "Largest width of the blur", "px", low=0, high=10)


class SimClr:
    """Contrast of two views of each tile."""

    name: ClassVar[str] = "simclr"

    def __init__(self, settings: SimClrSettings | None = None) -> None:
        self.settings: SimClrSettings = settings or SimClrSettings()
        s = self.settings
        self._views = ViewSpec(crop=(s.least_crop, 1.0), stain=s.stain_jitter, blur_px=s.blur_px)

    def prepare(self, table: TileTable, tile_um: float) -> None:
        """Refuse what cannot be contrasted: one tile has no others to differ from."""
        if len(table) < 2:
            raise DataError(f"{len(table)} tiles cannot be told apart", do="give more tissue")
        self._table = table

    def rows(self, step: int) -> NDArray[np.int64]:
        """Return the tiles of a step, (b, 1)."""
        return draw_rows(self._table, self.settings.batch, self.settings.seed, step)[:, None]

    def heads(self, width: int) -> Any:
        """Return the projection, which is thrown away afterwards."""
        return projection_head(width, self.settings.projection)

    def views(self, batch: Batch) -> Tensor:
        """Return two views of each tile, (2 b, 3, p, p)."""
        torch = import_torch()
        return torch.cat([views(batch.tiles, self._views, batch.rng) for _ in range(2)])  # type: ignore[no-any-return]

    def loss(self, features: Tensor, out: Any, batch: Batch) -> Loss:
        """Return NT-Xent over the views of all devices."""
        first, second = (gather(part) for part in out.chunk(2))
        total = nt_xent(first, second, self.settings.temperature)
        return Loss(total, {"contrast": float(total.detach())}, features)

    def kept(self, heads: Any) -> dict[str, Any]:
        """Return nothing: the features are what is used."""
        return {}

    def notices(self) -> list[str]:
        """Return nothing: every tile has two views."""
        return []
