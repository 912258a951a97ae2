from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_slnpredict.slide.cache import TileCache
from napari_slnpredict.slide.pyramid import Pyramid, levels_below
from napari_slnpredict.slide.source import Tile, TileFault, white_tile

from .made_slides import halved, picture


class Memory:
    """A source over an array, that counts its reads and fails where told."""

    reader = "memory"
    raw_properties: Mapping[str, str] = {}

    def __init__(self, pixels: NDArray[np.uint8], tile: int = 64) -> None:
        self.pixels, self.side = pixels, tile
        self.level_dimensions = ((pixels.shape[1], pixels.shape[0]),)
        self.tile_sizes = ((tile, tile),)
        self.bad: dict[tuple[int, int], str] = {}
        self.sparse: set[tuple[int, int]] = set()
        self.reads: Counter[tuple[int, int]] = Counter()
        self.closed = False

    def tile(self, level: int, column: int, row: int) -> Tile:
        self.reads[column, row] += 1
        cut = self.pixels[row * self.side :, column * self.side :][: self.side, : self.side]
        if (column, row) in self.bad:
            raise TileFault(self.bad[column, row])
        if (column, row) in self.sparse:
            return white_tile(*cut.shape[:2])
        return Tile(cut)

    def close(self) -> None:
        self.closed = True


PIXELS = picture(300, 200)


def test_any_rectangle_is_cut_from_the_tiles() -> None:
    """A rectangle across tiles was shifted, or its outside was not white and masked."""
    pyramid = Pyramid(Memory(PIXELS), TileCache(1 << 20))
    canvas = np.full((600, 700, 3), 255, np.uint8)
    canvas[200:400, 200:500] = PIXELS
    inside = np.zeros((600, 700), bool)
    inside[200:400, 200:500] = True
    rng = np.random.default_rng(1)
    for _ in range(100):
        x, y = int(rng.integers(-200, 480)), int(rng.integers(-200, 380))
        w, h = int(rng.integers(0, min(220, 500 - x))), int(rng.integers(0, min(220, 400 - y)))
        region = pyramid.region(0, x, y, w, h)
        assert region.pixels.shape == (h, w, 3)
        assert np.array_equal(region.pixels, canvas[y + 200 : y + 200 + h, x + 200 : x + 200 + w])
        assert np.array_equal(region.valid, inside[y + 200 : y + 200 + h, x + 200 : x + 200 + w])


def test_a_caller_may_write_into_what_it_got() -> None:
    """Writing into a region changed the cached tile for everybody."""
    pyramid = Pyramid(Memory(PIXELS), TileCache(1 << 20))
    pyramid.region(0, 0, 0, 64, 64).pixels[:] = 0
    assert np.array_equal(pyramid.region(0, 0, 0, 64, 64).pixels, PIXELS[:64, :64])


def test_a_damaged_tile_is_white_named_and_remembered() -> None:
    """One bad tile ended the read, was shown as grey, or was decoded again and again."""
    source = Memory(PIXELS)
    source.bad[1, 0] = "noise"
    pyramid = Pyramid(source, TileCache(1 << 20))
    region = pyramid.region(0, 0, 0, 300, 200)
    assert region.faults == [((0, 1, 0), "noise")]
    assert not region.valid[:64, 64:128].any()
    assert region.valid.sum() == 300 * 200 - 64 * 64
    assert (region.pixels[:64, 64:128] == 255).all()
    pyramid.region(0, 0, 0, 300, 200)
    assert source.reads[1, 0] == 1
    assert pyramid.faults == {(0, 1, 0): "noise"}


def test_what_was_never_scanned_is_no_fault() -> None:
    """A sparse tile was called damaged, or valid."""
    source = Memory(PIXELS)
    source.sparse.add((0, 0))
    region = Pyramid(source, TileCache(1 << 20)).region(0, 0, 0, 128, 64)
    assert not region.faults
    assert not region.valid[:, :64].any()
    assert region.valid[:, 64:].all()


def test_virtual_levels_are_means() -> None:
    """A slide without a pyramid got a shifted, aliased or wrongly sized overview."""
    pixels = picture(2301, 1100)
    pyramid = Pyramid(Memory(pixels, 256), TileCache(1 << 24))
    assert [(level.width, level.height) for level in pyramid.levels] == [(2301, 1100), (1150, 550), (575, 275)]
    assert [level.downsample for level in pyramid.levels] == [1.0, 2.0, 4.0]
    assert [level.depth for level in pyramid.levels] == [0, 1, 2]
    truth = halved(pixels)
    for level in (1, 2):
        height, width = truth.shape[:2]
        region = pyramid.region(level, 0, 0, width, height)
        assert np.abs(region.pixels.astype(int) - truth).max() <= 1
        assert region.valid.all()
        truth = halved(region.pixels)


def test_a_virtual_pixel_counts_only_when_all_below_it_do() -> None:
    """Missing tiles leaked half-white pixels into the overview, marked as tissue."""
    source = Memory(picture(1200, 1200), 64)
    source.bad[0, 0] = "noise"
    pyramid = Pyramid(source, TileCache(1 << 24))
    region = pyramid.region(1, 0, 0, 600, 600)
    assert not region.valid[:32, :32].any()
    assert region.valid.sum() == 600 * 600 - 32 * 32
    assert (region.pixels[:32, :32] == 255).all()
    assert region.faults


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1024, 800), []), ((1025, 800), [(512, 400)]), ((5000, 1), []), ((4097, 3), [(2048, 1)])],
)
def test_virtual_levels_end_where_the_first_look_is_cheap(
    size: tuple[int, int], expected: list[tuple[int, int]]
) -> None:
    """napari reads the coarsest level whole at once: it was too large, or of no size."""
    assert levels_below(*size) == expected


def test_a_second_read_decodes_nothing() -> None:
    """The cache was never asked."""
    source = Memory(PIXELS)
    pyramid = Pyramid(source, TileCache(1 << 20))
    pyramid.region(0, 0, 0, 300, 200)
    pyramid.region(0, 0, 0, 300, 200)
    assert set(source.reads.values()) == {1}


def test_threads_share_a_pyramid() -> None:
    """Threads that read at the same time got torn rectangles or broke the cache."""
    source = Memory(picture(1100, 1050), 64)
    pyramid = Pyramid(source, TileCache(200_000))
    wrong: list[object] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(15):
            x, y = (int(v) for v in rng.integers(0, 880, 2))
            got = pyramid.region(0, x, y, 150, 150)
            if not np.array_equal(got.pixels, source.pixels[y : y + 150, x : x + 150]):
                wrong.append((x, y))
            pyramid.region(1, x // 2, y // 2, 20, 20)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_closing_closes_the_source() -> None:
    """A closed slide kept handles and pixels."""
    source = Memory(PIXELS)
    pyramid = Pyramid(source, TileCache(1 << 20))
    pyramid.region(0, 0, 0, 64, 64)
    pyramid.close()
    assert source.closed
