from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_slnpredict.slide.directory import Directory
from napari_slnpredict.slide.handle import SlideFile
from napari_slnpredict.slide.inspect import inspect
from napari_slnpredict.slide.source import TileFault
from napari_slnpredict.slide.tiles import TileSource, own_source_reads

from .made_slides import empty_tile, picture, spoil_tile, stored, write_tiff

PIXELS = picture(150, 100)

KINDS: dict[str, dict[str, Any]] = {
    "jpeg as RGB": {"compression": "jpeg", "compressionargs": {"outcolorspace": "rgb"}},
    "jpeg as YCbCr": {"compression": "jpeg"},
    "jpeg full chroma": {"compression": "jpeg", "subsampling": (1, 1)},
    "deflate": {"compression": "zlib"},
    "deflate, predictor": {"compression": "zlib", "predictor": True},
    "lzw": {"compression": "lzw", "predictor": True},
    "zstd": {"compression": "zstd"},
    "not compressed": {},
    "planes": {"planarconfig": "separate", "compression": "zlib"},
    "JPEG 2000": {"compression": "aperio_jp2000_rgb"},
    "BigTIFF": {"bigtiff": True, "compression": "jpeg"},
}


class Reading:
    """A file read by our own source alone."""

    def __init__(self, path: Path) -> None:
        self.file = SlideFile(path)
        self.directories = inspect(path).directories
        self.source = TileSource(self.file, self.directories[:1])

    def whole(self) -> np.ndarray[Any, Any]:
        (width, height), (tile_width, tile_height) = self.source.level_dimensions[0], self.source.tile_sizes[0]
        rows = []
        for row in range(-(-height // tile_height)):
            tiles = [self.source.tile(0, column, row).pixels for column in range(-(-width // tile_width))]
            rows.append(np.concatenate(tiles, axis=1))
        return np.concatenate(rows)


@pytest.fixture
def read() -> Iterator[Any]:
    opened: list[Reading] = []

    def make(path: Path) -> Reading:
        opened.append(Reading(path))
        return opened[-1]

    yield make
    for reading in opened:
        reading.file.close()


def write(path: Path, pixels: np.ndarray[Any, Any] = PIXELS, **options: Any) -> Path:
    import tifffile

    big = options.pop("bigtiff", False)
    with tifffile.TiffWriter(path, bigtiff=big) as writer:
        planes = np.moveaxis(pixels, -1, 0) if options.get("planarconfig") == "separate" else pixels
        writer.write(planes, tile=(64, 64), photometric="rgb", metadata=None, **options)
    return path


def write_large(path: Path, pixels: np.ndarray[Any, Any], **options: Any) -> Path:
    """Write one tile as large as the picture."""
    import tifffile

    with tifffile.TiffWriter(path) as writer:
        writer.write(pixels, tile=pixels.shape[:2], photometric="rgb", metadata=None, **options)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_equals_tifffile(kind: str, tmp_path: Path, read: Any) -> None:
    """Our own decoding of a kind of tile differs from the library's by even one grey level."""
    path = write(tmp_path / "a.tif", **KINDS[kind])
    reading = read(path)
    assert own_source_reads(reading.directories[0])
    truth = stored(path, 150, 100)
    truth = np.moveaxis(truth, 0, -1) if truth.shape[0] == 3 else truth
    assert np.array_equal(reading.whole(), truth)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_equals_the_other_readers(kind: str, tmp_path: Path, read: Any) -> None:
    """Our pixels of a kind of tile differ from those of tiffslide or OpenSlide, where they open it."""
    import openslide
    import tiffslide

    path = write(tmp_path / "a.tif", **KINDS[kind])
    ours = read(path).whole().astype(int)
    worst = 2 if "jpeg" in str(KINDS[kind].get("compression")) or "jp2000" in str(KINDS[kind]) else 0
    if kind != "planes":  # tiffslide does not open these
        with tiffslide.TiffSlide(path) as slide:
            theirs = slide.read_region((0, 0), 0, (150, 100), as_array=True)
        assert np.abs(ours - theirs[..., :3]).max() <= worst
    try:
        with openslide.OpenSlide(str(path)) as slide:
            theirs = np.asarray(slide.read_region((0, 0), 0, (150, 100)))
    except openslide.OpenSlideError:
        return
    assert np.abs(ours - theirs[..., :3]).max() <= worst


def test_decoders_run_side_by_side(tmp_path: Path, read: Any) -> None:
    """A decoder that keeps the interpreter to itself would stop the window, and a second thread would gain nothing.

    Told without a clock: while one thread is inside a decoder, another one gets to run.
    """
    import sys

    large = np.tile(picture(512, 512), (2, 2, 1))
    before = sys.getswitchinterval()
    sys.setswitchinterval(30)  # from here on, a thread runs until it lets go by itself
    try:
        for kind in ("jpeg as RGB", "deflate", "lzw", "zstd", "JPEG 2000"):
            path = write_large(tmp_path / "a.tif", large, **KINDS[kind])
            source, counted, inside = read(path).source, [0], threading.Event()

            def count(counted: list[int] = counted, inside: threading.Event = inside) -> None:
                while not inside.is_set():
                    counted[0] += 1
                    time.sleep(0)

            thread = threading.Thread(target=count)
            thread.start()
            data = source._levels[0]._bytes(0)
            seen = counted[0]
            for _ in range(100):  # on a busy machine the other thread may come too late to one of them
                source._levels[0]._decode(data, None)
                if counted[0] > seen:
                    break
            assert counted[0] > seen, kind
            inside.set()
            thread.join()
    finally:
        sys.setswitchinterval(before)


@pytest.mark.parametrize("kind", [1, 2, 0])
def test_transparent_is_white(kind: int, tmp_path: Path, read: Any) -> None:
    """A transparent pixel was shown black, or a stray fourth sample was taken for transparency."""
    pixels = np.concatenate([PIXELS, np.full((100, 150, 1), 255, np.uint8)], axis=-1)
    pixels[:10, :10] = (0, 0, 0, 0)
    names = {0: "unspecified", 1: "assocalpha", 2: "unassalpha"}
    path = write(tmp_path / "a.tif", pixels, extrasamples=[names[kind]], compression="zlib")
    tile = read(path).source.tile(0, 0, 0)
    if kind == 0:
        assert tile.valid is None
        assert (tile.pixels[:10, :10] == 0).all()
        return
    assert tile.valid is not None
    assert not tile.valid[:10, :10].any()
    assert tile.valid[10:].all()
    assert (tile.pixels[:10, :10] == 255).all()
    assert np.array_equal(tile.pixels[10:], PIXELS[10:64, :64])


def test_a_tile_never_scanned_is_white_and_masked(tmp_path: Path, read: Any) -> None:
    """A tile without bytes was shown black, as libraries do."""
    path = write(tmp_path / "a.tif", compression="jpeg")
    empty_tile(path, 1)
    tile = read(path).source.tile(0, 1, 0)
    assert tile.valid is not None
    assert not tile.valid.any()
    assert (tile.pixels == 255).all()
    assert tile.nbytes == 0


@pytest.mark.parametrize("kind", ["jpeg as RGB", "jpeg as YCbCr", "deflate", "JPEG 2000"])
def test_a_half_written_tile_is_a_fault(kind: str, tmp_path: Path, read: Any) -> None:
    """A tile whose second half is zeros was shown as if it were sound."""
    path = write(tmp_path / "a.tif", picture(256, 128, seed=3), **KINDS[kind])
    spoil_tile(path, 2)
    source = read(path).source
    with pytest.raises(TileFault):
        source.tile(0, 2, 0)
    assert source.tile(0, 3, 0).pixels.shape == (64, 64, 3)


def test_a_frame_of_another_size_is_not_decoded(tmp_path: Path, read: Any) -> None:
    """A JPEG that declares 65,500 x 65,500 px took 12 GB."""
    path = write(tmp_path / "a.tif", compression="jpeg")
    data = bytearray(path.read_bytes())
    start = data.index(b"\xff\xc0")
    data[start + 5 : start + 9] = b"\xff\xdc\xff\xdc"
    directory = inspect(path).directories[0]
    path.write_bytes(data)
    file = SlideFile(path)
    with pytest.raises(TileFault, match="65500"):
        TileSource(file, [directory]).tile(0, 0, 0)
    file.close()


def test_a_tile_that_unpacks_to_more_is_a_fault(tmp_path: Path) -> None:
    """A deflate bomb filled the memory."""
    import zlib

    bomb = zlib.compress(bytes(64 * 64 * 3 * 1000))
    path = tmp_path / "bomb"
    path.write_bytes(b"12345678" + bomb)
    offsets, counts = np.array([8], np.uint64), np.array([len(bomb)], np.uint64)
    directory = Directory(0, 8, 64, 64, True, 64, 64, offsets, counts, 8, 2, 3, (8, 8, 8))
    file = SlideFile(path)
    with pytest.raises(TileFault):
        TileSource(file, [directory]).tile(0, 0, 0)
    beyond = replace(directory, byte_counts=counts + np.uint64(10))
    with pytest.raises(TileFault, match="ends inside"):
        TileSource(file, [beyond]).tile(0, 0, 0)
    claims = replace(directory, byte_counts=np.array([2**40], np.uint64))
    with pytest.raises(TileFault, match="claims more"):
        TileSource(file, [claims]).tile(0, 0, 0)
    file.close()


def test_what_we_do_not_decode_is_left_to_libraries(tmp_path: Path) -> None:
    """A kind of image we do not implement was decoded anyhow."""
    good = inspect(write(tmp_path / "a.tif", compression="jpeg")).directories[0]
    assert own_source_reads(good)
    for change in (
        {"tiled": False}, {"bits": (16, 16, 16)}, {"samples": 1}, {"photometric": 8}, {"compression": 6},
        {"compression": 33003}, {"planar": 2}, {"sample_format": 2}, {"fault": "broken"}, {"orientation": 3},
        {"compression": 8, "predictor": 3}, {"compression": 8, "photometric": 6},
    ):  # fmt: skip
        assert not own_source_reads(replace(good, **change)), change  # type: ignore[arg-type]


def test_threads_read_the_same_pixels(tmp_path: Path, read: Any) -> None:
    """Two threads got each other's tiles."""
    reading = read(write(tmp_path / "a.tif", picture(512, 512), compression="jpeg"))
    truth = {(c, r): reading.source.tile(0, c, r).pixels for c in range(8) for r in range(8)}
    wrong: list[tuple[int, int]] = []

    def work(seed: int) -> None:
        for c, r in np.random.default_rng(seed).integers(0, 8, (60, 2)).tolist():
            if not np.array_equal(reading.source.tile(0, c, r).pixels, truth[c, r]):
                wrong.append((c, r))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_tile_of_several_levels(tmp_path: Path) -> None:
    """A coarser level was read with the finest level's table."""
    levels = [PIXELS, np.ascontiguousarray(PIXELS[::2, ::2])]
    path = write_tiff(tmp_path / "a.tif", levels, compression="zlib")
    file = SlideFile(path)
    source = TileSource(file, inspect(path).directories)
    assert np.array_equal(source.tile(1, 1, 0).pixels, levels[1][:64, 64:])
    file.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_fleeting_tile_is_the_same_tile(kind: str, tmp_path: Path, read: Any) -> None:
    """Tiles decoded into used memory kept something of the tile before, or differed at the slide's edge."""
    source = read(write(tmp_path / "a.tif", **KINDS[kind])).source
    for row in range(2):
        for column in range(3):
            kept = source.tile(0, column, row).pixels
            assert np.array_equal(source.fleeting_tile(0, column, row).pixels, kept)


def test_a_tile_that_is_kept_lasts(tmp_path: Path, read: Any) -> None:
    """A cached tile was overwritten by the next one read in passing."""
    source = read(write(tmp_path / "a.tif", compression="jpeg")).source
    first = source.tile(0, 0, 0).pixels
    before = first.copy()
    source.fleeting_tile(0, 1, 0)
    source.tile(0, 1, 1)
    assert np.array_equal(first, before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_rough_tile_is_nearly_the_means(kind: str, factor: int, tmp_path: Path, read: Any) -> None:
    """The first picture of a slide was shifted, of another size, or of other colours."""
    from PIL import Image

    source = read(write(tmp_path / "a.tif", **KINDS[kind])).source
    for column, row in ((0, 0), (2, 1)):
        rough = source.tile_rough(0, column, row, factor)
        fine = source.tile(0, column, row).pixels
        means = np.asarray(Image.fromarray(fine).reduce(factor))
        assert rough.pixels.shape == means.shape
        assert rough.valid is None
        inner = np.s_[: fine.shape[0] // factor, : fine.shape[1] // factor]
        assert np.abs(rough.pixels[inner].astype(int) - means[inner]).mean() < 3


def test_a_rough_tile_is_as_strict(tmp_path: Path, read: Any) -> None:
    """A damaged tile was shown in the first picture as if it were sound."""
    path = write(tmp_path / "a.tif", picture(256, 128, seed=3), compression="jpeg")
    spoil_tile(path, 2)
    empty_tile(path, 1)
    source = read(path).source
    with pytest.raises(TileFault):
        source.tile_rough(0, 2, 0, 8)
    empty = source.tile_rough(0, 1, 0, 8)
    assert empty.pixels.shape == (8, 8, 3)
    assert not empty.valid.any()
