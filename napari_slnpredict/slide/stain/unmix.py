"""How much of each stain a pixel holds, and the last steps every estimate of stains shares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_slnpredict.torch_door import import_torch

from .density import Densities, light, percentiles
from .matrix import REFERENCE, WEAKEST, FitSpec, Outcome, StainFit, fit_of

if TYPE_CHECKING:
    from torch import Tensor

#: Two stains closer than this cannot be told apart, degrees.
LEAST_ANGLE = 5.0
#: Percentile of an amount that counts as full strength.
FULL = 99.0


def unmixing(stains: Tensor) -> Tensor:
    """Return what turns densities into amounts by least squares: stains (b, 2, 3) of length 1 to (b, 2, 3).

    With two stains the normal equations have one unknown, their cosine g: the inverse of ((1, g), (g, 1)).
    """
    cosine = (stains[:, 0] * stains[:, 1]).sum(dim=1, keepdim=True)[:, None]  # (b, 1, 1)
    inverse: Tensor = (stains - cosine * stains.flip(1)) / (1 - cosine**2)
    return inverse


def amounts(tiles: Tensor, fit: StainFit) -> tuple[Tensor, Tensor]:
    """Return how much of each stain is where, and what neither explains.

    Parameters
    ----------
    tiles : (b, h, w, 3) uint8, or floating 0 to 1
    fit : StainFit
        Of these tiles, or of one slide.

    Returns
    -------
    stained : (b, 2, h, w) float32
        Optical density, not negative.
    residual : (b, 3, h, w) float32
        Optical density of other pigments, and of noise.
    """
    b, h, w, _ = tiles.shape
    od = fit.white.log()[:, :, None] - (light(tiles) + 1).log()
    stained = (unmixing(fit.stains) @ od).clamp_min(0)  # (b, 2, h w)
    residual = od - fit.stains.transpose(1, 2) @ stained
    return stained.reshape(b, 2, h, w), residual.reshape(b, 3, h, w)


def finished(seen: Densities, stains: Tensor, degenerate: Tensor, spec: FitSpec) -> StainFit:
    """Put two colours in order, give them length and strength, and mark the tiles where they mean nothing.

    Parameters
    ----------
    seen : Densities
    stains : (b, 2, 3)
        In any order and of any length; small negative parts are cut off.
    degenerate : (b,) bool
        Known already to be of one colour.
    """
    torch = import_torch()
    positive = stains.float().nan_to_num(0.0).clamp_min(0)
    norm = positive.norm(dim=2, keepdim=True)
    unit = positive / norm.clamp_min(1e-12)
    unit = torch.where((unit[:, 0, 0] >= unit[:, 1, 0])[:, None, None], unit, unit.flip(1))
    sine = torch.linalg.cross(unit[:, 0], unit[:, 1]).norm(dim=1)
    apart = sine >= torch.sin(torch.deg2rad(torch.tensor(LEAST_ANGLE)))
    flat = degenerate | ~apart | (norm[:, :, 0] < 1e-6).any(dim=1)
    outcome = torch.where((seen.outcome == Outcome.FINE) & flat, int(Outcome.DEGENERATE), seen.outcome)
    fine = outcome == Outcome.FINE
    given = fit_of(REFERENCE, like=unit)
    unit = torch.where(fine[:, None, None], unit, given.stains)
    stained = (unmixing(unit) @ seen.od).clamp_min(0)  # (b, 2, m)
    where = torch.ones_like(seen.tissue) if spec.everywhere else seen.tissue
    full = percentiles(stained.flatten(0, 1), where.repeat_interleave(2, dim=0), (FULL,)).reshape(-1, 2)
    strength = torch.where(fine[:, None], full.clamp_min(WEAKEST), given.strength)
    white = torch.tensor(spec.white, dtype=torch.float32, device=unit.device).expand(len(unit), 3)
    return StainFit(unit, strength, white, outcome, torch.zeros_like(fine))
