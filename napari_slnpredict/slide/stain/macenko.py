"""Macenko's stain estimate (Macenko et al., ISBI 2009, "A method for normalizing histology slides ...").

Densities of tissue lie near a plane spanned by the two stains, and in it between them. The plane is that of the two
largest eigenvectors of the densities' covariance; the stains are the directions at the extremes of the angle in it,
robustly: at the 1st and 99th percentile.

Where this differs from common programs (StainTools, torchstain): the plane's axes are turned so that the mean of the
tissue lies at angle 0, so that neither the sign of an eigenvector nor the cut of the angle at 180 degrees matters;
black pixels are no tissue; what cannot be estimated is said per tile and stops nobody else's tile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_slnpredict.torch_door import import_torch

from .density import Densities, densities, in_pieces, masked_mean, percentiles
from .matrix import FitSpec, Outcome, StainFit
from .unmix import finished

if TYPE_CHECKING:
    from torch import Tensor

#: Variance across the main direction below which tissue is of one colour, squared optical density.
LEAST_SPREAD = 1e-4


def fit_macenko(tiles: Tensor, spec: FitSpec | None = None) -> StainFit:
    """Estimate the stains of each tile.

    Parameters
    ----------
    tiles : (b, h, w, 3) uint8, or floating 0 to 1
        On any device; each is estimated alone.
    """
    return in_pieces(_fit, tiles, spec or FitSpec())


def _fit(tiles: Tensor, spec: FitSpec) -> StainFit:
    seen = densities(tiles, spec)
    plane, mean, spread = plane_of(seen)
    stains = extremes(seen, turned(plane, mean), spec.percentile)
    return finished(seen, stains, spread < LEAST_SPREAD, spec)


def plane_of(seen: Densities) -> tuple[Tensor, Tensor, Tensor]:
    """Return the plane's axes (b, 3, 2), the mean density (b, 3), the variance along the lesser axis (b,)."""
    torch = import_torch()
    weight = seen.tissue.to(seen.od.dtype)[:, None]
    mean = masked_mean(seen.od, seen.tissue)
    wide = torch.float32 if seen.od.device.type == "mps" else torch.float64  # Apple's GPUs have no float64
    centred = ((seen.od - mean[:, :, None]) * weight).to(wide)
    covariance = centred @ centred.transpose(1, 2) / (weight.sum(dim=2, keepdim=True) - 1).clamp_min(1)  # (b, 3, 3)
    # One NaN makes eigh raise for the whole batch: tiles without an estimate get any matrix that has eigenvectors.
    fine = (seen.outcome == Outcome.FINE)[:, None, None]
    anything = torch.diag(torch.arange(1.0, 4.0, dtype=wide, device=covariance.device))
    values, vectors = torch.linalg.eigh(torch.where(fine, covariance, anything))
    return vectors[:, :, 1:].to(seen.od.dtype), mean, values[:, 1]


def turned(plane: Tensor, mean: Tensor) -> Tensor:
    """Return axes of the plane, (b, 2, 3), the first along the mean density."""
    torch = import_torch()
    along = (plane.transpose(1, 2) @ mean[:, :, None])[:, :, 0]  # (b, 2)
    along = torch.nn.functional.normalize(along, dim=1)
    across = torch.stack([-along[:, 1], along[:, 0]], dim=1)
    axes: Tensor = torch.stack([along, across], dim=1) @ plane.transpose(1, 2)
    return axes


def extremes(seen: Densities, axes: Tensor, percentile: float) -> Tensor:
    """Return the directions (b, 2, 3) at the ends of the angle in the plane."""
    torch = import_torch()
    place = axes @ seen.od  # (b, 2, m)
    angle = torch.atan2(place[:, 1], place[:, 0])
    ends = percentiles(angle, seen.tissue, (percentile, 100 - percentile)).T  # (b, 2)
    directions: Tensor = torch.stack([ends.cos(), ends.sin()], dim=2) @ axes
    return directions
