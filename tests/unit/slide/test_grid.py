"""Where tiles lie, what they cover, and how a place finds its tile."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from napari_slnpredict.slide.grid import (
    GridSpec,
    TileGrid,
    cell_at,
    lay_grid,
    map_tiles,
    tile_at,
    tiles_in,
    tissue_in,
)
from napari_slnpredict.slide.tissue import TissueMask, tissue_from_mask

from .fakes import ArraySlide


class Extent:
    """A slide of which only its size and scale matter."""

    slide_id = "extent"

    def __init__(self, width: int, height: int, mpp: float) -> None:
        self.dimensions, self.mpp = (width, height), mpp

    def require_mpp(self) -> float:
        return self.mpp


def mask_for(slide: Extent, seed: int | None = None, mpp: float = 8.0) -> TissueMask:
    """Tissue all over, or in random blobs."""
    shape = tuple(max(1, int(np.ceil(d * slide.mpp / mpp))) for d in slide.dimensions[::-1])
    if seed is None:
        return tissue_from_mask(np.ones(shape, bool), mpp)
    rng = np.random.default_rng(seed)
    coarse = rng.random((-(-shape[0] // 6), -(-shape[1] // 6))) < 0.4
    return tissue_from_mask(np.kron(coarse, np.ones((6, 6), bool))[: shape[0], : shape[1]], mpp)


slides = st.builds(Extent, st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([0.25, 0.499, 1.0, 2.017]))
specs = st.builds(
    GridSpec,
    tile_px=st.sampled_from([64, 112, 128, 224]),
    mpp=st.sampled_from([0.5, 1.0, 2.0]),
    overlap_px=st.sampled_from([0, 1, 16, 48]),
    min_tissue=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
)


@settings(max_examples=60, deadline=None)
@given(slides, specs, st.integers(0, 100))
def test_every_tile_is_sound(slide: Extent, spec: GridSpec, seed: int) -> None:
    """Duplicates, places off the slide or off the lattice would corrupt every map and every bag."""
    grid = lay_grid(slide, mask_for(slide, seed), spec)  # type: ignore[arg-type]
    x, y = grid.locations[:, 0], grid.locations[:, 1]
    assert len(np.unique(grid.locations, axis=0)) == len(grid)
    assert len(np.unique(grid.cells, axis=0)) == len(grid)
    assert (x >= 0).all()
    assert (y >= 0).all()
    assert (x < slide.dimensions[0]).all()
    assert (y < slide.dimensions[1]).all()
    assert (np.abs(grid.cells[:, ::-1] * grid.stride_level0 - grid.locations) <= 0.5 + 1e-6).all()
    assert grid.size_level0 == pytest.approx(spec.tile_px * spec.mpp / slide.mpp)
    assert (grid.tissue >= spec.min_tissue - 1e-6).all()
    assert (grid.tissue <= 1).all()
    assert (grid.component > 0).all()
    assert np.lexsort((grid.cells[:, 1], grid.cells[:, 0])).tolist() == list(range(len(grid)))
    assert (grid.cells < grid.shape).all()


@settings(max_examples=60, deadline=None)
@given(slides, specs, st.data())
def test_tiles_cover_the_slide_and_find_each_other(slide: Extent, spec: GridSpec, data: st.DataObject) -> None:
    """A place on tissue without a tile could not be clicked; a centre that finds another tile would lie."""
    spec = GridSpec(spec.tile_px, spec.mpp, spec.overlap_px, 0.0)
    grid = lay_grid(slide, mask_for(slide), spec)  # type: ignore[arg-type]
    x = data.draw(st.floats(0, slide.dimensions[0], exclude_max=True))
    y = data.draw(st.floats(0, slide.dimensions[1], exclude_max=True))
    found = tile_at(grid, x, y)
    assert found is not None
    assert (np.abs(grid.locations[found] + grid.size_level0 / 2 - (x, y)) <= grid.size_level0 / 2 + 0.5).all()
    index = data.draw(st.integers(0, len(grid) - 1))
    assert tile_at(grid, *(grid.locations[index] + grid.size_level0 / 2)) == index


@settings(max_examples=40, deadline=None)
@given(slides, specs, st.integers(0, 100), st.data())
def test_tile_at_agrees_with_looking_at_all(slide: Extent, spec: GridSpec, seed: int, data: st.DataObject) -> None:
    """Index arithmetic must give what a search over all tiles gives, overlap or gaps or not."""
    grid = lay_grid(slide, mask_for(slide, seed), spec)  # type: ignore[arg-type]
    place = np.array([data.draw(st.floats(-100, d + 100)) for d in slide.dimensions])
    found = tile_at(grid, *place)
    distance = np.abs(grid.locations + grid.size_level0 / 2 - place).max(axis=1) if len(grid) else np.zeros(0)
    if len(grid) == 0 or distance.min() > grid.size_level0 / 2 + 0.5:
        assert found is None
    else:
        assert found is not None
        assert distance[found] == pytest.approx(distance.min())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([0, 48]))
def test_share_and_piece_against_counting(seed: int, overlap: int) -> None:
    """Tissue share and piece come from running sums and gathers; pixels counted one by one must agree."""
    slide = Extent(900, 700, 1.0)
    tissue = mask_for(slide, seed, 4.0)
    grid = lay_grid(slide, tissue, GridSpec(128, 1.0, overlap, 0.1))  # type: ignore[arg-type]
    for (x, y), share, piece in zip(grid.locations, grid.tissue, grid.component, strict=True):
        rows, columns = slice(y // 4, y // 4 + 32), slice(x // 4, x // 4 + 32)
        assert share == pytest.approx(tissue.mask[rows, columns].sum() / 32**2, abs=1e-5)
        counts = np.bincount(tissue.components[rows, columns].ravel(), minlength=piece + 1)
        counts[0] = 0
        # The share of a far row of pixels that is only grazed may tip a tie.
        assert counts[piece] >= counts.max() - 64


def test_overlap_shortens_the_stride() -> None:
    """Neighbours must share exactly the pixels asked for."""
    slide = Extent(4096, 4096, 0.5)
    grid = lay_grid(slide, mask_for(slide), GridSpec(256, 1.0, 64))  # type: ignore[arg-type]
    assert np.unique(np.diff(np.unique(grid.locations[:, 0]))).tolist() == [384]
    assert grid.size_level0 == 512


def test_edge_tiles_reach_over_when_they_hold_enough() -> None:
    """A strip of tissue along the right edge must not be lost because the slide is no multiple of a tile."""
    slide = Extent(128 * 3 + 64, 128 * 2 + 8, 1.0)
    grid = lay_grid(slide, mask_for(slide), GridSpec(128, 1.0, 0, 0.25))  # type: ignore[arg-type]
    assert grid.shape == (3, 4)
    assert sorted(set(grid.locations[:, 0].tolist())) == [0, 128, 256, 384]
    assert grid.locations[:, 1].max() == 128  # 8 of 128 px at the bottom are too little
    assert grid.tissue[grid.locations[:, 0] == 384].tolist() == [0.5, 0.5]


def test_no_tissue_no_tiles() -> None:
    """No tissue is a result: the grid must exist, be empty and answer."""
    slide = Extent(1000, 800, 1.0)
    empty = tissue_from_mask(np.zeros((100, 125), bool), 8.0)
    grid = lay_grid(slide, empty, GridSpec(128, 1.0, 0, 0.0))  # type: ignore[arg-type]
    assert len(grid) == 0
    assert grid.locations.shape == (0, 2)
    assert tile_at(grid, 10, 10) is None
    assert len(tiles_in(grid, 0, 0, 1000, 800)) == 0
    assert np.isnan(map_tiles(grid, np.zeros(0)).image()).all()
    assert len(grid.digest) == 64


def test_a_slide_coarser_than_asked_is_laid_all_the_same() -> None:
    """Slides up to twice as coarse as the model are enlarged: the grid must not refuse them."""
    slide = Extent(1000, 1000, 2.0)
    grid = lay_grid(slide, mask_for(slide), GridSpec(128, 1.0))  # type: ignore[arg-type]
    assert grid.size_level0 == 64
    assert len(grid) == 16 * 16


@pytest.mark.parametrize(
    "spec", [GridSpec(0, 1.0), GridSpec(128, 0.0), GridSpec(128, 1.0, 128), GridSpec(128, 1.0, 0, 1.5)], ids=str
)
def test_impossible_specs_are_refused(spec: GridSpec) -> None:
    """A stride of nothing would never end."""
    slide = Extent(1000, 1000, 1.0)
    with pytest.raises(ValueError):
        lay_grid(slide, mask_for(slide), spec)  # type: ignore[arg-type]


def test_tiles_in_a_view() -> None:
    """Tiles in view come first: those that only touch the view belong to it, the others do not."""
    slide = Extent(1024, 1024, 1.0)
    grid = lay_grid(slide, mask_for(slide), GridSpec(128, 1.0))  # type: ignore[arg-type]
    seen = tiles_in(grid, 130, 0, 130, 100)
    assert grid.cells[seen].tolist() == [[0, 1], [0, 2]]


def test_a_hundred_thousand_tiles_take_a_moment() -> None:
    """A loop over tiles would take minutes on a large slide; this must stay below the time of one block."""
    slide = Extent(100_000, 80_000, 0.25)
    tissue = mask_for(slide, 3)
    start = time.perf_counter()
    grid = lay_grid(slide, tissue, GridSpec(256, 0.25, 0, 0.05))  # type: ignore[arg-type]
    seconds = time.perf_counter() - start
    assert len(grid) > 60_000
    assert seconds < 5
    start = time.perf_counter()
    for index in range(0, len(grid), 100):
        assert tile_at(grid, *(grid.locations[index] + 128)) == index
    assert time.perf_counter() - start < 1


def test_grid_over_a_fake_slide_equals_one_over_an_extent() -> None:
    """The fakes of these tests must agree, or the tests test nothing."""
    pixels: NDArray[np.uint8] = np.zeros((300, 400, 3), np.uint8)
    array, extent = ArraySlide(pixels, 1.0), Extent(400, 300, 1.0)
    one: TileGrid = lay_grid(array, mask_for(extent), GridSpec(64, 1.0))  # type: ignore[arg-type]
    other = lay_grid(extent, mask_for(extent), GridSpec(64, 1.0))  # type: ignore[arg-type]
    assert one.digest == other.digest


def test_a_cell_is_found_whether_it_has_a_tile_or_not() -> None:
    """A click beside the tiles would be told about another place."""
    grid = TileGrid(
        GridSpec(64, 1.0), "a", 0.5, (1000, 700), 128.0, np.array([[128, 128]]), np.ones(1, np.float32),
        np.ones(1, np.int32), np.array([[1, 1]], np.int32), (6, 8),
    )  # fmt: skip
    for x, y in ((0, 0), (127, 5), (500, 300), (999, 699)):
        corner = cell_at(grid, x, y)
        assert corner is not None
        assert corner[0] % 128 == corner[1] % 128 == 0
        assert 0 <= x - corner[0] <= 128
        assert 0 <= y - corner[1] <= 128
    assert cell_at(grid, 130, 250) == (128, 128)
    for x, y in ((-1, 5), (5, -1), (1000, 5), (5, 700), (float("nan"), 5)):
        assert cell_at(grid, x, y) is None


def test_tissue_of_any_place_is_that_of_the_grid() -> None:
    """The share told for a place would not be the one that decided about its tile."""
    rng = np.random.default_rng(0)
    tissue = tissue_from_mask(rng.random((80, 100)) > 0.5, 8.0)
    grid = lay_grid(Extent(1600, 1280, 0.5), tissue, GridSpec(100, 1.0))  # type: ignore[arg-type]
    assert len(grid) > 20
    for tile in range(len(grid)):
        corner = (int(grid.locations[tile, 0]), int(grid.locations[tile, 1]))
        assert tissue_in(tissue, grid, corner) == pytest.approx(float(grid.tissue[tile]), abs=1e-6)
    assert tissue_in(tissue, grid, (5000, 5000)) == 0
