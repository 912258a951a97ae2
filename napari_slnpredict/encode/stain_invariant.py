"""Contrast across stains: a tile and the same tile in another one's stain shall lie close, other tiles far.

After Tiard et al., "Stain-invariant self supervised learning for histopathology image analysis" (arXiv 2211.07590). At
every step one image of the batch lends its stain to all. Its own pair would be an image and itself, and a tile whose
stain cannot be found would be returned as it is: both reward nothing and hide failures, so they leave the loss and are
counted. What the two stains do not explain (pigment, ink) stays in both versions; else the network would learn to
overlook it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import DataError
from napari_slnpredict.slide.stain import REFERENCE, FitSpec, find_normaliser, fit_of
from napari_slnpredict.torch_door import import_torch

from .augment import ViewSpec, views
from .method import Batch, Loss, Schedule, draw_rows, gather
from .option import option
from .simclr import nt_xent, projection_head
from .supervised import check_labels

if TYPE_CHECKING:
    from torch import Tensor

    from .tile_table import TileTable

TARGETS = ("batch", "each", "reference")
MODES = ("pretrain", "joint")
#: Share of tiles without a usable stain from which the user is told.
_MANY = 0.05
#: After so many steps of which no tile was of use the training stops: it would go on for hours and learn nothing.
_VAIN_STEPS = 20
_LOOK = FitSpec(every=2, least_px=100)


@dataclass(frozen=True)
class StainInvariantSettings(Schedule):
    """Settings of `StainInvariant`."""

    mode: str = option("pretrain", "Without labels, or jointly with those of the tiles", choices=MODES, main=True)
    normaliser: str = option(
        "macenko", "How a stain is found and given", choices=("macenko", "vahadane", "reinhard"), main=True
    )
    target: str = option(
        "batch", "Whose stain: one image of the batch, another for each, the reference", choices=TARGETS, main=True
    )
    temperature: float = option(0.2, "Temperature of the loss", low=0.01, high=10)
    projection: int = option(128, "Width of the space the loss is computed in", low=2)
    least_crop: float = option(0.4, "Least share of a tile's area a view keeps", low=0.05, high=1)
    stain_jitter: float = option(0.0, "How far views change the amount of each dye besides, as a share", low=0, high=1)
    same_geometry: bool = option(False, "Turn and crop both versions alike: contrast stain alone")
    label_weight: float = option(1.0, "Weight of the labels' cross-entropy in joint training", low=0)


def contrast_of_kept(first: Tensor, second: Tensor, kept: Tensor, temperature: float) -> Tensor:
    """Return NT-Xent over the pairs that are kept, of all devices; 0 when fewer than two are.

    Parameters
    ----------
    first, second : (b, k)
    kept : (b,) bool
    """
    # All are gathered and then chosen from: devices may keep different numbers.
    joined = [gather(part) for part in (first, second)]
    chosen = gather(kept.to(first.dtype)).bool()
    if int(chosen.sum()) < 2:
        zero: Tensor = 0 * (joined[0].sum() + joined[1].sum())
        return zero
    return nt_xent(joined[0][chosen], joined[1][chosen], temperature)


def _angle(fit: Any, target: Any, kept: Tensor) -> float | None:
    """Return how far the stains lent lie from the tiles' own, degrees: near 0 there is nothing to learn."""
    torch = import_torch()
    if not hasattr(fit, "stains") or not bool(kept.any()):
        return None
    cosine = torch.nn.functional.cosine_similarity(fit.stains, target.stains.expand_as(fit.stains), dim=-1)  # (b, 2)
    return float(torch.rad2deg(torch.acos(cosine[kept].clamp(-1, 1))).mean())


class StainInvariant:
    """Contrast of a tile with itself in another stain; with labels, joint training."""

    name: ClassVar[str] = "stain-invariant"

    def __init__(self, settings: StainInvariantSettings | None = None) -> None:
        self.settings: StainInvariantSettings = settings or StainInvariantSettings()
        s = self.settings
        self._normaliser = find_normaliser(s.normaliser)
        if s.target not in TARGETS:
            raise DataError(f"no choice of target {s.target!r}", do=f"known are {', '.join(TARGETS)}")
        if s.mode not in MODES:
            raise DataError(f"no mode {s.mode!r}", do=f"known are {', '.join(MODES)}")
        self._joint = s.mode == "joint"
        if s.target == "reference" and s.normaliser == "reinhard":
            raise DataError("the reference stain is a pair of dyes, which Reinhard's method does not know")
        self._views = ViewSpec(crop=(s.least_crop, 1.0), stain=s.stain_jitter, offset=0, tilt=0, gamma=0)
        self._seen = self._failed = self._in_vain = 0

    def prepare(self, table: TileTable, tile_um: float) -> None:
        """Refuse what cannot be contrasted; joint training needs labels."""
        if len(table) < 2:
            raise DataError(f"{len(table)} tiles cannot be told apart", do="give more tissue")
        if self.settings.target != "reference" and len(np.unique(table.group)) < 2:
            raise DataError(
                "all tiles are of one slide or patient, whose own stain teaches nothing",
                do="give slides of several, or choose --target reference",
            )
        if self._joint:
            check_labels(table)
        self._table = table

    def rows(self, step: int) -> NDArray[np.int64]:
        """Return the tiles of a step, (b, 1), from as many patients as there are."""
        return draw_rows(self._table, self.settings.batch, self.settings.seed, step)[:, None]

    def heads(self, width: int) -> Any:
        """Return the projection and, in joint training, the classifier."""
        torch = import_torch()
        layers = {"projection": projection_head(width, self.settings.projection)}
        if self._joint:
            layers["classes"] = torch.nn.Linear(width, len(self._table.classes))

        class Heads(torch.nn.ModuleDict):  # type: ignore[misc,name-defined]
            """Every layer on the same features."""

            def forward(self, features: Tensor) -> dict[str, Tensor]:
                return {name: layer(features) for name, layer in self.items()}

        return Heads(layers)

    def views(self, batch: Batch) -> Tensor:
        """Return each tile in its own stain, then each in the target's, both turned and cropped, (2 b, 3, p, p)."""
        torch = import_torch()
        tiles = batch.tiles.permute(0, 2, 3, 1).contiguous()  # (b, p, p, 3)
        fit = self._normaliser.fit(tiles, _LOOK)
        target, lender = self._target(fit, batch)
        kept = fit.usable & ~lender
        self._seen, self._failed = self._seen + len(tiles), self._failed + int((~fit.usable).sum())
        self._in_vain = 0 if bool(fit.usable.any()) else self._in_vain + 1
        if self._in_vain >= _VAIN_STEPS:
            raise DataError(
                f"no tile of the last {_VAIN_STEPS} steps had a stain that could be found",
                do="look at the tiles: they are blank, of one colour, or not stained with two dyes",
            )
        batch.notes["kept"], batch.notes["angle"] = kept, _angle(fit, target, kept)
        # Both versions go the same way through the same rounding, or it would tell them apart.
        both = [self._normaliser.apply(tiles, fit, fit), self._normaliser.apply(tiles, fit, target)]
        planes = [part.permute(0, 3, 1, 2).contiguous() for part in both]
        if not self.settings.same_geometry:
            return torch.cat([views(part, self._views, batch.rng) for part in planes])  # type: ignore[no-any-return]
        state = batch.rng.get_state()
        first = views(planes[0], self._views, batch.rng)
        batch.rng.set_state(state)
        return torch.cat([first, views(planes[1], self._views, batch.rng)])  # type: ignore[no-any-return]

    def _target(self, fit: Any, batch: Batch) -> tuple[Any, Tensor]:
        """Return whose stain each tile gets, and which tiles got their own."""
        torch = import_torch()
        b, nobody = len(fit), torch.zeros(len(fit), dtype=torch.bool, device=fit.outcome.device)
        if self.settings.target == "reference":
            return fit_of(REFERENCE, like=fit.outcome.float()), nobody
        usable = torch.nonzero(fit.usable.cpu()).flatten()
        if not len(usable):
            return fit.take([0]), ~nobody
        if self.settings.target == "batch":
            lender = int(usable[torch.randint(len(usable), (1,), generator=batch.rng)])
            nobody[lender] = True
            return fit.take([lender]), nobody
        lenders = usable[torch.randint(len(usable), (b,), generator=batch.rng)]
        return fit.take(lenders), (lenders == torch.arange(b)).to(nobody.device)

    def loss(self, features: Tensor, out: Any, batch: Batch) -> Loss:
        """Return the contrast of the pairs that are kept, and the labels' part."""
        torch = import_torch()
        first, second = out["projection"].chunk(2)
        kept = batch.notes["kept"].to(first.device)
        total = contrast_of_kept(first, second, kept, self.settings.temperature)
        figures = {"contrast": float(total.detach()), "kept": float(kept.float().mean())}
        figures |= {"stain angle": batch.notes["angle"]} if batch.notes["angle"] is not None else {}
        if self._joint:
            labels = torch.from_numpy(np.tile(self._table.label[batch.rows[:, 0]], 2)).to(first.device)
            if bool((labels >= 0).any()):
                named = torch.nn.functional.cross_entropy(out["classes"].float(), labels, ignore_index=-1)
                figures["labels"] = float(named.detach())
                total = total + self.settings.label_weight * named
        return Loss(total, figures, features)

    def kept(self, heads: Any) -> dict[str, Any]:
        """Return the classifier of joint training."""
        if "classes" not in heads:
            return {}
        return {"classes.weight": heads["classes"].weight, "classes.bias": heads["classes"].bias}

    def notices(self) -> list[str]:
        """Return how many tiles had no stain to work with, when they were many."""
        if self._failed <= _MANY * self._seen:
            return []
        return [f"{self._failed / self._seen:.0%} of the tiles had no stain that could be found and were left out"]
