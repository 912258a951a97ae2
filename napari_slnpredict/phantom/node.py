"""A lymph node: capsule, sinuses, follicles with germinal centres, medulla; and what may be deposited in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import cells, layout
from .layout import Blobs
from .noise import Field, sample, smooth_noise
from .nuclei import Nuclei
from .scene import FIELD_UM, Canvas, Scene, Streams, Tissue, paint_truth
from .tissues import TRUTH_ORDER, blob_rows, vessel_nuclei

_CELLS_UM = 12.6  # between nuclei of deposits and of their benign doubles alike: the count must not tell


@dataclass(frozen=True)
class Node:
    """A lymph node's layout, before anything depends on the label.

    Attributes
    ----------
    lesions : Blobs
        Places of deposits (or of their benign doubles).
    follicles : Blobs
        Germinal centres.
    """

    canvas: Canvas
    fields: dict[str, Field]
    lesions: Blobs
    follicles: Blobs


def grow_node(rng: np.random.Generator, canvas: Canvas) -> Node:
    """Lay a lymph node and the places where deposits may lie."""
    tissue = layout.outline(rng, canvas, 0.84)
    capsule = 34 + 12 * smooth_noise(rng, canvas.shape, 20)
    body = tissue - capsule
    lesions = _lesions(rng, canvas, body)
    small = min(canvas.width, canvas.height)
    cortex = np.minimum(body - 60, 0.30 * small - body)
    room = np.minimum(cortex, -lesions.field - 40)
    x, y = layout.spaced(rng, canvas, room, int(rng.integers(5, 22)), 260)
    follicles = layout.blobs(rng, canvas, x, y, rng.uniform(60, 130, len(x)).astype(np.float32), ragged=0.15)
    medulla = np.minimum(tissue - 0.26 * small, 60 * (smooth_noise(rng, canvas.shape, small / FIELD_UM / 3) + 0.7))
    cords = 16 - 60 * np.abs(smooth_noise(rng, canvas.shape, 9))
    busy = np.maximum(lesions.field, follicles.field + 25)
    sinus = np.maximum(np.minimum(cords, medulla), 9 - np.abs(body + 4))  # medullary, and under the capsule
    sinus = np.minimum(np.minimum(sinus, -busy - 12), tissue - 12)
    free = np.minimum(np.minimum(body - 50, -busy - 50), -np.abs(sinus))
    vessels = layout.vessels(rng, canvas, np.where(sinus < -40, free + 41, -1).astype(np.float32), 3.0)
    flow_u, flow_v = layout.fibres(rng, canvas, -tissue)
    lymphoid = np.minimum(body, -np.maximum(lesions.field, np.maximum(sinus, vessels.field)))
    fields = {
        "tissue": tissue,
        "lymphoid": lymphoid,
        "pale": follicles.field,
        "sinus": sinus,
        "vessel": vessels.field,
        "flow_u": flow_u,
        "flow_v": flow_v,
        "stroma": np.minimum(tissue, -body),
    }
    return Node(canvas, {name: field.astype(np.float32) for name, field in fields.items()}, lesions, follicles)


def _lesions(rng: np.random.Generator, canvas: Canvas, body: Field) -> Blobs:
    """1 to 20 places of 0.1 to 2 mm (no larger than a third of the node)."""
    small = min(canvas.width, canvas.height)
    largest = min(2000.0, small / 3)
    count = int(rng.integers(1, 21)) if small > 1500 else int(rng.integers(1, 5))
    diameter = np.sort(np.exp(rng.uniform(np.log(100), np.log(max(largest, 140)), count)))[::-1]
    chosen: list[tuple[float, float, float]] = []
    for size in diameter:
        keep_off = [np.hypot(canvas.centres[0] - x, canvas.centres[1] - y) - r for x, y, r in chosen]
        room = np.minimum.reduce([body - size / 2 + 20, *[away - size / 2 - 60 for away in keep_off]])
        x, y = layout.spaced(rng, canvas, room, 1, 0)
        if len(x):
            chosen.append((float(x[0]), float(y[0]), float(size / 2)))
    table = np.asarray(chosen, np.float32).reshape(-1, 3)
    found = layout.blobs(rng, canvas, table[:, 0], table[:, 1], table[:, 2], septum=20, ragged=0.22)
    limited = np.minimum(found.field, body + 10).astype(np.float32)
    return Blobs(found.x, found.y, found.radius, found.owner, limited)


def node_scene(streams: Streams, node: Node, positive: bool) -> Scene:
    """Populate a node; `positive`: the lesions are deposits, else sheets of pale benign cells of the same size."""
    canvas, rng = node.canvas, streams.cells
    fields = dict(node.fields)
    places = cells.inside(canvas, rng, node.lesions.field - 4, _CELLS_UM)
    background = _background(rng, node)
    if positive:
        fields["nest"] = node.lesions.field
        own = cells.nuclei_of(rng, "metastatic", places, 0.12)
    else:
        fields["sheet"] = node.lesions.field
        own = cells.nuclei_of(rng, "epithelioid", places, 0.12)
    truth = paint_truth(canvas, fields, TRUTH_ORDER)
    truth[truth == Tissue.NEST] = Tissue.DEPOSIT
    rows = blob_rows(node.lesions, "deposit" if positive else "pale sheet") + blob_rows(
        node.follicles, "germinal centre"
    )
    return Scene(canvas, fields, Nuclei.join([own, *background]), truth, rows)


def _background(rng: np.random.Generator, node: Node) -> list[Nuclei]:
    canvas, fields = node.canvas, node.fields
    x, y = cells.inside(canvas, rng, np.minimum(fields["lymphoid"], -fields["pale"]), 7.4, soft_um=5)
    mantle = sample(fields["pale"], x, y, FIELD_UM) > -45
    uneven = sample(smooth_noise(rng, canvas.shape, 12), x, y, FIELD_UM)
    keep = mantle | (rng.random(len(x)) < np.clip(0.82 + 0.12 * uneven, 0.3, 1))
    parts = [cells.nuclei_of(rng, "lymphocyte", (x[keep], y[keep]))]
    parts.append(cells.nuclei_of(rng, "centroblast", cells.inside(canvas, rng, fields["pale"] - 2, 10.5), 0.15))
    parts.append(cells.nuclei_of(rng, "histiocyte", cells.inside(canvas, rng, fields["sinus"] - 1, 17.0), 0.15))
    parts.append(
        _thinned(rng, cells.nuclei_of(rng, "lymphocyte", cells.inside(canvas, rng, fields["sinus"], 12.0)), 0.4)
    )
    parts += cells.stroma_nuclei(canvas, rng, fields["stroma"], fields["flow_v"])
    return [*parts, vessel_nuclei(rng, canvas, fields)]


def _thinned(rng: np.random.Generator, nuclei: Nuclei, share: float) -> Nuclei:
    keep: NDArray[np.bool_] = rng.random(len(nuclei)) < share
    return Nuclei(nuclei.x[keep], nuclei.y[keep], nuclei.kind[keep], nuclei.strength[keep], nuclei.angle[keep])
