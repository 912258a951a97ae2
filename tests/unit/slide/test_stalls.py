"""Slides on a share that stops answering."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from napari_slnpredict.errors import SlideStalled
from napari_slnpredict.slide.blocks import plan_blocks, read_block
from napari_slnpredict.slide.grid import GridSpec, lay_grid
from napari_slnpredict.slide.handle import SlideFile
from napari_slnpredict.slide.slide import Slide, open_slide
from napari_slnpredict.slide.tissue import find_tissue, tissue_from_mask

from .made_slides import picture, stored, write_aperio


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = picture(1003, 700)
    return write_aperio(tmp_path_factory.mktemp("slide") / "case 7.svs", [base, base[::4, ::4][:175, :250].copy()])


class Share:
    """A network share that stops answering: reads hang until it is back."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.back, self.silent = threading.Event(), False
        read = SlideFile._read

        def hang(file: SlideFile, offset: int, length: int) -> bytes:
            if self.silent:
                self.back.wait(20)
            return read(file, offset, length)

        monkeypatch.setattr(SlideFile, "_read", hang)
        monkeypatch.setattr("napari_slnpredict.slide.slide.is_far", lambda path: True)
        # Long while the share answers: on a busy machine a read may take a while.
        monkeypatch.setenv("SLNPREDICT_STALL_SECONDS", "20")

    def fall_silent(self, slide: Slide) -> None:
        """From now on no read comes back; the slide's patience is short."""
        patience = slide.tiles._patience
        assert patience is not None
        patience._seconds, self.silent = 0.1, True


@pytest.fixture
def share(monkeypatch: pytest.MonkeyPatch) -> Iterator[Share]:
    share = Share(monkeypatch)
    yield share
    share.back.set()
    deadline = time.monotonic() + 5
    while any(t.name == "slnpredict-read" for t in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.01)


def test_a_slide_on_a_share_reads_as_any_other(path: Path, share: Share) -> None:
    """Reads handed to threads of their own lost or changed pixels."""
    truth = stored(path, 1003, 700)
    with open_slide(path) as slide:
        assert np.array_equal(slide.read_region((0, 0), 0, slide.dimensions), truth)
        assert np.array_equal(slide.read_level(0, 70, 30, 500, 400, passing=True)[0], truth[30:430, 70:570])
        slide.unchanged()


def test_a_share_that_stops_answering_is_named(path: Path, share: Share) -> None:
    """A command hung for ever on a dead share, or went on with white pixels."""
    with open_slide(path, memory_mb=0) as slide:
        slide.read_region((0, 0), 0, (64, 64))
        share.fall_silent(slide)
        start = time.monotonic()
        for read in (slide.read_region, slide.read_region_mask):
            with pytest.raises(SlideStalled, match="does not answer") as error:
                read((0, 0), 0, (500, 500))
            assert path.name in str(error.value)
        with pytest.raises(SlideStalled):
            slide.read_level(0, 0, 0, 300, 300, passing=True)
        with pytest.raises(SlideStalled):
            slide.content_id  # noqa: B018
        with pytest.raises(SlideStalled):
            slide.levels()[0][:100, :100].compute()
        assert time.monotonic() - start < 15
        assert slide.damaged == ()
        assert slide.tiles.waiting > 0
        assert slide.tiles._patience is not None
        slide.tiles._patience._seconds = 20
        share.silent = False
        share.back.set()
        deadline = time.monotonic() + 5
        while slide.tiles.waiting and time.monotonic() < deadline:
            time.sleep(0.01)
        assert np.array_equal(slide.read_region((0, 0), 0, (64, 64)), stored(path, 1003, 700)[:64, :64])


def test_opening_from_a_dead_share_has_an_end(path: Path, share: Share, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a slide on a dead share never returned."""
    monkeypatch.setenv("SLNPREDICT_STALL_SECONDS", "0.05")
    share.silent = True
    with pytest.raises(SlideStalled, match="does not answer"):
        open_slide(path)


def test_no_deadline_when_it_is_switched_off(path: Path, share: Share, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user of a slow tape library could not switch the deadline off."""
    monkeypatch.setenv("SLNPREDICT_STALL_SECONDS", "0")
    with open_slide(path) as slide:
        slide.read_region((0, 0), 0, (64, 64))
        assert not any(thread.name == "slnpredict-read" for thread in threading.enumerate())


def test_work_over_a_slide_ends_with_its_name(path: Path, share: Share) -> None:
    """Finding tissue or reading tiles for a network went on with white pixels, or never came back."""
    with open_slide(path, memory_mb=0) as slide:
        mask = np.ones((slide.dimensions[1] // 8, slide.dimensions[0] // 8), bool)
        grid = lay_grid(slide, tissue_from_mask(mask, 8 * slide.require_mpp()), GridSpec(64, 1.0))
        block = plan_blocks(grid)[0]
        assert len(read_block(slide, grid, block).pixels)
        share.fall_silent(slide)
        with pytest.raises(SlideStalled, match=path.name):
            read_block(slide, grid, block)
        with pytest.raises(SlideStalled, match=path.name):
            find_tissue(slide)
