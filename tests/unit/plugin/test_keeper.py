"""Who closes a slide, and when."""

from __future__ import annotations

from napari_slnpredict.plugin.keeper import Keeper


class Slide:
    closed = 0

    def close(self) -> None:
        self.closed += 1


def test_idle_slide_closes_at_once() -> None:
    """A removed layer's file would stay open."""
    slide = Slide()
    keeper = Keeper(slide)
    keeper.retire()
    assert slide.closed == 1
    assert keeper.hold() is None
    assert keeper.slide is None


def test_slide_in_use_closes_with_its_last_reader() -> None:
    """A job would read from a closed file, or the file would never close."""
    slide = Slide()
    keeper = Keeper(slide)
    first, second = keeper.hold(), keeper.hold()
    assert first is not None
    assert second is not None
    keeper.retire()
    first()
    first()  # letting go twice must not count twice
    assert slide.closed == 0
    second()
    assert slide.closed == 1
