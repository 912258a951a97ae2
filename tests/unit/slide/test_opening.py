from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_slnpredict.errors import CorruptSlide, UnsupportedSlide
from napari_slnpredict.slide import opening
from napari_slnpredict.slide.slide import open_slide
from napari_slnpredict.slide.tiles import TileSource

from .made_slides import picture, spoil_tile, stored, write_aperio, write_tiff

PIXELS = picture(640, 500)


def test_a_wrong_reader_of_our_own_gives_way_to_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our reader disagrees with the library on a file and is used all the same, or nobody is told."""

    class Wrong(TileSource):
        def tile(self, level: int, column: int, row: int):  # type: ignore[no-untyped-def]
            tile = super().tile(level, column, row)
            return type(tile)(255 - tile.pixels)

    monkeypatch.setattr(opening, "TileSource", Wrong)
    path = write_aperio(tmp_path / "a.svs", [PIXELS])
    with open_slide(path) as slide:
        assert slide.reader == "tiffslide"
        assert any("differ by up to" in warning for warning in slide.warnings)
        assert np.array_equal(slide.read_region((100, 50), 0, (300, 300)), stored(path, 640, 500)[50:350, 100:400])
    with open_slide(path, reader="tiles") as slide:
        assert slide.reader == "tiles"
        assert any("differ by up to" in warning for warning in slide.warnings)


@pytest.mark.parametrize("reader", ["tiles", "tiffslide", "openslide"])
def test_the_reader_asked_for_is_used(reader: str, tmp_path: Path) -> None:
    """--reader was ignored, or readers disagree about the same slide."""
    path = write_aperio(tmp_path / "a.svs", [PIXELS])
    with open_slide(path, reader=reader) as slide:
        assert slide.reader == reader
        assert np.array_equal(slide.read_region((0, 0), 0, (640, 500)), stored(path, 640, 500))
        assert slide.mpp == 0.5


def test_an_unknown_reader_is_the_callers_mistake(tmp_path: Path) -> None:
    """A misspelt reader silently meant another one."""
    path = write_aperio(tmp_path / "a.svs", [PIXELS])
    with pytest.raises(ValueError, match="tiffslide"):
        open_slide(path, reader="tifslide")


def test_a_reader_that_cannot_says_so(tmp_path: Path, shared: Path) -> None:
    """A reader asked for by name was replaced by another."""
    with pytest.raises(UnsupportedSlide, match="TIFFs"):
        open_slide(shared / "slides" / "openslide-python-boxes-dicom", reader="tiffslide")
    path = write_tiff(tmp_path / "strips.tif", [PIXELS], tile=0)
    with pytest.raises(UnsupportedSlide, match="our own reader"):
        open_slide(path, reader="tiles")


def test_strips_open_by_a_library(tmp_path: Path) -> None:
    """A small TIFF in strips did not open, or not with all of its pixels."""
    path = write_tiff(
        tmp_path / "strips.tif",
        [PIXELS],
        tile=0,
        compression="zlib",
        resolution=(20000, 20000),
        resolutionunit="CENTIMETER",
    )
    with open_slide(path) as slide:
        assert slide.reader == "tiffslide"
        assert slide.mpp == 0.5
        assert np.array_equal(slide.read_region((0, 0), 0, (640, 500)), PIXELS)


def test_a_slide_of_damaged_tiles_only_is_refused(tmp_path: Path) -> None:
    """A slide that no strict reader decodes was opened by a lax one, grey and plausible."""
    path = write_aperio(tmp_path / "a.svs", [PIXELS], tile=256)
    for index in range(6):
        spoil_tile(path, index)
    with pytest.raises(CorruptSlide, match="none of its tiles can be decoded"):
        open_slide(path)


def test_a_few_damaged_tiles_do_not_stop_a_slide(tmp_path: Path) -> None:
    """One bad tile among the first looked at cost the whole slide, or went untold."""
    path = write_aperio(tmp_path / "a.svs", [PIXELS])
    for index in (0, 79):
        spoil_tile(path, index)
    with open_slide(path) as slide:
        assert slide.reader == "tiles"
        assert {(0, 0, 0, 64, 64), (0, 576, 448, 64, 52)} <= set(slide.damaged)
        assert any("damaged" in warning for warning in slide.warnings)
