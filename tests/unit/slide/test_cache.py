from __future__ import annotations

import gc
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_slnpredict.slide import cache as module
from napari_slnpredict.slide.cache import ENTRY_BYTES, SHARES, Shelf, TileCache, shared_cache
from napari_slnpredict.slide.source import Tile, white_tile

SIDE = 50
COST = SIDE * SIDE * 3 + ENTRY_BYTES


def tile(value: int = 0, side: int = SIDE) -> Tile:
    return Tile(np.full((side, side, 3), value, np.uint8))


def test_the_shares_add_up() -> None:
    """The bound could be passed with no shelf over its share, so that nothing is thrown away."""
    assert sum(SHARES.values()) == 1


def test_the_longest_unused_goes_first() -> None:
    """Memory grew with panning, or the tile on the screen was thrown away."""
    cache = TileCache(10 * COST)
    slide = cache.tenant()
    for k in range(50):
        slide.put(k, tile(k))
        assert cache.used <= cache.limit
    assert slide.get(49) is not None
    assert slide.get(0) is None
    slide.get(40)
    slide.put(50, tile())
    assert slide.get(40) is not None
    assert slide.get(41) is None


def test_what_is_larger_than_all_is_not_kept() -> None:
    """One huge tile emptied the cache and stayed in it."""
    cache = TileCache(3 * COST)
    slide = cache.tenant()
    slide.put("small", tile())
    slide.put("huge", tile(side=500))
    assert slide.get("small") is not None
    assert slide.get("huge") is None


def test_a_white_tile_costs_its_entry_only() -> None:
    """A sparse slide's empty tiles pushed out all others."""
    cache = TileCache(10 * COST)
    slide = cache.tenant()
    for k in range(9):
        slide.put(("white", k), white_tile(4096, 4096))
    assert cache.used == 9 * ENTRY_BYTES


def test_slides_do_not_see_each_other() -> None:
    """A tile of one slide was shown in another."""
    cache = TileCache(10 * COST)
    first, second = cache.tenant(), cache.tenant()
    first.put((0, 0, 0), tile(1))
    assert second.get((0, 0, 0)) is None
    second.put((0, 0, 0), tile(2))
    found = first.get((0, 0, 0))
    assert found is not None
    assert found.pixels[0, 0, 0] == 1


def test_a_closed_slide_gives_everything_back_at_once() -> None:
    """Closed slides went on taking memory, or a read that ended after closing left a tile for ever."""
    cache = TileCache(10 * COST)
    first, second = cache.tenant(), cache.tenant()
    for k, shelf in enumerate(Shelf):
        first.put(k, tile(), shelf)
    second.put(0, tile())
    first.close()
    assert cache.used == COST
    first.put("late", tile())
    assert cache.used == COST
    assert first.get("late") is None
    first.close()
    assert second.get(0) is not None


def test_a_slide_nobody_closed_is_forgotten() -> None:
    """A slide left to the garbage collector kept its tiles for the life of the process."""
    cache = TileCache(10 * COST)
    slide, other = cache.tenant(), cache.tenant()
    slide.put(0, tile())
    del slide
    gc.collect()
    other.put(0, tile())
    assert cache.used == COST


def test_a_run_over_a_slide_leaves_the_window_its_tiles() -> None:
    """Embedding a huge slide pushed out what the window shows."""
    cache = TileCache(100 * COST)
    window, run = cache.tenant(), cache.tenant()
    for k in range(60):
        window.put(k, tile())
    for k in range(1000):
        run.put(k, tile(), Shelf.PASSING)
    assert all(window.get(k) is not None for k in range(60))
    assert cache.used > 95 * COST, "room that nobody needs is not used"
    for k in range(60, 100):
        window.put(k, tile())
    assert sum(window.get(k) is not None for k in range(100)) >= 86, "passing tiles have more than their share"


def test_what_the_window_looks_at_is_no_longer_passing() -> None:
    """A tile read by a run and shown since was thrown away with the run's tiles."""
    cache = TileCache(10 * COST)
    slide = cache.tenant()
    slide.put("shown", tile(), Shelf.PASSING)
    assert slide.get("shown", touch=False) is not None
    assert slide.get("shown") is not None
    for k in range(100):
        slide.put(k, tile(), Shelf.PASSING)
    assert slide.get("shown") is not None


def test_dear_tiles_have_a_share_of_their_own() -> None:
    """Panning threw away the overview, which takes seconds to make again."""
    cache = TileCache(100 * COST)
    slide = cache.tenant()
    for k in range(20):
        slide.put(("overview", k), tile(), Shelf.DEAR)
    for k in range(1000):
        slide.put(k, tile())
    assert all(slide.get(("overview", k)) is not None for k in range(20))


def test_a_smaller_limit_holds_at_once() -> None:
    """A user who lowered the limit had to start the viewer again."""
    cache = TileCache(100 * COST)
    slide = cache.tenant()
    for k in range(100):
        slide.put(k, tile())
    cache.limit = 5 * COST
    assert 0 < cache.used <= 5 * COST
    cache.limit = 0
    assert cache.used == 0
    slide.put("x", tile())
    assert cache.used == 0


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "get", "close", "limit"]),
        st.integers(0, 2),  # slide
        st.integers(0, 12),  # tile
        st.sampled_from(list(Shelf)),
        st.integers(1, 40),  # side of the tile
    ),
    max_size=60,
)


@settings(max_examples=100, deadline=None)
@given(_STEPS)
def test_whatever_happens_the_books_are_right(steps: list[tuple[str, int, int, Shelf, int]]) -> None:
    """The count of bytes drifted away from what is held, so that the bound means nothing, or a wrong tile came back."""
    cache = TileCache(20_000)
    slides = [cache.tenant() for _ in range(3)]
    truth: list[dict[int, Tile]] = [{} for _ in slides]
    for what, k, key, shelf, side in steps:
        if what == "put":
            made = tile(side=side)
            if slides[k].get(key, touch=False) is None:
                truth[k][key] = made
            slides[k].put(key, made, shelf)
        elif what == "get":
            found = slides[k].get(key)
            assert found is None or found is truth[k][key]
        elif what == "close":
            slides[k].close()
            slides[k], truth[k] = cache.tenant(), {}
        else:
            cache.limit = 1000 * side
        held = [slides[k].get(key, touch=False) for k in range(3) for key in truth[k]]
        assert cache.used == sum(t.nbytes + ENTRY_BYTES for t in held if t is not None)
        assert cache.used <= cache.limit


def test_threads_share_it() -> None:
    """Two threads at once broke the count or the order."""
    cache = TileCache(30 * COST)
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            for _ in range(4):
                slide = cache.tenant()
                for k in rng.integers(0, 60, 200).tolist():
                    found = slide.get(k)
                    assert found is None or found.pixels[0, 0, 0] == k
                    slide.put(k, tile(k), Shelf(k % 3))
                slide.close()
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert cache.used == 0


def test_there_is_one_for_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten slides took ten times the memory the user allowed."""
    monkeypatch.setattr(module, "_shared", None)
    monkeypatch.setenv("SLNPREDICT_MEMORY_MB", "7")
    assert shared_cache().limit == 7 << 20
    assert shared_cache(9) is shared_cache()
    assert shared_cache().limit == 9 << 20
