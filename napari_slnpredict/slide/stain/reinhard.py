"""Reinhard's colour transfer (Reinhard et al., IEEE CG&A 2001, "Color transfer between images").

Mean and deviation of each channel of a colour space become those of the target. The paper's space is Ruderman's; here,
as in StainTools and torchstain, it is CIELAB. Mean and deviation are taken over tissue only and glass is left as it is,
else the share of glass in a tile would decide its colour.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_slnpredict.torch_door import import_torch

from .density import densities, full_precision, in_pieces, light, masked_mean, tissue_weight, to_tiles
from .matrix import WHITE, ColourFit, FitSpec, Outcome, SlideColours

if TYPE_CHECKING:
    from torch import Tensor

#: Linear sRGB to XYZ (IEC 61966-2-1, D65), and XYZ of white.
TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
WHITE_XYZ = (0.95047, 1.0, 1.08883)
#: Deviation below which a channel is taken for this, and all three together for one colour, CIELAB units.
LEAST_DEVIATION, ONE_COLOUR = 1e-3, 0.3
#: Pixels painted at once on a CPU: larger tensors leave its caches, and everything takes three times as long.
CPU_PX = 100_000
#: A deviation is stretched by at most this.
MOST_STRETCH = 3.0


def fit_reinhard(tiles: Tensor, spec: FitSpec | None = None) -> ColourFit:
    """Take mean and deviation of each tile's tissue in CIELAB.

    Parameters
    ----------
    tiles : (b, h, w, 3) uint8, or floating 0 to 1
    spec : FitSpec, optional
        By default every second pixel, and tissue by its mean density.
    """
    return in_pieces(_fit, tiles, spec or FitSpec(every=2, faintest=False))


def _fit(tiles: Tensor, spec: FitSpec) -> ColourFit:
    torch = import_torch()
    seen = densities(tiles, spec)
    white = torch.tensor(spec.white, dtype=torch.float32, device=tiles.device).log()[:, None]
    lab = to_lab((torch.exp(white - seen.od) - 1) / 255)  # (b, 3, m)
    mean = masked_mean(lab, seen.tissue)
    deviation = masked_mean((lab - mean[:, :, None]) ** 2, seen.tissue).sqrt()
    flat = (deviation.norm(dim=1) < ONE_COLOUR) & (seen.outcome == Outcome.FINE)
    outcome = torch.where(flat, int(Outcome.DEGENERATE), seen.outcome)
    return ColourFit(mean, deviation.clamp_min(LEAST_DEVIATION), outcome)


def recolour(tiles: Tensor, source: ColourFit, target: ColourFit) -> Tensor:
    """Give each tile's tissue the target's mean and deviation.

    Parameters
    ----------
    tiles : (b, h, w, 3) uint8, or floating 0 to 1
    source : ColourFit
        Of these tiles.
    target : ColourFit
        Of one tile, or of b.

    Returns
    -------
    (b, h, w, 3) of the tiles' type; tiles whose source or target failed are returned as they are.
    """
    torch = import_torch()
    b = len(tiles)
    source, target = (fit.take([0] * b) if len(fit) == 1 else fit for fit in (source, target))
    usable = source.usable & target.usable
    step = max(1, CPU_PX // max(1, tiles.shape[1] * tiles.shape[2]) if tiles.device.type == "cpu" else b)
    parts = [
        _moved(tiles[part], source.take(part), target.take(part))
        for part in torch.arange(b, device=tiles.device).split(step)
    ]
    made = torch.cat(parts) if parts else tiles
    chosen: Tensor = torch.where(usable[:, None, None, None], made, tiles)
    return chosen


def colours_of(found: list[ColourFit]) -> SlideColours | None:
    """Return the colours of a slide from those of its tiles, as if its tissue were one picture; None without any.

    The deviation is that within tiles and between them: tiles of one slide differ.
    """
    torch = import_torch()
    fine = torch.cat([fit.outcome for fit in found] or [torch.empty(0)]) == Outcome.FINE
    if not bool(fine.any()):
        return None
    means, deviations = (
        torch.cat([getattr(fit, part) for fit in found])[fine].double() for part in ("mean", "deviation")
    )
    spread = (deviations.square().mean(dim=0) + means.var(dim=0, correction=0)).sqrt()
    first, second, third = means.mean(dim=0).tolist()
    light_, red, yellow = spread.clamp_min(LEAST_DEVIATION).tolist()
    count = int(fine.sum())
    return SlideColours((first, second, third), (light_, red, yellow), count, len(fine) - count)


def _moved(tiles: Tensor, source: ColourFit, target: ColourFit) -> Tensor:
    with full_precision(tiles):
        return _moved_exactly(tiles, source, target)


def _moved_exactly(tiles: Tensor, source: ColourFit, target: ColourFit) -> Tensor:
    values = light(tiles)
    share = values.nan_to_num(255.0).clamp(0, 255) / 255
    stretch = (target.deviation / source.deviation).clamp(1 / MOST_STRETCH, MOST_STRETCH)
    lab = to_lab(share)
    moved = (lab - source.mean[:, :, None]) * stretch[:, :, None] + target.mean[:, :, None]
    new = from_lab(_within(moved))
    weight = tissue_weight(-((values.clamp(0, 255) + 1) / WHITE).log())
    return to_tiles((share + weight * (new - share)) * 255, tiles)


def _within(lab: Tensor) -> Tensor:
    """Cut L, a, b to what colours can have."""
    torch = import_torch()
    light_, rest = lab[:, :1].clamp(0, 100), lab[:, 1:].clamp(-128, 127)
    cut: Tensor = torch.cat([light_, rest], dim=1)
    return cut


def to_lab(rgb: Tensor) -> Tensor:
    """Return CIELAB of sRGB: (b, 3, m) 0 to 1 to (b, 3, m)."""
    torch = import_torch()
    linear = torch.where(rgb > 0.04045, ((rgb.clamp_min(0) + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    matrix = torch.tensor(TO_XYZ, dtype=rgb.dtype, device=rgb.device)
    white = torch.tensor(WHITE_XYZ, dtype=rgb.dtype, device=rgb.device)[:, None]
    xyz = (matrix @ linear) / white
    bent = torch.where(xyz > 216 / 24389, xyz.clamp_min(0) ** (1 / 3), xyz * (24389 / 27 / 116) + 16 / 116)
    x, y, z = bent[:, 0], bent[:, 1], bent[:, 2]
    lab: Tensor = torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)
    return lab


def from_lab(lab: Tensor) -> Tensor:
    """Return sRGB of CIELAB, cut to what a screen can show: (b, 3, m) to (b, 3, m) 0 to 1."""
    torch = import_torch()
    y = (lab[:, 0] + 16) / 116
    bent = torch.stack([y + lab[:, 1] / 500, y, y - lab[:, 2] / 200], dim=1)
    xyz = torch.where(bent > 6 / 29, bent**3, (bent - 16 / 116) * (116 * 27 / 24389))
    white = torch.tensor(WHITE_XYZ, dtype=lab.dtype, device=lab.device)[:, None]
    inverse = torch.linalg.inv(torch.tensor(TO_XYZ, dtype=torch.float64)).to(lab)
    linear = (inverse @ (xyz * white)).clamp(0, 1)
    rgb: Tensor = torch.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, linear * 12.92)
    return rgb.clamp(0, 1)
