"""Embedding with a real network on a real slide: the same bits, however the run went."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from napari_slnpredict.encode import embed as module
from napari_slnpredict.encode.embed import embed
from napari_slnpredict.encode.encoder import load_encoder
from napari_slnpredict.encode.engines import Device, make_engine
from napari_slnpredict.events import Event, Partial, run
from napari_slnpredict.slide.blocks import read_tile
from napari_slnpredict.slide.grid import GridSpec, TileGrid, lay_grid
from napari_slnpredict.slide.slide import open_slide
from napari_slnpredict.slide.tissue import find_tissue

CPU = Device("cpu", "test")


def first_tiles(grid: TileGrid, count: int) -> TileGrid:
    """A part of a grid, from its middle."""
    part = slice(len(grid) // 2, len(grid) // 2 + count)
    return dataclasses.replace(
        grid,
        locations=grid.locations[part],
        tissue=grid.tissue[part],
        component=grid.component[part],
        cells=grid.cells[part],
    )


def test_resumed_equals_uninterrupted_to_the_bit(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was stopped twice would answer a little differently (promise R6)."""
    monkeypatch.setattr(module, "CHUNK_TILES", 16)
    weights = shared / "weights" / "mobilenetv2_100_in1k_coral_ptq.safetensors"
    encoder = load_encoder(f"local:{weights}")
    with open_slide(shared / "slides" / "duodenum_celiac_HE_level15.svs") as slide:
        grid = first_tiles(lay_grid(slide, find_tissue(slide), GridSpec(96, 2.0)), 45)
        assert len(grid) == 45
        whole = run(embed(slide, grid, encoder, cache=tmp_path / "a", device=CPU, threads=2))
        assert np.isfinite(whole.features).all()
        assert whole.features.std() > 0.01

        def backwards(grid: TileGrid, remaining: np.ndarray) -> np.ndarray:
            return remaining[::-1]

        for stops, threads, order in ((1, 1, backwards), (2, 2, None)):
            told = 0
            job = embed(slide, grid, encoder, cache=tmp_path / "b", device=CPU, threads=threads, order=order)
            for event in job:
                told += isinstance(event, Partial)
                if told > stops:
                    break
            job.close()
        events: list[Event] = []
        resumed = run(embed(slide, grid, encoder, cache=tmp_path / "b", device=CPU, threads=1), events.append)
        np.testing.assert_array_equal(resumed.features, whole.features)
        # And they are the features of those very places.
        engine = make_engine(encoder, CPU, threads=1, tile_px=96)
        tiles = np.stack([read_tile(slide, grid, index) for index in (0, 21, 44)])
        np.testing.assert_allclose(engine(tiles), whole.features[[0, 21, 44]], rtol=1e-3, atol=1e-3)
