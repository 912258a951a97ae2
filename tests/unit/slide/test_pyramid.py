from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from napari_slnpredict.slide.cache import TileCache
from napari_slnpredict.slide.patience import Patience
from napari_slnpredict.slide.pyramid import Pyramid, levels_below
from napari_slnpredict.slide.source import DriveSilent, Tile, TileFault, white_tile

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
LARGE = picture(1100, 1050)


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
    source = Memory(LARGE, 64)
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


def test_what_is_cached_is_there_without_reading() -> None:
    """A display that only asks what is at hand would wait for the disk."""
    source = Memory(PIXELS)
    pyramid = Pyramid(source, TileCache(1 << 20))
    assert pyramid.cached(0, 1, 1) is None
    assert not source.reads
    tile = pyramid.tile(0, 1, 1)
    assert pyramid.cached(0, 1, 1) is tile
    assert source.reads[1, 1] == 1


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 17), st.integers(0, 16)), max_size=60, unique=True), st.booleans())
def test_a_batch_is_its_tiles(places: list[tuple[int, int]], passing: bool) -> None:
    """Tiles of a batch came back in another order, or one was read twice."""
    source = Memory(LARGE, 64)
    pyramid = Pyramid(source, TileCache(1 << 22))
    for column, row in places[::3]:
        pyramid.tile(0, column, row)
    tiles = pyramid.tiles(0, places, passing=passing)
    for (column, row), tile in zip(places, tiles, strict=True):
        assert np.array_equal(tile.pixels, source.pixels[64 * row : 64 * row + 64, 64 * column : 64 * column + 64])
    assert all(count == 1 for count in source.reads.values())


def test_a_batch_with_damage_goes_on() -> None:
    """One bad tile cost the whole batch."""
    source = Memory(LARGE, 64)
    source.bad[3, 3] = "noise"
    pyramid = Pyramid(source, TileCache(1 << 22))
    tiles = pyramid.tiles(0, [(column, row) for row in range(6) for column in range(6)])
    assert [k for k, tile in enumerate(tiles) if tile.fault] == [21]
    region = pyramid.region(0, 0, 0, 1100, 1050)
    assert region.faults == [((0, 3, 3), "noise")]


def test_faults_of_a_rectangle_come_row_by_row() -> None:
    """With several threads the tile named in an error depended on which was faster."""
    source = Memory(LARGE, 64)
    bad = [(9, 1), (2, 3), (5, 3), (0, 7)]
    source.bad.update(dict.fromkeys(bad, "noise"))
    for _ in range(5):
        region = Pyramid(source, TileCache(1 << 22)).region(0, 0, 0, 1100, 1050)
        assert [place[1:] for place, _ in region.faults] == bad


@settings(max_examples=60, deadline=None)
@given(
    st.integers(-80, 320), st.integers(-80, 220), st.integers(0, 300), st.integers(0, 300), st.booleans(), st.booleans()
)
def test_reading_in_passing_reads_the_same(x: int, y: int, width: int, height: int, bad: bool, sparse: bool) -> None:
    """Tiles for a network differed from those on the screen."""
    source = Memory(PIXELS)
    if bad:
        source.bad[1, 1] = "noise"
    if sparse:
        source.sparse.add((2, 1))
    plain = Pyramid(source, TileCache(1 << 20)).region(0, x, y, width, height)
    passing = Pyramid(source, TileCache(1 << 20)).region(0, x, y, width, height, passing=True)
    assert np.array_equal(plain.pixels, passing.pixels)
    assert np.array_equal(plain.valid, passing.valid)
    assert plain.faults == passing.faults


def test_a_run_in_passing_leaves_what_is_shown() -> None:
    """Embedding a slide pushed out the tiles on the screen, or neighbouring blocks decoded the same tiles again."""
    source = Memory(np.tile(LARGE, (2, 2, 1))[:2048, :2048], 64)
    cache = TileCache(1 << 20)  # a twelfth of the slide
    pyramid = Pyramid(source, cache)
    shown = [(column, row) for row in range(6) for column in range(6)]
    pyramid.tiles(0, shown)
    for y in range(0, 2048, 400):
        for x in range(0, 2048, 400):
            pyramid.region(0, x, y, 400, 400, passing=True)
    assert all(pyramid.cached(0, *place) is not None for place in shown)
    assert all(source.reads[place] == 1 for place in shown)
    assert sum(source.reads.values()) < 1.25 * 32 * 32
    assert cache.used <= cache.limit


def test_the_overview_of_a_flat_slide_leaves_room() -> None:
    """Making one coarse tile read a thousand fine ones into the cache, and out went all others."""
    source = Memory(picture(1500, 1300), 64)
    pyramid = Pyramid(source, TileCache(4 << 20))
    shown = [(column, row) for row in range(4) for column in range(4)]
    pyramid.tiles(0, shown)
    level = pyramid.levels[1]
    pyramid.region(1, 0, 0, level.width, level.height)
    assert all(pyramid.cached(0, *place) is not None for place in shown)
    assert set(source.reads.values()) == {1}


def test_a_stall_is_no_damage() -> None:
    """A share that hung for a while left white tiles, called damaged, until the slide was opened again."""
    source, back = Memory(PIXELS), threading.Event()
    read = source.tile

    def hang(level: int, column: int, row: int) -> Tile:
        if (column, row) == (1, 1):
            back.wait(10)
        return read(level, column, row)

    source.tile = hang  # type: ignore[method-assign]
    pyramid = Pyramid(source, TileCache(1 << 20), Patience(0.1))
    assert np.array_equal(pyramid.tile(0, 0, 0).pixels, PIXELS[:64, :64])
    for _ in range(2):
        with pytest.raises(DriveSilent):
            pyramid.tile(0, 1, 1)
    with pytest.raises(DriveSilent):
        pyramid.region(0, 0, 0, 300, 200)
    assert pyramid.waiting > 0.1
    assert not pyramid.faults
    assert pyramid.cached(0, 1, 1) is None
    back.set()
    deadline = time.monotonic() + 5
    while pyramid.waiting and time.monotonic() < deadline:
        time.sleep(0.005)
    assert np.array_equal(pyramid.region(0, 0, 0, 300, 200).pixels, PIXELS)
    assert pyramid.waiting == 0
    pyramid.close()


def test_after_a_stall_the_slide_closes() -> None:
    """Closing a slide on a dead share waited for the share."""
    source, back = Memory(PIXELS), threading.Event()
    source.tile = lambda *_: back.wait(10)  # type: ignore[method-assign,assignment,return-value]
    cache = TileCache(1 << 20)
    pyramid = Pyramid(source, cache, Patience(0.05))
    with pytest.raises(DriveSilent):
        pyramid.tile(0, 0, 0)
    start = time.monotonic()
    pyramid.close()
    assert time.monotonic() - start < 1
    back.set()
    assert cache.used == 0
