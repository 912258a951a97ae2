"""The life of a viewer on stand-ins: open, run, cancel, click, close, and nothing left behind."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from fakes import FakeRun, timed

from napari_slnpredict.errors import CorruptSlide
from napari_slnpredict.plugin import launch
from napari_slnpredict.plugin.controller import controller_for, find_controller
from napari_slnpredict.plugin.layers import ROLE_KEY


def role(viewer: Any, name: str) -> Any:
    return next((layer for layer in viewer.layers if layer.metadata.get(ROLE_KEY) == name), None)


def test_slide_is_shown_in_um_and_fitted(opened: Any) -> None:
    """The scale bar would count pixels, or the slide would lie outside the window."""
    viewer = opened.viewer
    layer = viewer.layers["slide"]
    assert [str(unit) for unit in layer.units] == ["micrometer", "micrometer"]
    assert layer.multiscale
    assert tuple(layer.scale) == (0.5, 0.5)
    assert viewer.canvas.overlays.scale_bar.visible
    assert "µm/px" in viewer.canvas.overlays.text.text
    view = opened.controller.camera.rectangle()
    assert view.left < 0
    assert view.right > opened.world.side


def test_text_follows_the_zoom(opened: Any) -> None:
    """The magnification at the top left would lie."""
    opened.controller.camera.magnify(20)
    assert opened.viewer.canvas.overlays.text.text == "20x · 0.50 µm/px"


def test_run_paints_and_answers(opened: Any, wait: Any) -> None:
    """Run would do nothing that a user sees."""
    controller, viewer = opened.controller, opened.viewer
    controller.run()
    assert controller.runs.running
    assert opened.dock.run.button.text() == "Cancel"
    wait(lambda: role(viewer, "attention") is not None and np.isfinite(role(viewer, "attention").data).any())
    assert role(viewer, "tissue") is not None
    wait(lambda: controller.answered is not None)
    assert not controller.runs.running
    assert "positive" in opened.dock.answer.sentence.said
    assert opened.dock.map.isVisibleTo(opened.dock)
    assert controller.maps.state.area_mm2 > 0
    assert viewer.layers.selection.active.name == "slide"


def test_cancel_says_what_is_kept_and_run_continues(opened: Any, wait: Any) -> None:
    """Cancelling would look like an error, or leave a job behind."""
    controller = opened.controller
    opened.world.run = FakeRun(steps=200, seconds=0.02)
    controller.run()
    wait(lambda: controller.runs.progress is not None and controller.runs.progress.done > 5)
    controller.cancel()
    with timed(2.0):
        wait(lambda: not controller.runs.running)
    assert "tiles are kept" in opened.dock.run.line.said
    assert controller.problem is None
    assert opened.world.run.closed == 1
    controller.run()
    wait(lambda: controller.answered is not None)


def test_error_shows_in_the_dock_with_details(opened: Any, wait: Any, qtbot: Any) -> None:
    """A failing run would end in silence (a RuntimeError in napari's own workers does)."""
    from qtpy.QtWidgets import QApplication

    controller = opened.controller
    opened.world.run.fail = RuntimeError("CUDA out of memory")
    controller.run()
    wait(lambda: controller.problem is not None)
    row = opened.dock.problem
    assert "out of memory" in row.text.said
    row.copy.click()
    assert "Traceback" in QApplication.clipboard().text()
    row.away.click()
    assert controller.problem is None


def test_slide_that_does_not_open_is_explained(opened: Any, wait: Any) -> None:
    """A damaged file would leave the window empty without a word."""
    opened.world.fail_open = CorruptSlide("ends after 38 of 61 MB", file="bad.svs", do="copy it again")
    opened.controller.open("bad.svs")
    assert "Opening" in opened.dock.slide._facts.said
    wait(lambda: opened.controller.problem is not None)
    assert "Copy it again" in opened.controller.problem.text
    assert opened.controller.slides.current is not None  # the slide before stays


def test_missing_scale_asks_and_opens_again(make_viewer: Any, fake_world: Any, wait: Any) -> None:
    """A slide without a pixel size could not be used at all."""
    fake_world.mpp = None
    viewer = make_viewer()
    launch.open_viewer(["plain.tif"], viewer=viewer)
    controller, dock = controller_for(viewer), launch.add_dock(viewer)
    wait(lambda: controller.slides.current is not None)
    assert dock.slide._ask.isVisibleTo(dock)
    assert not dock.run.button.isEnabled()
    dock.slide.mpp.setValue(0.25)
    dock.slide.use_mpp.click()
    wait(lambda: controller.slides.current is not None and controller.slides.current.slide.mpp == 0.25)
    assert not dock.slide._ask.isVisibleTo(dock)
    assert dock.run.button.isEnabled()
    assert "--mpp 0.25" in controller.command()
    assert fake_world.opened[0].closed


def test_removing_the_layer_ends_the_run_and_closes_the_slide(opened: Any, wait: Any) -> None:
    """The file would stay open and a run would go on for nobody."""
    opened.world.run = FakeRun(steps=500, seconds=0.02)
    opened.controller.run()
    wait(lambda: opened.controller.runs.progress is not None)
    slide = opened.world.opened[0]
    opened.viewer.layers.remove("slide")
    assert not opened.controller.runs.running
    wait(lambda: slide.closed, seconds=2)
    assert opened.world.run.closed == 1
    assert role(opened.viewer, "attention") is None


def test_opening_another_slide_replaces_the_first(opened: Any, wait: Any) -> None:
    """Two slides would lie on top of each other, the first one open for ever."""
    opened.controller.open("second.svs")
    wait(lambda: opened.controller.slides.current.slide.slide_id == "second")
    assert opened.world.opened[0].closed
    assert [layer.name for layer in opened.viewer.layers] == ["slide"]


def test_click_on_tissue_and_on_background(opened: Any, wait: Any, monkeypatch: Any) -> None:
    """A click would be answered for the wrong tile, or background would get a number."""
    from napari_slnpredict.plugin import asks

    controller = opened.controller
    controller.run()
    wait(lambda: controller.answered is not None)
    grid = controller.maps.grid
    tile = 40
    centre = (grid.locations[tile] + grid.size_level0 / 2) * grid.slide_mpp
    seen = []

    def click_job(slide: Any, head: Any, prediction: Any, point: Any) -> Any:
        from napari_slnpredict.events import Stage
        from napari_slnpredict.pipeline import ClickAnswer
        from napari_slnpredict.slide.grid import tile_at

        yield Stage("click", "")
        found = tile_at(prediction.grid, point[0] / 0.5, point[1] / 0.5)
        seen.append(found)
        corner = tuple(int(place) for place in prediction.grid.locations[found])
        return ClickAnswer(found, corner, np.zeros((64, 64, 3), np.uint8), 0.01, 6.2, 14, np.array([-0.012, 0.012]))

    monkeypatch.setattr(asks, "click_job", click_job)
    controller.ask_at(*(centre - 0.25))
    wait(lambda: controller.asks.here is not None)
    assert seen == [tile]
    assert "6.2 × mean" in opened.dock.here.lines.said
    assert "rank 14" in opened.dock.here.lines.said
    outline = role(opened.viewer, "clicked tile")
    low, high = outline.data[1].min(axis=0), outline.data[1].max(axis=0)
    assert np.all(low <= (grid.locations[tile][::-1] - 0.5) * 0.5)
    assert np.all(high >= (grid.locations[tile][::-1] + grid.size_level0 - 0.5) * 0.5)
    controller.ask_at(5.0, 5.0)
    assert opened.dock.here.lines.said == "No tissue here"
    assert not outline.visible
    controller.show_overlays(True)
    assert not outline.visible
    controller.ask_at(*(centre - 0.25))
    assert outline.visible
    assert opened.viewer.layers[-1] is outline
    opened.viewer.layers.remove(outline)  # by the user: the next click makes another
    controller.ask_at(*(centre - 0.25))
    wait(lambda: len(seen) == 3)
    assert role(opened.viewer, "clicked tile").visible


def test_outline_is_made_ahead_of_the_first_click(opened: Any, wait: Any) -> None:
    """The first click after a run would take 0.3 s, or what makes it fast would be seen or selected."""
    controller, viewer = opened.controller, opened.viewer
    controller.run()
    wait(lambda: controller.answered is not None)
    others = [layer.name for layer in viewer.layers]
    extent = np.asarray(viewer.layers.extent.world)
    wait(lambda: role(viewer, "clicked tile") is not None)
    assert not role(viewer, "clicked tile").visible
    assert [layer.name for layer in viewer.layers] == [*others, "clicked tile"]
    assert viewer.layers.selection.active.name == "slide"
    assert np.array_equal(np.asarray(viewer.layers.extent.world), extent)
    controller.open("second.svs")
    wait(lambda: controller.slides.current is not None and controller.slides.current.slide.slide_id == "second")
    # It stays, unseen, and nowhere: the view of the next slide fits that slide.
    assert not role(viewer, "clicked tile").visible
    assert np.array_equal(np.asarray(viewer.layers.extent.world), np.asarray(viewer.layers["slide"].extent.world))


def test_mouse_click_asks_and_a_drag_does_not(opened: Any, monkeypatch: Any) -> None:
    """Panning would ask questions, or clicks would not."""
    asked: list[tuple[float, float]] = []
    monkeypatch.setattr(opened.controller.click_mode, "_on_click", lambda x, y: asked.append((x, y)))
    native = opened.viewer.window._qt_viewer.canvas.native
    from qtpy.QtCore import QPoint, Qt
    from qtpy.QtTest import QTest

    middle = QPoint(native.width() // 2, native.height() // 2)
    QTest.mouseClick(native, Qt.MouseButton.LeftButton, pos=middle)
    assert asked == []
    opened.controller.switch_click(True)
    assert str(opened.viewer.cursor.style) == "crosshair"
    QTest.mouseClick(native, Qt.MouseButton.LeftButton, pos=middle)
    assert len(asked) == 1
    assert asked[0] == pytest.approx((512, 512), abs=4)
    QTest.mousePress(native, Qt.MouseButton.LeftButton, pos=middle)
    for step in range(1, 6):
        QTest.mouseMove(native, middle + QPoint(8 * step, 0))
    QTest.mouseRelease(native, Qt.MouseButton.LeftButton, pos=middle + QPoint(40, 0))
    assert len(asked) == 1


def test_scale_and_threshold(opened: Any, wait: Any) -> None:
    """The map would not follow its controls, or its area would be wrong."""
    controller, viewer = opened.controller, opened.viewer
    controller.run()
    wait(lambda: controller.answered is not None)
    section, maps = opened.dock.map, controller.maps
    everything = maps.state.area_mm2
    assert everything == pytest.approx(len(maps.grid) * 0.064**2, rel=1e-3)
    section.threshold.setValue(100)
    assert 0 < maps.state.area_mm2 < everything
    shown = np.isfinite(role(viewer, "attention").data).sum()
    assert shown == maps.state.tiles
    section.scale.setCurrentIndex(section.scale.findData("evidence:positive"))
    section.scale.activated.emit(section.scale.currentIndex())
    assert role(viewer, "evidence").visible
    assert not role(viewer, "attention").visible
    low, high = role(viewer, "evidence").contrast_limits
    assert low == -high
    assert "logit" in section.range.said


def test_map_corners_lie_on_the_grid(opened: Any, wait: Any) -> None:
    """The map would lie beside its tissue."""
    controller, viewer = opened.controller, opened.viewer
    controller.run()
    wait(lambda: controller.maps.grid is not None and role(viewer, "attention") is not None)
    grid, layer = controller.maps.grid, role(viewer, "attention")
    (top, left), (bottom, right) = (
        layer.extent.world_with_edges
        if hasattr(layer.extent, "world_with_edges")
        else (np.asarray(layer.extent.world) + np.array([[-0.5], [0.5]]) * layer.scale)
    )
    rows, columns = grid.shape
    stride, mpp = grid.stride_level0, grid.slide_mpp
    # World 0 is the middle of level-0 pixel 0: a corner at level-0 px p lies at (p - 0.5) * mpp.
    expected = (-0.5, -0.5, rows * stride - 0.5, columns * stride - 0.5)
    found = np.array([top, left, bottom, right]) / mpp
    assert np.abs(found - expected).max() <= 0.5


def test_edited_tissue_is_used_by_the_next_run(opened: Any, wait: Any) -> None:
    """A correction by hand would be ignored, or lost with the window."""
    from napari_slnpredict.plugin import edits
    from napari_slnpredict.settings import load_settings

    controller = opened.controller
    controller.run()
    wait(lambda: controller.answered is not None)
    assert opened.world.run.calls[-1]["mask"] is None
    layer = role(opened.viewer, "tissue")
    layer.data_setitem((np.arange(5), np.arange(5)), 1)
    controller.tissue._drawn()
    controller.run()
    wait(lambda: controller.answered is not None)
    assert opened.world.run.calls[-1]["mask"].pixels[:5, :5].diagonal().all()
    wait(lambda: edits.load(load_settings().cache_dir, "0" * 64) is not None)


def test_next_tile_visits_the_highest_first(opened: Any, wait: Any) -> None:
    """N would jump anywhere."""
    controller = opened.controller
    controller.run()
    wait(lambda: controller.answered is not None)
    controller.step_tile(1)
    best = int(np.nanargmax(controller.maps.values))
    grid = controller.maps.grid
    centre = (grid.locations[best] + grid.size_level0 / 2 - 0.5) * 0.5
    assert tuple(opened.viewer.scene.camera.center[-2:]) == pytest.approx(tuple(centre[::-1]))


def test_overlays_hide_and_come_back(opened: Any, wait: Any) -> None:
    """The tissue under the map could not be looked at, or a map hidden by choice would come back."""
    controller, viewer = opened.controller, opened.viewer
    controller.run()
    wait(lambda: controller.answered is not None)
    controller.show_overlays(False)
    assert not role(viewer, "attention").visible
    controller.show_overlays(True)
    assert role(viewer, "attention").visible


@pytest.mark.parametrize("moment", range(3))
def test_closing_mid_run_leaves_nothing(opened: Any, wait: Any, moment: int) -> None:
    """A closed window would leave a thread, an open slide, or a crash."""
    run = opened.world.run = FakeRun(steps=300, seconds=0.03)
    slide = opened.world.opened[0]
    opened.controller.run()
    if moment:
        wait(lambda: run.calls)
    if moment == 2:
        wait(lambda: opened.controller.runs.progress is not None)
    opened.viewer.close()
    wait(lambda: slide.closed, seconds=2)
    assert run.closed == len(run.calls)


def test_closing_the_dock_ends_nothing(opened: Any, wait: Any) -> None:
    """Closing a panel would lose work, or leave a widget behind."""
    opened.controller.run()
    opened.viewer.window.remove_dock_widget(opened.dock)
    opened.dock = None
    wait(lambda: opened.controller.answered is not None)
    assert find_controller(opened.viewer) is opened.controller
    wait(lambda: opened.controller.asks.pictures)
    again = launch.add_dock(opened.viewer)
    assert again.answer.sentence.said == opened.controller.answered.prediction.answer
    assert again.map.isVisibleTo(again)


def test_napari_knows_of_the_run(opened: Any, wait: Any) -> None:
    """napari's close dialog would not warn that something runs."""
    tasks = opened.viewer.window._task_status_manager
    opened.controller.run()
    assert any("SLN Predict" in line for line in tasks.get_status())
    wait(lambda: opened.controller.answered is not None)
    assert not tasks.is_busy()


def test_run_twice_waits_for_the_first_thread(opened: Any, wait: Any) -> None:
    """Two heavy threads would fight for the window's core."""
    run = opened.world.run = FakeRun(steps=300, seconds=0.02)
    opened.controller.run()
    wait(lambda: len(run.calls) == 1)
    opened.controller.runs.abandon()
    opened.controller.run()
    wait(lambda: len(run.calls) == 2)
    assert run.closed == 1
    opened.controller.runs.abandon()
    assert threading.active_count() < 20


def test_measuring_in_um(opened: Any) -> None:
    """A length would be told in pixels."""
    opened.controller.measure.switch(True)
    layer = role(opened.viewer, "measure")
    assert layer.mode == "add_line"
    layer.add_lines(np.array([[100.0, 100.0], [100.0, 350.0]]))
    assert list(layer.features["length"]) == ["250 µm"]
    opened.controller.measure.switch(False)
    opened.controller.measure.switch(True)
    assert sum(each.metadata.get(ROLE_KEY) == "measure" for each in opened.viewer.layers) == 1


@pytest.mark.parametrize("mpp", [0.5, None])
def test_overview_goes_there(make_viewer: Any, fake_world: Any, wait: Any, mpp: float | None) -> None:
    """The inset would show another place than the screen, or be dead on slides without a scale."""
    from qtpy.QtCore import QPoint, Qt
    from qtpy.QtTest import QTest

    fake_world.mpp = mpp
    viewer = make_viewer()
    launch.open_viewer(["fake.svs"], viewer=viewer)
    controller = controller_for(viewer)
    wait(lambda: controller.slides.current is not None)
    viewer.scene.camera.zoom *= 8
    inset = controller.overview.widget
    assert inset.isVisible()
    QTest.mouseClick(inset, Qt.MouseButton.LeftButton, pos=QPoint(inset.width() // 4, inset.height() // 2))
    x, y = controller.camera.rectangle().centre
    assert x == pytest.approx(fake_world.side / 4, abs=30)
    assert y == pytest.approx(fake_world.side / 2, abs=30)
