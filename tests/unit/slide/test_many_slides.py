"""Many slides one after the other leave nothing behind."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path

import pytest

from napari_slnpredict.slide.cache import shared_cache
from napari_slnpredict.slide.slide import open_slide

from .made_slides import picture, write_aperio, write_tiff


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = picture(1003, 700)
    return write_aperio(tmp_path_factory.mktemp("slide") / "case 7.svs", [base, base[::4, ::4][:175, :250].copy()])


def _cycle(paths: list[Path], k: int) -> None:
    """Open a slide, look at it in three ways, close it."""
    with open_slide(paths[k % len(paths)]) as slide:
        slide.read_region((0, 0), 0, slide.dimensions)
        slide.tiles.tiles(0, [(column, row) for column in range(5) for row in range(5)])
        slide.read_level(slide.level_count - 1, 0, 0, *slide.level_dimensions[-1], passing=True)
        slide.thumbnail(100)


@pytest.mark.parametrize("cycles", [10, pytest.param(200, marks=pytest.mark.soak)])
def test_memory_is_flat_over_many_slides(cycles: int, path: Path, tmp_path: Path) -> None:
    """Each slide of a cohort left tiles, handles or threads behind."""
    paths = [path, write_tiff(tmp_path / "flat.tif", [picture(1500, 1300)], tile=64, compression="zlib")]
    shared_cache(8)
    try:
        for k in range(4):
            _cycle(paths, k)
        gc.collect()
        files, threads, memory = open_files(), threading.active_count(), resident()
        for k in range(cycles):
            _cycle(paths, k)
        gc.collect()
        assert shared_cache().used == 0
        assert open_files() <= files
        assert threading.active_count() <= threads
        assert resident() - memory < 20e6
    finally:
        shared_cache(512)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0


def resident() -> float:
    """Bytes of memory in use; 0 where the system does not say."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * 4096.0 if statm.exists() else 0.0
