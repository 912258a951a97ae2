"""Random fields, periodic textures and evenly scattered points: what scenes are drawn from.

Everything here is either small (fields at 8 um per pixel) or periodic (textures of 1024 px, made once a process and
indexed modulo their side), so that a slide of 12 million pixels costs a handful of passes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
TEXTURE_PX = 1024
_POINTS = 2500  # in one periodic square: side 50 mean distances


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], scale: float) -> Field:
    """Return a smooth random field (h, w) of about zero mean and unit variance; `scale` is its grain in pixels."""
    rows, columns = (max(2, int(np.ceil(side / scale)) + 3) for side in shape)
    coarse = rng.standard_normal((rows, columns)).astype(np.float32)
    left, top = rng.uniform(0, 1, 2)
    box = (left, top, left + shape[1] / scale, top + shape[0] / scale)
    return upsample(coarse, shape, box) * np.float32(1.35)  # 1.35: what bicubic interpolation takes from the variance


def upsample(field: Field, shape: tuple[int, int], box: tuple[float, float, float, float] | None = None) -> Field:
    """Enlarge a field smoothly to `shape` (rows, columns); `box` = (left, top, right, bottom) in the field's pixels.

    Pillow takes its support from the whole field even when only a box is enlarged, so that bands join without seams.
    """
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(field, np.float32))
    if box is not None:
        box = (box[0], box[1], min(box[2], field.shape[1]), min(box[3], field.shape[0]))
    enlarged = picture.resize((shape[1], shape[0]), Image.Resampling.BICUBIC, box=box)
    return np.asarray(enlarged, np.float32)


def sample(field: NDArray[Any], x_um: Field, y_um: Field, um: float) -> NDArray[np.float32]:
    """Read a field of `um` per pixel at places (k,), bilinearly; outside it its edge continues."""
    rows, columns = field.shape
    x = np.clip(x_um / um - 0.5, 0, columns - 1.001)
    y = np.clip(y_um / um - 0.5, 0, rows - 1.001)
    left, top = x.astype(np.intp), y.astype(np.intp)
    dx, dy = (x - left).astype(np.float32), (y - top).astype(np.float32)
    right, bottom = np.minimum(left + 1, columns - 1), np.minimum(top + 1, rows - 1)
    upper = field[top, left] * (1 - dx) + field[top, right] * dx
    lower = field[bottom, left] * (1 - dx) + field[bottom, right] * dx
    return np.asarray(upper * (1 - dy) + lower * dy, np.float32)


def nearest(field: NDArray[Any], x_um: Field, y_um: Field, um: float) -> NDArray[Any]:
    """Read a field of `um` per pixel at places (k,) without interpolation."""
    row = np.clip((y_um / um).astype(np.intp), 0, field.shape[0] - 1)
    column = np.clip((x_um / um).astype(np.intp), 0, field.shape[1] - 1)
    return np.asarray(field[row, column])


@lru_cache(maxsize=4)
def streaks(along: float = 38.0, across: float = 1.3) -> Field:
    """Return a periodic texture of fibres along its columns, (1024, 1024) float32, 0..1 with a flat histogram."""
    rng = np.random.default_rng(7)
    texture = np.zeros((TEXTURE_PX, TEXTURE_PX), np.float64)
    for share, stretch in ((0.9, 1.0), (1.0, 2.4), (0.55, 6.0)):  # fine fibres and the bundles they form
        texture += share * _filtered(rng, across * stretch, along * stretch**0.5)
    return _flat(texture)


@lru_cache(maxsize=8)
def grain(size: float = 1.2) -> Field:
    """Return a periodic isotropic texture, (1024, 1024) float32, zero mean, unit variance; `size` in px."""
    rng = np.random.default_rng(int(size * 100))
    return _filtered(rng, size, size).astype(np.float32)


def _filtered(rng: np.random.Generator, sigma_y: float, sigma_x: float) -> NDArray[np.float64]:
    frequency = np.fft.fftfreq(TEXTURE_PX)
    reach = np.exp(-2 * np.pi**2 * ((sigma_y * frequency[:, None]) ** 2 + (sigma_x * frequency[None, :]) ** 2))
    white = rng.standard_normal((TEXTURE_PX, TEXTURE_PX))
    texture = np.real(np.fft.ifft2(np.fft.fft2(white) * reach))
    return np.asarray((texture - texture.mean()) / texture.std())


def _flat(texture: NDArray[np.float64]) -> Field:
    order = np.argsort(texture, axis=None)
    flat = np.empty(texture.size, np.float32)
    flat[order] = np.linspace(0, 1, texture.size, dtype=np.float32)
    return flat.reshape(texture.shape)


@lru_cache(maxsize=1)
def _even_points() -> NDArray[np.float64]:
    """Points (2500, 2) in a periodic square of side 50: random, but pushed apart as cells push each other apart."""
    from scipy.spatial import cKDTree

    rng = np.random.default_rng(11)
    side = float(np.sqrt(_POINTS))
    points = rng.uniform(0, side, (_POINTS, 2))
    for _ in range(12):
        distance, neighbour = cKDTree(points, boxsize=side).query(points, k=7)
        away = points[:, None] - points[neighbour[:, 1:]]
        away -= side * np.round(away / side)
        push = np.clip(1.05 - distance[:, 1:, None], 0, None) * away / np.maximum(distance[:, 1:, None], 1e-6)
        points = (points + 0.4 * push.sum(axis=1)) % side
    return points


def scatter(rng: np.random.Generator, width: float, height: float, spacing: float) -> tuple[Field, Field]:
    """Return places x, y (k,) float32 um that fill a rectangle evenly but without order, `spacing` um apart on average.

    Density is ``1 / spacing**2``; hardly any two lie closer than 0.7 spacings.
    """
    points = _even_points()
    side = float(np.sqrt(_POINTS)) * spacing
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    reach = np.hypot(width, height) / 2 + spacing
    copies = np.arange(-int(np.ceil(reach / side)) - 1, int(np.ceil(reach / side)) + 1)
    shift = np.stack(np.meshgrid(copies, copies), axis=-1).reshape(-1, 1, 2) * side
    places = ((points * spacing + rng.uniform(0, side, 2)) % side + shift).reshape(-1, 2)
    places = places[np.abs(places).max(axis=1) <= reach] @ turn.T + (width / 2, height / 2)
    inside = (places > 0).all(axis=1) & (places[:, 0] < width) & (places[:, 1] < height)
    places = places[inside].astype(np.float32)
    return places[:, 0], places[:, 1]
