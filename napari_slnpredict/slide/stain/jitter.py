"""Tiles as another laboratory might have stained them: random amounts and colours of the stains, in optical density."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_slnpredict.torch_door import import_torch

from .matrix import REFERENCE, StainFit, StainMatrix, fit_of
from .restain import _spread, restain

if TYPE_CHECKING:
    from torch import Generator, Tensor


@dataclass(frozen=True)
class JitterSpec:
    """How far a stain may move.

    Attributes
    ----------
    amount : float
        Each stain's amount is multiplied by 1 +- this.
    offset : float
        And +- this much of it is added everywhere, optical density.
    tilt : float
        Standard deviation added to each part of a stain's colour.
    """

    amount: float = 0.25
    offset: float = 0.02
    tilt: float = 0.03


def jitter(
    tiles: Tensor, stains: StainFit | StainMatrix | None, rng: Generator, spec: JitterSpec | None = None
) -> Tensor:
    """Stain each tile again, a little differently.

    Parameters
    ----------
    tiles : (b, h, w, 3) uint8, or floating 0 to 1
    stains : StainFit or StainMatrix, optional
        Of these tiles or of their slide; the reference's where there is none, or where it is not usable.
    rng : torch.Generator
        On the CPU: the same draw gives the same views on every device.
    """
    torch = import_torch()
    spec, b = spec or JitterSpec(), len(tiles)
    own = fit_of(stains or REFERENCE, like=tiles) if not isinstance(stains, StainFit) else stains.or_else(REFERENCE)
    own = _spread(own, b)
    factor = 1 + spec.amount * torch.empty(b, 2).uniform_(-1, 1, generator=rng)
    offset = spec.offset * torch.empty(b, 2, 1).uniform_(-1, 1, generator=rng)
    tilt = spec.tilt * torch.randn(b, 2, 3, generator=rng)
    colours = torch.nn.functional.normalize((own.stains + tilt.to(own.stains)).clamp_min(0.01), dim=2)
    new = replace(own, stains=colours, strength=own.strength * factor.to(own.strength))
    return restain(tiles, own, new, offset=(offset.to(colours) * colours).sum(dim=1))
