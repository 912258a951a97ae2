"""Where outline, nests, aggregates, vessels, fat and fibres lie: fields at 8 um per pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .noise import Field, sample, scatter, smooth_noise
from .scene import FIELD_UM, OUTSIDE, Canvas

_FAR = 1e6
WALL_UM = 2


@dataclass(frozen=True)
class Blobs:
    """Rounded regions of one kind: nests, aggregates, deposits.

    Attributes
    ----------
    x, y, radius : (k,) float32, um
    owner : (h, w) int32
        Nearest blob of each field pixel, -1 where there is none near.
    field : (h, w) float32
        um inside the border.
    """

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    radius: NDArray[np.float32]
    owner: NDArray[np.int32]
    field: Field

    def __len__(self) -> int:
        return len(self.x)

    @property
    def area_um2(self) -> NDArray[np.float64]:
        """Area of each blob, (k,)."""
        inside = self.owner[(self.field > 0) & (self.owner >= 0)]
        return np.asarray(np.bincount(inside, minlength=len(self)) * float(FIELD_UM**2), np.float64)


def outline(rng: np.random.Generator, canvas: Canvas, fill: float = 0.80) -> Field:
    """Return the field of the tissue: a rounded piece that fills about `fill` of each side, sometimes torn."""
    x, y = canvas.centres
    half = min(canvas.width, canvas.height) / 2
    power = rng.uniform(2.2, 4.0)
    across = np.abs(x / canvas.width * 2 - 1) ** power + np.abs(y / canvas.height * 2 - 1) ** power
    field = (fill - across ** (1 / power)) * half
    field += half * 0.09 * smooth_noise(rng, canvas.shape, half / FIELD_UM / 2)
    field += half * 0.025 * smooth_noise(rng, canvas.shape, max(6.0, half / FIELD_UM / 10))
    field += 5 * smooth_noise(rng, canvas.shape, 4)
    if rng.random() < 0.3:  # a tear
        crack = np.abs(smooth_noise(rng, canvas.shape, half / FIELD_UM / 1.5)) * half / 3 - rng.uniform(4, 14)
        field = np.minimum(field, crack + 40 * np.abs(smooth_noise(rng, canvas.shape, half / FIELD_UM / 3)))
    return np.asarray(np.minimum(field, _margin(canvas)), np.float32)


def _margin(canvas: Canvas) -> Field:
    # Tissue cut by the picture's edge would make tissue area a matter of framing.
    x, y = canvas.centres
    edge = np.minimum(np.minimum(x, canvas.width - x), np.minimum(y, canvas.height - y))
    return np.asarray(edge - 0.02 * min(canvas.width, canvas.height), np.float32)


def warped(rng: np.random.Generator, canvas: Canvas, amplitude: float, grain_um: float) -> tuple[Field, Field]:
    """Return the field pixels' centres displaced by smooth noise: what makes circles look grown."""
    x, y = canvas.centres
    grain = max(2.0, grain_um / FIELD_UM)
    dx, dy = (amplitude * smooth_noise(rng, canvas.shape, grain) for _ in range(2))
    return (x + dx).astype(np.float32), (y + dy).astype(np.float32)


def blobs(
    rng: np.random.Generator,
    canvas: Canvas,
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    radius: NDArray[np.float32],
    *,
    septum: float = 24.0,
    ragged: float = 0.18,
) -> Blobs:
    """Grow blobs around given centres; neighbours keep `septum` um of stroma between them.

    `ragged` is the displacement of the border relative to the mean radius.
    """
    if len(x) == 0:
        empty = np.zeros(0, np.float32)
        return Blobs(empty, empty, empty, np.full(canvas.shape, -1, np.int32), canvas.nothing())
    from scipy.spatial import cKDTree

    mean = float(radius.mean())
    px, py = warped(rng, canvas, ragged * mean, mean)
    places = np.stack([px.ravel(), py.ravel()], axis=1)
    reach = float(radius.max()) * 2.5 + septum
    distance, index = cKDTree(np.stack([x, y], axis=1)).query(places, k=[1, 2], distance_upper_bound=reach)
    near = np.isfinite(distance[:, 0])
    first = np.where(near, index[:, 0], 0)
    depth = np.where(near, radius[first] - distance[:, 0], OUTSIDE)
    second = np.where(np.isfinite(distance[:, 1]), distance[:, 1], _FAR)
    depth = np.minimum(depth, (second - np.where(near, distance[:, 0], 0)) / 2 - septum / 2)
    field = depth.reshape(canvas.shape) + 3.0 * smooth_noise(rng, canvas.shape, 3)
    owner = np.where(near, first, -1).reshape(canvas.shape)
    return Blobs(x, y, radius, owner.astype(np.int32), field.astype(np.float32))


def nest_centres(
    rng: np.random.Generator, canvas: Canvas, region: Field, spacing: float, size: tuple[float, float] = (0.36, 0.56)
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return centres and radii of nests that fill `region` (positive inside), `spacing` um apart."""
    x, y = scatter(rng, canvas.width, canvas.height, spacing)
    keep = sample(region, x, y, FIELD_UM) > 0
    radius = (rng.uniform(*size, len(x)) * spacing).astype(np.float32)
    return x[keep], y[keep], radius[keep]


def spaced(
    rng: np.random.Generator, canvas: Canvas, region: Field, count: int, apart: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return up to `count` places inside `region`, at least `apart` um from each other."""
    rows, columns = np.nonzero(region > 0)
    order = rng.permutation(len(rows))[: 400 * max(count, 1)]
    places = (np.stack([columns[order], rows[order]], axis=1) + 0.5) * FIELD_UM
    chosen: list[NDArray[np.float64]] = []
    for place in places:
        if len(chosen) == count:
            break
        if all(np.hypot(*(place - other)) >= apart for other in chosen):
            chosen.append(place)
    found = np.asarray(chosen, np.float32).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def fibres(rng: np.random.Generator, canvas: Canvas, around: Field, wrap: float = 1.1) -> tuple[Field, Field]:
    """Return the coordinates along and across the fibres, um; fibres wave, and bend around what is in `around`."""
    x, y = canvas.centres
    angle = rng.uniform(0, np.pi)
    u = x * np.cos(angle) + y * np.sin(angle)
    v = -x * np.sin(angle) + y * np.cos(angle)
    u = u + 60 * smooth_noise(rng, canvas.shape, 70)
    v = v + 150 * smooth_noise(rng, canvas.shape, 75) + 25 * smooth_noise(rng, canvas.shape, 18)
    v = v + wrap * np.clip(around, -70, 0)
    return u.astype(np.float32), v.astype(np.float32)


def fibre_angle(v: Field) -> NDArray[np.float32]:
    """Return the direction of the fibres, (h, w) float32 radians, from the coordinate across them."""
    down, right = np.gradient(v)
    return np.asarray(np.arctan2(-right, down), np.float32)


def vessels(rng: np.random.Generator, canvas: Canvas, free: Field, per_mm2: float = 5.0) -> Blobs:
    """Lay small vessels where `free` is positive."""
    count = rng.poisson(per_mm2 * (free > 0).sum() * FIELD_UM**2 / 1e6)
    x, y = spaced(rng, canvas, free, int(count), 90.0)
    radius = rng.uniform(13, 34, len(x)).astype(np.float32)
    return blobs(rng, canvas, x, y, radius, septum=10, ragged=0.35)


def fat_patch(rng: np.random.Generator, canvas: Canvas, tissue: Field, keep_out: Field) -> Field:
    """Return a field of fat at the rim of the tissue that avoids `keep_out`."""
    half = min(canvas.width, canvas.height) / 2
    patch = 60 * smooth_noise(rng, canvas.shape, half / FIELD_UM / 2) - 40
    rim = rng.uniform(0.12, 0.28) * half - tissue
    return np.asarray(np.minimum(np.minimum(patch, rim), -keep_out - 25), np.float32)


def fat_walls(rng: np.random.Generator, canvas: Canvas, fat: Field, cell_um: float = 62.0) -> Field:
    """Return the distance from the nearest wall between fat cells, um, at 2 um per pixel; 20 outside the fat.

    Walls are thinner than a field's pixel: at 8 um they would fall between the samples.
    """
    from scipy.spatial import cKDTree

    fine = FIELD_UM // WALL_UM
    wall = np.full((canvas.shape[0] * fine, canvas.shape[1] * fine), 20, np.float32)
    near = np.repeat(np.repeat(fat > -FIELD_UM, fine, axis=0), fine, axis=1)
    rows, columns = np.nonzero(near)
    if len(rows):
        places = np.stack([(columns + 0.5) * WALL_UM, (rows + 0.5) * WALL_UM], axis=1)
        seeds = np.stack(scatter(rng, canvas.width, canvas.height, cell_um), axis=1)
        distance, _ = cKDTree(seeds).query(places, k=2)
        wall[rows, columns] = np.minimum((distance[:, 1] - distance[:, 0]) / 2, 20)
    return wall
