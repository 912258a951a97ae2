from __future__ import annotations

import math
import os
import pickle
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from napari_slnpredict.errors import CorruptSlide, MissingScale, ResourceError, SlideError, UnsupportedSlide
from napari_slnpredict.slide.loading import THREAD_PREFIX
from napari_slnpredict.slide.slide import Slide, open_slide

from .made_slides import empty_tile, picture, spoil_tile, stored, write_aperio, write_tiff

BASE = picture(1003, 700)
COARSE = [BASE, np.ascontiguousarray(BASE[::4, ::4][:175, :250])]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_aperio(tmp_path_factory.mktemp("slide") / "case 7.svs", COARSE)


@pytest.fixture
def slide(path: Path) -> Iterator[Slide]:
    with open_slide(path) as opened:
        yield opened


def test_what_a_slide_says_of_itself(slide: Slide, path: Path) -> None:
    """A field that later work relies on is missing or wrong."""
    assert slide.path == path
    assert slide.slide_id == "case 7"
    assert slide.dimensions == (1003, 700)
    assert slide.level_dimensions == ((1003, 700), (250, 175))
    assert slide.level_count == slide.stored_level_count == 2
    assert slide.level_downsamples == (1.0, (1003 / 250 + 700 / 175) / 2)
    assert slide.level_tile_sizes == ((64, 64), (64, 64))
    assert (slide.mpp, slide.mpp_source, slide.require_mpp()) == (0.5, "file", 0.5)
    assert slide.bounds == (0, 0, 1003, 700)
    assert slide.reader == "tiles"
    assert dict(slide.properties) == {"vendor": "aperio", "objective": "20", "compression": "JPEG"}
    assert slide.warnings == ()
    assert slide.brightfield
    assert len(slide.content_id) == 64
    assert "case 7" in repr(slide)
    slide.unchanged()


def test_level_places_are_rounded_down(slide: Slide, path: Path) -> None:
    """read_region of a coarse level is off by a pixel where the downsample is not a whole number."""
    truth, downsample = stored(path, 250, 175), slide.level_downsamples[1]
    for x, y in ((0, 0), (401, 203), (999, 699), (4, 4)):
        column, row = math.floor(x / downsample), math.floor(y / downsample)
        pixels, valid = slide.read_region_mask((x, y), 1, (20, 10))
        part = truth[row : row + 10, column : column + 20]
        assert np.array_equal(pixels[: part.shape[0], : part.shape[1]], part)
        assert np.array_equal(slide.read_level(1, column, row, 20, 10)[0], pixels)
        assert valid.sum() == part.shape[0] * part.shape[1]


def test_outside_is_white_and_masked(slide: Slide) -> None:
    """Outside the slide was black, as libraries show it, and taken for tissue."""
    pixels, valid = slide.read_region_mask((-10, 690), 0, (20, 20))
    assert pixels.shape == (20, 20, 3)
    assert (pixels[~valid] == 255).all()
    assert valid[:10, 10:].all()
    assert valid.sum() == 100
    assert (slide.read_region((5000, 5000), 0, (3, 2)) == 255).all()
    assert slide.read_region((0, 0), 0, (0, 5)).shape == (5, 0, 3)


def test_senseless_requests_are_refused(slide: Slide) -> None:
    """A negative size or level wrapped around; a whole gigapixel level was tried to be read at once."""
    for level in (-1, 2):
        with pytest.raises(ValueError, match="level"):
            slide.read_region((0, 0), level, (1, 1))
    with pytest.raises(ValueError, match="rectangle"):
        slide.read_region((0, 0), 0, (-1, 1))
    with pytest.raises(ResourceError, match="coarser"):
        slide.read_region((0, 0), 0, (100_000, 100_000))


def test_the_best_level_is_never_too_coarse(slide: Slide) -> None:
    """A model got pixels coarser than it asked for."""
    assert [slide.best_level(value) for value in (0.3, 1, 3.9, 4.0119, 4.008, 100)] == [0, 0, 0, 1, 1, 1]


def test_a_damaged_tile_raises_or_is_masked(tmp_path: Path) -> None:
    """A damaged tile reached a model as tissue, or its place is unknown."""
    path = write_aperio(tmp_path / "a.svs", COARSE)
    spoil_tile(path, 16 * 3 + 5)
    spoil_tile(path, 1, page=1)
    with open_slide(path) as slide:
        with pytest.raises(CorruptSlide, match="column 5, row 3 of level 0") as caught:
            slide.read_region((300, 180), 0, (200, 200))
        assert "a.svs" in str(caught.value)
        pixels, valid = slide.read_region_mask((300, 180), 0, (200, 200))
        bad = np.zeros((200, 200), bool)
        bad[192 - 180 : 256 - 180, 320 - 300 : 384 - 300] = True
        assert np.array_equal(~valid, bad)
        assert (pixels[bad] == 255).all()
        assert (0, 320, 192, 64, 64) in slide.damaged
        slide.read_level(1, 0, 0, 250, 175)
        assert len(slide.damaged) == 2
        level, x, y, w, h = slide.damaged[1]
        assert (level, x, y, w, h) == (1, 256, 0, 257, 257)
        assert "2 damaged tiles" in slide.warnings[-1]
        with pytest.raises(CorruptSlide):
            slide.levels()[0].compute()


def test_a_tile_never_scanned_is_white_and_no_damage(tmp_path: Path) -> None:
    """A sparse slide was called damaged, or its gaps tissue."""
    path = write_aperio(tmp_path / "a.svs", COARSE)
    empty_tile(path, 18)
    with open_slide(path) as slide:
        pixels, valid = slide.read_region_mask((128, 64), 0, (64, 64))
        assert not valid.any()
        assert (pixels == 255).all()
        assert (slide.read_region((128, 64), 0, (64, 64)) == 255).all()
        assert slide.damaged == ()
        assert slide.warnings


def test_levels_are_lazy_and_exact(slide: Slide, path: Path) -> None:
    """The public arrays differ from the file, or read it before they are computed."""
    arrays = slide.levels()
    assert [(array.shape, array.dtype) for array in arrays] == [((700, 1003, 3), np.uint8), ((175, 250, 3), np.uint8)]
    assert arrays[0].chunks[0][0] == 256
    assert np.array_equal(arrays[0].compute(scheduler="threads"), stored(path, 1003, 700))
    assert np.array_equal(arrays[1][10:50:2, 5:100].compute(), stored(path, 250, 175)[10:50:2, 5:100])
    assert np.array_equal(arrays[0][650, :, 1].compute(), stored(path, 1003, 700)[650, :, 1])
    assert slide.levels()[0].name == arrays[0].name


def test_levels_for_the_screen_leave_with_the_slide(path: Path) -> None:
    """A script's layer showed other pixels, or threads went on reading a slide that was closed."""
    with open_slide(path) as slide:
        pyramid = slide.pyramid()
        finest = pyramid.levels[0]
        assert np.array_equal(finest.exact(100, 400, 50, 300), stored(path, 1003, 700)[100:400, 50:300])
        assert finest[:300, :300].shape == (300, 300, 3)
    wait = time.monotonic() + 5
    while any(thread.name.startswith(THREAD_PREFIX) for thread in threading.enumerate()) and time.monotonic() < wait:
        time.sleep(0.01)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(THREAD_PREFIX)]
    assert (finest[:300, :300] == 255).all()


def test_a_slide_travels_to_another_process(slide: Slide) -> None:
    """A cluster's worker got a slide with somebody else's handle."""
    with pickle.loads(pickle.dumps(slide)) as other:
        assert other.reader == slide.reader
        assert np.array_equal(other.read_region((9, 9), 0, (50, 50)), slide.read_region((9, 9), 0, (50, 50)))


def test_a_slide_without_pyramid_gets_coarse_levels(tmp_path: Path) -> None:
    """A flat TIFF crashed, or had no overview to look at."""
    path = write_tiff(tmp_path / "flat.tif", [picture(2200, 1296)], tile=256, compression="zlib")
    with open_slide(path) as slide:
        assert slide.level_dimensions == ((2200, 1296), (1100, 648), (550, 324))
        assert slide.stored_level_count == 1
        assert slide.level_downsamples == (1.0, 2.0, 4.0)
        thumbnail = slide.thumbnail(275)
        assert thumbnail.shape == (162, 275, 3)
        means = picture(2200, 1296).reshape(162, 8, 275, 8, 3).mean(axis=(1, 3))
        assert np.abs(thumbnail - means).mean() < 1.5
        assert len(slide.levels()) == 3


def test_thumbnails_keep_the_shape_and_are_never_enlarged(slide: Slide) -> None:
    """An overview was distorted, larger than asked, or blown up from nothing."""
    assert slide.thumbnail(100).shape == (70, 100, 3)
    assert slide.thumbnail(100_000).shape == (700, 1003, 3)
    assert slide.thumbnail(1).shape == (1, 1, 3)


def test_a_missing_scale_opens_and_asks(tmp_path: Path) -> None:
    """A slide without scale did not open, or got a made-up one."""
    path = write_aperio(tmp_path / "a.svs", COARSE, mpp="unknown")
    with open_slide(path) as slide:
        assert slide.mpp is None
        assert slide.mpp_source.startswith("missing")
        assert any("mpp" in warning for warning in slide.warnings)
        with pytest.raises(MissingScale, match="--mpp"):
            slide.require_mpp()
    with open_slide(path, mpp=0.25) as slide:
        assert (slide.require_mpp(), slide.mpp_source) == (0.25, "given")
        assert slide.warnings == ()
    with pytest.raises(MissingScale):
        open_slide(path, mpp=500)


def test_a_dark_background_is_not_brightfield(tmp_path: Path) -> None:
    """Fluorescence in 8-bit colour went to a model for stained tissue."""
    dark = (picture(600, 500) // 8).astype(np.uint8)
    with open_slide(write_aperio(tmp_path / "dark.svs", [dark])) as slide:
        assert "dark" in (slide.not_brightfield or "")
        assert not slide.brightfield


def test_the_look_at_a_large_flat_slide_reads_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking for the kind of a slide without pyramid read all of it."""
    from napari_slnpredict.slide import look

    monkeypatch.setattr(look, "WHOLE_PX", 1000)
    with open_slide(write_tiff(tmp_path / "flat.tif", [picture(1500, 1000)], tile=64)) as slide:
        assert slide.brightfield


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    """The slide was exchanged while a job ran, and the verdict was about both."""
    path = write_aperio(tmp_path / "a.svs", COARSE)
    with open_slide(path) as slide:
        before = slide.read_region((0, 0), 0, (64, 64))
        other = write_aperio(tmp_path / "b.svs", [255 - BASE])
        other.replace(path)
        with pytest.raises(CorruptSlide, match="changed"):
            slide.unchanged()
        assert np.array_equal(slide.read_region((0, 0), 0, (64, 64)), before)


@pytest.mark.parametrize("make", ["pipe", "missing", "empty", "folder"])
def test_what_is_no_file_is_a_slide_error(make: str, tmp_path: Path) -> None:
    """A pipe was waited on for ever; a folder or nothing at all ended in a traceback."""
    path = tmp_path / "x.svs"
    if make == "pipe":
        os.mkfifo(path)
    elif make == "empty":
        path.touch()
    elif make == "folder":
        path.mkdir()
    with pytest.raises(SlideError):
        open_slide(path)


def test_nothing_stays_open(path: Path, tmp_path: Path) -> None:
    """Each slide opened and closed, or refused, left a handle behind."""
    bad = tmp_path / "bad.svs"
    bad.write_bytes(path.read_bytes()[:5000])
    with open_slide(path) as slide:
        slide.read_region((0, 0), 0, (10, 10))
    before = set(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else set()
    for reader in ("tiles", "tiffslide", "openslide"):
        with open_slide(path, reader=reader) as slide:
            slide.read_region((0, 0), 0, (10, 10))
    with pytest.raises(SlideError):
        open_slide(bad)
    if before:
        assert len(os.listdir("/proc/self/fd")) <= len(before)


def test_reading_after_closing_is_an_error(path: Path) -> None:
    """A closed slide went on reading through a number that may be another file's."""
    slide = open_slide(path, memory_mb=0)
    slide.close()
    slide.close()
    with pytest.raises(ValueError, match="closed"):
        slide.read_region((0, 0), 0, (10, 10))


def test_many_threads_read_one_slide(path: Path) -> None:
    """Threads corrupted each other's tiles."""
    truth = stored(path, 1003, 700)
    wrong: list[object] = []
    for reader in ("tiles", "tiffslide", "openslide"):
        with open_slide(path, reader=reader, memory_mb=0) as slide:

            def work(seed: int, slide: Slide = slide) -> None:
                for x, y in np.random.default_rng(seed).integers(0, 600, (8, 2)).tolist():
                    if not np.array_equal(slide.read_region((x, y), 0, (90, 90)), truth[y : y + 90, x : x + 90]):
                        wrong.append((slide.reader, x, y))

            threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    assert not wrong


def test_pictures_beside_the_slide_only_on_request(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The label, which may show a name, was decoded without being asked for."""
    with open_slide(shared / "slides" / "CMU-1-Small-Region.svs") as slide:
        assert slide.associated_names() == ("label", "macro", "thumbnail")
        assert slide.associated("label").shape == (463, 387, 3)
        with pytest.raises(UnsupportedSlide, match="no map"):
            slide.associated("map")


def test_the_colour_profile_is_handed_out(shared: Path, slide: Slide) -> None:
    """The viewer cannot show a slide in its true colours."""
    with open_slide(shared / "slides" / "TCGA-CR-7395-01A-01-TS1.svs") as with_profile:
        profile = with_profile.icc_profile()
    assert profile is not None
    assert profile[36:40] == b"acsp"
    assert slide.icc_profile() is None


def test_every_file_of_a_dicom_slide_is_the_slide(shared: Path) -> None:
    """A DICOM folder did not open, or its files are different slides with caches of their own."""
    folder = shared / "slides" / "dicom-CMU-1-Small-Region"
    with open_slide(folder) as whole, open_slide(shared / "slides" / "CMU-1-Small-Region.svs") as same:
        assert whole.reader == "openslide"
        assert whole.slide_id == folder.name
        assert whole.mpp == 0.499
        assert whole.dimensions == same.dimensions
        ids = set()
        for file in sorted(folder.iterdir()):
            with open_slide(file) as part:
                ids.add(part.content_id)
        assert ids == {whole.content_id}
        whole.unchanged()
