from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from napari_slnpredict.errors import NotBrightfield, UnsupportedSlide
from napari_slnpredict.slide.backends import HandlePool, OpenSlideSource, TiffSlideSource, brief
from napari_slnpredict.slide.handle import SlideFile
from napari_slnpredict.slide.inspect import inspect
from napari_slnpredict.slide.source import Source, Tile, TileFault
from napari_slnpredict.slide.tiles import TileSource
from napari_slnpredict.slide.witness import compare_with_libraries

from .made_slides import empty_tile, picture, spoil_tile, stored, write_aperio, write_tiff

PIXELS = picture(150, 100)


def whole(source: Source, level: int = 0) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    (width, height), (tile_width, tile_height) = source.level_dimensions[level], source.tile_sizes[level]
    pixels, valid = np.zeros((height, width, 3), np.uint8), np.ones((height, width), bool)
    for row in range(-(-height // tile_height)):
        for column in range(-(-width // tile_width)):
            tile = source.tile(level, column, row)
            place = np.s_[row * tile_height :, column * tile_width :]
            h, w = tile.pixels.shape[:2]
            pixels[place][:h, :w] = tile.pixels
            if tile.valid is not None:
                valid[place][:h, :w] = tile.valid
    return pixels, valid


def test_a_handle_serves_one_thread_at_a_time() -> None:
    """Two threads used one library handle at once: tiles of one in the other's picture."""
    busy: set[int] = set()
    made, clashes = [], []

    def make() -> int:
        made.append(len(made))
        return made[-1]

    pool = HandlePool(make, lambda handle: None)

    def work() -> None:
        for _ in range(200):
            with pool.lend() as handle:
                if handle in busy:
                    clashes.append(handle)
                busy.add(handle)
                busy.discard(handle)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not clashes
    assert len(made) <= 4


def test_a_failed_handle_is_thrown_away() -> None:
    """OpenSlide's errors stick: one bad tile spoiled every later read."""
    shut: list[int] = []
    handles = iter(range(10))
    pool = HandlePool(lambda: next(handles), shut.append)

    def fail() -> None:
        with pool.lend():
            raise OSError("bad tile")

    with pytest.raises(OSError, match="bad tile"):
        fail()
    assert shut == [0]
    with pool.lend() as handle:
        assert handle == 1
    with pool.lend() as handle:
        assert handle == 1
        pool.close()
        assert shut == [0]
    assert shut == [0, 1]
    with pytest.raises(ValueError, match="closed"), pool.lend():
        pass


@pytest.mark.parametrize("tile", [64, 0], ids=["tiles", "strips"])
def test_tiffslide_source_gives_the_files_pixels(tile: int, tmp_path: Path) -> None:
    """Cutting a library's levels into tiles shifted or lost pixels."""
    levels = [PIXELS, np.ascontiguousarray(PIXELS[::3, ::3])]
    path = write_tiff(tmp_path / "a.tif", levels, compression="zlib", tile=tile)
    file = SlideFile(path)
    source = TiffSlideSource(file, inspect(path).directories)
    for level in range(len(source.level_dimensions)):
        assert np.array_equal(whole(source, level)[0], levels[level])
    source.close()
    file.close()


def test_names_that_read_as_urls_open_as_files(tmp_path: Path) -> None:
    """A slide's name was taken for a chain of file systems or an address on the network."""
    path = write_aperio(tmp_path / "github::b.svs", [PIXELS])
    file = SlideFile(path)
    source = TiffSlideSource(file)
    assert source.level_dimensions == ((150, 100),)
    source.close()
    file.close()


def test_a_tile_never_scanned_is_masked_in_tiffslide_too(tmp_path: Path) -> None:
    """tiffslide shows a tile without bytes as black tissue."""
    path = write_aperio(tmp_path / "a.svs", [PIXELS])
    empty_tile(path, 1)
    file = SlideFile(path)
    source = TiffSlideSource(file, inspect(path).directories)
    pixels, valid = whole(source)
    assert not valid[:64, 64:128].any()
    assert valid.sum() == 150 * 100 - 64 * 64
    assert (pixels[:64, 64:128] == 255).all()
    source.close()
    file.close()


def test_tiffslide_refuses_what_is_not_colour(tmp_path: Path) -> None:
    """16-bit pixels were cut to 8 by wrapping."""
    path = write_tiff(tmp_path / "a.tif", [PIXELS.astype(np.uint16) * 200])  # type: ignore[list-item]
    file = SlideFile(path)
    with pytest.raises(NotBrightfield, match="uint16"):
        TiffSlideSource(file)
    file.close()


def test_a_file_tiffslide_cannot_open_is_a_slide_error(tmp_path: Path) -> None:
    """A library's own exception reached the user."""
    path = tmp_path / "a.tif"
    path.write_bytes(b"no tiff at all")
    file = SlideFile(path)
    with pytest.raises(UnsupportedSlide, match="tiffslide cannot open"):
        TiffSlideSource(file)
    file.close()
    with pytest.raises(UnsupportedSlide, match="OpenSlide does not know"):
        OpenSlideSource(path)


def test_openslide_source_gives_the_files_pixels(tmp_path: Path) -> None:
    """Cutting OpenSlide's level into tiles shifted or lost pixels."""
    path = write_aperio(tmp_path / "a.svs", [PIXELS])
    source = OpenSlideSource(path)
    assert np.array_equal(whole(source)[0], stored(path, 150, 100))
    source.close()


def test_openslide_goes_on_after_a_bad_tile(tmp_path: Path) -> None:
    """After one damaged tile OpenSlide's handle fails for ever."""
    path = write_aperio(tmp_path / "a.svs", [picture(1024, 512)], tile=256)
    spoil_tile(path, 1, whole=True)
    source = OpenSlideSource(path)
    assert source.tile_sizes == ((256, 256),)
    for column in (0, 2, 3):
        source.tile(0, column, 0)
        with pytest.raises(TileFault, match="OpenSlide cannot decode"):
            source.tile(0, 1, 0)
    source.close()


class Wrong(TileSource):
    """Our own source with one colour shifted."""

    def tile(self, level: int, column: int, row: int) -> Tile:
        return Tile(super().tile(level, column, row).pixels ^ np.uint8(4))


@pytest.mark.parametrize("planar", [False, True], ids=["by tiffslide", "by OpenSlide"])
def test_the_comparison_finds_a_difference(planar: bool, tmp_path: Path) -> None:
    """A decoder that disagrees with the libraries was believed."""
    if planar:  # a layout that tiffslide does not read
        path = write_tiff(tmp_path / "a.tif", [np.moveaxis(PIXELS, -1, 0)], planarconfig="separate")
    else:
        path = write_aperio(tmp_path / "a.svs", [PIXELS])
    file = SlideFile(path)
    directories = inspect(path).directories
    places = [(0, 0, 0), (0, 2, 1)]
    assert compare_with_libraries(TileSource(file, directories), file, path, places, 0) == (2, "")
    compared, differs = compare_with_libraries(Wrong(file, directories), file, path, places, 0)
    assert compared == 1
    assert ("OpenSlide" if planar else "tiffslide") in differs
    assert compare_with_libraries(Wrong(file, directories), file, path, places, 4) == (2, "")
    file.close()


def test_a_librarys_words_name_no_folder() -> None:
    """A library's message carried the folder, which names a patient, into a log."""
    words = brief(OSError("Couldn't open /home/me/Erika Mustermann/a.svs: C:\\data\\x.svs, no such file"))
    assert "Mustermann/a" not in words
    assert "/home" not in words
    assert "data" not in words
    assert words.startswith("OSError: Couldn't open")


def test_a_librarys_remarks_stay_off_the_terminal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """tifffile wrote its remarks on a damaged file between the lines of our own answer."""
    path = write_aperio(tmp_path / "a.svs", [PIXELS, np.ascontiguousarray(PIXELS[::2, ::2])])
    path.write_bytes(path.read_bytes()[: inspect(path).directories[1].offset - 2])
    file = SlideFile(path)
    TiffSlideSource(file).close()
    file.close()
    assert not [record for record in caplog.records if record.name == "tifffile"]
