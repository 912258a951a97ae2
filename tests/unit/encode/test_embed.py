"""Embedding: complete, resumable at every moment, first where one looks, and never a guess."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_slnpredict.encode import embed as module
from napari_slnpredict.encode import store as store_module
from napari_slnpredict.encode import workers as workers_module
from napari_slnpredict.encode.embed import embed, wanted_first
from napari_slnpredict.encode.features import Bag, read_features
from napari_slnpredict.encode.store import Chunk, FeatureStore
from napari_slnpredict.errors import BundleMismatch, Cancelled, CorruptSlide, DataError, ResourceError
from napari_slnpredict.events import Event, Partial, Progress, Stage, Warn, run
from napari_slnpredict.files import work_lock
from napari_slnpredict.provenance import Stopwatch
from napari_slnpredict.slide.grid import TileGrid

from .made import TILE, FakeEngine, Slide, chunks_in, expected, make_encoder, make_grid


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_TILES", 16)


def go(
    cache: Path,
    slide: Slide | None = None,
    grid: TileGrid | None = None,
    engine: FakeEngine | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    cancelled: Callable[[], bool] = lambda: False,
    **options: Any,
) -> Bag:
    """Run a job to its end."""
    options.setdefault("encoder", make_encoder())
    encoder = options.pop("encoder")
    grid = make_grid() if grid is None else grid
    job = embed(slide or Slide(), grid, encoder, cache=cache, engine=engine or FakeEngine(), **options)
    return run(job, on_event, cancelled)


def our_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("slnpredict-embed")]


def test_every_tile_gets_its_own_feature(tmp_path: Path) -> None:
    """Features would belong to other tiles than the map says."""
    slide, grid, events = Slide(), make_grid(), []
    watch = Stopwatch()
    bag = go(tmp_path, slide, grid, on_event=events.append, watch=watch)
    np.testing.assert_array_equal(bag.features, expected(slide, grid))
    assert not bag.damaged.any()
    assert bag.path is not None
    assert chunks_in(tmp_path) == []
    assert [path.name for path in bag.path.parent.iterdir()] == ["features.h5"]
    assert isinstance(events[0], Stage)
    assert [event for event in events if isinstance(event, Progress)][-1].done == len(grid)
    assert set(watch.seconds) == {"read", "encode", "write"}
    assert our_threads() == []


def test_partial_results_tell_each_tile_once(tmp_path: Path) -> None:
    """A map painted while embedding would miss tiles or count some twice."""
    slide, grid = Slide(), make_grid()
    told: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []

    def on_event(event: Event) -> None:
        if isinstance(event, Partial):
            told.append(event.data)

    go(tmp_path, slide, grid, FakeEngine(seconds=0.02), on_event)
    indices = np.concatenate([part[0] for part in told])
    assert sorted(indices.tolist()) == list(range(len(grid)))
    np.testing.assert_array_equal(np.concatenate([part[1] for part in told]), expected(slide, grid)[indices])
    assert len(told) > 1


def test_events_are_few(tmp_path: Path) -> None:
    """More than 20 events a second starve the window that shows them."""
    times: list[float] = []
    start = time.monotonic()
    go(tmp_path, engine=FakeEngine(batch=1, seconds=0.005), on_event=lambda event: times.append(time.monotonic()))
    assert len(times) <= 8 + 20 * (time.monotonic() - start)


def test_found_in_the_cache(tmp_path: Path) -> None:
    """The viewer would compute again what the command has computed."""
    first = go(tmp_path)
    engine, events = FakeEngine(), []
    renamed = make_grid(slide_id="renamed")
    second = go(tmp_path, grid=renamed, engine=engine, on_event=events.append)
    assert engine.count == 0
    np.testing.assert_array_equal(first.features, second.features)
    assert second.grid.slide_id == "renamed"
    assert sum(len(event.data[0]) for event in events if isinstance(event, Partial)) == len(renamed)
    other = FakeEngine()
    go(tmp_path, engine=other, encoder=make_encoder("other"))
    assert other.count == len(renamed)


@pytest.mark.parametrize("stop_after", [0, 1, 2, 3, 5, 8])
def test_closed_at_any_event_and_resumed(tmp_path: Path, stop_after: int) -> None:
    """A cancelled run would lose work, or end with other features than an uninterrupted one."""
    slide, grid, engine = Slide(), make_grid(), FakeEngine(seconds=0.02)
    job = embed(slide, grid, make_encoder(), cache=tmp_path, engine=engine)
    for _ in range(stop_after + 1):
        next(job)
    start = time.monotonic()
    job.close()
    assert time.monotonic() - start < 2
    assert our_threads() == []
    kept = engine.count
    again = FakeEngine()
    bag = go(tmp_path, slide, grid, again)
    np.testing.assert_array_equal(bag.features, expected(slide, grid))
    assert again.count == len(grid) - kept, "finished tiles were computed again"


def test_cancelled_by_the_driver(tmp_path: Path) -> None:
    """Ctrl-C would lose the chunk under way."""
    engine = FakeEngine(seconds=0.02)
    with pytest.raises(Cancelled):
        go(tmp_path, engine=engine, cancelled=lambda: engine.count > 20)
    found = sum(len(chunk) for chunk in made_store(tmp_path).new_chunks())
    assert found == engine.count > 20


def made_store(cache: Path, slide: Slide | None = None, grid: TileGrid | None = None) -> FeatureStore:
    encoder = make_encoder()
    return FeatureStore(
        cache,
        (slide or Slide()).content_id,
        grid or make_grid(),
        encoder_name=encoder.name,
        encoder_digest=encoder.digest,
        precision="float32",
        dim=encoder.dim,
    )


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from encode.made import FakeEngine, Slide, make_encoder, make_grid
from napari_slnpredict.encode import embed as module
from napari_slnpredict.events import run
module.CHUNK_TILES = 16

class Dying(FakeEngine):
    def __call__(self, tiles, *, fill=True):
        if self.count >= int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(tiles)

run(module.embed(Slide(), make_grid(), make_encoder(), cache=Path(sys.argv[2]), engine=Dying(seconds=0.01)))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 on this system")
def test_killed_and_resumed(tmp_path: Path) -> None:
    """A kill -9 would cost more than one chunk, or leave a torn file that is trusted."""
    slide, grid, tests = Slide(), make_grid(), Path(__file__).parents[1]
    done = 0
    for limit in (30, 25):
        arguments = [sys.executable, "-c", KILLED, str(tests), str(tmp_path), str(limit)]
        assert subprocess.run(arguments, check=False, timeout=60).returncode == -signal.SIGKILL
        # Chunks of 16, two threads with a batch of 4 each in their hands.
        done += limit
        found = sum(len(chunk) for chunk in made_store(tmp_path).new_chunks())
        assert found >= done - 16 - 8
        done = found
    engine = FakeEngine()
    bag = go(tmp_path, slide, grid, engine)
    np.testing.assert_array_equal(bag.features, expected(slide, grid))
    assert engine.count == len(grid) - done


def test_torn_and_foreign_chunks_are_computed_again(tmp_path: Path) -> None:
    """A damaged chunk would end in the features as if it were good."""
    slide, grid = Slide(), make_grid()
    engine = FakeEngine(seconds=0.02)
    with pytest.raises(Cancelled):
        go(tmp_path, slide, grid, engine, cancelled=lambda: engine.count >= 60)
    chunks = chunks_in(tmp_path)
    assert len(chunks) >= 3
    flipped = bytearray(chunks[0].read_bytes())
    flipped[-3] ^= 4
    chunks[0].write_bytes(flipped)
    chunks[1].write_bytes(chunks[1].read_bytes()[:-10])
    other = FeatureStore(
        tmp_path / "other", "f" * 64, grid, encoder_name="x", encoder_digest="d" * 64, precision="float32", dim=4
    )
    foreign = other.seal(Chunk(np.arange(16), np.ones((16, 4), np.float32), np.zeros(16, bool)))
    (chunks[0].parent / "00000000-foreign.chunk").write_bytes(foreign.read_bytes())
    (chunks[0].parent / "00000000-empty.chunk").write_bytes(b"")
    bag = go(tmp_path, slide, grid)
    np.testing.assert_array_equal(bag.features, expected(slide, grid))
    assert chunks_in(tmp_path / slide.content_id) == []


def test_a_damaged_file_of_features_is_computed_again(tmp_path: Path) -> None:
    """One flipped bit in the cache would change every later answer, or stop them all."""
    slide, grid = Slide(), make_grid()
    bag = go(tmp_path, slide, grid)
    assert bag.path is not None
    data = bytearray(bag.path.read_bytes())
    at = data.find(expected(slide, grid)[3].tobytes())
    assert at > 0
    data[at] ^= 1
    bag.path.write_bytes(data)
    events: list[Event] = []
    again = go(tmp_path, slide, grid, on_event=events.append)
    np.testing.assert_array_equal(again.features, expected(slide, grid))
    assert any(isinstance(event, Warn) and "computed again" in event.message for event in events)
    np.testing.assert_array_equal(read_features(bag.path).features, again.features)


def test_tiles_in_view_come_first(tmp_path: Path) -> None:
    """The map would appear where nobody looks."""
    grid = make_grid(40, 40)
    slide = Slide(40, 40)
    view = np.flatnonzero((grid.cells[:, 0] >= 28) & (grid.cells[:, 1] >= 28))
    asked: list[int] = []

    def order(asked_grid: TileGrid, remaining: NDArray[np.int64]) -> NDArray[np.int64]:
        assert asked_grid is grid
        asked.append(len(remaining))
        return view

    told: list[int] = []

    def on_event(event: Event) -> None:
        if isinstance(event, Partial):
            told.extend(event.data[0].tolist())

    with pytest.raises(Cancelled):
        go(tmp_path, slide, grid, FakeEngine(seconds=0.01), on_event, lambda: len(told) >= len(view) - 32, order=order)
    assert set(told[: len(view) - 32]) <= set(view.tolist())
    assert len(asked) >= 2, "the order must be asked again while it runs"


def test_an_order_may_be_careless() -> None:
    """A view that names tiles twice, done ones or none would lose tiles."""
    remaining = np.array([1, 3, 5, 7])
    assert wanted_first(np.array([5, 5, 2, 3]), remaining).tolist() == [5, 3, 1, 7]
    assert wanted_first(np.array([], np.int64), remaining).tolist() == [1, 3, 5, 7]


def test_two_at_one_slide_share_the_work(tmp_path: Path) -> None:
    """The viewer and the command at the same slide would disturb each other."""
    slide, grid = Slide(20, 20), make_grid(20, 20)
    engines = [FakeEngine(seconds=0.02), FakeEngine(seconds=0.02)]
    bags: list[Bag] = []
    threads = [
        threading.Thread(target=lambda engine=engine: bags.append(go(tmp_path, slide, grid, engine)))
        for engine in engines
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(bags) == 2
    for bag in bags:
        np.testing.assert_array_equal(bag.features, expected(slide, grid))
    assert sum(engine.count for engine in engines) < 1.6 * len(grid), "the work was not shared"
    assert chunks_in(tmp_path) == []


def test_a_lock_left_by_the_living_stops_nobody(tmp_path: Path) -> None:
    """A hanging process would block its slide for ever."""
    slide, grid = Slide(), make_grid()
    with work_lock(made_store(tmp_path).lock_path) as taken:
        assert taken
        bag = go(tmp_path, slide, grid)
    np.testing.assert_array_equal(bag.features, expected(slide, grid))


def test_damaged_tiles_never_reach_the_encoder(tmp_path: Path) -> None:
    """A white patch that stands for a damaged one would be judged as tissue."""
    slide, grid = Slide(unreadable=((20, 20, 5, 5),)), make_grid()
    events: list[Event] = []
    engine = FakeEngine()
    bag = go(tmp_path, slide, grid, engine, events.append)
    assert np.flatnonzero(bag.damaged).tolist() == [9 + 1]
    assert not bag.features[10].any()
    assert engine.count == len(grid) - 1
    assert bag.too_damaged, "1 of 81 is more than one per cent"
    assert bag.kept.tolist() == [i for i in range(81) if i != 10]
    told = [i for event in events if isinstance(event, Partial) for i in event.data[0].tolist()]
    assert 10 not in told
    assert any(isinstance(event, Warn) and "no verdict" in event.message for event in events)
    events.clear()
    assert go(tmp_path, slide, grid, on_event=events.append).damaged.sum() == 1
    assert any(isinstance(event, Warn) for event in events), "a cached bag must warn as a fresh one"


def test_a_feature_that_is_not_a_number_names_its_tile(tmp_path: Path) -> None:
    """NaN would spread to the whole slide's answer."""
    slide, grid, engine = Slide(), make_grid(), FakeEngine()
    engine.poison = expected(slide, grid)[40]
    with pytest.raises(DataError, match=rf"tile 40 at \({4 * TILE}, {4 * TILE}\)"):
        go(tmp_path, slide, grid, engine)
    assert our_threads() == []


def test_a_slide_exchanged_under_way_is_noticed(tmp_path: Path) -> None:
    """Pixels of another file would be kept under the first one's identity."""
    slide = Slide()
    slide.changed = True
    with pytest.raises(CorruptSlide):
        go(tmp_path, slide)
    assert chunks_in(tmp_path) == []


def test_an_error_in_a_thread_arrives_and_what_was_done_stays(tmp_path: Path) -> None:
    """A worker's exception would end in silence, with the progress bar standing still."""
    engine = FakeEngine(fail_at=8, seconds=0.01, error=ZeroDivisionError("odd kernel"))
    with pytest.raises(ZeroDivisionError, match="odd kernel"):
        go(tmp_path, engine=engine)
    assert our_threads() == []
    assert engine.released == 1
    assert sum(len(chunk) for chunk in made_store(tmp_path).new_chunks()) == engine.count


def test_a_full_disk_keeps_what_was_sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk would destroy earlier chunks or pass as success."""
    slide, grid, real = Slide(), make_grid(), store_module.write_file
    written: list[Path] = []

    def write(path: Path, data: Any) -> Path:
        if len(written) >= 2:
            raise ResourceError("the disk is full", file=path)
        written.append(path)
        return real(path, data)

    monkeypatch.setattr(store_module, "write_file", write)
    with pytest.raises(ResourceError, match="the disk is full"):
        go(tmp_path, slide, grid)
    monkeypatch.undo()
    assert sum(len(chunk) for chunk in made_store(tmp_path).new_chunks()) == 32
    np.testing.assert_array_equal(go(tmp_path, slide, grid).features, expected(slide, grid))


def test_a_cache_that_cannot_be_written_is_told_before_the_work(tmp_path: Path) -> None:
    """An hour's work would end in an error that could have come first."""
    (tmp_path / "cache").write_text("a file stands here")
    engine = FakeEngine()
    with pytest.raises(ResourceError):
        go(tmp_path / "cache", engine=engine)
    assert engine.count == 0


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    """Tiles at another resolution than the encoder's would get features that mean nothing."""
    import dataclasses

    coarse = dataclasses.replace(make_encoder(), mpp=(2.0, 4.0))
    with pytest.raises(BundleMismatch, match="2 to 4 um/px"):
        go(tmp_path, encoder=coarse)


def test_no_tissue_is_an_empty_bag(tmp_path: Path) -> None:
    """A slide without tissue would crash instead of saying so."""
    grid = make_grid()
    empty = TileGrid(
        grid.spec, "array", 1.0, grid.extent, grid.size_level0, grid.locations[:0], grid.tissue[:0],
        grid.component[:0], grid.cells[:0], grid.shape,
    )  # fmt: skip
    bag = go(tmp_path, grid=empty)
    assert len(bag) == 0
    assert bag.features.shape == (0, 4)
    assert not bag.too_damaged


def test_warnings_reach_the_user(tmp_path: Path) -> None:
    """Random weights or a shrunken batch would stay a secret."""
    engine, events = FakeEngine(), []
    engine.notices = ["not enough memory on cuda:0: 32 tiles at a time now"]
    go(tmp_path, engine=engine, encoder=make_encoder(warning="random weights"), on_event=events.append)
    warned = [event.message for event in events if isinstance(event, Warn)]
    assert warned == ["random weights", "not enough memory on cuda:0: 32 tiles at a time now"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="niceness is by thread on Linux only")
def test_threads_step_back_beside_a_window(tmp_path: Path) -> None:
    """The window would stutter while a model runs."""
    found: list[int] = []

    class Asking(FakeEngine):
        def enter_thread(self) -> None:
            found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    go(tmp_path, engine=Asking(), nice=10)
    assert found == [10, 10]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


def test_two_threads_stand_aside_while_the_camera_moves(tmp_path: Path) -> None:
    """Frames would come unevenly while a user pans over a slide under work; or many cores would stand still for it."""
    passes: dict[bool, list[int]] = {True: [], False: []}  # which threads embedded, while it moved and afterwards
    moving = threading.Event()
    moving.set()

    class Watched(FakeEngine):
        def __call__(self, tiles: NDArray[np.uint8], *, fill: bool = True) -> NDArray[np.float32]:
            passes[moving.is_set()].append(threading.get_ident())
            if self.count > 150:
                moving.clear()
            return super().__call__(tiles, fill=fill)

    go(tmp_path, Slide(30, 30), make_grid(30, 30), Watched(streams=3, seconds=0.003), pressed=moving.is_set)
    by_thread = sorted(passes[True].count(thread) for thread in set(passes[False]))
    assert len(by_thread) == 3
    assert by_thread[2] > 30
    assert by_thread[1] <= 1  # begun before it asked


def test_a_camera_that_never_rests_only_slows_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run on a small machine would never end for a user who keeps panning, and Cancel would hang."""
    monkeypatch.setattr(workers_module, "_ASIDE_MOST", 0.02)
    bag = go(tmp_path, engine=FakeEngine(streams=1, batch=8), pressed=lambda: True)
    assert len(bag) == 81
    monkeypatch.setattr(workers_module, "_ASIDE_MOST", 60.0)
    engine, begin = FakeEngine(streams=1), time.monotonic()
    with pytest.raises(Cancelled):
        go(
            tmp_path, Slide(20, 20), make_grid(20, 20), engine, pressed=lambda: True,
            cancelled=lambda: time.monotonic() - begin > 0.3,
        )  # fmt: skip
    assert time.monotonic() - begin < 5
    assert not our_threads()


def test_slow_encoders_seal_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a slow encoder a kill would cost an hour, not a minute."""
    monkeypatch.setattr(module, "CHUNK_TILES", 10_000)
    monkeypatch.setattr(module, "SEAL_SECONDS", 0.1)
    seen: list[int] = []
    go(tmp_path, engine=FakeEngine(seconds=0.03), on_event=lambda event: seen.append(len(chunks_in(tmp_path))))
    assert max(seen) >= 2


FULL = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from encode.made import FakeEngine, Slide, make_encoder, make_grid
from napari_slnpredict.encode.embed import embed
from napari_slnpredict.errors import ResourceError
from napari_slnpredict.events import run
import h5py
resource.setrlimit(resource.RLIMIT_FSIZE, (8000, resource.RLIM_INFINITY))
try:
    run(embed(Slide(), make_grid(), make_encoder(), cache=Path(sys.argv[2]), engine=FakeEngine()))
except ResourceError as error:
    sys.stderr.write(f"{error.exit_code} {error}")
    sys.exit(3)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_FSIZE stands for the full disk")
def test_a_disk_that_fills_while_the_final_file_is_written(tmp_path: Path) -> None:
    """HDF5 on a full disk leaves a file that opens and lies; the chunks would already be gone."""
    slide, grid, tests = Slide(), make_grid(), Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tests), str(tmp_path)], check=False, timeout=60, capture_output=True, text=True
    )
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith("3 features.h5: the disk is full")
    assert not list(tmp_path.rglob("features.h5"))
    assert not list(tmp_path.rglob("*.part"))
    assert sum(len(chunk) for chunk in made_store(tmp_path).new_chunks()) == len(grid)
    engine = FakeEngine()
    np.testing.assert_array_equal(go(tmp_path, slide, grid, engine).features, expected(slide, grid))
    assert engine.count == 0
