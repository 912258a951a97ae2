"""Random views of H&E tiles: what may change while the tissue stays the same.

A view is turned and mirrored (tissue has no up), cropped a little, stained by another laboratory, focused a little
worse. It is not made grey and hardly zoomed: colour and size of nuclei mean something here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_slnpredict.torch_door import import_torch

if TYPE_CHECKING:
    from torch import Generator, Tensor

#: Optical density of one unit of haematoxylin, eosin and what is neither, rows (Ruifrok & Johnston 2001).
STAINS = ((0.650, 0.704, 0.286), (0.072, 0.990, 0.105), (0.268, 0.570, 0.776))


@dataclass(frozen=True)
class ViewSpec:
    """How far views may differ.

    Attributes
    ----------
    crop : (float, float)
        Share of the tile's area that is kept, then enlarged to the full side.
    stain : float
        Each stain's amount is multiplied by 1 +- this.
    offset : float
        And shifted by +- this, optical density.
    tilt : float
        Standard deviation added to each entry of the stains' directions when stained again: another lab's dyes.
    gamma : float
        Brightness and contrast of the scanner: density to the power 1 +- this.
    blur_px : float
        Largest Gaussian width; half of all views are blurred.
    """

    crop: tuple[float, float] = (0.5, 1.0)
    stain: float = 0.3
    offset: float = 0.03
    tilt: float = 0.04
    gamma: float = 0.1
    blur_px: float = 1.0


def views(tiles: Tensor, spec: ViewSpec, rng: Generator) -> Tensor:
    """Return one random view of each tile.

    Parameters
    ----------
    tiles : (b, 3, h, h) float32, 0 to 1
    rng : torch.Generator

    Returns
    -------
    (b, 3, h, h) float32, 0 to 1
    """
    density = optical_density(turned(tiles, spec.crop, rng))
    density = restained(density, spec, rng)
    torch = import_torch()
    return blurred(torch.exp(-density).clamp(0, 1), spec.blur_px, rng)


def optical_density(tiles: Tensor) -> Tensor:
    """Return minus the logarithm of the light that came through; black is taken as 1/255."""
    return -tiles.clamp(1 / 255, 1).log()


def turned(tiles: Tensor, crop: tuple[float, float], rng: Generator) -> Tensor:
    """Turn by quarters, mirror and crop each tile, all in one resampling.

    Quarter turns of the whole tile map pixel centres on pixel centres: without a crop nothing is smoothed.
    """
    torch = import_torch()
    b = len(tiles)
    side = torch.empty(b).uniform_(*crop, generator=rng).sqrt()
    quarter = torch.randint(0, 4, (b,), generator=rng) * (math.pi / 2)
    mirror = 1.0 - 2.0 * torch.randint(0, 2, (b,), generator=rng)
    shift = (1 - side)[:, None] * torch.empty(b, 2).uniform_(-1, 1, generator=rng)
    cos, sin = torch.cos(quarter), torch.sin(quarter)
    rows = torch.stack([cos * mirror, -sin, sin * mirror, cos], dim=1).reshape(b, 2, 2) * side[:, None, None]
    affine = torch.cat([rows, shift[:, :, None]], dim=2).to(tiles)  # (b, 2, 3)
    grid = torch.nn.functional.affine_grid(affine, list(tiles.shape), align_corners=False)
    out: Tensor = torch.nn.functional.grid_sample(
        tiles, grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return out


def restained(density: Tensor, spec: ViewSpec, rng: Generator) -> Tensor:
    """Stain tiles again, (b, 3, h, w) optical density: dyes unmixed, changed in amount and colour, mixed again."""
    torch = import_torch()
    b = len(density)
    stains = torch.nn.functional.normalize(torch.tensor(STAINS), dim=1)
    factor = 1 + spec.stain * torch.empty(b, 3).uniform_(-1, 1, generator=rng)
    offset = spec.offset * torch.empty(b, 3).uniform_(-1, 1, generator=rng)
    offset[:, 2] = 0
    tilted = stains + spec.tilt * torch.randn(b, 3, 3, generator=rng)
    tilted = torch.nn.functional.normalize(tilted.clamp_min(0.01), dim=2)
    change = torch.linalg.inv(stains) @ (factor[:, :, None] * tilted)  # (b, 3, 3), rgb -> rgb, rows
    moved = torch.einsum("bchw,bcd->bdhw", density, change.to(density))
    moved = moved + (offset[:, None, :] @ tilted)[:, 0, :, None, None].to(density)
    power = 1 + spec.gamma * torch.empty(b, 1, 1, 1).uniform_(-1, 1, generator=rng)
    out: Tensor = moved.clamp_min(0) ** power.to(density)
    return out


def blurred(tiles: Tensor, widest_px: float, rng: Generator) -> Tensor:
    """Blur half of the tiles with a Gaussian of a random width up to `widest_px`."""
    torch = import_torch()
    b, channels = tiles.shape[:2]
    width = widest_px * torch.rand(b, 1, generator=rng) * (torch.rand(b, 1, generator=rng) < 0.5)
    reach = max(1, math.ceil(2 * widest_px))
    kernel = torch.exp(-(torch.arange(-reach, reach + 1.0) ** 2) / (2 * width.clamp_min(0.05) ** 2))
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0).to(tiles)  # (b c, k)
    flat = tiles.reshape(1, b * channels, *tiles.shape[2:])
    flat = torch.nn.functional.pad(flat, (reach,) * 4, mode="replicate")
    for shape in ((1, -1), (-1, 1)):
        weight = kernel.reshape(b * channels, 1, *shape)
        flat = torch.nn.functional.conv2d(flat, weight, groups=b * channels)
    out: Tensor = flat.reshape(tiles.shape)
    return out
