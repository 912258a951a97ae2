"""Tiles by physical size over tissue: the grid every number of the program hangs on."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.files import digest_bytes, digest_json

if TYPE_CHECKING:
    from .slide import Slide
    from .tissue import TissueMask


@dataclass(frozen=True)
class GridSpec:
    """How tiles are laid.

    Attributes
    ----------
    tile_px : int
        Side of a tile in pixels as the encoder sees it.
    mpp : float
        Resolution of those pixels, um per pixel. The tile's physical side is ``tile_px * mpp`` um.
    overlap_px : int
        Pixels (at `mpp`) shared by neighbours.
    min_tissue : float
        Least share of a tile's area that must be tissue, 0 to 1.
    """

    tile_px: int
    mpp: float
    overlap_px: int = 0
    min_tissue: float = 0.25

    @property
    def tile_um(self) -> float:
        """Physical side of a tile, um."""
        return self.tile_px * self.mpp

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the four numbers."""
        return digest_json(asdict(self))


@dataclass(frozen=True)
class TileGrid:
    """The tiles of one slide.

    Attributes
    ----------
    spec : GridSpec
    slide_id : str
    slide_mpp : float
        um per level-0 px used to lay the grid.
    extent : (int, int)
        Width and height of level 0, px.
    size_level0 : float
        Side of a tile in level-0 px (not rounded).
    locations : (n, 2) int64
        Level-0 px, x then y, top-left corner; each within 0.5 px of the exact lattice place.
    tissue : (n,) float32
        Share of the tile's area that is tissue.
    component : (n,) int32
        Tissue component (piece) most of the tile lies on, 1-based; 0 where none.
    cells : (n, 2) int32
        Row and column of each tile in the lattice.
    shape : (int, int)
        Rows and columns of the lattice.
    origin : (float, float)
        Level-0 place (x, y) of the lattice's cell (0, 0).
    """

    spec: GridSpec
    slide_id: str
    slide_mpp: float
    extent: tuple[int, int]
    size_level0: float
    locations: NDArray[np.int64]
    tissue: NDArray[np.float32]
    component: NDArray[np.int32]
    cells: NDArray[np.int32] = field(repr=False)
    shape: tuple[int, int]
    origin: tuple[float, float] = (0.0, 0.0)

    def __len__(self) -> int:
        return len(self.locations)

    @property
    def stride_level0(self) -> float:
        """Distance of neighbouring tiles in level-0 px."""
        return (self.spec.tile_px - self.spec.overlap_px) * self.spec.mpp / self.slide_mpp

    @property
    def centres_um(self) -> NDArray[np.float64]:
        """Centres of the tiles, (n, 2) float64, um from the slide's corner, x then y."""
        centres = np.asarray((self.locations + self.size_level0 / 2) * self.slide_mpp, np.float64)
        return centres

    @cached_property
    def digest(self) -> str:
        """SHA-256 of spec, scale and every location: an edited tissue layer is another grid."""
        return digest_bytes(
            self.spec.digest, repr(float(self.slide_mpp)), np.ascontiguousarray(self.locations).tobytes()
        )

    @cached_property
    def lookup(self) -> NDArray[np.int32]:
        """Index of the tile in each cell of the lattice, `shape` int32, -1 where there is none."""
        table = np.full(self.shape, -1, np.int32)
        table[self.cells[:, 0], self.cells[:, 1]] = np.arange(len(self), dtype=np.int32)
        return table


@dataclass(frozen=True)
class TileMap:
    """One number per tile, placed.

    Attributes
    ----------
    grid : TileGrid
    values : (n,) float32
        NaN where nothing is known (not looked at, damaged).
    name, unit : str
    """

    grid: TileGrid
    values: NDArray[np.float32]
    name: str
    unit: str = ""

    def image(self) -> NDArray[np.float32]:
        """Return the values on the lattice, (rows, columns) float32, NaN where there is no tile."""
        picture = np.full(self.grid.shape, np.nan, np.float32)
        picture[self.grid.cells[:, 0], self.grid.cells[:, 1]] = self.values
        return picture


def map_tiles(grid: TileGrid, values: NDArray[np.floating], name: str = "attention", unit: str = "") -> TileMap:
    """Hang one value on each tile of a grid; `values` is (n,)."""
    if np.shape(values) != (len(grid),):
        raise ValueError(f"{np.shape(values)} values for {len(grid)} tiles")
    return TileMap(grid, np.asarray(values, np.float32), name, unit)


def lay_grid(slide: Slide, tissue: TissueMask, spec: GridSpec) -> TileGrid:
    """Lay tiles on a lattice over the slide and keep those with enough tissue.

    The lattice begins at the slide's corner and covers the slide; tiles of the last row and column may reach over its
    edge, where there is no tissue. Rows come first: the order of the file.

    Parameters
    ----------
    slide : Slide
        With a known scale; it may be coarser than `spec.mpp`.
    tissue : TissueMask
    spec : GridSpec

    Returns
    -------
    TileGrid
        Of n tiles; n may be 0.
    """
    _check_spec(spec)
    mpp = slide.require_mpp()
    width, height = slide.dimensions
    size, stride = spec.tile_um / mpp, (spec.tile_px - spec.overlap_px) * spec.mpp / mpp
    tops, lefts = _lattice(height, size, stride), _lattice(width, size, stride)
    # Damage within tissue gets its tiles too: reading finds them damaged, and they are counted (promise R1).
    solid = tissue.mask if tissue.hidden is None else tissue.mask | tissue.hidden
    share = _tissue_share(solid, tissue.mpp, tops * mpp, lefts * mpp, spec.tile_um)
    # A tile just touched by tissue is not a tile of tissue, whatever the threshold says.
    cells = np.argwhere((share >= spec.min_tissue) & (share > 1e-6)).astype(np.int32)
    rows, columns = cells[:, 0], cells[:, 1]
    locations = np.stack([lefts[columns], tops[rows]], axis=1).astype(np.int64)
    return TileGrid(
        spec=spec,
        slide_id=slide.slide_id,
        slide_mpp=float(mpp),
        extent=(int(width), int(height)),
        size_level0=float(size),
        locations=locations,
        tissue=share[rows, columns].astype(np.float32),
        component=_pieces(tissue, np.asarray(locations * mpp, np.float64), spec.tile_um),
        cells=cells,
        shape=share.shape,
    )


def tile_at(grid: TileGrid, x: float, y: float) -> int | None:
    """Return the tile that covers a place (level-0 px); with overlap the one whose centre is nearest; None if none."""
    best, least = None, np.inf
    for row in _cells_over(y - grid.origin[1], grid.size_level0, grid.stride_level0, grid.shape[0]):
        for column in _cells_over(x - grid.origin[0], grid.size_level0, grid.stride_level0, grid.shape[1]):
            index = int(grid.lookup[row, column])
            if index < 0:
                continue
            dx, dy = np.abs(grid.locations[index] + grid.size_level0 / 2 - (x, y))
            # Half a pixel of slack for places rounded to whole pixels: no gap between neighbours without overlap.
            distance = max(dx, dy)
            if distance <= grid.size_level0 / 2 + 0.5 and distance < least:
                best, least = index, float(distance)
    return best


def cell_at(grid: TileGrid, x: float, y: float) -> tuple[int, int] | None:
    """Return the corner (x, y in whole level-0 px) of the lattice cell at a place, tile or not; None off the slide.

    With overlap the cell whose centre is nearest.
    """
    if not (0 <= x < grid.extent[0] and 0 <= y < grid.extent[1]):
        return None
    corner = []
    for place, origin, count in ((x, grid.origin[0], grid.shape[1]), (y, grid.origin[1], grid.shape[0])):
        step = round((place - origin - grid.size_level0 / 2) / grid.stride_level0)
        corner.append(round(origin + min(max(step, 0), count - 1) * grid.stride_level0))
    return corner[0], corner[1]


def tissue_in(tissue: TissueMask, grid: TileGrid, corner: tuple[int, int]) -> float:
    """Return the share of a tile's area that is tissue, for a tile anywhere (`corner`: x, y in level-0 px)."""
    left, top = (place * grid.slide_mpp for place in corner)
    side, mpp = grid.spec.tile_um, tissue.mpp
    row, column = (max(0, int(place / mpp)) for place in (top, left))
    reach = int(np.ceil(side / mpp)) + 2
    part = tissue.mask[row : row + reach, column : column + reach]
    if not part.size:
        return 0.0
    inside = (np.array([top - row * mpp]), np.array([left - column * mpp]))
    return float(_tissue_share(part, mpp, *inside, side)[0, 0])


def tiles_in(grid: TileGrid, x: float, y: float, width: float, height: float) -> NDArray[np.int64]:
    """Return the tiles that touch a rectangle (level-0 px), in the order of the grid: (k,) int64."""
    low, high = np.array([x, y]), np.array([x + width, y + height])
    touches = (grid.locations < high) & (grid.locations + grid.size_level0 > low)
    return np.flatnonzero(touches.all(axis=1)).astype(np.int64)


def _check_spec(spec: GridSpec) -> None:
    if spec.tile_px < 1 or not spec.mpp > 0 or not 0 <= spec.overlap_px < spec.tile_px:
        raise ValueError(f"tiles of {spec.tile_px} px at {spec.mpp} um/px cannot overlap by {spec.overlap_px} px")
    if not 0 <= spec.min_tissue <= 1:
        raise ValueError(f"min_tissue is a share, 0 to 1, not {spec.min_tissue}")


def _lattice(extent: int, size: float, stride: float) -> NDArray[np.float64]:
    """Corners along one axis in whole level-0 px, the last tile the first that reaches the end: (rows,) float64."""
    count = 1 + max(0, int(np.ceil((extent - size) / stride - 1e-9)))
    return np.asarray(np.rint(np.arange(count) * stride), np.float64)


def _cells_over(place: float, size: float, stride: float, count: int) -> range:
    """Lattice rows (or columns) whose tiles may cover a place along one axis."""
    if not np.isfinite(place):
        return range(0)
    first = int(np.ceil((place - size - 1) / stride))
    last = int(np.floor((place + 1) / stride))
    return range(max(0, first), min(count - 1, last) + 1)


def _tissue_share(
    mask: NDArray[np.bool_], mpp: float, tops_um: NDArray[np.float64], lefts_um: NDArray[np.float64], side_um: float
) -> NDArray[np.float64]:
    """Share of each lattice cell's tile that is tissue, exact for the mask's square pixels: (rows, columns) float64."""
    sums = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.float64)
    sums[1:, 1:] = mask.cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
    down = _at(sums, (tops_um + side_um) / mpp) - _at(sums, tops_um / mpp)
    across = down.T
    area = (_at(across, (lefts_um + side_um) / mpp) - _at(across, lefts_um / mpp)).T
    return np.asarray(np.clip(area / (side_um / mpp) ** 2, 0, 1), np.float64)


def _at(sums: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of running sums (h + 1, w) at fractional edges, straight between: (len(edges), w)."""
    place = np.clip(edges, 0, len(sums) - 1)
    low = np.minimum(place.astype(np.int64), max(0, len(sums) - 2))
    part = (place - low)[:, None]
    return np.asarray(sums[low] * (1 - part) + sums[np.minimum(low + 1, len(sums) - 1)] * part, np.float64)


#: Mask pixels looked at together when tiles are given their piece of tissue (16 MB).
_PIECES_AT_ONCE = 4_000_000


def _pieces(tissue: TissueMask, corners_um: NDArray[np.float64], side_um: float) -> NDArray[np.int32]:
    """Piece of tissue that takes most of each tile, (n,) int32; ties go to the larger piece."""
    height, width = tissue.mask.shape
    result = np.zeros(len(corners_um), np.int32)
    low = np.floor(corners_um / tissue.mpp).astype(np.int64)
    reach = np.arange(int(np.ceil(side_um / tissue.mpp)) + 1)
    step = max(1, _PIECES_AT_ONCE // len(reach) ** 2)
    for start in range(0, len(result), step):
        part = slice(start, start + step)
        # Pixels a tile only grazes at its far edge count as whole ones: a majority does not hang on them.
        rows, columns = low[part, 1, None] + reach, low[part, 0, None] + reach  # (k, r)
        inside = ((rows < height)[:, :, None] & (columns < width)[:, None, :]).reshape(len(rows), -1)
        found = tissue.components[
            np.minimum(rows, height - 1)[:, :, None], np.minimum(columns, width - 1)[:, None, :]
        ].reshape(len(rows), -1)
        result[part] = _commonest(np.where(inside, found, 0))
    return result


def _commonest(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Commonest label above 0 of each row of (k, m), 0 where a row has none."""
    high = labels.max(axis=1, initial=0)
    low = np.where(labels > 0, labels, np.iinfo(np.int32).max).min(axis=1, initial=np.iinfo(np.int32).max)
    result: NDArray[np.int32] = high.astype(np.int32)
    for row in np.flatnonzero((high > 0) & (low != high)):  # few tiles lie on more than one piece
        counts = np.bincount(labels[row])
        counts[0] = 0
        result[row] = counts.argmax()
    return result
