"""Learning from labelled tiles: an encoder for transfer, and a classifier of tiles that stays with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import DataError
from napari_slnpredict.torch_door import import_torch

from .augment import ViewSpec, views
from .method import Batch, Loss, Schedule
from .option import option

if TYPE_CHECKING:
    from torch import Tensor

    from .tile_table import TileTable


@dataclass(frozen=True)
class SupervisedSettings(Schedule):
    """Settings of `Supervised`."""

    smoothing: float = option(0.05, "Part of each label spread over all classes", low=0, high=0.9)
    least_crop: float = option(0.6, "Least share of a tile's area a view keeps", low=0.05, high=1)
    stain_jitter: float = option(0.3, "How far views change the amount of each dye, as a share", low=0, high=1)


def check_labels(table: TileTable) -> NDArray[np.int64]:
    """Return the rows with labels. Raises `DataError` unless every class has some."""
    labelled = np.flatnonzero(table.label >= 0)
    lacking = [name for at, name in enumerate(table.classes) if not (table.label == at).any()]
    if len(table.classes) < 2 or lacking:
        what = f"no tile is labelled {', '.join(lacking)}" if lacking else "the tiles have fewer than two classes"
        raise DataError(what, do="give tiles of every class")
    return labelled


def draw_by_class(table: TileTable, count: int, seed: int, step: int) -> NDArray[np.int64]:
    """Return `count` labelled rows, every class equally often."""
    rng = np.random.default_rng([seed, step])
    classes = rng.permutation(np.resize(rng.permutation(len(table.classes)), count))
    rows = np.empty(count, np.int64)
    for one in np.unique(classes):
        at, own = np.flatnonzero(classes == one), np.flatnonzero(table.label == one)
        rows[at] = rng.choice(own, len(at), replace=len(own) < len(at))
    return rows


class Supervised:
    """Cross-entropy of labelled tiles."""

    name: ClassVar[str] = "supervised"

    def __init__(self, settings: SupervisedSettings | None = None) -> None:
        self.settings: SupervisedSettings = settings or SupervisedSettings()
        s = self.settings
        self._views = ViewSpec(crop=(s.least_crop, 1.0), stain=s.stain_jitter)

    def prepare(self, table: TileTable, tile_um: float) -> None:
        """Refuse tiles without labels, or with one class."""
        check_labels(table)
        self._table = table

    def rows(self, step: int) -> NDArray[np.int64]:
        """Return the tiles of a step, (b, 1)."""
        return draw_by_class(self._table, self.settings.batch, self.settings.seed, step)[:, None]

    def heads(self, width: int) -> Any:
        """Return the classifier; it is kept."""
        return import_torch().nn.Linear(width, len(self._table.classes))

    def views(self, batch: Batch) -> Tensor:
        """Return one view of each tile, (b, 3, p, p)."""
        return views(batch.tiles, self._views, batch.rng)

    def loss(self, features: Tensor, out: Any, batch: Batch) -> Loss:
        """Return the cross-entropy."""
        torch = import_torch()
        labels = torch.from_numpy(self._table.label[batch.rows[:, 0]]).to(out.device)
        total = torch.nn.functional.cross_entropy(out.float(), labels, label_smoothing=self.settings.smoothing)
        right = float((out.detach().argmax(dim=1) == labels).float().mean())
        return Loss(total, {"labels": float(total.detach()), "right": right}, features)

    def kept(self, heads: Any) -> dict[str, Any]:
        """Return the classifier: `predict` shows its classes as a map."""
        return {"classes.weight": heads.weight, "classes.bias": heads.bias}

    def notices(self) -> list[str]:
        """Return nothing."""
        return []
