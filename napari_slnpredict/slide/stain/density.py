"""From light to optical density, which pixels are tissue, and percentiles over them, tile by tile of a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

from napari_slnpredict.torch_door import import_torch

from .matrix import GLASS, TISSUE, FitSpec, Outcome

if TYPE_CHECKING:
    from torch import Tensor

#: Pixels that let through less than this in every channel are black (scan edge, fold, ink), not stained: density.
BLACK = 3.0
#: torch's quantile takes at most so many numbers at once (16 million; half of that leaves room for its copies).
QUANTILE_NUMBERS = 8_000_000
#: Pixels looked at together on a CPU: enough to share the work among cores, few enough for memory (150 MB).
FIT_PX = 800_000

Fit = TypeVar("Fit")


@dataclass(frozen=True)
class Densities:
    """What a fit looks at.

    Attributes
    ----------
    od : (b, 3, m) float32
        Optical density, finite everywhere.
    tissue : (b, m) bool
        All True in a tile whose `outcome` is not fine, so that whatever is computed there is a number.
    outcome : (b,) int64
        `FINE`, `NOT_FINITE` or `NO_TISSUE`.
    """

    od: Tensor
    tissue: Tensor
    outcome: Tensor


def check_tiles(tiles: Tensor) -> None:
    """Refuse what is no batch of tiles, with the shape in the message."""
    torch = import_torch()
    if tiles.ndim != 4 or tiles.shape[3] != 3:
        raise ValueError(f"tiles are (b, h, w, 3), not {tuple(tiles.shape)}")
    if tiles.dtype != torch.uint8 and not tiles.dtype.is_floating_point:
        raise ValueError(f"tiles are uint8, 0 to 255, or floating, 0 to 1, not {tiles.dtype}")


def light(tiles: Tensor) -> Tensor:
    """Return tiles (b, h, w, 3), uint8 or floating 0 to 1, as (b, 3, h w) float32, 0 to 255."""
    torch = import_torch()
    check_tiles(tiles)
    b = len(tiles)
    planes = tiles.permute(0, 3, 1, 2).reshape(b, 3, tiles.shape[1] * tiles.shape[2])
    values: Tensor = planes.to(torch.float32, memory_format=torch.contiguous_format)
    return values if tiles.dtype == torch.uint8 else values * 255


def to_tiles(values: Tensor, like: Tensor) -> Tensor:
    """Return (b, 3, h w) float32, 0 to 255, in the shape and type of tiles: clipped, rounded where they are uint8."""
    torch = import_torch()
    b, h, w, _ = like.shape
    out = values.clamp(0, 255).reshape(b, 3, h, w).permute(0, 2, 3, 1)
    out = (out + 0.5).to(torch.uint8) if like.dtype == torch.uint8 else (out / 255).to(like.dtype)
    made: Tensor = out.contiguous()
    return made


def full_precision(tiles: Tensor) -> Any:
    """Return a context in which products are not taken in half precision, as training loops like to have it."""
    return import_torch().autocast(tiles.device.type, enabled=False)


def in_pieces(fit: Callable[[Tensor, FitSpec], Fit], tiles: Tensor, spec: FitSpec) -> Fit:
    """Fit a batch: at once, or on a CPU a few tiles at a time; every tile is estimated alone in any case."""
    check_tiles(tiles)
    torch = import_torch()
    count = len(tiles)
    if tiles.device.type == "cpu":
        count = FIT_PX * spec.every**2 // max(1, tiles.shape[1] * tiles.shape[2])
    step = max(1, count)
    with full_precision(tiles):
        parts = [fit(tiles[k : k + step], spec) for k in range(0, max(1, len(tiles)), step)]
    if len(parts) == 1:
        return parts[0]
    names = [field.name for field in fields(parts[0])]  # type: ignore[arg-type]
    return type(parts[0])(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def densities(tiles: Tensor, spec: FitSpec) -> Densities:
    """Return optical densities and tissue of every `spec.every`-th pixel."""
    torch = import_torch()
    values = light(tiles[:, :: spec.every, :: spec.every])
    # The whole tile is asked, not every so many pixels: one NaN that is not looked at would still be painted.
    finite = torch.isfinite(tiles).flatten(1).all(dim=1) if tiles.dtype.is_floating_point else None
    if finite is not None:
        values = values.nan_to_num(nan=255.0, posinf=255.0, neginf=0.0).clamp(0, 255)
    white = torch.tensor(spec.white, dtype=torch.float32, device=tiles.device)
    od = white.log()[:, None] - (values + 1).log()  # (b, 3, m)
    dense = od.amin(dim=1) if spec.faintest else od.mean(dim=1)
    tissue = (dense >= spec.density) & (od.amin(dim=1) < BLACK)
    enough = max(spec.least_px / spec.every**2, spec.least_share * tissue.shape[1], 3)
    outcome = torch.where(tissue.sum(dim=1) >= enough, int(Outcome.FINE), int(Outcome.NO_TISSUE))
    if finite is not None:
        outcome = torch.where(finite, outcome, int(Outcome.NOT_FINITE))
    return Densities(od, tissue | (outcome != Outcome.FINE)[:, None], outcome)


def tissue_weight(od: Tensor) -> Tensor:
    """Return 0 on glass, 1 on tissue, between in between: densities (b, 3, m) to (b, 1, m)."""
    weight: Tensor = ((od.mean(dim=1, keepdim=True) - GLASS) / (TISSUE - GLASS)).clamp(0, 1)
    return weight


def percentiles(values: Tensor, mask: Tensor, wanted: tuple[float, ...]) -> Tensor:
    """Return percentiles over masked pixels, straight between neighbours as numpy's.

    Parameters
    ----------
    values : (b, m) float32
    mask : (b, m) bool
        At least one True a row, else that row is NaN.
    wanted : k percentiles, 0 to 100

    Returns
    -------
    (k, b) float32
    """
    torch = import_torch()
    share = torch.tensor(wanted, dtype=torch.float32, device=values.device) / 100
    hidden = values.masked_fill(~mask, float("nan"))
    if values.numel() == 0:  # which torch's quantile refuses
        return values.new_full((len(wanted), len(values)), float("nan"))
    rows = max(1, QUANTILE_NUMBERS // max(1, values.shape[1]))
    starts = range(0, len(hidden), rows)
    parts = [torch.nanquantile(hidden[k : k + rows], share, dim=1) for k in starts]
    found: Tensor = torch.cat(parts, dim=1)
    return found


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return means over masked pixels: (b, c, m) and (b, m) bool to (b, c)."""
    weight = mask.to(values.dtype)
    mean: Tensor = (values * weight[:, None]).sum(dim=2) / weight.sum(dim=1).clamp_min(1)[:, None]
    return mean
