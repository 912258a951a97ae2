"""Nuclei: a library of small pictures of them, made once a process, and the stamping of thousands of them.

At 1 um per pixel a nucleus is 6 to 14 pixels wide: outline, chromatin grain, rim and nucleolus can be seen, no more.
Sprites are drawn at four times that resolution and reduced, so that edges are soft as in a scanned slide.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Sprites = NDArray[np.uint8]
FULL = 150.0  # sprite value of one unit of haematoxylin; above it there is room for dark nuclei
_FINE = 4


@dataclass(frozen=True)
class NucleusKind:
    """How nuclei of one kind look.

    Attributes
    ----------
    diameter_um : (mean, standard deviation)
    elongation : (low, high)
        Long axis over short axis.
    ragged : float
        Unevenness of the outline, relative to the radius.
    density : float
        Haematoxylin in the middle, units of an ordinary tumour nucleus.
    rim : float
        Extra density of the nuclear membrane: vesicular nuclei have a dark rim and a pale middle.
    clumps : float
        Contrast of the chromatin.
    nucleoli : int
        Dark dots at most.
    side_px : int
        Side of the sprite, px (odd).
    oriented : bool
        Sprites are sorted by angle, so that a caller can lay them along fibres.
    """

    diameter_um: tuple[float, float]
    elongation: tuple[float, float]
    ragged: float
    density: float
    rim: float
    clumps: float
    nucleoli: int
    side_px: int
    oriented: bool = False


VARIANTS = 64
#: The index of a kind in this table is what `Nuclei.kind` holds.
KINDS: dict[str, NucleusKind] = {
    "tumour": NucleusKind((8.6, 0.7), (1.0, 1.35), 0.05, 0.78, 0.10, 0.16, 1, 17),
    "atypical": NucleusKind((12.0, 1.1), (1.0, 1.5), 0.11, 1.08, 0.12, 0.22, 2, 23),
    "lymphocyte": NucleusKind((6.2, 0.5), (1.0, 1.15), 0.03, 1.15, 0.0, 0.20, 0, 11),
    "fibroblast": NucleusKind((5.6, 0.6), (2.6, 4.6), 0.05, 0.85, 0.05, 0.12, 0, 21, oriented=True),
    "histiocyte": NucleusKind((8.8, 0.9), (1.2, 1.8), 0.05, 0.50, 0.16, 0.10, 1, 19),
    "centroblast": NucleusKind((9.2, 0.9), (1.0, 1.3), 0.06, 0.70, 0.14, 0.16, 2, 17),
    # Deposits and their benign doubles: as much nucleus, as dark on average, but uneven here and regular there.
    "metastatic": NucleusKind((9.7, 1.9), (1.0, 1.5), 0.10, 0.74, 0.14, 0.20, 2, 23),
    "epithelioid": NucleusKind((9.9, 0.5), (1.3, 1.9), 0.03, 0.745, 0.13, 0.17, 1, 21),
}
KIND_NAMES = tuple(KINDS)
CODE = {name: index for index, name in enumerate(KIND_NAMES)}


@dataclass(frozen=True)
class Nuclei:
    """All nuclei of a slide, arrays (k,).

    Attributes
    ----------
    x, y : float32, um
    kind : uint8, index into `KIND_NAMES`
    strength : float32, factor on the sprite's density
    angle : float32, radians, direction of the long axis (only oriented kinds use it)
    """

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    kind: NDArray[np.uint8]
    strength: NDArray[np.float32]
    angle: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.x)

    @staticmethod
    def join(parts: list[Nuclei]) -> Nuclei:
        """Put several sets into one."""
        names = ("x", "y", "kind", "strength", "angle")
        return Nuclei(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


@lru_cache(maxsize=len(KINDS))
def sprites(name: str) -> Sprites:
    """Return the pictures of one kind, (64, side, side) uint8; `FULL` is one unit of haematoxylin."""
    kind = KINDS[name]
    rng = np.random.default_rng(100 + CODE[name])
    fine = kind.side_px * _FINE
    centre = (np.arange(fine) + 0.5) / _FINE - kind.side_px / 2
    x = centre[None, None, :] - rng.uniform(-0.5, 0.5, (VARIANTS, 1, 1))
    y = centre[None, :, None] - rng.uniform(-0.5, 0.5, (VARIANTS, 1, 1))
    turn = np.pi * (np.arange(VARIANTS) if kind.oriented else rng.permutation(VARIANTS)) / VARIANTS
    cos, sin = np.cos(turn)[:, None, None], np.sin(turn)[:, None, None]
    stretch = np.sqrt(rng.uniform(*kind.elongation, (VARIANTS, 1, 1)))
    along, across = (x * cos + y * sin) / stretch, (y * cos - x * sin) * stretch
    radius = np.clip(rng.normal(kind.diameter_um[0], kind.diameter_um[1], (VARIANTS, 1, 1)), 4, None) / 2
    depth = radius * _outline(rng, np.arctan2(across, along), kind.ragged) - np.hypot(along, across)  # um inside
    inside = np.clip(depth / 0.8 + 0.5, 0, 1)
    value = inside * (kind.density + _chromatin(rng, kind, depth, along, across))
    small = value.reshape(VARIANTS, kind.side_px, _FINE, kind.side_px, _FINE).mean(axis=(2, 4))
    return np.asarray(np.clip(small * FULL, 0, 255), np.uint8)


def _outline(rng: np.random.Generator, angle: NDArray[np.float64], ragged: float) -> NDArray[np.float64]:
    wobble = np.ones_like(angle)
    for order in (2, 3, 4, 5):
        phase = rng.uniform(0, 2 * np.pi, (VARIANTS, 1, 1))
        wobble += ragged * rng.normal(0, 1.4 / order, (VARIANTS, 1, 1)) * np.cos(order * angle + phase)
    return wobble


def _chromatin(
    rng: np.random.Generator,
    kind: NucleusKind,
    depth: NDArray[np.float64],
    along: NDArray[np.float64],
    across: NDArray[np.float64],
) -> NDArray[np.float64]:
    from scipy.ndimage import gaussian_filter

    clumps = gaussian_filter(rng.standard_normal(depth.shape), (0, 1.1 * _FINE, 1.1 * _FINE))
    extra = kind.clumps * clumps / clumps.std() + kind.rim * np.exp(-(((depth - 0.8) / 0.9) ** 2))
    for _ in range(kind.nucleoli):
        radius, angle = rng.uniform(0, 2.0, (VARIANTS, 1, 1)), rng.uniform(0, 2 * np.pi, (VARIANTS, 1, 1))
        distance = np.hypot(along - radius * np.cos(angle), across - radius * np.sin(angle))
        shown = rng.random((VARIANTS, 1, 1)) < 0.7
        extra = extra + 0.35 * shown * np.clip(1.5 - distance, 0, 1)
    return np.asarray(extra - kind.rim * 0.5)


def stamp(nuclei: Nuclei, width: int, height: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw nuclei at 1 um per pixel, (height, width) uint8 in units of ``1 / FULL`` haematoxylin.

    Where two overlap the darker one shows.
    """
    picture = np.zeros((height, width), np.uint8)
    for code, name in enumerate(KIND_NAMES):
        chosen = np.flatnonzero(nuclei.kind == code)
        if len(chosen):
            variant = _variants(name, nuclei.angle[chosen], rng)
            stamp_sprites(picture, sprites(name), variant, nuclei.x[chosen], nuclei.y[chosen], nuclei.strength[chosen])
    return picture


def _variants(name: str, angle: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.intp]:
    if not KINDS[name].oriented:
        return rng.integers(0, VARIANTS, len(angle))
    wanted = angle / np.pi * VARIANTS + rng.normal(0, 2.5, len(angle))
    return np.asarray(np.round(wanted).astype(np.intp) % VARIANTS)


def stamp_sprites(
    picture: NDArray[np.uint8],
    library: Sprites,
    variant: NDArray[np.intp],
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    strength: NDArray[np.float32],
) -> None:
    """Stamp one sprite a place into `picture` (h, w) uint8, the larger value winning.

    Sprites that would leave the picture are left out.

    ``np.maximum.at`` on bytes measured 6 ns a pixel: 0.1 s for 40,000 tumour nuclei.
    """
    height, width = picture.shape
    side = library.shape[1]
    left, top = np.floor(x).astype(np.int64) - side // 2, np.floor(y).astype(np.int64) - side // 2
    whole = (left >= 0) & (top >= 0) & (left + side <= width) & (top + side <= height)
    corner, variant = (top * width + left)[whole], variant[whole]
    shade = np.round(np.clip(strength[whole], 0, 2.5) * 64).astype(np.uint32)
    offset = (np.arange(side)[:, None] * width + np.arange(side)).ravel()
    flat, table = picture.reshape(-1), library.reshape(len(library), -1).astype(np.uint32)
    for start in range(0, len(corner), 4096):
        part = slice(start, start + 4096)
        values = np.minimum((table[variant[part]] * shade[part, None]) >> 6, 255).astype(np.uint8)
        np.maximum.at(flat, (corner[part, None] + offset).ravel(), values.ravel())
