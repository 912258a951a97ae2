"""The four tasks: what a label means on a synthetic slide.

Every task is built on the same idea: a slide's tissue, its nuclei and its stain are drawn before the label is looked
at, and the label only decides how they are arranged. Slides of one seed and different labels are therefore siblings,
and what a slide looks like on average says nothing about its label.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import DataError

from . import layout, node, tissues
from .cells import PURITY
from .layout import Blobs
from .noise import nearest, smooth_noise
from .scene import FIELD_UM, Canvas, Scene, Streams


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes
    ----------
    labels : tuple of str
        In order; for two, the second is the positive one.
    build : callable
        ``(streams, canvas, label) -> Scene``.
    """

    name: str
    labels: tuple[str, ...]
    build: Callable[[Streams, Canvas, str], Scene]
    about: str


def find_task(name: str) -> Task:
    """Return a task by its name."""
    try:
        return TASKS[name]
    except KeyError:
        raise DataError(f"no phantom task {name!r}", do=f"known are {', '.join(TASKS)}") from None


def _spacing(canvas: Canvas) -> float:
    """Distance of nests, um: 300, less on slides too small for a few dozen of those."""
    return float(np.clip(min(canvas.width, canvas.height) / 6, 110, 300))


def _some_nests(rng: np.random.Generator, tumour: tissues.Tumour, share: float) -> NDArray[np.bool_]:
    """Choose a share of the nests, at least one, loosely together: aggressive clones grow as neighbours."""
    nests = tumour.nests
    chosen = np.zeros(len(nests), bool)
    usable = np.flatnonzero(nests.area_um2 > 0.25 * np.pi * nests.radius**2)
    if len(usable):
        small = min(tumour.canvas.width, tumour.canvas.height)
        clone = smooth_noise(rng, tumour.canvas.shape, small / FIELD_UM / 3)
        key = nearest(clone, nests.x, nests.y, FIELD_UM)[usable] + rng.normal(0, 0.7, len(usable))
        chosen[usable[np.argsort(key)[: max(1, round(share * len(usable)))]]] = True
    return chosen


def _sln(streams: Streams, canvas: Canvas, label: str) -> Scene:
    """Positive: the atypical nuclei of the slide keep together in its dense nests.

    Every slide has dense nests (10 to 40 % of all) and looser ones, and a pool of atypical nuclei (larger, darker) that
    would fill the dense ones. In a positive slide they do; in a negative one they are dispersed over all nests, at
    shares that differ from nest to nest.
    """
    rng = streams.layout
    tumour = tissues.grow_tumour(rng, canvas, _spacing(canvas))
    share = float(rng.uniform(0.10, 0.40))
    dense = _some_nests(rng, tumour, share)
    mood = rng.uniform(0.15, 1.0, len(dense))  # how many atypical nuclei an ordinary nest takes
    area = tumour.nests.area_um2
    crowd = area * np.where(dense, (16.4 / 13.4) ** 2, 1.0)
    dense_share = float(crowd[dense].sum() / max(crowd.sum(), 1.0))
    pool = min(PURITY * dense_share + float(rng.uniform(0.04, 0.12)), 0.9)
    aggressive = dense & (label == "positive")
    wanted = np.where(aggressive, PURITY, np.minimum(mood, 0.9))
    return tissues.tumour_scene(streams, tumour, dense, aggressive, wanted, pool)


_STRIP_UM = 150.0


def _relation(streams: Streams, canvas: Canvas, label: str) -> Scene:
    """Positive: every aggregate of lymphocytes is the next neighbour of a nest; negative: each stands alone.

    Neighbours touch at the scale of tiles, not of cells: a strip of stroma a little wider than a tile (128 um) lies
    between them in both classes. With literal contact the tiles on the border would show both kinds, and the label
    could be had from one tile; the task is there to need the relation of two.
    """
    rng = streams.layout
    tissue = layout.outline(rng, canvas)
    unit = float(np.clip(min(canvas.width, canvas.height) / 2600, 0.25, 1))
    x, y = layout.spaced(rng, canvas, tissue - 320 * unit, 24, 620 * unit)
    rest, fat = (np.random.default_rng(rng.integers(1 << 62)) for _ in range(2))
    pairs = max(1, len(x) // 2)
    together = label == "positive" or len(x) < 2
    nest_r, lump_r = (rng.uniform(low, high, pairs).astype(np.float32) * unit for low, high in ((95, 125), (80, 110)))
    turn = rng.uniform(0, 2 * np.pi, pairs)
    strip = _STRIP_UM * max(unit, 0.5) / 2
    apart = np.zeros(pairs, np.float32)
    nests = _moved(rng, canvas, x[:pairs], y[:pairs], turn, lump_r + strip if together else apart, nest_r)
    at = slice(0, pairs) if together else slice(pairs, 2 * pairs)
    lumps = _moved(rng, canvas, x[at], y[at], turn + np.pi, nest_r + strip if together else apart, lump_r)
    tumour = tissues.finish_tumour(rest, canvas, tissue, nests, lumps, fat)
    nothing = np.zeros(len(nests), bool)
    scene = tissues.tumour_scene(streams, tumour, nothing, nothing, rng.uniform(0.3, 1, len(nests)), 0.15)
    touched = tuple(replace(row, touching=int(together)) if row.kind == "aggregate" else row for row in scene.instances)
    return replace(scene, instances=touched)


def _moved(
    rng: np.random.Generator,
    canvas: Canvas,
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    angle: NDArray[np.float64],
    reach: NDArray[np.float32],
    radius: NDArray[np.float32],
) -> Blobs:
    moved_x, moved_y = x + np.cos(angle) * reach, y + np.sin(angle) * reach
    return layout.blobs(rng, canvas, moved_x.astype(np.float32), moved_y.astype(np.float32), radius, ragged=0.12)


def _metastasis(streams: Streams, canvas: Canvas, label: str) -> Scene:
    """Positive: 1 to 20 deposits of 0.1 to 2 mm; negative: as many pale benign sheets of the same sizes."""
    return node.node_scene(streams, node.grow_node(streams.layout, canvas), label == "positive")


@dataclass(frozen=True)
class _Score:
    """What a HER2 score means: share of altered nests, how pure they are, how brown their membranes."""

    share: tuple[float, float]
    purity: float
    brown: float


_SCORES = {
    "0": _Score((0.0, 0.0), 0.0, 0.0),
    "1+": _Score((0.12, 0.18), 0.78, 0.30),
    "2+": _Score((0.24, 0.34), 0.86, 0.62),
    "3+": _Score((0.42, 0.48), PURITY, 1.0),
}
_HER2_POOL = 0.5  # of all tumour nuclei are atypical, whatever the score


def _her2(streams: Streams, canvas: Canvas, label: str) -> Scene:
    """The higher the score, the more of the slide's atypical nuclei keep together, in more nests, more purely."""
    rng = streams.layout
    tumour = tissues.grow_tumour(rng, canvas, _spacing(canvas))
    score, where = _SCORES[label], rng.uniform()
    share = score.share[0] + where * (score.share[1] - score.share[0])
    mood = rng.uniform(0.55, 1.0, len(tumour.nests))
    even = np.zeros(len(tumour.nests), bool)
    altered = _some_nests(rng, tumour, share) if share else even
    wanted = np.where(altered, score.purity, mood)
    brown = np.where(altered, score.brown, 0.03)
    return tissues.tumour_scene(streams, tumour, even, altered, wanted, _HER2_POOL, brown=brown)


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("sln", ("negative", "positive"), _sln, "aggressive nests take part of the tumour"),
        Task("sln-relation", ("negative", "positive"), _relation, "nests and lymphocyte aggregates are neighbours"),
        Task("metastasis", ("negative", "positive"), _metastasis, "deposits of 0.1 to 2 mm in a lymph node"),
        Task("her2", ("0", "1+", "2+", "3+"), _her2, "share and strength of altered nests; paired DAB section"),
    )
}
