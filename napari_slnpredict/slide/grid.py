"""Tiles by physical size over tissue: the grid every number of the program hangs on."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.files import digest_bytes, digest_json


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
