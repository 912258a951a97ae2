"""From a scene to pixels: dyes are laid down as amounts, light goes through them (Beer and Lambert), a scanner looks.

The picture is made in bands of rows, so that memory stays small and passes stay in the processor's cache. Amounts of
one are those of an ordinary tumour nucleus (haematoxylin) and of dense collagen (eosin).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from . import noise
from .artefacts import Dirt
from .labs import BLOOD, DAB, PIGMENT, Lab, unit
from .noise import TEXTURE_PX, Field
from .nuclei import FULL, stamp, stamp_sprites
from .scene import FIELD_UM, OUTSIDE, Scene

BAND = 512
_LIGHT = 1.18  # optical density of one unit of haematoxylin along its own direction


@dataclass(frozen=True)
class Stain:
    """One batch: a lab's habits with the batch's own deviation.

    Attributes
    ----------
    haematoxylin, eosin : (3,) float32
        Optical density per unit of dye.
    """

    haematoxylin: NDArray[np.float32]
    eosin: NDArray[np.float32]
    glass: NDArray[np.float32]
    blur_px: float
    noise: float
    quality: int


def mix_stain(rng: np.random.Generator, lab: Lab) -> Stain:
    """Draw the stain of one slide."""
    strength = np.exp(rng.normal(0, lab.spread, 2)) * lab.strength * lab.thickness * np.exp(rng.normal(0, 0.04))
    tilt = rng.normal(0, 0.02, (2, 3))
    vectors = [
        np.clip(unit(vector) + tilt[i], 0.01, None).astype(np.float32)
        for i, vector in enumerate((lab.haematoxylin, lab.eosin))
    ]
    return Stain(
        haematoxylin=np.float32(_LIGHT * strength[0]) * vectors[0],
        eosin=np.float32(0.62 * strength[1]) * vectors[1],
        glass=np.asarray(lab.glass, np.float32) + rng.normal(0, 0.8),
        blur_px=lab.blur_px * float(np.exp(rng.normal(0, 0.1))),
        noise=lab.noise,
        quality=lab.quality,
    )


@dataclass(frozen=True)
class _Band:
    """One band of rows at full resolution: enlarges fields, reads textures."""

    scene: Scene
    top: int
    rows: int
    offset: NDArray[np.int64]  # of the textures, so that slides differ

    def up(self, field: Field) -> Field:
        um = self.scene.canvas.width / field.shape[1]
        box = (0.0, self.top / um, self.scene.canvas.width / um, (self.top + self.rows) / um)
        return noise.upsample(field, (self.rows, self.scene.canvas.width), box)

    def depth(self, name: str) -> Field:
        """Return how far inside a border each pixel lies, um; beyond 100 um outside it no longer matters."""
        return self.up(np.maximum(self.scene.fields[name], -100))  # a cliff there would ring in the interpolation

    def texture(self, tile: Field, which: int = 0) -> Field:
        row = (np.arange(self.top, self.top + self.rows) + self.offset[which]) % TEXTURE_PX
        column = (np.arange(self.scene.canvas.width) + self.offset[which + 1]) % TEXTURE_PX
        return np.asarray(tile[row[:, None], column[None, :]])

    def has(self, name: str) -> bool:
        """Whether anything of a field lies in this band (with a border of 80 um for what surrounds it)."""
        field = self.scene.fields.get(name)
        if field is None:
            return False
        first, last = max(0, self.top // FIELD_UM - 10), (self.top + self.rows) // FIELD_UM + 10
        return bool(field[first:last].max(initial=OUTSIDE) > -20)


def render(scene: Scene, stain: Stain, dirt: Dirt, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the slide stained with haematoxylin and eosin, (height, width, 3) uint8 at 1 um per pixel."""
    chromatin = stamp(scene.nuclei, scene.canvas.width, scene.canvas.height, rng)
    return _develop(scene, stain, dirt, rng, chromatin, None)


def render_dab(scene: Scene, stain: Stain, dirt: Dirt, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the paired section: pale haematoxylin, membranes brown where `scene.membranes` says so."""
    chromatin = stamp(scene.nuclei, scene.canvas.width, scene.canvas.height, rng)
    membrane = np.zeros_like(chromatin)
    if scene.membranes is not None and len(scene.membranes):
        x, y, strength = scene.membranes.T
        variant = rng.integers(0, 8, len(x))
        stamp_sprites(membrane, _rings(), variant, x, y, strength)
    return _develop(scene, stain, dirt, rng, chromatin, membrane)


@lru_cache(maxsize=1)
def _rings() -> NDArray[np.uint8]:
    """Cell membranes: (8, 19, 19) uint8, slightly uneven rings of 12 to 14 um."""
    centre = np.arange(19) - 9.0
    x, y = np.meshgrid(centre, centre)
    angle, distance = np.arctan2(y, x), np.hypot(x, y)
    rings = []
    for index in range(8):
        radius = 6.6 + 0.5 * np.cos(2 * angle + index) + 0.4 * np.cos(3 * angle + 2.3 * index)
        rings.append(200 * np.exp(-(((distance - radius) / 1.1) ** 2)))
    return np.asarray(rings, np.uint8)


def _develop(
    scene: Scene,
    stain: Stain,
    dirt: Dirt,
    rng: np.random.Generator,
    chromatin: NDArray[np.uint8],
    membrane: NDArray[np.uint8] | None,
) -> NDArray[np.uint8]:
    canvas = scene.canvas
    offset = rng.integers(0, TEXTURE_PX, 12)
    slow = (1 + 0.05 * noise.smooth_noise(rng, canvas.shape, 60)).astype(np.float32)
    patchy = noise.smooth_noise(rng, canvas.shape, 9)
    pigment = np.zeros_like(chromatin) if dirt.pigment is not None else None
    if pigment is not None and dirt.pigment is not None:
        x, y, strength = dirt.pigment
        stamp_sprites(pigment, _dots(), rng.integers(0, 4, len(x)), x, y, strength)
    picture = np.empty((canvas.height, canvas.width, 3), np.uint8)
    for top in range(0, canvas.height, BAND):
        rows = min(BAND, canvas.height - top)
        band = _Band(scene, top, rows, offset)
        here = slice(top, top + rows)
        dark, pink = _dyes(band, chromatin[here], patchy, slow * (1 + dirt.fold))
        brown: Field | None = None
        if membrane is not None:
            brown = membrane[here] * np.float32(1 / 150)
            pink, dark = pink * np.float32(0.06), dark * np.float32(0.55)
        density = _density(band, stain, dirt, dark, pink, pigment[here] if pigment is not None else None, brown)
        picture[here] = np.clip(np.exp(-density) * stain.glass, 0, 255)
    return _scan(picture, stain, dirt, rng)


@lru_cache(maxsize=1)
def _dots() -> NDArray[np.uint8]:
    centre = np.arange(7) - 3.0
    distance = np.hypot(*np.meshgrid(centre, centre))
    return np.asarray([150 * np.clip(radius - distance + 0.5, 0, 1) for radius in (0.8, 1.2, 1.6, 2.2)], np.uint8)


def _step(field: Field, softness: float) -> Field:
    """Turn um inside a border into a share, 0 to 1, across `softness` um."""
    return np.asarray(np.clip(field * np.float32(1 / softness) + np.float32(0.5), 0, 1))


def _dyes(band: _Band, chromatin: NDArray[np.uint8], patchy: Field, thickness: Field) -> tuple[Field, Field]:
    """Return the amounts of haematoxylin and eosin, each (rows, width) float32."""
    rough = band.texture(noise.grain(1.6))
    tissue = band.depth("tissue") + 2.5 * rough
    pink, dark = _stroma(band, rough, patchy)
    for name in ("nest", "sheet"):
        if band.has(name):
            _cytoplasm(band, name, rough, patchy, pink, dark)
    for name, eosin, haematoxylin, texture in (
        ("lymphoid", 0.20, 0.20, 0.05),
        ("pale", 0.34, 0.15, 0.05),
        ("sinus", 0.10, 0.03, 0.08),
    ):
        if band.has(name):
            share = _step(band.depth(name) + 3 * rough, 14)
            pink += share * (eosin + texture * rough - pink)
            dark += share * (haematoxylin - dark)
    if band.has("vessel"):
        _open_vessels(band, pink, dark, rough)
    if band.has("lumen"):
        lumen = _step(band.depth("lumen") + 1.5 * rough, 3)
        pink *= 1 - lumen * np.float32(0.93)
        dark *= 1 - lumen
    if band.has("fat"):
        _melt_fat(band, pink, dark)
    nuclei = chromatin * np.float32(1 / FULL)
    pink *= 1 - 0.55 * np.minimum(nuclei * 1.4, 1)
    dark = np.maximum(dark, 0) + nuclei
    cover = _step(tissue, 3.0) * band.up(thickness)
    return dark * cover, np.maximum(pink, 0) * cover


def _cytoplasm(band: _Band, name: str, rough: Field, patchy: Field, pink: Field, dark: Field) -> None:
    nest = band.depth(name)
    fine = band.texture(noise.grain(2.6), 2)
    gap = np.clip(1 - np.abs(nest + 7) / 7, 0, 1) * np.clip(band.up(patchy) * 0.8 - 0.1, 0, 1)
    pink *= 1 - gap  # nests shrink away from their stroma here and there
    share = _step(nest + 2 * rough, 5)
    pink += share * (0.50 + 0.09 * fine + 0.04 * rough - pink)
    dark += share * (0.16 + 0.035 * fine - dark)


def _stroma(band: _Band, rough: Field, patchy: Field) -> tuple[Field, Field]:
    """Return eosin and haematoxylin of fibrous tissue: waves of fibres with clefts between them."""
    scene = band.scene
    u = band.up(scene.fields["flow_u"]) + 1.5 * rough
    v = band.up(scene.fields["flow_v"])
    row = (v + np.float32(band.offset[4])).astype(np.int32) & (TEXTURE_PX - 1)
    column = u.astype(np.int32) & (TEXTURE_PX - 1)
    fibre = noise.streaks()[row, column]
    loose = np.clip(0.07 + 0.07 * band.up(patchy), 0.015, 0.3)  # share of clefts: oedema here, dense collagen there
    cleft = np.clip((fibre - loose) * 11, 0, 1)
    pink = (0.34 + 0.50 * fibre + 0.06 * rough) * (0.08 + 0.92 * cleft)
    return pink, 0.035 + 0.05 * fibre


def _open_vessels(band: _Band, pink: Field, dark: Field, rough: Field) -> None:
    depth = band.depth("vessel")
    wall = np.clip(1 - np.abs(depth + 3) / 5, 0, 1)
    pink += wall * (0.75 - pink)
    lumen = _step(depth, 3)
    cells = np.clip(band.texture(noise.grain(2.6), 6) * 1.2 - 0.7, 0, 1)
    pink += lumen * (0.02 + 0.85 * cells - pink)
    dark *= 1 - lumen


def _melt_fat(band: _Band, pink: Field, dark: Field) -> None:
    share = _step(band.depth("fat"), 3)
    wall = band.up(band.scene.fields["fat_wall"])
    line = np.clip(1.7 - wall, 0, 1) * np.float32(0.75)
    pink += share * (line - pink)
    dark += share * (0.04 * line - dark)


def _density(
    band: _Band,
    stain: Stain,
    dirt: Dirt,
    dark: Field,
    pink: Field,
    pigment: NDArray[np.uint8] | None,
    brown: Field | None,
) -> Field:
    """Return the optical density, (rows, width, 3) float32."""
    density = np.empty((*dark.shape, 3), np.float32)
    extra: list[tuple[Field, tuple[float, float, float]]] = []
    if dirt.blood[max(0, band.top // FIELD_UM - 4) : (band.top + band.rows) // FIELD_UM + 4].max(initial=OUTSIDE) > -9:
        red = _step(band.up(np.maximum(dirt.blood, -100)) + 4 * band.texture(noise.grain(2.6), 8), 6)
        cells = np.clip(0.62 + 0.35 * band.texture(noise.grain(2.6), 7), 0.05, 1.1)
        extra.append((red * cells * np.float32(0.8), BLOOD))
        dark, pink = dark * (1 - 0.8 * red), pink * (1 - 0.8 * red)
    if dirt.ink[max(0, band.top // FIELD_UM - 4) : (band.top + band.rows) // FIELD_UM + 4].max(initial=OUTSIDE) > -9:
        stroke = _step(band.up(np.maximum(dirt.ink, -100)) + 6 * band.texture(noise.grain(2.6), 9), 10)
        extra.append((stroke * np.float32(0.9), dirt.ink_colour))
    if pigment is not None:
        extra.append((pigment * np.float32(1 / 110), PIGMENT))
    if brown is not None:
        extra.append((brown, DAB))
    for channel in range(3):
        layer = density[..., channel]
        np.multiply(dark, stain.haematoxylin[channel], out=layer)
        layer += pink * stain.eosin[channel]
        for amount, colour in extra:
            layer += amount * np.float32(colour[channel])
    return density


def _scan(picture: NDArray[np.uint8], stain: Stain, dirt: Dirt, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Blur, bubbles and the sensor's noise."""
    from PIL import Image, ImageFilter

    for x, y, radius in dirt.bubbles:
        _bubble(picture, x, y, radius)
    soft = Image.fromarray(picture).filter(ImageFilter.GaussianBlur(stain.blur_px))
    result = np.array(soft)
    speckle = np.round(noise.grain(0.6) * stain.noise).astype(np.int16)
    row = (np.arange(result.shape[0]) + rng.integers(TEXTURE_PX)) % TEXTURE_PX
    for channel in range(3):
        column = (np.arange(result.shape[1]) + rng.integers(TEXTURE_PX)) % TEXTURE_PX
        for top in range(0, len(row), BAND):
            part = result[top : top + BAND, :, channel]
            part[...] = np.clip(part + speckle[row[top : top + BAND, None], column[None, :]], 0, 255)
    return result


def _bubble(picture: NDArray[np.uint8], x: float, y: float, radius: float) -> None:
    """Draw an air bubble under the cover slip: a dark rim with a bright edge, a veiled inside."""
    reach = int(radius + 14)
    top, left = max(0, int(y) - reach), max(0, int(x) - reach)
    part = picture[top : int(y) + reach, left : int(x) + reach]
    rows, columns = np.ogrid[top : top + part.shape[0], left : left + part.shape[1]]
    inside = (radius - np.hypot(columns - x, rows - y)).astype(np.float32)
    rim = np.clip(1 - np.abs(inside) / 6, 0, 1) * 0.62
    shine = np.clip(1 - np.abs(inside - 11) / 5, 0, 1) * 0.35
    veil = np.clip(inside / 10, 0, 1) * 0.18
    bright = part * (1 - rim)[..., None]
    bright += (245 - bright) * np.maximum(shine, veil)[..., None]
    part[...] = np.clip(bright, 0, 255)
