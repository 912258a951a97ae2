"""Descriptors learned from place alone: tiles near each other shall be alike, tiles far apart not.

After Gildenblat and Klaiman, "Self-supervised similarity learning for digital pathology" (arXiv 1905.08139, 2019). What
that paper leaves open is decided here and said where it is decided: near and far are distances in um, near pairs lie on
one piece of tissue, and so do half of the far ones. Otherwise "far" would mean "another piece", and pieces differ by
thickness and focus more than by tissue.
"""

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

#: Anchors tried before a data set is called unfit, and the least share of them that must have both kinds of partner.
_TRIED, _LEAST = 400, 0.05
#: Share of tiles without a partner from which the user is told.
_MANY = 0.05


@dataclass(frozen=True)
class PairSpec:
    """What near and far mean.

    Attributes
    ----------
    near_um : float
        Tiles whose centres lie at most this far apart, on one piece of tissue, without overlap, are near.
    far_um : float
        At least this far apart on one slide: far. What lies between is neither.
    one_piece : float
        Share of far pairs that must lie on one piece of tissue.
    """

    near_um: float = 450.0
    far_um: float = 1700.0
    one_piece: float = 0.5


@dataclass(frozen=True)
class Pairs:
    """Pairs of tiles.

    Attributes
    ----------
    first, second : (b,) int64
        Rows of the tile table.
    far : (b,) bool
    without_far, without_near : int
        Anchors drawn that had no such partner and were replaced by others (a biopsy is smaller than "far").
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    far: NDArray[np.bool_]
    without_far: int = 0
    without_near: int = 0


def margin_loss(first: Tensor, second: Tensor, far: Tensor, margin: float = 1.0) -> Tensor:
    """Return the contrastive loss of pairs of unit vectors, a scalar (Hadsell, Chopra and LeCun 2006).

    A near pair pays its distance squared; a far pair pays ``(margin - distance) ** 2`` while it is closer than the
    margin. Random unit vectors lie sqrt(2) apart and none lie further than 2: a margin of 2, as in some code for this
    method, can never be kept and drives everything to opposite poles. Hence 1.

    Parameters
    ----------
    first, second : (b, k)
        Of length 1.
    far : (b,) bool
    margin : float
    """
    torch = import_torch()
    square = (first.float() - second.float()).pow(2).sum(dim=1)
    # The root's slope at 0 is infinite, and a far pair may begin there.
    gap = (margin - torch.sqrt(square + 1e-12)).clamp_min(0)
    loss: Tensor = torch.where(far, gap.pow(2), square).mean()
    return loss


class PairPlanner:
    """Draws pairs from a table of tiles; the pairs of a step depend on the seed and the step alone.

    Every slide is drawn equally often, whatever its size.

    Parameters
    ----------
    table : TileTable
    spec : PairSpec
    tile_um : float
        Side of a tile: near tiles must not overlap, or the task would be to find equal pixels.

    Raises
    ------
    DataError
        Hardly any tile has both a near and a far partner, or no place is known.
    """

    def __init__(self, table: TileTable, spec: PairSpec, tile_um: float) -> None:
        self._spec, self._tile_um, self._table = spec, tile_um, table
        placed = np.isfinite(table.centre_um).all(axis=1) & (table.slide >= 0)
        self._rows = [np.flatnonzero(placed & (table.slide == s)) for s in range(len(table.slides))]
        self._rows = [rows for rows in self._rows if len(rows) > 1]
        if not self._rows:
            raise DataError(
                "no tile lies on a slide at a known place", do="learn similarity from slides, not from tile folders"
            )
        self._refuse_too_small()

    def _refuse_too_small(self) -> None:
        rng = np.random.default_rng(0)
        fit = 0
        for _ in range(_TRIED):
            rows, anchor = self._anchor(rng)
            near, far, _ = self._partners(rows, anchor)
            fit += bool(len(near) and len(far))
        if fit < _LEAST * _TRIED:
            spec = self._spec
            raise DataError(
                f"only {fit} of {_TRIED} tiles have another within {spec.near_um:g} um and one beyond {spec.far_um:g} "
                "um on their slide",
                do="lower --far-um, raise --near-um, or use larger pieces of tissue",
            )

    def draw(self, count: int, seed: int, step: int) -> Pairs:
        """Return `count` pairs, near or far with equal chance."""
        rng = np.random.default_rng([seed, step])
        first, second, far = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, bool)
        lacking = [0, 0]  # near, far
        for at in range(count):
            far[at] = rng.random() < 0.5
            while True:
                rows, anchor = self._anchor(rng)
                near, distant, one_piece = self._partners(rows, anchor)
                if far[at] and len(one_piece) and rng.random() < self._spec.one_piece:
                    distant = one_piece
                choices = distant if far[at] else near
                if len(choices):
                    break
                lacking[int(far[at])] += 1
            first[at], second[at] = anchor, rng.choice(choices)
        return Pairs(first, second, far, without_far=lacking[1], without_near=lacking[0])

    def is_far(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether pairs of rows, (b, 2), are far ones."""
        apart = self._table.centre_um[rows[:, 0]] - self._table.centre_um[rows[:, 1]]
        far: NDArray[np.bool_] = np.hypot(apart[:, 0], apart[:, 1]) >= self._spec.far_um
        return far

    def _anchor(self, rng: np.random.Generator) -> tuple[NDArray[np.int64], np.int64]:
        rows = self._rows[rng.integers(len(self._rows))]
        return rows, rows[rng.integers(len(rows))]

    def _partners(
        self, rows: NDArray[np.int64], anchor: np.int64
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return an anchor's near partners, its far ones, and those of them on its own piece of tissue."""
        away = np.abs(self._table.centre_um[rows] - self._table.centre_um[anchor])
        distance = np.hypot(away[:, 0], away[:, 1])
        same = self._table.component[rows] == self._table.component[anchor]
        # A hundredth of slack: places are rounded to pixels.
        apart = away.max(axis=1) >= 0.99 * self._tile_um
        far = distance >= self._spec.far_um
        return rows[(distance <= self._spec.near_um) & apart & same], rows[far], rows[far & same]


def near_far(descriptors: NDArray[np.float32], pairs: Pairs) -> tuple[float, float]:
    """Return how well distance tells far pairs from near ones: AUC, and mean far over mean near distance.

    The AUC is what to compare; the ratio (the paper's measure by place, not by class) has no scale. Both stay well away
    from perfect: two tiles of one tissue may lie far apart.

    Parameters
    ----------
    descriptors : (n, k) float32
        Of all rows of the table.
    pairs : Pairs
    """
    from napari_slnpredict.metrics.scores import auc

    distance = np.linalg.norm(descriptors[pairs.first] - descriptors[pairs.second], axis=1)
    near = float(distance[~pairs.far].mean())
    return float(auc(pairs.far, distance)), float(distance[pairs.far].mean()) / max(near, 1e-12)


@dataclass(frozen=True)
class SimilaritySettings(Schedule):
    """Settings of `Similarity`."""

    near_um: float = option(450.0, "Tiles this close on one piece of tissue are alike", "um", low=1, main=True)
    far_um: float = option(1700.0, "Tiles at least this far apart on one slide are not", "um", low=1, main=True)
    margin: float = option(
        1.0, "Distance beyond which far tiles are left alone; unit vectors lie at most 2 apart", low=0, high=2
    )
    descriptor: int = option(128, "Length of a descriptor", low=2)
    stain_jitter: float = option(0.1, "How far views change the amount of each dye, as a share", low=0, high=1)


class Similarity:
    """Siamese descriptors: near tiles alike, far tiles apart."""

    name: ClassVar[str] = "similarity"

    def __init__(self, settings: SimilaritySettings | None = None) -> None:
        self.settings: SimilaritySettings = settings or SimilaritySettings()
        self._views = ViewSpec(crop=(1.0, 1.0), stain=self.settings.stain_jitter, blur_px=0.5)

    def prepare(self, table: TileTable, tile_um: float) -> None:
        """Refuse tissue that has no near and far pairs."""
        s = self.settings
        self._planner = PairPlanner(table, PairSpec(s.near_um, s.far_um), tile_um)
        self._asked = self._lacking = 0

    def rows(self, step: int) -> NDArray[np.int64]:
        """Return the pairs of a step, (b, 2)."""
        pairs = self._planner.draw(self.settings.batch, self.settings.seed, step)
        self._lacking += pairs.without_far + pairs.without_near
        self._asked += len(pairs.far) + pairs.without_far + pairs.without_near
        return np.stack([pairs.first, pairs.second], axis=1)

    def heads(self, width: int) -> Any:
        """Return the layer from features to descriptors; it is kept."""
        return import_torch().nn.Linear(width, self.settings.descriptor)

    def views(self, batch: Batch) -> Tensor:
        """Return each tile turned, mirrored and stained a little differently, (2 b, 3, p, p)."""
        return views(batch.tiles, self._views, batch.rng)

    def loss(self, features: Tensor, out: Any, batch: Batch) -> Loss:
        """Return the margin loss; which pairs are far follows from where their tiles lie."""
        torch = import_torch()
        unit = torch.nn.functional.normalize(out.float(), dim=1)
        first, second = unit.chunk(2)
        far = torch.from_numpy(self._planner.is_far(batch.rows)).to(unit.device)
        total = margin_loss(first, second, far, self.settings.margin)
        apart = (first - second).detach().norm(dim=1)
        figures = {"pairs": float(total.detach())}
        figures |= {name: float(apart[rows].mean()) for name, rows in (("near", ~far), ("far", far)) if rows.any()}
        return Loss(total, figures, unit, apart[far])

    def kept(self, heads: Any) -> dict[str, Any]:
        """Return the layer that makes descriptors of features."""
        return {"descriptor.weight": heads.weight, "descriptor.bias": heads.bias}

    def notices(self) -> list[str]:
        """Return how many tiles had no partner, when they were many."""
        if self._lacking <= _MANY * self._asked:
            return []
        share = self._lacking / self._asked
        return [f"{share:.0%} of the tiles drawn had no near or no far partner on their slide and were passed over"]
