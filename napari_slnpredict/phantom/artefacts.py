"""What goes wrong between patient and scanner: folds, ink, blood, bubbles, pigment.

Each is drawn, or not, from a random stream that never sees the label. (Fat is laid with the tissue:
`layout.fat_patch`.)
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .labs import INKS
from .layout import warped
from .noise import Field, smooth_noise
from .scene import FIELD_UM, Artefact, Canvas, Instance, Scene

#: Probability of each artefact on a slide.
CHANCES = {"fold": 0.35, "ink": 0.25, "blood": 0.35, "bubble": 0.25, "pigment": 0.35}


@dataclass
class Dirt:
    """Artefacts of one slide, ready for the renderer.

    Attributes
    ----------
    fold : (h, w) float32
        Extra layers of tissue, 0 to about 1.
    ink : (h, w) float32
        um inside the stroke; `ink_colour` is its optical density.
    blood : (h, w) float32
        um inside the pool.
    bubbles : (m, 3) float
        x, y, radius, um.
    pigment : Nuclei or None
        Places of granules (kind is not used).
    """

    fold: Field
    ink: Field
    ink_colour: tuple[float, float, float]
    blood: Field
    bubbles: list[tuple[float, float, float]] = field(default_factory=list)
    pigment: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]] | None = None


def soil(rng: np.random.Generator, scene: Scene) -> Dirt:
    """Draw the artefacts of a slide, note them in ``scene.artefacts`` and ``scene.instances``."""
    canvas, tissue = scene.canvas, scene.fields["tissue"]
    happens = {name: rng.random() < chance for name, chance in CHANCES.items()}
    dirt = Dirt(np.zeros(canvas.shape, np.float32), canvas.nothing(), INKS[rng.integers(len(INKS))], canvas.nothing())
    marks: list[tuple[str, Artefact, NDArray[np.bool_]]] = []
    if happens["fold"]:
        dirt.fold = _fold(rng, canvas) * (tissue > 0)
        marks.append(("fold", Artefact.FOLD, dirt.fold > 0.3))
    if happens["blood"]:
        dirt.blood = np.minimum(_pool(rng, canvas), 12 - scene.field("nest"))
        marks.append(("blood", Artefact.BLOOD, dirt.blood > 0))
    if happens["pigment"]:
        dirt.pigment = _granules(rng, canvas, tissue)
        mask = np.zeros(canvas.shape, bool)
        mask[(dirt.pigment[1] // FIELD_UM).astype(int), (dirt.pigment[0] // FIELD_UM).astype(int)] = True
        marks.append(("pigment", Artefact.PIGMENT, mask))
    if happens["bubble"]:
        dirt.bubbles = _bubbles(rng, canvas)
        x, y = canvas.centres
        mask = np.zeros(canvas.shape, bool)
        for bx, by, radius in dirt.bubbles:
            mask |= np.hypot(x - bx, y - by) < radius + 8
        marks.append(("bubble", Artefact.BUBBLE, mask))
    if happens["ink"]:
        dirt.ink = _stroke(rng, canvas)
        marks.append(("ink", Artefact.INK, dirt.ink > 0))
    for name, value, mask in marks:
        scene.artefacts[mask] = value
        if mask.any():
            scene.instances += (_instance(name, mask),)
    return dirt


def _instance(name: str, mask: NDArray[np.bool_]) -> Instance:
    rows, columns = np.nonzero(mask)
    area = float(len(rows) * FIELD_UM**2)
    x, y = (columns.mean() + 0.5) * FIELD_UM, (rows.mean() + 0.5) * FIELD_UM
    return Instance(name, float(x), float(y), float(2 * np.sqrt(area / np.pi)), area)


def _line(rng: np.random.Generator, canvas: Canvas, amplitude: float, near_edge: bool) -> tuple[Field, Field]:
    """Return distance from a wavy line and the coordinate along it, um."""
    x, y = warped(rng, canvas, amplitude, min(canvas.width, canvas.height) / 3)
    angle = rng.uniform(0, np.pi)
    reach = 0.42 if near_edge else 0.25
    cx, cy = canvas.width * rng.uniform(0.5 - reach, 0.5 + reach), canvas.height * rng.uniform(0.5 - reach, 0.5 + reach)
    along = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
    across = -(x - cx) * np.sin(angle) + (y - cy) * np.cos(angle)
    return across, along


def _fold(rng: np.random.Generator, canvas: Canvas) -> Field:
    small = min(canvas.width, canvas.height)
    across, along = _line(rng, canvas, 0.05 * small, near_edge=False)
    width = rng.uniform(10, 26)
    length = rng.uniform(0.12, 0.4) * small
    profile = np.clip(1.2 - np.abs(across) / width, 0, 1) * np.clip((length - np.abs(along)) / 60, 0, 1)
    return np.asarray(profile * rng.uniform(0.5, 1.0), np.float32)


def _stroke(rng: np.random.Generator, canvas: Canvas) -> Field:
    small = min(canvas.width, canvas.height)
    across, along = _line(rng, canvas, 0.03 * small, near_edge=True)
    width, length = rng.uniform(0.012, 0.03) * small, rng.uniform(0.1, 0.35) * small
    return np.asarray(np.minimum(width - np.abs(across), length - np.abs(along)), np.float32)


def _pool(rng: np.random.Generator, canvas: Canvas) -> Field:
    small = min(canvas.width, canvas.height)
    x, y = warped(rng, canvas, 0.04 * small, 0.12 * small)
    cx, cy = canvas.width * rng.uniform(0.1, 0.9), canvas.height * rng.uniform(0.1, 0.9)
    stretch = rng.uniform(1.0, 2.5)
    distance = np.hypot((x - cx) / stretch, y - cy)
    return np.asarray(rng.uniform(0.02, 0.07) * small - distance + 10 * smooth_noise(rng, canvas.shape, 6), np.float32)


def _bubbles(rng: np.random.Generator, canvas: Canvas) -> list[tuple[float, float, float]]:
    small = min(canvas.width, canvas.height)
    return [
        (rng.uniform(0, canvas.width), rng.uniform(0, canvas.height), rng.uniform(0.015, 0.08) * small)
        for _ in range(int(rng.integers(1, 4)))
    ]


def _granules(
    rng: np.random.Generator, canvas: Canvas, tissue: Field
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return x, y, strength of brown granules lying in clusters."""
    rows, columns = np.nonzero(tissue > 30)
    clusters = int(rng.integers(3, 14))
    if len(rows) == 0:
        none = np.zeros(0, np.float32)
        return none, none, none
    chosen = rng.integers(0, len(rows), clusters)
    per = rng.integers(30, 260, clusters)
    spread = np.repeat(rng.uniform(8, 45, clusters), per)
    x = np.repeat(columns[chosen], per) * FIELD_UM + spread * rng.standard_normal(per.sum())
    y = np.repeat(rows[chosen], per) * FIELD_UM + spread * rng.standard_normal(per.sum())
    x, y = np.clip(x, 8, canvas.width - 8), np.clip(y, 8, canvas.height - 8)
    return x.astype(np.float32), y.astype(np.float32), rng.uniform(0.4, 1.6, per.sum()).astype(np.float32)
