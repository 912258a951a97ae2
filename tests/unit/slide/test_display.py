"""What the screen gets of a slide, without a screen."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_slnpredict.slide import display, loading
from napari_slnpredict.slide.cache import TileCache
from napari_slnpredict.slide.display import DisplayPyramid
from napari_slnpredict.slide.pyramid import Pyramid
from napari_slnpredict.slide.source import Tile, TileFault

from .made_slides import picture

SIDE = 64


class Memory:
    """A source over arrays, that can be slow, stuck or damaged, and remembers what it was asked for."""

    reader = "memory"
    raw_properties: Mapping[str, str] = {}

    def __init__(self, *levels: NDArray[np.uint8]) -> None:
        self.levels = levels
        self.level_dimensions = tuple((level.shape[1], level.shape[0]) for level in levels)
        self.tile_sizes = ((SIDE, SIDE),) * len(levels)
        self.seconds = 0.0
        self.bad: set[tuple[int, int, int]] = set()
        self.asked: list[tuple[int, int, int]] = []
        self.gates: dict[tuple[int, int, int], threading.Event] = {}

    def tile(self, level: int, column: int, row: int) -> Tile:
        self.asked.append((level, column, row))
        time.sleep(self.seconds)
        gate = self.gates.get((level, column, row))
        if gate is not None:
            gate.wait(10)
        if (level, column, row) in self.bad:
            raise TileFault("noise")
        return Tile(self.levels[level][row * SIDE :, column * SIDE :][:SIDE, :SIDE])

    def close(self) -> None:
        pass


def shrunk(pixels: NDArray[np.uint8], times: int) -> NDArray[np.uint8]:
    """Halve again and again in whole numbers, rounded half up: the definition, in other words than the code's."""
    for _ in range(times):
        height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
        cells = pixels[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3).astype(int)
        pixels = ((cells.sum(axis=(1, 3)) + 2) // 4).astype(np.uint8)
    return pixels


BASE = picture(1501, 1203)
SMALL = shrunk(BASE, 2)


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., DisplayPyramid]]:
    """Make a display pyramid over a source; its threads end with the test."""
    monkeypatch.setattr(display, "RESIDENT_PX", 400)
    made: list[DisplayPyramid] = []

    def make(source: Memory, **changes: Any) -> DisplayPyramid:
        tiles = Pyramid(source, TileCache(256 << 20))
        rectangles = changes.pop("damaged", None) or (
            lambda: tuple(
                (level, column * SIDE, row * SIDE, SIDE, SIDE) for level, column, row in tiles.faults if level == 0
            )
        )
        pyramid = DisplayPyramid(tiles, rectangles, **changes)
        made.append(pyramid)
        pyramid.prepare()
        return pyramid

    yield make
    for pyramid in made:
        pyramid.close()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and threads():
        time.sleep(0.005)
    assert not threads()


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(loading.THREAD_PREFIX)]


def settled(pyramid: DisplayPyramid, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not pyramid.idle:
        assert time.monotonic() < deadline, "still loading"
        time.sleep(0.002)


def test_levels_fill_the_gaps() -> None:
    """A slide seen from afar would glitter, and a window would upload sixteen pixels for one."""
    pyramid = DisplayPyramid(Pyramid(Memory(BASE, SMALL), TileCache(1 << 20)))
    assert [level.shape[:2] for level in pyramid.levels] == [(1203, 1501), (601, 750), (300, 375), (150, 187)]
    assert [level.halvings for level in pyramid.plan] == [0, 1, 0, 1]
    single = DisplayPyramid(Pyramid(Memory(BASE), TileCache(1 << 20)))
    assert [level.shape[:2] for level in single.levels] == [(1203, 1501), (601, 750), (300, 375), (150, 187)]


def test_chunks_cover_each_level() -> None:
    """napari would read again at every move of the camera."""
    for level in DisplayPyramid(Pyramid(Memory(BASE, SMALL), TileCache(1 << 20))).levels:
        assert tuple(sum(axis) for axis in level.chunks) == level.shape


@pytest.mark.parametrize("stored", [(BASE, SMALL), (BASE,)])
def test_a_settled_view_is_exact(show: Callable[..., DisplayPyramid], stored: tuple[NDArray[np.uint8], ...]) -> None:
    """The screen would show another picture than the file, at one level or at a seam of tiles."""
    pyramid = show(Memory(*stored))
    truth = [BASE, shrunk(BASE, 1), SMALL, shrunk(SMALL, 1)]
    rng = np.random.default_rng(3)
    for level, whole in zip(pyramid.levels, truth, strict=True):
        assert np.array_equal(np.asarray(level), whole)
        for _ in range(8):
            y, y_end = np.sort(rng.integers(0, whole.shape[0] + 1, 2))
            x, x_end = np.sort(rng.integers(0, whole.shape[1] + 1, 2))
            level[y:y_end, x:x_end]
            settled(pyramid)
            assert np.array_equal(level[y:y_end, x:x_end, :], whole[y:y_end, x:x_end])
            assert np.array_equal(level.exact(y, y_end, x, x_end), whole[y:y_end, x:x_end])
    assert np.array_equal(pyramid.levels[0][10:50:2, 20:90:3], BASE[10:50:2, 20:90:3])


def test_virtual_levels_are_the_slides_own() -> None:
    """What is shown and what is computed on would differ."""
    tiles = Pyramid(Memory(picture(2301, 1100)), TileCache(256 << 20))
    shown = {level.shape[:2]: level for level in DisplayPyramid(tiles).levels}
    for number, level in enumerate(tiles.levels):
        region = tiles.region(number, 0, 0, level.width, level.height)
        exact = shown[level.height, level.width].exact(0, level.height, 0, level.width)
        assert np.array_equal(exact, region.pixels)


def test_answers_within_the_budget(show: Callable[..., DisplayPyramid]) -> None:
    """A slow drive would freeze the window."""
    source = Memory(BASE, SMALL)
    pyramid = show(source)
    source.seconds = 0.05
    arrived = threading.Event()
    pyramid.on_arrival = arrived.set
    spent = []
    for y in range(0, 700, 100):
        start = time.perf_counter()
        first = pyramid.levels[0][y : y + 500, 200:900]
        spent.append(time.perf_counter() - start)
        assert np.abs(first.astype(int) - BASE[y : y + 500, 200:900]).mean() < 60, "no picture of the place"
    # Every answer waits as long as it may. On a busy machine most are late; one that waited for tiles never is in time.
    assert min(spent) < display.BUDGET + 0.02
    while not np.array_equal(pyramid.levels[0][600:1100, 200:900], BASE[600:1100, 200:900]):
        assert arrived.wait(20), "nobody said that better pixels are there"
        arrived.clear()


def test_never_grey_nor_black(show: Callable[..., DisplayPyramid]) -> None:
    """A place not loaded yet would look like a hole, not like the slide."""
    source = Memory(BASE, SMALL)
    pyramid = show(source)
    source.gates = {(0, column, row): threading.Event() for column in range(24) for row in range(19)}
    try:
        seen = pyramid.levels[0][0:1203, 0:1501]
        rows, columns = np.arange(1203) * 300 // 1203, np.arange(1501) * 375 // 1501
        assert np.array_equal(seen, SMALL[rows][:, columns])
    finally:
        for gate in source.gates.values():
            gate.set()


def test_newest_view_first(show: Callable[..., DisplayPyramid]) -> None:
    """Tiles of places left long ago would be loaded before those looked at."""
    source = Memory(BASE, SMALL)
    pyramid = show(source)
    source.seconds = 0.01
    pyramid.levels[0][0:500, 0:1400]
    before = len(source.asked)
    pyramid.levels[0][900:1100, 900:1100]
    settled(pyramid)
    order = [(column, row) for level, column, row in source.asked[before:] if level == 0]
    wanted = {(column, row) for column in range(14, 18) for row in range(14, 18)}
    assert set(order[: len(wanted)]) == wanted
    assert not any(row < 12 for _, row in order), "what the queue held before was loaded too"
    assert order[0] in {(15, 15), (16, 15), (15, 16), (16, 16)}, "the centre comes first"


def test_damage_is_hatched(show: Callable[..., DisplayPyramid]) -> None:
    """A tile that cannot be read would pass for empty glass (promise R1)."""
    source = Memory(BASE, SMALL)
    source.bad = {(0, 2, 2)}
    pyramid = show(source)
    for level, side in ((0, 64), (1, 32)):
        shown = pyramid.levels[level]
        shown[0:400, 0:400]
        settled(pyramid)
        seen = shown[0:400, 0:400]
        tile = seen[2 * side : 3 * side, 2 * side : 3 * side]
        assert len(np.unique(tile.reshape(-1, 3), axis=0)) == 2  # stripes, for eyes that see no colour
        assert not (tile == 255).all(axis=-1).any()
        around = np.ones((400, 400), bool)
        around[2 * side : 3 * side, 2 * side : 3 * side] = False
        assert np.array_equal(seen[around], shrunk(BASE, level)[:400, :400][around])


def test_unscanned_parts_stay_white(show: Callable[..., DisplayPyramid]) -> None:
    """Sparse scans would look damaged."""
    source = Memory(BASE, SMALL)
    source.bad = {(0, 2, 2)}
    pyramid = show(source, damaged=lambda: ())
    pyramid.levels[0][0:200, 0:200]
    settled(pyramid)
    assert (pyramid.levels[0][128:192, 128:192] == 255).all()


def test_a_hanging_drive_blocks_nobody(show: Callable[..., DisplayPyramid], monkeypatch: pytest.MonkeyPatch) -> None:
    """A share that went away would freeze the window, keep every other tile away, or never be tried again."""
    monkeypatch.setattr(loading, "PATIENCE", 0.1)
    monkeypatch.setattr(loading, "RETRY", 0.3)
    source = Memory(BASE, SMALL)
    pyramid = show(source)
    silent: list[bool] = []
    pyramid.on_silence = silent.append
    gate = source.gates[0, 3, 3] = threading.Event()
    level = pyramid.levels[0]
    start = time.perf_counter()
    level[0:448, 0:448]
    assert time.perf_counter() - start < 2  # the drive hangs for ten
    deadline = time.monotonic() + 8
    while time.monotonic() < deadline and not silent:
        time.sleep(0.01)
    assert silent == [True]
    assert pyramid.is_silent
    seen = level[0:448, 0:448]
    known = np.ones((448, 448), bool)
    known[192:256, 192:256] = False
    assert np.array_equal(seen[known], BASE[:448, :448][known]), "one tile kept the others away"
    gate.set()
    while time.monotonic() < deadline and not np.array_equal(level[0:448, 0:448], BASE[:448, :448]):
        time.sleep(0.02)
    assert np.array_equal(level[0:448, 0:448], BASE[:448, :448])
    assert silent == [True, False]


class Inverted:
    """A look that nobody could overlook."""

    key: str | None = None

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        assert self.key, "called though pixels are shown as stored"
        return 255 - pixels


def test_other_colours_at_once_and_exact(show: Callable[..., DisplayPyramid]) -> None:
    """The colour switch would show white until all is loaded again, or mix both colours."""
    look = Inverted()
    pyramid = show(Memory(BASE, SMALL), look=look)
    pyramid.levels[0][0:300, 0:300]
    settled(pyramid)
    look.key = "inverted"
    first = pyramid.levels[0][0:300, 0:300].astype(int)
    assert np.abs(first - (255 - BASE[:300, :300].astype(int))).mean() < 60
    settled(pyramid)
    assert np.array_equal(pyramid.levels[0][0:300, 0:300], 255 - BASE[:300, :300])
    look.key = None
    assert np.array_equal(pyramid.levels[0][0:300, 0:300], BASE[:300, :300])


def test_a_twin_shows_another_look_beside_the_first(show: Callable[..., DisplayPyramid]) -> None:
    """A second layer would read the file anew, mix its colours into the first, paint the hatching, or end it."""
    source = Memory(BASE, SMALL)
    source.bad = {(0, 2, 2)}
    damaged = [(0, 2 * SIDE, 2 * SIDE, SIDE, SIDE)]
    raw = show(source, damaged=lambda: damaged)
    look = Inverted()
    look.key = "inverted"
    raw.levels[0][0:300, 0:300]
    settled(raw)
    asked, twin = len(source.asked), raw.twin(look)
    try:
        assert np.array_equal(twin.levels[-1][:, :], 255 - raw.levels[-1][:, :])
        first = twin.levels[0][0:300, 0:300].astype(int)
        settled(twin)
        seen, plain = twin.levels[0][0:300, 0:300], raw.levels[0][0:300, 0:300]
        there = np.ones((300, 300), bool)
        there[128:192, 128:192] = False
        assert np.abs(first - seen)[there].mean() < 60, "a place not painted yet is a hole"
        assert np.array_equal(seen[there], 255 - plain[there])
        assert np.array_equal(seen[~there], plain[~there]), "the hatching was painted"
        assert [place for place in source.asked[asked:] if max(place[1:]) <= 4] == [], "tiles were read twice"
        assert np.array_equal(twin.levels[0].exact(0, 100, 0, 100), 255 - BASE[:100, :100])
    finally:
        twin.close()
    assert np.array_equal(raw.levels[0][0:100, 0:100], BASE[:100, :100])


def test_a_leaving_slide_is_white(show: Callable[..., DisplayPyramid]) -> None:
    """napari's slicing thread would read from a closed file."""
    held = [lambda: None]
    pyramid = show(Memory(BASE, SMALL), hold=lambda: held[0] if held else None)
    held.clear()
    assert (pyramid.levels[0][0:50, 0:50] == 255).all()
    assert (pyramid.levels[-1].exact(0, 5, 0, 5) == 255).all()


def test_closing_ends_the_threads(show: Callable[..., DisplayPyramid]) -> None:
    """Each slide looked at would leave threads behind."""
    pyramid = show(Memory(BASE, SMALL))
    pyramid.levels[0][0:500, 0:500]
    assert threads()
    pyramid.close()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and threads():
        time.sleep(0.005)
    assert not threads()


def test_a_slide_without_small_levels_has_a_picture_at_once(
    show: Callable[..., DisplayPyramid], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening it would take as long as decoding all of it, or show white until then."""
    monkeypatch.setattr(display, "DEAR_TILES", 50)
    source = Memory(BASE)
    pyramid = show(source)
    first = pyramid.levels[2][0:300, 0:375].astype(int)
    assert np.abs(first - shrunk(BASE, 2)).mean() < 40
    assert pyramid.overview(100).shape == (80, 100, 3)
    settled(pyramid)
    assert np.array_equal(pyramid.levels[2][0:300, 0:375], shrunk(BASE, 2))
    assert np.array_equal(pyramid.levels[3][0:150, 0:187], shrunk(BASE, 3))


@pytest.mark.parametrize("key", [(0, slice(None)), (slice(None, None, -1), slice(None))])
def test_only_ranges_are_read(key: Any) -> None:
    """A wrong index would give wrong pixels in silence."""
    with pytest.raises(TypeError):
        DisplayPyramid(Pyramid(Memory(BASE), TileCache(1 << 20))).levels[0][key]
