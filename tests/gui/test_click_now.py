"""Clicks where no run has looked yet: before, during, after a stopped run, off the tiles, and while all is closing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fakes import FakeEngine, FakeRun, timed

from napari_slnpredict.plugin.layers import ROLE_KEY


def role(viewer: Any, name: str) -> Any:
    return next((layer for layer in viewer.layers if layer.metadata.get(ROLE_KEY) == name), None)


def middle(grid: Any, tile: int) -> tuple[float, float]:
    x, y = (grid.locations[tile] + grid.size_level0 / 2 - 0.5) * grid.slide_mpp
    return float(x), float(y)


def said(opened: Any) -> str:
    return str(opened.dock.here.lines.said)


def unseen_tile(opened: Any) -> int:
    """A tile of the growing map that nobody has looked at."""
    return int(np.flatnonzero(np.isnan(opened.controller.maps.values))[-1])


def start(opened: Any, wait: Any, run: FakeRun) -> None:
    opened.world.run = run
    opened.controller.run()
    wait(lambda: opened.controller.maps.values is not None)


def test_click_during_a_run_is_embedded_on_the_spot(opened: Any, wait: Any) -> None:
    """A click on a place the run has not reached would wait for it, or stop the run."""
    controller = opened.controller
    start(opened, wait, FakeRun(steps=200, seconds=0.03))
    tile = unseen_tile(opened)
    controller.ask_at(*middle(controller.maps.grid, tile))
    with timed(1.5):
        wait(lambda: controller.asks.here is not None)
    assert controller.asks.here.tile == tile
    assert controller.asks.here.picture is not None
    assert "2.5 × mean attention" in said(opened)
    assert "evidence +0.02 for positive" in said(opened)
    assert f"so far, of {controller.asks.here.tiles_so_far} tiles looked at" in said(opened)
    assert "Run" not in said(opened)
    assert controller.runs.running
    assert opened.world.run.engine.calls == ["slnpredict-click"]
    assert role(opened.viewer, "clicked tile") is not None
    wait(lambda: np.isfinite(controller.maps.values[tile]))
    controller.runs.abandon()


def test_click_after_a_stopped_run(opened: Any, wait: Any) -> None:
    """What was kept could not be asked about, or half a run would pass for an answer."""
    controller = opened.controller
    start(opened, wait, FakeRun(steps=100, seconds=0.02))
    controller.cancel()
    wait(lambda: not controller.runs.running)
    tile = unseen_tile(opened)
    controller.ask_at(*middle(controller.maps.grid, tile))
    wait(lambda: controller.asks.here is not None)
    assert "so far, of" in said(opened)
    assert "Press Run for the slide's answer" in said(opened)
    assert controller.answered is None
    wait(lambda: np.isfinite(controller.maps.values[tile]))


def test_click_before_any_run(opened: Any, wait: Any) -> None:
    """A lone tile would get the slide's probability, or the click would be silence."""
    controller = opened.controller
    controller.ask_at(512.0, 512.0)
    assert "Looking here" in said(opened)
    wait(lambda: controller.asks.here is not None)
    assert "mean attention" not in said(opened)
    assert "probability" not in said(opened)
    assert "of it is tissue" in said(opened)
    assert "Press Run for the slide's answer" in said(opened)
    assert controller.asks.here.picture is not None
    assert controller.maps.values is None  # a lone tile is no map
    assert role(opened.viewer, "tissue") is None
    assert role(opened.viewer, "clicked tile") is not None
    # A second place: the two are told apart.
    controller.ask_at(600.0, 600.0)
    wait(lambda: controller.asks.here.tiles_so_far == 2)
    assert "so far, of 2 tiles looked at" in said(opened)
    # Background, and then a run as if nothing had been.
    controller.ask_at(5.0, 5.0)
    assert said(opened) == "No tissue here"
    controller.run()
    wait(lambda: controller.answered is not None)


def test_first_click_on_background(opened: Any, wait: Any) -> None:
    """Glass would get a number, or be outlined."""
    opened.controller.ask_at(5.0, 5.0)
    wait(lambda: said(opened) == "No tissue here")
    assert role(opened.viewer, "clicked tile") is None
    assert opened.world.run.engine.calls == []


def test_another_model_forgets_the_first_clicks(opened: Any, wait: Any) -> None:
    """Tiles seen by one model would be compared with those of another."""
    controller = opened.controller
    for place in (500.0, 600.0):
        controller.ask_at(place, place)
        wait(lambda: controller.asks.here is not None)
    controller.runs.choose_model("another")
    controller.ask_at(550.0, 550.0)
    wait(lambda: controller.asks.here is not None)
    assert controller.asks.here.tiles_so_far == 1


def test_a_question_asked_too_early_is_kept(opened: Any, wait: Any) -> None:
    """A click in the second between Run and its first tiles would be lost."""
    controller = opened.controller
    opened.world.run = FakeRun(steps=300, seconds=0.03)
    controller.run()
    controller.ask_at(512.0, 512.0)
    assert "as soon as" in said(opened)
    wait(lambda: controller.asks.here is not None)
    assert controller.asks.here.tile is not None
    controller.runs.abandon()


def test_an_answer_so_far_becomes_the_final_one(opened: Any, wait: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The panel would go on saying "so far" beside a finished answer."""
    from napari_slnpredict.plugin import asks

    def click_job(slide: Any, head: Any, prediction: Any, point: Any) -> Any:
        from napari_slnpredict.events import Stage
        from napari_slnpredict.pipeline import ClickAnswer

        yield Stage("click", "")
        return ClickAnswer(3, (0, 0), np.zeros((64, 64, 3), np.uint8), 0.01, 6.2, 14)

    monkeypatch.setattr(asks, "click_job", click_job)
    controller = opened.controller
    start(opened, wait, FakeRun(steps=150, seconds=0.03))  # it must not end before the first answer is read
    controller.ask_at(512.0, 512.0)
    wait(lambda: controller.asks.here is not None)
    assert "so far" in said(opened)
    wait(lambda: controller.answered is not None)
    wait(lambda: "rank 14" in said(opened))
    assert "so far" not in said(opened)


def test_a_tile_left_out_says_why(opened: Any, wait: Any) -> None:
    """Tissue on the rim would be called glass, or counted as part of the answer."""
    controller = opened.controller
    controller.run()
    wait(lambda: controller.answered is not None)
    grid = controller.maps.grid
    # The rim: tissue that has no tile (the stand-in's tiles fill the middle of the piece only).
    x, y = (512.0 + 0.39 * 1024, 512.0)
    from napari_slnpredict.slide.grid import tile_at

    assert tile_at(grid, x / 0.5, y / 0.5) is None
    controller.ask_at(x, y)
    wait(lambda: controller.asks.here is not None)
    assert controller.asks.here.tile is None
    assert "if it were looked at beside the" in said(opened)
    assert "Left out" in said(opened)
    assert "Run" not in said(opened)
    assert controller.answered is not None


@pytest.mark.parametrize("moment", ["before", "during", "stopped"])
def test_closing_while_a_click_is_answered(opened: Any, wait: Any, moment: str) -> None:
    """A click under way would keep a closed window's slide open, or call back into nothing."""
    controller, slide = opened.controller, opened.world.opened[0]
    engine = FakeEngine(seconds=0.4)
    run = FakeRun(steps=200, seconds=0.02, engine=engine)
    opened.world.run = run
    if moment != "before":
        start(opened, wait, run)
    if moment == "stopped":
        controller.cancel()
        wait(lambda: not controller.runs.running)
    controller.ask_at(512.0, 512.0)
    wait(lambda: engine.calls)
    opened.viewer.close()
    with timed(2.0):
        wait(lambda: slide.closed)


def test_a_newer_click_replaces_the_older(opened: Any, wait: Any) -> None:
    """Answers would arrive in any order, the last one for a place nobody asks about any more."""
    controller = opened.controller
    start(opened, wait, FakeRun(steps=300, seconds=0.02, engine=FakeEngine(seconds=0.2)))
    grid = controller.maps.grid
    first, second = unseen_tile(opened), unseen_tile(opened) - 3
    controller.ask_at(*middle(grid, first))
    controller.ask_at(*middle(grid, second))
    wait(lambda: controller.asks.here is not None)
    assert controller.asks.here.tile == second
    controller.runs.abandon()


def test_an_error_is_told_where_it_was_asked(opened: Any, wait: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that does not fit the slide would leave "looking here" for ever."""
    from napari_slnpredict.errors import BundleMismatch
    from napari_slnpredict.plugin import runs

    def refused(*args: Any) -> Any:
        yield from ()
        raise BundleMismatch("has 4 µm/px, 4 times coarser than the model", file="fake.svs", do="use a finer scan")

    monkeypatch.setattr(runs, "first_click_job", refused)
    opened.controller.ask_at(512.0, 512.0)
    wait(lambda: "coarser" in said(opened))
    assert opened.controller.problem is None


def test_no_scale_no_question(opened: Any) -> None:
    """A place in um means nothing where a pixel has no size."""
    shown = opened.controller.slides.current
    shown.slide.mpp = None
    opened.controller.ask_at(512.0, 512.0)
    assert said(opened) == ""
