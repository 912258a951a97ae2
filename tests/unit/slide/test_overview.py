"""The slide at a few um a pixel: what it shows lies where it lies, and reading it is bounded."""

from __future__ import annotations

import numpy as np
import pytest

from napari_slnpredict.slide import overview as module
from napari_slnpredict.slide.overview import overview

from .fakes import ArraySlide


@pytest.mark.parametrize(("mpp", "factors"), [(1.0, (1, 4, 16)), (0.47, (1, 4, 8)), (2.3, (1,)), (3.0, (1, 2))])
def test_overview_is_the_mean_of_what_it_covers(
    mpp: float, factors: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mask shifted against the slide would put tiles beside the tissue; strips must not show."""
    rows, columns = np.mgrid[:530, :610]
    pixels = np.stack([rows * 255 / 530, columns * 255 / 610, 0 * rows], -1).astype(np.uint8)
    slide = ArraySlide(pixels, mpp, factors)
    whole, valid = overview(slide, 8.0)  # type: ignore[arg-type]
    scale = 8 / mpp
    assert whole.shape[:2] == (int(np.ceil(530 / scale)), int(np.ceil(610 / scale)))
    assert valid[:-1, :-1].all()
    centres = (np.arange(whole.shape[0] - 1) + 0.5) * scale * 255 / 530
    # Half a pixel of the coarsest level is the most that levels of odd sizes can be off.
    slack = 1.0 + max(factors) * 255 / 530
    assert np.abs(whole[:-1, 0, 0] - centres).max() <= slack
    centres = (np.arange(whole.shape[1] - 1) + 0.5) * scale * 255 / 610
    assert np.abs(whole[0, :-1, 1] - centres).max() <= slack
    monkeypatch.setattr(module, "STRIP_PX", 3000)
    again, valid_again = overview(slide, 8.0)  # type: ignore[arg-type]
    assert np.array_equal(again, whole)
    assert np.array_equal(valid_again, valid)
    assert max(w * h for _, _, _, w, h in slide.reads[1:]) < 6000


def test_unreadable_parts_do_not_darken_or_whiten_their_neighbours() -> None:
    """A pixel half unreadable is the mean of its readable half; less than half readable, it is not known."""
    pixels = np.full((64, 64, 3), 100, np.uint8)
    slide = ArraySlide(pixels, 1.0, unreadable=((0, 0, 4, 8), (16, 0, 5, 8)))
    whole, valid = overview(slide, 8.0)  # type: ignore[arg-type]
    assert valid[0, 0]
    assert whole[0, 0].tolist() == [100, 100, 100]
    assert not valid[0, 2]
    assert whole[0, 2].tolist() == [255, 255, 255]
    assert valid[1:].all()


def test_a_damaged_coarse_tile_is_read_from_a_finer_level() -> None:
    """A damaged tile of the overview covers square millimetres: tissue in it must not vanish without a word."""
    pixels = np.full((512, 512, 3), 120, np.uint8)
    slide = ArraySlide(pixels, 1.0, (1, 2, 4), unreadable=((64, 64, 128, 128),), bad_level=2)
    whole, valid = overview(slide, 8.0)  # type: ignore[arg-type]
    assert valid.all()
    assert (whole == 120).all()
    fine = [(level, w, h) for level, _, _, w, h in slide.reads if level == 1]
    assert fine == [(1, 64, 64)]  # no more of the finer level than what is missing


def test_what_no_level_holds_stays_unknown() -> None:
    """Damage on every level cannot be mended, and must not be made up."""
    pixels = np.full((512, 512, 3), 120, np.uint8)
    slide = ArraySlide(pixels, 1.0, (1, 2, 4), unreadable=((64, 64, 128, 128),))
    _, valid = overview(slide, 8.0)  # type: ignore[arg-type]
    assert not valid[8:24, 8:24].any()
    assert valid[:8].all()
