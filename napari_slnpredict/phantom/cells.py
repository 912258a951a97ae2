"""Populating a scene with nuclei: how close they lie, and which of them are atypical."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .layout import Blobs, fibre_angle
from .noise import Field, nearest, sample, scatter, smooth_noise
from .nuclei import CODE, Nuclei
from .scene import FIELD_UM, Canvas

Places = tuple[NDArray[np.float32], NDArray[np.float32]]
PURITY = 0.93  # share of atypical nuclei in a nest that is altered to the full


def nuclei_of(rng: np.random.Generator, kind: str | NDArray[np.uint8], places: Places, spread: float = 0.09) -> Nuclei:
    """Make nuclei of one kind (or given kinds) at places, with strengths that vary by `spread`."""
    count = len(places[0])
    codes = np.full(count, CODE[kind], np.uint8) if isinstance(kind, str) else kind
    strength = np.exp(rng.normal(0, spread, count)).astype(np.float32)
    return Nuclei(*places, codes, strength, rng.uniform(0, np.pi, count).astype(np.float32))


def inside(canvas: Canvas, rng: np.random.Generator, field: Field, spacing: float, soft_um: float = 0.0) -> Places:
    """Return places `spacing` um apart where `field` is positive; within `soft_um` of the border they thin out."""
    x, y = scatter(rng, canvas.width, canvas.height, spacing)
    depth = sample(field, x, y, FIELD_UM)
    keep = depth > (rng.uniform(-1, 1, len(x)) * soft_um if soft_um else 0)
    return x[keep], y[keep]


def tumour_places(
    canvas: Canvas, rng: np.random.Generator, nests: Blobs, dense: NDArray[np.bool_], spacing: tuple[float, float]
) -> tuple[Places, NDArray[np.int64]]:
    """Return places of tumour nuclei and the nest of each.

    Parameters
    ----------
    dense : (k,) bool
        Nests whose nuclei lie ``spacing[0]`` um apart; in the others it is ``spacing[1]``.
    """
    parts: list[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]] = []
    kept_share = rng.uniform(0.86, 1.0, max(len(nests), 1))
    for is_dense, distance in ((True, spacing[0]), (False, spacing[1])):
        x, y = inside(canvas, rng, nests.field - 4.5, distance)
        nest = nearest(nests.owner, x, y, FIELD_UM).astype(np.int64)
        keep = (nest >= 0) & (rng.random(len(x)) < kept_share[nest])
        keep &= dense[nest] == is_dense if len(nests) else False
        parts.append((x[keep], y[keep], nest[keep]))
    x, y, nest = (np.concatenate([part[i] for part in parts]) for i in range(3))
    return (x.astype(np.float32), y.astype(np.float32)), nest.astype(np.int64)


def choose_atypical(
    rng: np.random.Generator,
    nest: NDArray[np.int64],
    share: float,
    wanted: NDArray[np.float64],
    fixed: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Choose ``share`` of all tumour nuclei as atypical, spread over nests as `wanted` asks.

    The number chosen depends on nothing but `share`: a slide's nuclei are the same set whatever its label, only their
    company differs. `wanted` (k,) is the share of atypical nuclei each nest should have: nests that are `fixed` get it,
    the others share what is left in proportion to it.

    Returns
    -------
    (k,) bool
    """
    total = round(share * len(nest))
    atypical = np.zeros(len(nest), bool)
    served = fixed[nest]
    atypical[served] = rng.random(int(served.sum())) < wanted[nest[served]]
    surplus = int(atypical.sum()) - total
    if surplus > 0:
        atypical[rng.choice(np.flatnonzero(atypical), surplus, replace=False)] = False
        return atypical
    open_ = np.flatnonzero(~served)
    missing = min(-surplus, len(open_))
    # Gumbel's trick: the top `missing` of log weight + Gumbel noise are a weighted draw without replacement.
    key = np.log(np.maximum(wanted[nest[open_]], 1e-3)) + rng.gumbel(size=len(open_))
    atypical[open_[np.argsort(-key)[:missing]]] = True
    return atypical


def stroma_nuclei(canvas: Canvas, rng: np.random.Generator, stroma: Field, flow_v: Field) -> list[Nuclei]:
    """Return fibroblasts laid along the fibres and scattered lymphocytes, where `stroma` is positive."""
    x, y = inside(canvas, rng, stroma - 3, 21.0)
    crowd = sample(smooth_noise(rng, canvas.shape, 25), x, y, FIELD_UM)
    keep = rng.random(len(x)) < np.clip(0.62 + 0.3 * crowd, 0.12, 1)
    x, y = x[keep], y[keep]
    turn = 2 * fibre_angle(flow_v)  # twice the angle: a direction has no sign, so it may be interpolated
    cos, sin = (sample(part, x, y, FIELD_UM) for part in (np.cos(turn), np.sin(turn)))
    fibroblasts = nuclei_of(rng, "fibroblast", (x, y), 0.18)
    laid = (np.arctan2(sin, cos) / 2 % np.pi).astype(np.float32)
    fibroblasts = Nuclei(fibroblasts.x, fibroblasts.y, fibroblasts.kind, fibroblasts.strength, laid)
    x, y = inside(canvas, rng, stroma - 3, 14.0)
    crowd = sample(smooth_noise(rng, canvas.shape, 20), x, y, FIELD_UM)
    keep = rng.random(len(x)) < np.clip(0.22 * crowd - 0.08, 0.012, 0.6)
    return [fibroblasts, nuclei_of(rng, "lymphocyte", (x[keep], y[keep]), 0.12)]
