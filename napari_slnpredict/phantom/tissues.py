"""The two kinds of specimen: a tumour in stroma, and a lymph node. Tasks decide what is special in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import cells, layout
from .layout import Blobs
from .noise import Field, nearest, smooth_noise
from .nuclei import CODE, Nuclei
from .scene import FIELD_UM, Canvas, Instance, Scene, Streams, Tissue, paint_truth

TRUTH_ORDER = (
    ("lymphoid", Tissue.LYMPHOID),
    ("pale", Tissue.PALE),
    ("sinus", Tissue.SINUS),
    ("vessel", Tissue.VESSEL),
    ("fat", Tissue.FAT),
    ("nest", Tissue.NEST),
    ("sheet", Tissue.PALE),
)
_FAT_CHANCE = 0.4
SPACING = (13.4, 16.4)  # um between tumour nuclei in dense and in ordinary nests


@dataclass(frozen=True)
class Tumour:
    """A tumour specimen's layout, before anything depends on the label.

    Attributes
    ----------
    nests, aggregates : Blobs
    fields : dict
        As in `Scene`.
    """

    canvas: Canvas
    fields: dict[str, Field]
    nests: Blobs
    aggregates: Blobs


def grow_tumour(rng: np.random.Generator, canvas: Canvas, spacing: float) -> Tumour:
    """Lay outline, a tumour of nests, aggregates of lymphocytes in the stroma, vessels, fat, fibres."""
    tissue = layout.outline(rng, canvas)
    small = min(canvas.width, canvas.height)
    bulk = smooth_noise(rng, canvas.shape, small / FIELD_UM / 2.5) + rng.uniform(0.4, 1.3)
    region = np.minimum(tissue - 0.55 * spacing, bulk * 60).astype(np.float32)
    nests = layout.blobs(
        rng, canvas, *layout.nest_centres(rng, canvas, region, spacing), septum=rng.uniform(16, 34), ragged=0.30
    )
    free = np.minimum(tissue - 70, -nests.field - 60)
    wanted = int(rng.integers(2, 3 + round(canvas.width * canvas.height / 1.1e6)))
    x, y = layout.spaced(rng, canvas, free, wanted, spacing * 0.9)
    radius = (rng.uniform(0.2, 0.5, len(x)) * spacing).astype(np.float32)
    lumps = layout.blobs(rng, canvas, x, y, radius, ragged=0.35)
    lumps = _trimmed(lumps, np.minimum(tissue - 10, -nests.field - 16))
    return finish_tumour(rng, canvas, tissue, nests, lumps)


def _trimmed(blobs: Blobs, limit: Field) -> Blobs:
    return Blobs(blobs.x, blobs.y, blobs.radius, blobs.owner, np.minimum(blobs.field, limit).astype(np.float32))


def finish_tumour(
    rng: np.random.Generator,
    canvas: Canvas,
    tissue: Field,
    nests: Blobs,
    aggregates: Blobs,
    fat_rng: np.random.Generator | None = None,
) -> Tumour:
    """Add glands' lumina, vessels, fat and fibres to outline, nests and aggregates.

    `fat_rng` is given where the places of the nests depend on the label: fat is the largest thing laid here, and must
    not come and go with the number of draws before it.
    """
    lumen = _lumina(rng, canvas, nests)
    solid = Blobs(nests.x, nests.y, nests.radius, nests.owner, np.minimum(nests.field, -lumen - 2).astype(np.float32))
    busy = np.maximum(nests.field, aggregates.field)
    vessels = layout.vessels(rng, canvas, np.minimum(tissue - 60, -busy - 45))
    fat, fat_rng = canvas.nothing(), fat_rng or rng
    if fat_rng.random() < _FAT_CHANCE:
        fat = np.minimum(layout.fat_patch(fat_rng, canvas, tissue, np.maximum(busy, vessels.field)), tissue + 4)
    flow_u, flow_v = layout.fibres(rng, canvas, busy)
    fields = {
        "tissue": tissue,
        "nest": nests.field,
        "lumen": lumen,
        "lymphoid": aggregates.field,
        "vessel": vessels.field,
        "fat": fat,
        "fat_wall": layout.fat_walls(fat_rng, canvas, fat),
        "flow_u": flow_u,
        "flow_v": flow_v,
    }
    stroma = np.minimum(tissue, -np.maximum(np.maximum(busy, vessels.field), fat) - 4)
    fields["stroma"] = stroma.astype(np.float32)
    return Tumour(canvas, fields, solid, aggregates)


def _lumina(rng: np.random.Generator, canvas: Canvas, nests: Blobs) -> Field:
    """Return the field of gland lumina: some nests are glands, more or less according to the slide."""
    if len(nests) == 0:
        return canvas.nothing()
    is_gland = rng.random(len(nests)) < rng.uniform(0.0, 0.45)
    depth = rng.uniform(0.30, 0.6, len(nests)) * nests.radius
    owner = np.maximum(nests.owner, 0)
    field = nests.field - depth[owner] + 6 * smooth_noise(rng, canvas.shape, 4)
    return np.where(is_gland[owner] & (nests.owner >= 0), field, -1e4).astype(np.float32)


def tumour_background(rng: np.random.Generator, tumour: Tumour) -> list[Nuclei]:
    """Return every nucleus that is not a tumour cell."""
    canvas, fields = tumour.canvas, tumour.fields
    parts = cells.stroma_nuclei(canvas, rng, fields["stroma"], fields["flow_v"])
    lymph = cells.inside(canvas, rng, fields["lymphoid"], 7.0, soft_um=26)
    parts.append(cells.nuclei_of(rng, "lymphocyte", lymph))
    return [*parts, vessel_nuclei(rng, canvas, fields)]


def vessel_nuclei(rng: np.random.Generator, canvas: Canvas, fields: dict[str, Field]) -> Nuclei:
    """Return nuclei along the walls of vessels: places just outside the vessel's border."""
    vessel = fields["vessel"]
    x, y = cells.inside(canvas, rng, np.minimum(5 - np.abs(vessel + 3), fields["tissue"] - 4), 9.0)
    down, right = (np.asarray(part, np.float32) for part in np.gradient(vessel))
    angle = np.arctan2(nearest(right, x, y, FIELD_UM), -nearest(down, x, y, FIELD_UM)) % np.pi
    wall = cells.nuclei_of(rng, "fibroblast", (x, y), 0.15)
    return Nuclei(wall.x, wall.y, wall.kind, wall.strength, angle.astype(np.float32))


def tumour_scene(
    streams: Streams,
    tumour: Tumour,
    dense: NDArray[np.bool_],
    altered: NDArray[np.bool_],
    wanted: NDArray[np.float64],
    share: float,
    spacing: tuple[float, float] = SPACING,
    brown: NDArray[np.float64] | None = None,
) -> Scene:
    """Populate a tumour.

    Parameters
    ----------
    dense, altered : (k,) bool
        Nests with closer nuclei, and nests that count as altered in the truth.
    wanted : (k,) float64
        Share of atypical nuclei wanted in each nest, exact in `altered` ones; the slide's total is `share` whatever is
        wanted.
    brown : (k,) float64, optional
        Membrane staining of each nest's cells in the paired DAB section, 0 to 1.
    """
    places, nest = cells.tumour_places(tumour.canvas, streams.cells, tumour.nests, dense, spacing)
    background = tumour_background(streams.cells, tumour)
    atypical = cells.choose_atypical(streams.label, nest, share, wanted, altered)
    kinds = np.where(atypical, CODE["atypical"], CODE["tumour"]).astype(np.uint8)
    own = cells.nuclei_of(streams.cells, kinds, places, 0.11)
    truth = paint_truth(tumour.canvas, tumour.fields, TRUTH_ORDER)
    owner = tumour.nests.owner
    mask = (truth == Tissue.NEST) & (owner >= 0)
    truth[mask] = np.where(altered[owner[mask]], Tissue.ALTERED, Tissue.NEST) if len(altered) else Tissue.NEST
    membranes = None
    if brown is not None:
        strength = brown[nest] * np.exp(streams.cells.normal(0, 0.2, len(nest)))
        membranes = np.stack([*places, strength], axis=1).astype(np.float32)
    rows = _nest_rows(tumour, nest, atypical, altered) + blob_rows(tumour.aggregates, "aggregate")
    return Scene(tumour.canvas, tumour.fields, Nuclei.join([own, *background]), truth, rows, membranes)


def _nest_rows(
    tumour: Tumour, nest: NDArray[np.int64], atypical: NDArray[np.bool_], altered: NDArray[np.bool_]
) -> tuple[Instance, ...]:
    count = np.bincount(nest, minlength=len(tumour.nests))
    strange = np.bincount(nest[atypical], minlength=len(tumour.nests))
    area = tumour.nests.area_um2
    return tuple(
        Instance(
            "altered nest" if altered[k] else "nest",
            float(tumour.nests.x[k]),
            float(tumour.nests.y[k]),
            float(2 * np.sqrt(area[k] / np.pi)),
            float(area[k]),
            int(count[k]),
            float(strange[k] / count[k]),
        )
        for k in range(len(tumour.nests))
        if count[k] and area[k]
    )


def blob_rows(blobs: Blobs, kind: str, touching: int = 0) -> tuple[Instance, ...]:
    """Return the truth's rows of blobs of one kind."""
    area = blobs.area_um2
    return tuple(
        Instance(
            kind,
            float(blobs.x[k]),
            float(blobs.y[k]),
            float(2 * np.sqrt(area[k] / np.pi)),
            float(area[k]),
            touching=touching,
        )
        for k in range(len(blobs))
        if area[k]
    )
