"""What this program writes, and what others write of any lattice, comes back to the same place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tell_fakes import predicted

from napari_slnpredict.encode.features import write_features
from napari_slnpredict.export import csv_text, tiles_csv
from napari_slnpredict.export_pictures import map_extent
from napari_slnpredict.foreign.child import read_raw
from napari_slnpredict.foreign.explain import explain, on_scale
from napari_slnpredict.foreign.places import Places, lay_places, spacing
from napari_slnpredict.foreign.scores import Answers, ForeignScores, SlideFacts, facts_of, lay_scores
from napari_slnpredict.pipeline import scale_values
from napari_slnpredict.slide.grid import GridSpec, TileGrid, map_tiles


def lay(path: Path, facts: SlideFacts) -> ForeignScores:
    return lay_scores(read_raw(path), path.name, facts, Answers())


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    yield from predicted(tmp_path, monkeypatch, mpp=0.437, size=(1500, 1100))


def test_our_own_table_comes_back(found: Any, tmp_path: Path) -> None:
    """Our own tiles.csv would show another map than the one it was written from."""
    prediction, path = found.prediction, tmp_path / "tiles.csv"
    path.write_text(tiles_csv(prediction))
    scores = lay(path, facts_of(found.slide))
    assert scores.kind == "slnpredict"
    assert scores.notes == ()
    names = [column.name for column in scores.columns]
    assert names == ["attention", "evidence_negative", "evidence_positive"]
    attention, _, positive = scores.columns
    assert attention.is_share
    assert (positive.unit, positive.two_sided) == ("logit", True)
    np.testing.assert_allclose(on_scale(attention, "times").values, scale_values(prediction, "share").values, rtol=1e-5)
    grid, places = prediction.grid, scores.places
    np.testing.assert_array_equal(places.locations, grid.locations)
    x, y, *_ = map_extent(grid)
    rows, columns = grid.cells.min(axis=0)
    assert places.step == pytest.approx(grid.stride_level0, abs=1e-2)
    assert abs(places.origin[0] - (x + columns * grid.stride_level0)) <= 0.5
    assert abs(places.origin[1] - (y + rows * grid.stride_level0)) <= 0.5
    shown = places.image(attention.values)
    whole = map_tiles(grid, attention.values).image()
    np.testing.assert_array_equal(shown, whole[rows : rows + shown.shape[0], columns : columns + shown.shape[1]])


def test_our_own_features_hold_no_scores(found: Any, tmp_path: Path) -> None:
    """Our cache's file would be taken for scores, or its tissue for one."""
    path = write_features(tmp_path / "features.h5", found.prediction.bag)
    scores = lay(path, facts_of(found.slide))
    assert scores.coverage_only
    assert scores.program == "slnpredict"
    assert scores.places.size_level0 == found.prediction.grid.size_level0


def grid_of(tile_px: int, mpp: float, overlap: int, slide_mpp: float, keep: list[bool], columns: int) -> TileGrid:
    """Return some tiles of a lattice as `lay_grid` lays them."""
    stride, size = (tile_px - overlap) * mpp / slide_mpp, tile_px * mpp / slide_mpp
    cells = np.array([divmod(k, columns) for k, kept in enumerate(keep) if kept], np.int32)
    locations = np.rint(cells[:, ::-1] * stride).astype(np.int64)
    rows = -(-len(keep) // columns)
    n = len(cells)
    extent = (round(columns * stride + size), round(rows * stride + size))
    return TileGrid(
        GridSpec(tile_px, mpp, overlap), "slide", slide_mpp, extent, size, locations, np.ones(n, np.float32),
        np.ones(n, np.int32), cells, (rows, columns),
    )  # fmt: skip


def drawn_corners(places: Places) -> np.ndarray[Any, Any]:
    """Return the top-left corner at which each tile is drawn, (n, 2), x before y, level-0 px."""
    rows, columns = np.nonzero(places.seen)
    corners = np.empty((len(places), 2))
    corners[places.owner[rows, columns]] = np.stack([columns, rows], axis=1)
    return np.asarray(corners * places.step + places.origin)


@settings(max_examples=30, deadline=None)
@given(
    tile_px=st.integers(16, 512),
    mpp=st.floats(0.2, 4.0),
    overlap=st.floats(0, 0.8),
    slide_mpp=st.floats(0.1, 1.0),
    keep=st.lists(st.booleans(), min_size=4, max_size=400).filter(lambda keep: sum(keep) > 3),
    columns=st.integers(1, 20),
)
def test_any_grid_of_ours_comes_back(
    tile_px: int, mpp: float, overlap: float, slide_mpp: float, keep: list[bool], columns: int
) -> None:
    """Some stride, overlap or pattern of tissue would be drawn beside its place."""
    grid = grid_of(tile_px, mpp, int(overlap * tile_px), slide_mpp, keep, columns)
    if grid.stride_level0 < 6:
        return
    places = lay_places(
        grid.locations.astype(float), round(grid.size_level0, 3), slide_id="s", slide_mpp=slide_mpp,
        extent=grid.extent, file="t",
    )  # fmt: skip
    values = np.arange(len(grid), dtype=np.float32)
    assert sorted(np.unique(places.owner[places.seen])) == list(range(len(grid)))
    for tile, (x, y) in enumerate(grid.locations + grid.size_level0 / 2):
        assert places.tile_at(float(x), float(y)) == tile
        column, row = ((np.array([x, y]) - places.origin) / places.step).astype(int)
        assert places.image(values)[row, column] == tile
    if places.owner.shape == (np.ptp(grid.cells[:, 0]) + 1, np.ptp(grid.cells[:, 1]) + 1):  # on its lattice
        off = np.abs(drawn_corners(places) - grid.locations - (places.size_level0 - places.step) / 2)
        assert off.max() <= 0.75  # the places in the file are rounded by up to half a pixel themselves
        assert np.median(off) <= 0.5


@settings(max_examples=20, deadline=None)
@given(
    pieces=st.lists(
        st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=6
    ),
    step=st.sampled_from([16, 32, 64]),
    size=st.sampled_from([256, 512]),
)
def test_pieces_with_lattices_of_their_own_come_back(
    pieces: list[tuple[int, int, int, int]], step: int, size: int
) -> None:
    """CLAM's tiles of a second piece of tissue would be drawn on the first one's lattice."""
    corners = np.concatenate(
        [
            np.stack(np.meshgrid(left * step + np.arange(c) * size, top * step + np.arange(r) * size), -1).reshape(
                -1, 2
            )
            for left, top, c, r in pieces
        ]
    )
    corners = np.unique(corners, axis=0).astype(float)
    places = lay_places(corners, size, slide_id="s", slide_mpp=0.5, extent=(9000, 9000), file="t")
    assert places.exact
    for row, column in np.argwhere(places.seen)[::37]:
        x, y = np.array([column, row]) * places.step + places.origin + places.step / 2
        tile = corners[places.owner[row, column]]
        assert (tile <= (x, y)).all()
        assert ((x, y) <= tile + size).all()
    covered = (places.owner >= 0).sum() * places.step**2
    assert covered <= len(corners) * size**2 + 1
    assert places.area_mm2(np.ones(len(corners), bool)) * 4e6 == pytest.approx(covered)


def test_single_tiles_rows_and_columns() -> None:
    """A slide with one tile, or a single row of them, would have no lattice."""
    for corners in ([[70.0, 30.0]], [[0.0, 5.0], [100.0, 5.0]], [[0.0, 0.0], [0.0, 300.0], [0.0, 900.0]]):
        places = lay_places(np.array(corners), 100.0, slide_id="s", slide_mpp=0.5, extent=(2000, 2000), file="t")
        assert places.exact
        assert places.step == 100
        assert (places.owner >= 0).sum() == len(corners)
    assert spacing(np.array([[70.0, 30.0]])) is None


def test_area_counts_overlap_once() -> None:
    """Overlapping tiles would add up to more tissue than there is."""
    y, x = np.mgrid[0:10, 0:10]
    corners = np.stack([x.ravel(), y.ravel()], axis=1) * 50.0
    places = lay_places(corners, 100.0, slide_id="s", slide_mpp=1.0, extent=(2000, 2000), file="t")
    assert places.area_mm2(np.ones(100, bool)) == pytest.approx(0.25)
    assert places.area_mm2(np.zeros(100, bool)) == 0.0


def test_a_table_written_by_a_spreadsheet_guard(tmp_path: Path) -> None:
    """Cells that our own writer disarms against formulas would be taken for mistakes."""
    facts = SlideFacts("slide", 0.5, (1000, 1000), ((1000, 1000),), (1.0,))
    path = tmp_path / "t.csv"
    rows = [[0, 0, 100, "=not a formula", 0.5], [100, 0, 100, "-x", -0.5]]
    path.write_text(csv_text(["x_px", "y_px", "size_px", "note", "score"], rows))
    scores = lay(path, facts)
    assert [column.name for column in scores.columns] == ["score"]
    assert explain(scores, 0, 150, 50).value == -0.5
