"""Tiles as a network gets them: the right place, the right scale, whatever they were read with."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from napari_slnpredict.slide import blocks as module
from napari_slnpredict.slide.blocks import plan_blocks, read_block, read_places, read_tile
from napari_slnpredict.slide.grid import GridSpec, TileGrid, lay_grid
from napari_slnpredict.slide.slide import open_slide
from napari_slnpredict.slide.tissue import tissue_from_mask

from .fakes import ArraySlide


def texture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Noise with structure at several scales, so that a wrong place shows."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3))
    for step in (1, 4, 16, 64):
        coarse = rng.random((-(-height // step), -(-width // step), 3))
        picture += np.kron(coarse, np.ones((step, step, 1)))[:height, :width]
    return (picture * 255 / picture.max()).astype(np.uint8)


def ramp(height: int, width: int) -> NDArray[np.uint8]:
    """Red tells the column, green the row: a pixel's colour is its place."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns * 250 / width, rows * 250 / height, 0 * rows], -1).round().astype(np.uint8)


def grid_over(slide: ArraySlide, spec: GridSpec, seed: int | None = None) -> TileGrid:
    """A grid over the whole slide, or over random patches of it."""
    shape = (-(-slide.dimensions[1] // 8), -(-slide.dimensions[0] // 8))
    mask = np.ones(shape, bool)
    if seed is not None:
        coarse = np.random.default_rng(seed).random((-(-shape[0] // 9), -(-shape[1] // 9))) < 0.5
        mask = np.kron(coarse, np.ones((9, 9), bool))[: shape[0], : shape[1]]
    return lay_grid(slide, tissue_from_mask(mask, 8 * slide.require_mpp()), spec)  # type: ignore[arg-type]


def read(slide: ArraySlide, grid: TileGrid, indices: object) -> module.Tiles:
    """`read_block` for a fake slide."""
    return read_block(slide, grid, indices)  # type: ignore[arg-type]


@pytest.mark.parametrize("side", [1, 3, 4])
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_blocks_hold_every_tile_once_in_file_order(side: int, seed: int | None) -> None:
    """A tile in no block would never be embedded; one in two would be embedded twice."""
    grid = grid_over(ArraySlide(ramp(700, 900)), GridSpec(64, 1.0), seed)
    blocks = plan_blocks(grid, side=side)
    assert sorted(np.concatenate(blocks).tolist()) == list(range(len(grid)))
    keys = [tuple((grid.cells[block] // side).tolist()[0]) for block in blocks]
    assert keys == sorted(keys)
    for block in blocks:
        assert len(np.unique(grid.cells[block] // side, axis=0)) == 1
        assert len(block) <= side**2


def test_urgent_blocks_come_first_and_only_wanted_tiles() -> None:
    """Tiles in view are asked for first: their blocks must be read first, and nothing that is not asked for."""
    grid = grid_over(ArraySlide(ramp(1024, 1024)), GridSpec(64, 1.0))
    order = [255, 0, 17, 254, 16, 1, 120]
    blocks = plan_blocks(grid, order)
    assert [block.tolist() for block in blocks] == [[254, 255], [0, 1, 16, 17], [120]]
    assert plan_blocks(grid, []) == []


@settings(max_examples=30, deadline=None)
@given(
    mpp=st.sampled_from([0.25, 0.4993, 0.51, 1.0, 1.7]),
    spec=st.sampled_from([GridSpec(32, 1.0), GridSpec(48, 1.0, 16), GridSpec(32, 2.0), GridSpec(40, 0.5)]),
    factors=st.sampled_from([(1,), (1, 2), (1, 4), (1, 2, 4, 8)]),
    seed=st.integers(0, 5),
    data=st.data(),
)
def test_a_tile_does_not_depend_on_its_block(
    mpp: float, spec: GridSpec, factors: tuple[int, ...], seed: int, data: st.DataObject
) -> None:
    """Resuming reads other blocks than a first run: features would differ, and the cache would lie."""
    slide = ArraySlide(texture(250, 330, seed), mpp, factors)
    grid = grid_over(slide, spec, seed)
    if len(grid) == 0:
        return
    indices = data.draw(st.permutations(range(len(grid))))[: data.draw(st.integers(1, len(grid)))]
    tiles = read(slide, grid, indices)
    assert tiles.indices.tolist() == indices
    assert not tiles.damaged.any()
    for index, pixels in zip(indices[:10], tiles.pixels, strict=False):
        assert np.array_equal(read_tile(slide, grid, index), pixels)  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(
    mpp=st.sampled_from([0.25, 0.31, 0.4993, 0.5, 0.83, 1.0, 1.6]),
    factors=st.sampled_from([(1,), (1, 2), (1, 4), (1, 2, 4)]),
    spec=st.sampled_from([GridSpec(64, 1.0), GridSpec(96, 1.0, 32), GridSpec(50, 1.3), GridSpec(64, 0.5)]),
)
def test_tiles_lie_where_the_grid_says(mpp: float, factors: tuple[int, ...], spec: GridSpec) -> None:
    """A tile read beside its place shifts every map; half a pixel of the level is the limit."""
    height, width = 701, 803
    slide = ArraySlide(ramp(height, width), mpp, factors)
    grid = grid_over(slide, spec)
    step = spec.mpp / mpp  # level-0 px per tile pixel
    level = [d for d in slide.level_downsamples if d <= step * 1.01] or [1.0]
    # Half a pixel of the level read, half a grey level of rounding in the ramp and in the result.
    slack = 0.5 * max(level) + width / 250 * 1.05
    for index in range(0, len(grid), max(1, len(grid) // 7)):
        x, y = grid.locations[index]
        if x + grid.size_level0 > width - 4 or y + grid.size_level0 > height - 4:
            continue
        pixels = read_tile(slide, grid, index).astype(float)  # type: ignore[arg-type]
        # The middle of the tile in level-0 px, from its colours; the ramp tells pixel corners, hence the half.
        middle = slice(spec.tile_px // 4, spec.tile_px - spec.tile_px // 4)
        found = pixels[middle, middle, 0].mean() * width / 250, pixels[middle, middle, 1].mean() * height / 250
        centre = np.array([x, y]) + grid.size_level0 / 2 - 0.5
        assert np.abs(np.array(found) - centre).max() <= slack
        # And the scale: from the left quarter to the right one.
        quarter = spec.tile_px // 4
        run = (pixels[:, -1 - quarter, 0] - pixels[:, quarter, 0]).mean() * width / 250
        assert run == pytest.approx((spec.tile_px - 1 - 2 * quarter) * step, abs=2 * width / 250)


def mean_of_blocks(square: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """The function under test, with a result of its own."""
    result = np.zeros((square.shape[0] // factor, square.shape[1] // factor, 3), np.uint8)
    module._mean_of_blocks(square, factor, result)
    return result


@pytest.mark.parametrize("factor", [2, 3, 4, 8, 20])
def test_whole_factors_are_means(factor: int) -> None:
    """The fast way to average must give the average, to the grey level."""
    square = texture(16 * factor, 16 * factor, factor)
    exact = square.reshape(16, factor, 16, factor, 3).astype(np.int64).sum((1, 3))
    expected = (exact + factor * factor // 2) // (factor * factor)
    assert np.array_equal(mean_of_blocks(square, factor), expected)
    white = np.full_like(square, 255)
    assert (mean_of_blocks(white, factor) == 255).all()


def test_cuts_of_a_region_are_averaged_as_copies_are() -> None:
    """A tile is a window into a larger read; strides must not matter."""
    region = texture(100, 120)
    window = region[5:69, 7:71]
    assert np.array_equal(mean_of_blocks(window, 4), mean_of_blocks(window.copy(), 4))


def test_other_factors_do_not_alias() -> None:
    """A fine chequerboard brought down without antialiasing becomes a coarse pattern that is not there."""
    rows, columns = np.mgrid[:600, :600]
    board = np.repeat((((rows + columns) % 2) * 255).astype(np.uint8)[..., None], 3, axis=2)
    slide = ArraySlide(board, 0.4)
    tile = read_tile(slide, grid_over(slide, GridSpec(64, 1.0)), 0)  # type: ignore[arg-type]
    assert np.abs(tile.astype(int) - 127).max() <= 12


def test_levels_of_odd_sizes_count_as_whole_factors() -> None:
    """A level 4.0042 times smaller is the level of factor 4: anything else reads 16 times the pixels, and blurs."""
    slide = ArraySlide(texture(1003, 1239), 1.0, (1, 4))
    assert slide.level_downsamples[1] > 4.004
    grid = grid_over(slide, GridSpec(32, 4.0))
    tiles = read(slide, grid, range(8))
    assert {place[0] for place in slide.reads} == {1}
    x, y = np.rint(grid.locations[5] / slide.level_downsamples[1]).astype(int)
    assert np.array_equal(tiles.pixels[5], slide.levels[1][0][y : y + 32, x : x + 32])


def test_a_block_is_one_read() -> None:
    """Reading tile by tile decodes shared file tiles over and over."""
    slide = ArraySlide(texture(600, 600))
    grid = grid_over(slide, GridSpec(64, 1.0, 16))
    read(slide, grid, plan_blocks(grid)[0])
    assert slide.reads == [(0, 0, 0, 208, 208)]


def test_scattered_tiles_are_not_read_with_all_between() -> None:
    """Two tiles at opposite ends of a slide must not read the slide."""
    slide = ArraySlide(texture(1500, 1500))
    grid = grid_over(slide, GridSpec(64, 1.0))
    read(slide, grid, [0, len(grid) - 1, 1])
    assert sum(w * h for _, _, _, w, h in slide.reads) == 3 * 64 * 64
    assert len(slide.reads) == 2


def test_large_blocks_are_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a pyramid a block can be gigabytes; the memory of a read is bounded."""
    slide = ArraySlide(texture(700, 700))
    grid = grid_over(slide, GridSpec(64, 1.0))
    whole = read(slide, grid, plan_blocks(grid)[0])
    monkeypatch.setattr(module, "REGION_PX", 3 * 64 * 64)
    parts = read(slide, grid, plan_blocks(grid)[0])
    assert np.array_equal(whole.pixels, parts.pixels)
    assert max(w * h for _, _, _, w, h in slide.reads[1:]) <= 3 * 64 * 64


def test_beyond_the_edge_is_white_and_no_damage() -> None:
    """A tile over the slide's edge must end in glass, not in black or in repeated pixels."""
    slide = ArraySlide(np.full((100, 100, 3), 90, np.uint8))
    grid = grid_over(slide, GridSpec(64, 1.0, 0, 0.1))
    tiles = read(slide, grid, range(len(grid)))
    assert len(grid) == 4
    assert (tiles.pixels[3, :36, :36] == 90).all()
    assert (tiles.pixels[3, 36:] == 255).all()
    assert not tiles.damaged.any()


def test_damage_is_told_and_unscanned_is_not_damage() -> None:
    """A tile with pixels that could not be read must never reach a model (promise R1)."""
    slide = ArraySlide(texture(256, 256), unreadable=((70, 10, 10, 10),), sparse=((0, 128, 64, 64),))
    grid = grid_over(slide, GridSpec(64, 1.0))
    tiles = read(slide, grid, range(16))
    assert np.flatnonzero(tiles.damaged).tolist() == [1]
    assert read(slide, grid, [1]).damaged.tolist() == [True]
    assert (tiles.pixels[8] == 255).all()


def test_damage_on_a_coarse_level() -> None:
    """Damage is told in level-0 px; on level 1 the same tiles must be found."""
    slide = ArraySlide(texture(512, 512), 0.5, (1, 2), unreadable=((300, 300, 20, 20),))
    grid = grid_over(slide, GridSpec(64, 1.0))
    assert np.flatnonzero(read(slide, grid, range(16)).damaged).tolist() == [10]


def test_upsampling_a_coarse_slide() -> None:
    """A slide of 2 um/px read for a model at 1 um/px is enlarged smoothly, not refused or shifted."""
    slide = ArraySlide(ramp(300, 300), 2.0)
    grid = grid_over(slide, GridSpec(64, 1.0))
    tile = read_tile(slide, grid, 0).astype(float)  # type: ignore[arg-type]
    assert tile.shape == (64, 64, 3)
    assert (np.diff(tile[32, 2:-2, 0]) >= 0).all()
    assert tile[32, 32, 0] == pytest.approx(16 * 250 / 300, abs=1)


def test_threads_get_what_one_thread_gets() -> None:
    """Workers read the same slide side by side."""
    slide = ArraySlide(texture(900, 900), 0.37)
    grid = grid_over(slide, GridSpec(64, 1.0))
    blocks = plan_blocks(grid)
    alone = [read(slide, grid, block).pixels for block in blocks]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda block: read(slide, grid, block).pixels, blocks))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_a_place_off_the_lattice() -> None:
    """A click on a place that was not embedded reads it there and then, also half off the slide."""
    slide = ArraySlide(texture(200, 200))
    grid = grid_over(slide, GridSpec(64, 1.0))
    pixels, damaged = read_places(slide, grid, np.array([[33, 47], [-10, 150]]))  # type: ignore[arg-type]
    assert np.array_equal(pixels[0], slide.levels[0][0][47:111, 33:97])
    assert (pixels[1, :, :10] == 255).all()
    assert (pixels[1, 50:] == 255).all()
    assert not damaged.any()


def test_no_tiles() -> None:
    """An empty request is an empty answer of the right shape."""
    slide = ArraySlide(texture(200, 200))
    tiles = read(slide, grid_over(slide, GridSpec(64, 1.0)), [])
    assert tiles.pixels.shape == (0, 64, 64, 3)
    assert tiles.damaged.shape == (0,)


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("slides/duodenum_celiac_HE_level15.svs", GridSpec(128, 1.0)),  # means of 2 x 2 of level 0
        ("slides/duodenum_celiac_HE_level15.svs", GridSpec(128, 2.0)),  # level 1 as it is, 4.001 times smaller
        ("cohort/slides/ln01a.svs", GridSpec(128, 1.0, 32)),  # level 0 as it is
        ("slides/lymphangiectasia-generic.tiff", GridSpec(64, 4.0)),  # a generic TIFF, level 2
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.mpp}",
)
def test_real_tiles_are_the_pixels_of_their_level(name: str, spec: GridSpec, shared: Path) -> None:
    """Against plain reads of the same places: a block must not shift, mix or blur what the file holds."""
    with open_slide(shared / name) as slide:
        shape = tuple(int(side * slide.require_mpp() / 8) for side in slide.dimensions[::-1])
        grid = lay_grid(slide, tissue_from_mask(np.ones(shape, bool), 8.0), spec)
        wanted = spec.mpp / slide.require_mpp()
        level = int(np.argmin([abs(d - wanted) if d < wanted * 1.01 else np.inf for d in slide.level_downsamples]))
        factor = round(wanted / slide.level_downsamples[level])
        for block in plan_blocks(grid)[:: max(1, len(grid) // 64)]:
            tiles = read_block(slide, grid, block)
            index = block[len(block) // 2]
            x, y = np.rint(grid.locations[index] / slide.level_downsamples[level]).astype(int).tolist()
            side = spec.tile_px * factor
            plain = slide.read_level(level, x, y, side, side)[0].astype(float)
            expected = plain.reshape(spec.tile_px, factor, spec.tile_px, factor, 3).mean((1, 3))
            assert np.abs(tiles.pixels[len(block) // 2] - expected).max() <= 0.5
            assert not tiles.damaged.any()
