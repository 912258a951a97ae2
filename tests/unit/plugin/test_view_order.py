"""Which tiles come first."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("qtpy")

from napari_slnpredict.plugin.view import Rectangle, ViewFirst
from napari_slnpredict.slide.grid import GridSpec, TileGrid


def square(side: int = 20, tile: int = 100) -> TileGrid:
    rows, columns = np.mgrid[0:side, 0:side]
    cells = np.stack([rows.ravel(), columns.ravel()], axis=1).astype(np.int32)
    n = len(cells)
    return TileGrid(
        GridSpec(tile, 1.0), "s", 1.0, (side * tile, side * tile), float(tile),
        (cells[:, ::-1] * tile).astype(np.int64), np.ones(n, np.float32), np.ones(n, np.int32), cells, (side, side),
    )  # fmt: skip


def test_tiles_in_view_come_first_and_none_is_lost() -> None:
    """The map would grow where nobody looks, or tiles would be forgotten."""
    grid, order = square(), ViewFirst()
    order.look_at(Rectangle(1200, 1200, 1600, 1600))
    remaining = np.arange(len(grid))[::2]
    told = order(grid, remaining)
    assert sorted(told) == sorted(remaining)
    x, y = grid.locations[told].T
    seen = (x + 100 > 1200) & (x < 1600) & (y + 100 > 1200) & (y < 1600)
    assert seen[: seen.sum()].all()
    assert 0 < seen.sum() < len(told)


def test_neighbours_stay_together() -> None:
    """One read would serve one tile instead of sixteen."""
    grid, order = square(), ViewFirst()
    order.look_at(Rectangle(0, 0, 2000, 2000))
    told = order(grid, np.arange(len(grid)))
    blocks = grid.cells[told] // 4
    changes = np.any(np.diff(blocks, axis=0) != 0, axis=1).sum()
    assert changes == 24  # 25 blocks of 16 tiles, each finished before the next


def test_without_a_view_the_order_stays() -> None:
    """A run without a camera would fail."""
    grid = square()
    assert np.array_equal(ViewFirst()(grid, np.arange(7)), np.arange(7))
    order = ViewFirst()
    order.look_at(Rectangle(-900, -900, -1, -1))
    assert np.array_equal(order(grid, np.arange(7)), np.arange(7))
