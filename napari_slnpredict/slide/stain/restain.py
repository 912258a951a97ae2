"""Tiles in another stain: unmixed, scaled, mixed again; and the three methods by name.

Densities become ``new = old + weight (target * gain - source) amounts``: the amounts of the two stains, scaled by the
ratio of strengths, in the target's colours, plus what the two stains did not explain, as it was. So a tile in its own
stain is itself, and melanin, carbon and ink keep their colour. The weight is 0 on glass, 1 on tissue, so that glass
a little darker than the white point is not stained. Without the residual it is the plain product of other programs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_slnpredict.errors import DataError
from napari_slnpredict.torch_door import import_torch

from .density import check_tiles, full_precision, light, tissue_weight, to_tiles
from .macenko import fit_macenko
from .matrix import MOST_GAIN, FitSpec, StainFit, StainMatrix, fit_of
from .paint import Mixture, mixture, paint_tiles
from .reinhard import fit_reinhard, recolour
from .unmix import unmixing
from .vahadane import fit_vahadane

if TYPE_CHECKING:
    from torch import Tensor


def restain(
    tiles: Tensor,
    source: StainFit | StainMatrix,
    target: StainFit | StainMatrix,
    *,
    offset: Tensor | None = None,
    residual: bool = True,
    clamp: bool = True,
) -> Tensor:
    """Give each tile the target's stain.

    On a CPU tile by tile (`paint`), elsewhere as a batch; equal but for float32's last digits.

    Parameters
    ----------
    tiles : (b, h, w, 3) uint8, or floating 0 to 1
    source, target : StainFit or StainMatrix
        Of b tiles, or of one (a slide) for all.
    offset : (b, 3), optional
        Optical density added everywhere.
    residual : bool
        Keep what the two stains do not explain.
    clamp : bool
        Take negative amounts for none.

    Returns
    -------
    (b, h, w, 3) of the tiles' type
        Tiles whose source or target is not `usable` are returned as they are.
    """
    check_tiles(tiles)
    first, second = (fit_of(s, like=tiles) if isinstance(s, StainMatrix) else s for s in (source, target))
    first, second = _spread(first, len(tiles)), _spread(second, len(tiles))
    if tiles.device.type == "cpu":
        return paint_tiles(tiles, _mixtures(first, second, offset, residual, clamp))
    return restain_batch(tiles, first, second, offset=offset, residual=residual, clamp=clamp)


def restain_batch(
    tiles: Tensor,
    source: StainFit,
    target: StainFit,
    *,
    offset: Tensor | None = None,
    residual: bool = True,
    clamp: bool = True,
) -> Tensor:
    """Do as `restain` does, all tiles at once with torch, for b stains each: what a GPU is good at."""
    with full_precision(tiles):
        return _batch(tiles, source, target, offset, residual, clamp)


def _batch(
    tiles: Tensor, source: StainFit, target: StainFit, offset: Tensor | None, residual: bool, clamp: bool
) -> Tensor:
    torch = import_torch()
    values = light(tiles)
    od = source.white.log()[:, :, None] - (values + 1).log()
    amount = unmixing(source.stains) @ od
    if clamp:
        amount = amount.clamp_min(0)
    gain = (target.strength / source.strength).clamp(1 / MOST_GAIN, MOST_GAIN)
    new = (target.stains * gain[:, :, None]).transpose(1, 2) @ amount  # (b, 3, h w)
    if residual:
        new = od + tissue_weight(od) * (new - source.stains.transpose(1, 2) @ amount)
    if offset is not None:
        new = new + offset[:, :, None]
    made = to_tiles(target.white[:, :, None] * torch.exp(-new) - 1, tiles)
    chosen: Tensor = torch.where((source.usable & target.usable)[:, None, None, None], made, tiles)
    return chosen


def _spread(fit: StainFit, b: int) -> StainFit:
    if len(fit) == b:
        return fit
    if len(fit) != 1:
        raise ValueError(f"stains of {len(fit)} tiles for {b} tiles")
    return fit.take([0] * b)


def _mixtures(
    source: StainFit, target: StainFit, offset: Tensor | None, residual: bool, clamp: bool
) -> list[Mixture | None]:
    before, after = _numbers(source), _numbers(target)
    offsets = None if offset is None else offset.numpy()
    return [
        mixture(
            (before[0][k], before[1][k], before[2][k]),
            (after[0][k], after[1][k], after[2][k]),
            offset=None if offsets is None else offsets[k],
            residual=residual,
            clamp=clamp,
        )
        if good
        else None
        for k, good in enumerate((source.usable & target.usable).tolist())
    ]


def _numbers(fit: StainFit) -> tuple[Any, Any, Any]:
    return fit.stains.numpy(), fit.strength.numpy(), fit.white.numpy()


@dataclass(frozen=True)
class Normaliser:
    """One way to make tiles look alike; a row of `NORMALISERS`.

    Attributes
    ----------
    fit : (tiles, spec or None) to a fit of each tile
    apply : (tiles, source fit, target fit of one tile) to tiles
    """

    name: str
    fit: Callable[[Tensor, FitSpec | None], Any]
    apply: Callable[[Tensor, Any, Any], Tensor]


NORMALISERS = {
    row.name: row
    for row in (
        Normaliser("macenko", fit_macenko, restain),
        Normaliser("vahadane", fit_vahadane, restain),
        Normaliser("reinhard", fit_reinhard, recolour),
    )
}


def find_normaliser(name: str) -> Normaliser:
    """Return a normaliser by its name."""
    try:
        return NORMALISERS[name]
    except KeyError:
        raise DataError(f"no stain normaliser {name!r}", do=f"known are {', '.join(NORMALISERS)}") from None
