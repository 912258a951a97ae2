"""Where layers lie, and in which colours."""

from __future__ import annotations

import numpy as np
import pytest

from napari_slnpredict.export_pictures import map_extent
from napari_slnpredict.plugin.layers import ink, paper_colour, place, place_mask
from napari_slnpredict.slide.grid import GridSpec, TileGrid, map_tiles


def row_of_tiles(mpp: float, tile_px: int = 128, model_mpp: float = 1.0, overlap: int = 0) -> TileGrid:
    size = tile_px * model_mpp / mpp
    stride = (tile_px - overlap) * model_mpp / mpp
    cells = np.stack([np.zeros(8), np.arange(8)], axis=1).astype(np.int32)
    return TileGrid(
        GridSpec(tile_px, model_mpp, overlap), "s", mpp, (9000, 900), size,
        np.rint(cells[:, ::-1] * stride).astype(np.int64), np.ones(8, np.float32), np.ones(8, np.int32), cells, (1, 8),
    )  # fmt: skip


def test_map_of_the_measured_case() -> None:
    """The formula would not be the one that was checked on a screen (P = 128 level-0 px, 0.5 um/px)."""
    grid = row_of_tiles(1.0)
    where = place(grid)
    assert where.scale == (128.0, 128.0)
    assert where.translate == (63.5, 63.5)


@pytest.mark.parametrize("mpp", [0.2431, 0.499, 1.0])
@pytest.mark.parametrize("overlap", [0, 32])
def test_every_cell_stands_on_its_tile(mpp: float, overlap: int) -> None:
    """The map would drift to the right on slides with an odd pixel size."""
    grid = row_of_tiles(mpp, overlap=overlap)
    where = place(grid)
    for tile in range(8):
        centre_world = where.translate[1] + grid.cells[tile, 1] * where.scale[1]
        centre_px = centre_world / mpp + 0.5  # world 0 is the middle of pixel 0
        assert centre_px == pytest.approx(grid.locations[tile, 0] + grid.size_level0 / 2, abs=0.5)


def test_viewer_and_report_place_alike() -> None:
    """The same map would lie in two places."""
    grid = row_of_tiles(0.25, overlap=16)
    left, top, width, height = map_extent(grid)
    where = place(grid)
    assert (where.translate[1] - where.scale[1] / 2) / 0.25 + 0.5 == pytest.approx(left)
    assert (where.translate[0] + where.scale[0] / 2) / 0.25 + 0.5 == pytest.approx(top + height)
    assert width == pytest.approx(8 * where.scale[1] / 0.25)


def test_mask_begins_at_the_slides_corner() -> None:
    """The tissue outline would lie beside the tissue."""
    where = place_mask(8.0, 0.5)
    assert where.scale == (8.0, 8.0)
    assert where.translate[0] - where.scale[0] / 2 == pytest.approx(-0.25)  # the corner of pixel 0


def test_an_even_map_looks_even() -> None:
    """A model that looks everywhere alike would paint the slide black."""
    grid = row_of_tiles(1.0)
    low, high, top = ink(map_tiles(grid, np.ones(8)))
    assert low == 0
    assert high >= 3
    assert top == 1
    raw = ink(map_tiles(grid, np.full(8, 1 / 8)), scale="attention")
    assert raw[1] == pytest.approx(high / 8)


def test_evidence_has_the_same_reach_on_both_sides() -> None:
    """A weak 'for' would look like a strong 'against'."""
    low, high, _ = ink(map_tiles(row_of_tiles(1.0), np.linspace(-1, 0.2, 8)), scale="evidence:x")
    assert low == -high


def test_nothing_known_yet() -> None:
    """The first frame of a run would fail."""
    grid = row_of_tiles(1.0)
    for scale in ("share", "attention", "rank", "evidence:x"):
        low, high, _ = ink(map_tiles(grid, np.full(8, np.nan)), scale=scale)
        assert high > low


def test_paper_is_the_slides_own_white() -> None:
    """The canvas would frame the slide in another white."""
    picture = np.full((50, 50, 3), (243, 242, 244), np.uint8)
    picture[10:30, 10:30] = (190, 90, 160)
    assert paper_colour(picture) == pytest.approx((243 / 255, 242 / 255, 244 / 255))
    assert paper_colour(np.full((9, 9, 3), 40, np.uint8)) == (1.0, 1.0, 1.0)
