"""Vahadane's stain estimate (Vahadane et al., IEEE Trans. Med. Imaging 2016, "Structure-preserving color ...").

Densities V (3, m) are stains W (3, 2) times amounts H (2, m), both without negative parts, and amounts are sparse,
since one place mostly takes one stain::

    min  1/2 |V - W H|^2 + penalty sum(H),    W, H >= 0, columns of W of length 1

which is solved for H and W in turn. With two stains H has a closed form per pixel (either stain alone, or both):
no step size, no inner iteration. W follows column by column (Mairal et al. 2009). The problem is not convex: it starts
from Macenko's answer and takes a fixed number of rounds, so that the same tile gives the same stains.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_slnpredict.torch_door import import_torch

from .density import Densities, densities, in_pieces
from .macenko import LEAST_SPREAD, extremes, plane_of, turned
from .matrix import FitSpec, StainFit
from .unmix import finished

if TYPE_CHECKING:
    from torch import Tensor

#: Weight of the amounts' sum, and rounds (the stains move by less than 0.1 degree after 30).
PENALTY, ROUNDS = 0.1, 40


def fit_vahadane(
    tiles: Tensor, spec: FitSpec | None = None, *, penalty: float = PENALTY, rounds: int = ROUNDS
) -> StainFit:
    """Estimate the stains of each tile.

    Parameters
    ----------
    tiles : (b, h, w, 3) uint8, or floating 0 to 1
        On any device; each is estimated alone.
    spec : FitSpec, optional
        By default every fourth pixel, and tissue by its mean density.
    penalty : float
        Weight of the amounts' sum.
    rounds : int
        Alternations.
    """

    def fit(part: Tensor, spec: FitSpec) -> StainFit:
        return _fit(part, spec, penalty, rounds)

    return in_pieces(fit, tiles, spec or FitSpec(every=4, faintest=False))


def _fit(tiles: Tensor, spec: FitSpec, penalty: float, rounds: int) -> StainFit:
    seen = densities(tiles, spec)
    plane, mean, spread = plane_of(seen)
    stains = _started(extremes(seen, turned(plane, mean), spec.percentile))
    tissue = seen.tissue.to(seen.od.dtype)[:, None]  # (b, 1, m)
    for _ in range(rounds):
        stains = _stains(seen, sparse_amounts(seen.od, stains, penalty) * tissue, stains)
    return finished(seen, stains, spread < LEAST_SPREAD, spec)


def _started(stains: Tensor) -> Tensor:
    torch = import_torch()
    start: Tensor = torch.nn.functional.normalize(stains.nan_to_num(0.0).clamp_min(1e-3), dim=2)
    return start


def sparse_amounts(od: Tensor, stains: Tensor, penalty: float) -> Tensor:
    """Return the best amounts without negative parts: densities (b, 3, m), stains (b, 2, 3) to (b, 2, m), exact.

    Where the unconstrained answer is negative in one stain, the other is alone; where both, there is none.
    """
    torch = import_torch()
    cosine = (stains[:, 0] * stains[:, 1]).sum(dim=1)[:, None]  # (b, 1)
    alone = stains @ od - penalty  # what each would be without the other
    first, second = alone[:, 0], alone[:, 1]
    both_first = first - cosine * second  # times 1 - cosine^2, which is positive
    both_second = second - cosine * first
    scale = 1 / (1 - cosine**2).clamp_min(1e-9)
    found_first = torch.where(both_second < 0, first, both_first * scale)
    found_second = torch.where(both_first < 0, second, both_second * scale)
    found_first = found_first.masked_fill(both_first < 0, 0)
    found_second = found_second.masked_fill(both_second < 0, 0)
    found: Tensor = torch.stack([found_first, found_second], dim=1).clamp_min(0)
    return found


def _stains(seen: Densities, amount: Tensor, stains: Tensor) -> Tensor:
    """Return better stains (b, 2, 3) for given amounts (b, 2, m): each column in turn, cut at 0, length 1."""
    torch = import_torch()
    square = amount @ amount.transpose(1, 2)  # (b, 2, 2)
    cross = amount @ seen.od.transpose(1, 2)  # (b, 2, 3)
    new = stains
    for k in range(2):
        weight = square[:, k, k, None]
        change = (cross[:, k] - (square[:, k, :, None] * new).sum(dim=1)) / weight.clamp_min(1e-9)
        column = torch.nn.functional.normalize((new[:, k] + change).clamp_min(0), dim=1)
        # A stain that no pixel takes stays as it was.
        column = torch.where(weight > 1e-6, column, new[:, k])
        new = torch.stack([column, new[:, 1]] if k == 0 else [new[:, 0], column], dim=1)
    return new
