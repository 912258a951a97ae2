"""Tiles straight from slides: what is left out is named, what breaks is replaced, the same rows give the same tiles."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from slide.made_slides import spoil_tile

from napari_slnpredict.cohort.table import Row, read_cohort
from napari_slnpredict.encode import sampling
from napari_slnpredict.encode.joined_tiles import joined
from napari_slnpredict.encode.prefetch import prefetch
from napari_slnpredict.encode.sampling import SlideTiles, slide_tiles
from napari_slnpredict.encode.tile_table import TileData
from napari_slnpredict.errors import DataError
from napari_slnpredict.events import Event, Progress, Stage, Warn, run
from napari_slnpredict.slide.grid import GridSpec
from napari_slnpredict.slide.slide import open_slide

from .made_cohort import tissue_slide

SPEC = GridSpec(64, 1.0, min_tissue=0.5)


@pytest.fixture
def cohort(tmp_path: Path) -> list[Row]:
    """Three slides of two patients and two sites; the third one without patient."""
    paths = [tissue_slide(tmp_path / f"s{k}.svs", seed=k) for k in range(3)]
    facts = [("p1", "tumour", "north"), ("p1", "none", "north"), ("", "none", "")]
    return [
        Row(k, path, patient=patient, label=label, site=site)
        for k, (path, (patient, label, site)) in enumerate(zip(paths, facts, strict=True))
    ]


def found(rows: list[Row], spec: GridSpec = SPEC, **options: int) -> tuple[SlideTiles, list[str]]:
    events: list[Event] = []
    tiles = run(slide_tiles(rows, spec, **options), events.append)
    assert isinstance(events[0], Stage)
    return tiles, [event.message for event in events if isinstance(event, Warn)]


def test_tiles_of_a_cohort(cohort: list[Row]) -> None:
    """The table must say of every tile whose it is: splits, draws and labels all hang on it."""
    tiles, warnings = found(cohort)
    with tiles:
        table, data = tiles.table, tiles
        assert warnings == []
        assert isinstance(data.tile_px, int)
        assert (tiles.tile_px, tiles.mpp) == (64, 1.0)
        assert table.classes == ("none", "tumour")
        first_of = [int(np.flatnonzero(table.slide == k)[0]) for k in range(3)]
        assert [int(table.label[row]) for row in first_of] == [1, 0, 0]
        groups = [int(table.group[row]) for row in first_of]
        assert groups[0] == groups[1] != groups[2]
        assert [int(table.site[row]) for row in first_of] == [1, 1, 0]
        assert (table.component > 0).all()
        assert table.patients == ("p1",)
        assert len({facts.content_id for facts in table.slides}) == 3


def test_tiles_are_the_slides_pixels(cohort: list[Row]) -> None:
    """A tile must lie where its centre says."""
    tiles, _ = found(cohort)
    rows = np.array([5, 0, len(tiles.table) - 1, 5])
    with tiles:
        pixels = tiles.read(rows)
        for k, row in enumerate(rows.tolist()):
            slide = int(tiles.table.slide[row])
            x, y = (int(v) for v in tiles.table.centre_um[row] - 32)
            with open_slide(cohort[slide].path) as opened:
                assert np.array_equal(pixels[k], opened.read_region((x, y), 0, (64, 64)))
    assert np.array_equal(pixels[0], pixels[3])


def test_what_cannot_be_used_is_named(cohort: list[Row], tmp_path: Path) -> None:
    """A night's training must neither stop at one bad file nor drop it in silence."""
    broken = tmp_path / "broken.svs"
    broken.write_bytes(b"no slide")
    empty = tissue_slide(tmp_path / "empty.svs", glass=True)
    copy = tmp_path / "copy.svs"
    shutil.copy(cohort[0].path, copy)
    coarse = tissue_slide(tmp_path / "coarse.svs", seed=7, mpp="4.0")
    finer = tissue_slide(tmp_path / "enlarged.svs", seed=8, mpp="1.5")
    extra = [Row(9, path) for path in (broken, empty, copy, coarse, finer, tmp_path / "absent.svs")]
    tiles, warnings = found([cohort[0], *extra, cohort[1]])
    with tiles:
        assert [facts.slide_id for facts in tiles.table.slides] == ["s0", "enlarged", "s1"]
    told = "\n".join(warnings)
    for name in ("broken.svs", "empty.svs", "copy.svs", "coarse.svs", "absent.svs"):
        assert f"left out: {name}" in told
    assert "the same slide as s0.svs" in told
    assert "enlarged.svs: its tiles are enlarged 1.5 times" in told


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    """Training on nothing would fail an hour later with a message about shapes."""
    with pytest.raises(DataError, match="none of 1 slides"):
        found([Row(0, tissue_slide(tmp_path / "empty.svs", glass=True))])


def test_few_of_each_slide(cohort: list[Row]) -> None:
    """A cap must keep tiles of all parts of a slide, not its top."""
    tiles, _ = found(cohort, most=5)
    with tiles:
        assert np.bincount(tiles.table.slide).tolist() == [5, 5, 5]
        own = tiles.table.centre_um[tiles.table.slide == 0]
        assert np.ptp(own[:, 1]) > 200
        assert tiles.read(np.arange(15)).shape == (15, 64, 64, 3)


def test_a_damaged_tile_is_replaced(tmp_path: Path) -> None:
    """White squares taught as tissue would be a class of their own."""
    path = tissue_slide(tmp_path / "s.svs")
    whole, _ = found([Row(0, path)])
    with whole:
        before = whole.read(np.arange(len(whole.table)))
    spoil_tile(path, 27)
    tiles, _ = found([Row(0, path)])
    with tiles:
        after = tiles.read(np.arange(len(tiles.table)))
        again = tiles.read(np.arange(len(tiles.table)))
        assert len(before) == len(after)
        changed = np.flatnonzero((before != after).any(axis=(1, 2, 3)))
        assert 0 < len(changed) < 10
        assert np.array_equal(after, again), "the same damage must give the same batch"
        assert all((after[k] == before).all(axis=(1, 2, 3)).any() for k in changed), "stand-ins are tiles of the slide"
        assert any("stood in" in note for note in tiles.notes)


def test_a_slide_that_goes_away_is_replaced(cohort: list[Row]) -> None:
    """A share that loses a file in the night costs that file's tiles; the label stays right."""
    tiles, _ = found(cohort)
    with tiles:
        cohort[1].path.unlink()
        rows = np.flatnonzero(tiles.table.slide == 1)[:6]
        pixels = tiles.read(rows)
        same_label = np.flatnonzero(tiles.table.slide == 2)
        others = tiles.read(same_label)
        assert all((others == one).all(axis=(1, 2, 3)).any() for one in pixels)
        assert any("s1.svs" in note for note in tiles.notes)
        for row in cohort:
            row.path.unlink(missing_ok=True)
        tiles.close()
        with pytest.raises(DataError, match="could not be read"):
            tiles.read(rows)


def test_many_threads_few_handles(cohort: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand slides must not need a thousand open files, and no slide may close while it is read."""
    monkeypatch.setattr(sampling, "OPEN_SLIDES", 1)
    opened: list[int] = []
    most, lock = [0], threading.Lock()
    real = sampling.open_slide

    def counted(*arguments: object, **named: object) -> object:
        slide = real(*arguments, **named)  # type: ignore[arg-type]
        with lock:
            opened.append(1)
            most[0] = max(most[0], len(opened))
        close = slide.close

        def closed() -> None:
            with lock:
                opened.pop()
            close()

        slide.close = closed  # type: ignore[method-assign]
        return slide

    tiles, _ = found(cohort)
    monkeypatch.setattr(sampling, "open_slide", counted)
    with tiles:
        rng = np.random.default_rng(0)
        wanted = [rng.integers(0, len(tiles.table), 4) for _ in range(40)]
        alone = [tiles.read(rows) for rows in wanted]
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(tiles.read, wanted))
        assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))
        assert not tiles.notes
    assert opened == []
    assert most[0] <= 3


def test_read_ahead(cohort: list[Row]) -> None:
    """The loop's reader and this source fit together."""
    tiles, _ = found(cohort)
    data: TileData = tiles
    with tiles:
        steps = list(prefetch(data.read, lambda step: np.array([step, step + 1]), 0, 5, threads=2))
        assert [step for step, _, _ in steps] == list(range(5))
        assert np.array_equal(steps[3][2], tiles.read(np.array([3, 4])))


def test_a_long_search_tells_how_far(cohort: list[Row]) -> None:
    """Finding the tiles of a thousand slides takes minutes: the user must see it move."""
    events: list[Event] = []
    tiles = run(slide_tiles(cohort, SPEC), events.append)
    tiles.close()
    assert any(isinstance(event, Progress) and event.total == 3 for event in events)


# --- several sources --------------------------------------------------------------------------------------------------


def test_joined_sources(cohort: list[Row]) -> None:
    """One patient in two sources must stay one group, or a split would put it on both sides."""
    first, _ = found(cohort[:1])
    second, _ = found(cohort[1:])
    with first, second:
        both = joined([first, second])
        whole, _ = found(cohort)
        with whole:
            assert both.table.classes == whole.table.classes
            assert both.table.slides == whole.table.slides
            for name in ("slide", "label", "centre_um", "component"):
                assert np.array_equal(getattr(both.table, name), getattr(whole.table, name))
            assert len(np.unique(both.table.group)) == len(np.unique(whole.table.group)) == 2
            rows = np.array([0, len(both.table) - 1, len(first.table), 3])
            assert np.array_equal(both.read(rows), whole.read(rows))


def test_sources_that_do_not_fit_are_refused(cohort: list[Row]) -> None:
    """Tiles of two resolutions in one training teach size as a feature."""
    first, _ = found(cohort[:1])
    second, _ = found(cohort[1:2], GridSpec(64, 2.0))
    with first, second, pytest.raises(DataError, match="do not belong"):
        joined([first, second])


# --- the real cohort --------------------------------------------------------------------------------------------------


def test_real_slides(shared: Path) -> None:
    """Real slides of mixed resolution give tiles at 2 um/px, each patient a group."""
    rows = [row for row in read_cohort(shared / "cohort/cohort.csv").rows if row.stain == "HE"][:4]
    tiles, warnings = found(rows, GridSpec(96, 2.0, min_tissue=0.5), most=30)
    with tiles:
        assert warnings == []
        assert len(tiles.table.slides) == 4
        assert len(np.unique(tiles.table.group)) == len({row.patient for row in rows})
        pixels = tiles.read(np.arange(0, len(tiles.table), 7))
        assert (pixels.mean(axis=(1, 2, 3)) < 235).all()
