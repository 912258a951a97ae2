"""Where a stranger's tiles lie: from their corners to one small image.

Tiles on a lattice, overlapping or not, become one pixel each, exactly in place. Other tiles (CLAM begins a lattice of
its own in every piece of tissue) are drawn as squares on a finer raster: the largest step that all corners are whole
multiples of, where that image is small enough, so that they are exact too; else a step that is told.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .raw import ScoresError

#: Largest distance of a corner from the lattice that rounding explains, level-0 px.
SLACK_PX = 1.0
#: The same for places rounded to the nearest whole px.
ROUNDING_PX = 0.51
#: The same for places that were not rounded.
EXACT_PX = 0.02
#: Pixels of the image, and of its longer side (what graphics drivers draw in one piece).
MAX_PIXELS, MAX_SIDE = 8_000_000, 8192
#: A raster coarser than this share of a tile shows no tiles any more.
COARSEST = 1 / 3
FINEST = 1 / 16
#: Share of tiles that must touch a neighbour for overlapping tiles to count as a lattice.
_DENSE = 0.5


@dataclass(frozen=True)
class Places:
    """Tiles of one size on one slide, and the image that shows one number for each.

    Attributes
    ----------
    slide_id : str
    slide_mpp : float
        um per level-0 px.
    extent : (int, int)
        Width and height of the slide, level-0 px.
    locations : (n, 2) float64
        Top-left corners, level-0 px, x before y.
    size_level0 : float
        Side of a tile, level-0 px.
    owner : (h, w) int32
        The tile each pixel of the image shows, -1 for none; where tiles overlap, the one whose middle is nearest.
    origin : (float, float)
        Top-left corner of the image, level-0 px, x before y.
    step : float
        Side of a pixel of the image, level-0 px.
    exact : bool
        Whether squares are drawn within half a level-0 px of their tiles (else within half a `step`).
    """

    slide_id: str
    slide_mpp: float
    extent: tuple[int, int]
    locations: NDArray[np.float64] = field(repr=False)
    size_level0: float
    owner: NDArray[np.int32] = field(repr=False)
    origin: tuple[float, float]
    step: float
    exact: bool

    def __len__(self) -> int:
        return len(self.locations)

    @cached_property
    def seen(self) -> NDArray[np.bool_]:
        """Pixels that show a tile, as `owner`."""
        return self.owner >= 0

    def image(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return one number per tile, (n,), as the image, (h, w) float32, NaN where there is no tile."""
        padded = np.append(np.asarray(values, np.float32), np.float32(np.nan))
        return padded[self.owner]  # -1 is the last

    def area_mm2(self, chosen: NDArray[np.bool_]) -> float:
        """Return the area that the chosen tiles, (n,), cover together."""
        covered = int(np.append(chosen, False)[self.owner].sum())
        return float(covered * (self.step * self.slide_mpp / 1000.0) ** 2)

    def tile_at(self, x: float, y: float) -> int | None:
        """Return the tile that covers a place (level-0 px); of several the one whose middle is nearest."""
        if not (np.isfinite(x) and np.isfinite(y) and len(self)):
            return None
        off = np.abs(self.locations + self.size_level0 / 2 - (x, y)).max(axis=1)
        best = int(off.argmin())
        # Half a pixel of slack for places rounded to whole pixels: no gap between neighbours.
        return best if off[best] <= self.size_level0 / 2 + 0.5 else None


@dataclass(frozen=True)
class _Drawn:
    owner: NDArray[np.int32]
    origin: tuple[float, float]
    step: float
    exact: bool


def lay_places(
    locations: NDArray[np.float64], size: float, *, slide_id: str, slide_mpp: float, extent: tuple[int, int], file: str
) -> Places:
    """Lay tiles out.

    Parameters
    ----------
    locations : (n, 2) float64
        Corners, level-0 px, no two equal.
    size : float
        Side of a tile, level-0 px.
    file : str
        For messages.

    Raises
    ------
    ScoresError
        The tiles are so many, so small and so irregular that no image of bearable size shows them.
    """
    drawn = _on_lattice(locations, size) or _on_raster(locations, size)
    if drawn is None:
        what = f"{len(locations):,} tiles of {size:.3g} px lie irregularly over too large an area for one map"
        raise ScoresError(what, file=file, do="check their size, or give a part of the slide")
    return Places(
        slide_id, slide_mpp, extent, locations, float(size), drawn.owner, drawn.origin, drawn.step, drawn.exact
    )


def spacing(coords: NDArray[np.float64]) -> float | None:
    """Return the distance most neighbours have along an axis, in the unit of the places; None where there is none.

    Without overlap it is the tiles' size: a suggestion for a user who is asked, nothing more.
    """
    gaps = []
    for axis in (0, 1):
        other = coords[:, 1 - axis]
        order = np.lexsort((coords[:, axis], other))
        step = np.diff(coords[order, axis])
        gaps.append(step[(np.diff(other[order]) == 0) & (step > 0)])
    every = np.concatenate(gaps)
    if not len(every):
        return None
    values, counts = np.unique(np.round(every, 2), return_counts=True)
    return float(values[counts.argmax()])


def _on_lattice(locations: NDArray[np.float64], size: float) -> _Drawn | None:
    """Return one pixel per tile where the tiles lie on one lattice."""
    for start in (size, _smallest_gap(locations)):
        if start is None or start > size * 1.001 + SLACK_PX or start < 2 * SLACK_PX:
            continue
        found = _fit(locations, start)
        if found is None:
            continue
        stride, origin = found
        cells = np.rint((locations - origin) / stride).astype(np.int64)
        columns, rows = (int(v) + 1 for v in cells.max(axis=0))
        if columns * rows > MAX_PIXELS or max(columns, rows) > MAX_SIDE:
            continue
        owner = np.full((rows, columns), -1, np.int32)
        owner[cells[:, 1], cells[:, 0]] = np.arange(len(cells), dtype=np.int32)
        if int((owner >= 0).sum()) != len(cells):  # two tiles in one cell
            continue
        if stride < size - SLACK_PX and _touching(owner) < _DENSE * len(cells):
            continue  # a coincidence: several lattices that share a small step
        inset = (size - stride) / 2
        return _Drawn(owner, (float(origin[0] + inset), float(origin[1] + inset)), stride, True)
    return None


def _smallest_gap(locations: NDArray[np.float64]) -> float | None:
    """Return the typical smallest distance of columns or rows."""
    found = []
    for axis in (0, 1):
        gaps = np.diff(_distinct(locations[:, axis]))
        if len(gaps):
            found.append(float(np.median(gaps[gaps < 1.5 * gaps.min()])))
    return min(found) if found else None


def _distinct(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return sorted values, those within rounding of each other as one."""
    ordered = np.unique(values)
    distinct: NDArray[np.float64] = ordered[np.append(True, np.diff(ordered) > SLACK_PX + 1e-6)]
    return distinct


def _fit(locations: NDArray[np.float64], start: float) -> tuple[float, NDArray[np.float64]] | None:
    """Return stride and origin of the lattice all corners lie on within rounding, None where they do not.

    The stride that fits exactly is taken; else, of places that were rounded, the very one expected where it fits as
    rounding explains; else the one that fits best, which a few rounded places tell less exactly.
    """
    axes = []
    for axis in (0, 1):
        places = np.unique(locations[:, axis])
        axes.append((places, np.concatenate([[0.0], np.cumsum(np.rint(np.diff(places) / start))])))
    best = _best_stride(axes, start)
    for stride, slack in ((best, EXACT_PX), (start, ROUNDING_PX), (best, SLACK_PX)):
        rests = [places - steps * stride for places, steps in axes]
        if max(float(np.ptp(rest)) for rest in rests) / 2 <= slack:
            return stride, np.array([(rest.min() + rest.max()) / 2 for rest in rests])
    return None


def _best_stride(axes: list[tuple[NDArray[np.float64], NDArray[np.float64]]], start: float) -> float:
    """Return the stride by least squares over both axes."""
    over = under = 0.0
    for places, steps in axes:
        centred = steps - steps.mean()
        over += float(centred @ (places - places.mean()))
        under += float(centred @ centred)
    return over / under if under > 0 else start


def _touching(owner: NDArray[np.int32]) -> int:
    """Return how many tiles have a neighbour in the next cell."""
    seen = np.pad(owner >= 0, 1)
    beside = seen[:-2, 1:-1] | seen[2:, 1:-1] | seen[1:-1, :-2] | seen[1:-1, 2:]
    return int((beside & seen[1:-1, 1:-1]).sum())


def _on_raster(locations: NDArray[np.float64], size: float) -> _Drawn | None:
    """Return the tiles as squares on a raster finer than they are."""
    low = locations.min(axis=0)
    wide, high = (float(v) for v in locations.max(axis=0) - low + size)
    common = _common_step(locations, low, size)
    exact = common is not None and _bearable(wide / common, high / common)
    if common is not None and exact:
        step = float(common)
    else:
        step = max(size * FINEST, float(np.sqrt(wide * high / MAX_PIXELS)) * 1.001, max(wide, high) / MAX_SIDE * 1.001)
        if step > size * COARSEST:
            return None
    side = max(1, round(size / step))
    cells = np.rint((locations - low) / step).astype(np.int64)
    shape = (int(cells[:, 1].max()) + side, int(cells[:, 0].max()) + side)
    owner = _without_overlap(cells, side, shape)
    if owner is None:
        owner = _nearest(cells, side, shape)
    return _Drawn(owner, (float(low[0]), float(low[1])), step, exact)


def _bearable(columns: float, rows: float) -> bool:
    return columns * rows <= MAX_PIXELS and max(columns, rows) <= MAX_SIDE


def _common_step(locations: NDArray[np.float64], low: NDArray[np.float64], size: float) -> int | None:
    """Return the largest whole number of px that all corners and the size are multiples of; None without one."""
    numbers = np.append((locations - low).ravel(), size)
    whole = np.rint(numbers)
    if np.abs(numbers - whole).max() > 1e-3:
        return None
    return int(np.gcd.reduce(np.unique(whole.astype(np.int64))))


def _without_overlap(cells: NDArray[np.int64], side: int, shape: tuple[int, int]) -> NDArray[np.int32] | None:
    """Paint squares by sums over corners, all at once, (h, w) int32; None where two squares share a pixel."""
    rows, columns = cells[:, 1], cells[:, 0]
    marks = np.zeros((shape[0] + 1, shape[1] + 1), np.int64)
    number = np.arange(1, len(cells) + 1)
    # One sum tells both: how many squares lie over a pixel (above), and the number of the only one (below).
    weight = (np.int64(1) << 32) + number
    for down, right, sign in ((0, 0, 1), (0, side, -1), (side, 0, -1), (side, side, 1)):
        np.add.at(marks, (rows + down, columns + right), sign * weight)
    painted = marks.cumsum(axis=0).cumsum(axis=1)[:-1, :-1]
    if int(painted.max()) >> 32 > 1:
        return None
    return ((painted & 0xFFFFFFFF) - 1).astype(np.int32)


def _nearest(cells: NDArray[np.int64], side: int, shape: tuple[int, int]) -> NDArray[np.int32]:
    """Paint squares, where they overlap the one whose middle is nearest, (h, w) int32."""
    off = np.abs(np.arange(side) - (side - 1) / 2)
    square = np.maximum(off[:, None], off[None]).astype(np.float32)
    least = np.full(shape, np.inf, np.float32)
    owner = np.full(shape, -1, np.int32)
    for tile, (column, row) in enumerate(cells.tolist()):
        part = np.s_[row : row + side, column : column + side]
        nearer = square < least[part]
        np.copyto(least[part], square, where=nearer)
        np.copyto(owner[part], tile, where=nearer)
    return owner
