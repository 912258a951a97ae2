"""Two views side by side: linked, each with its own answer, and nothing left when one goes."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from napari_slnpredict.plugin import launch
from napari_slnpredict.plugin.controller import controller_for, find_controller


def open_beside(opened: Any, wait: Any, path: str | None = None) -> Any:
    """Open a second view and return what a test needs of it."""
    beside = opened.controller.beside
    beside.open(path)
    wait(lambda: beside.controller.slides.current is not None and beside.controller.slides.opening is None)
    return SimpleNamespace(beside=beside, controller=beside.controller, viewer=beside.panel.viewer, panel=beside.panel)


def stand(viewer: Any) -> tuple[float, ...]:
    return (viewer.scene.camera.zoom, *viewer.scene.camera.center[-2:])


def test_second_view_shows_the_same_slide_at_the_same_place(opened: Any, wait: Any) -> None:
    """Two models could not be compared: the second view would show something else, or move the first."""
    opened.controller.camera.magnify(10)
    opened.viewer.scene.camera.center = (300.0, 700.0)
    second = open_beside(opened, wait)
    assert second.controller.slides.current.slide.path == opened.controller.slides.current.slide.path
    assert stand(second.viewer) == pytest.approx((1.0, 300.0, 700.0))
    assert stand(opened.viewer) == pytest.approx((1.0, 300.0, 700.0))
    assert second.viewer.canvas.overlays.text.text.startswith("10x")
    assert find_controller(opened.viewer) is opened.controller
    assert controller_for(second.viewer) is second.controller


def test_cameras_follow_both_ways_and_unlink(opened: Any, wait: Any) -> None:
    """A place seen on one side would not be seen on the other, or could never be looked at alone."""
    second = open_beside(opened, wait)
    opened.viewer.scene.camera.zoom = 0.7
    opened.viewer.scene.camera.center = (200.0, 400.0)
    assert stand(second.viewer) == pytest.approx((0.7, 200.0, 400.0))
    second.viewer.scene.camera.zoom = 2.0
    second.viewer.scene.camera.center = (250.0, 450.0)
    assert stand(opened.viewer) == pytest.approx((2.0, 250.0, 450.0))
    second.beside.switch_link(False)
    opened.viewer.scene.camera.center = (100.0, 100.0)
    assert stand(second.viewer) == pytest.approx((2.0, 250.0, 450.0))
    second.beside.switch_link(True)
    assert stand(second.viewer) == pytest.approx((2.0, 100.0, 100.0))


def test_link_here_keeps_the_offset_in_um(opened: Any, wait: Any) -> None:
    """Sections that lie differently on their glasses could not be compared."""
    second = open_beside(opened, wait)
    second.beside.switch_link(False)
    opened.viewer.scene.camera.center = (300.0, 300.0)
    second.viewer.scene.camera.center = (340.0, 280.0)
    second.beside.link_here()
    assert second.beside.linked
    opened.viewer.scene.camera.center = (500.0, 500.0)
    assert stand(second.viewer)[1:] == pytest.approx((540.0, 480.0))
    second.viewer.scene.camera.center = (140.0, 80.0)
    assert stand(opened.viewer)[1:] == pytest.approx((100.0, 100.0))


def test_slides_of_different_scale_are_linked_in_um(opened: Any, wait: Any, fake_world: Any) -> None:
    """A 40x scan beside a 20x scan would show half of the tissue."""
    fake_world.mpp = 0.25
    second = open_beside(opened, wait, "other.svs")
    opened.controller.camera.magnify(5)
    texts = {viewer.canvas.overlays.text.text for viewer in (opened.viewer, second.viewer)}
    assert texts == {"5.0x · 2.00 µm/px"}


def test_without_a_scale_there_is_no_link(opened: Any, wait: Any, fake_world: Any) -> None:
    """Pixels would pass for um."""
    fake_world.mpp = None
    second = open_beside(opened, wait, "plain.tif")
    assert not second.beside.linked
    assert "how large a pixel is" in second.beside.why_not
    assert not second.panel.bar.linked.isEnabled()
    second.controller.give_mpp(0.5)
    wait(lambda: second.beside.linked)


def test_crosshair_shows_the_corresponding_place(opened: Any, wait: Any) -> None:
    """Nobody could tell which place on the right belongs to the one pointed at on the left."""
    from qtpy.QtCore import QPoint
    from qtpy.QtTest import QTest

    second = open_beside(opened, wait)
    QTest.qWait(200)  # the two canvases share the width by then
    assert opened.viewer.window._qt_viewer.canvas.native.width() > 200
    crosses = second.beside._pointers.crosses
    native = opened.viewer.window._qt_viewer.canvas.native
    QTest.mouseMove(native, QPoint(native.width() // 2 + 40, native.height() // 2 - 30))
    wait(lambda: crosses[1].isVisible())
    other = second.viewer.window._qt_viewer.canvas.native
    middle = crosses[1].geometry().center()
    assert middle.x() == pytest.approx(other.width() / 2 + 40, abs=2)
    assert middle.y() == pytest.approx(other.height() / 2 - 30, abs=2)
    assert not crosses[0].isVisible()
    second.beside.switch_link(False)
    assert not crosses[1].isVisible()


def test_each_side_has_its_own_answer_and_clicks(opened: Any, wait: Any) -> None:
    """One side's answer would be shown for the other's slide."""
    second = open_beside(opened, wait, "other.svs")
    second.controller.run()
    wait(lambda: second.controller.answered is not None)
    assert opened.controller.answered is None
    assert not any(layer.name == "attention" for layer in opened.viewer.layers)
    assert any(layer.name == "attention" for layer in second.viewer.layers)
    assert "right: other" in second.panel.bar.text.said
    assert "SLN positive" in second.panel.bar.text.said
    second.controller.ask_at(5.0, 5.0)
    assert second.controller.asks.message == "no tissue here"
    assert opened.controller.asks.message == ""


def test_runs_of_both_sides_take_turns(opened: Any, wait: Any) -> None:
    """Two models at once would take the window's core."""
    from fakes import FakeRun

    second = open_beside(opened, wait)
    run = opened.world.run = FakeRun(steps=200, seconds=0.02)
    opened.controller.run()
    wait(lambda: len(run.calls) == 1)
    second.controller.run()
    wait(lambda: opened.controller.runs.progress is not None)
    assert len(run.calls) == 1
    opened.controller.cancel()
    wait(lambda: len(run.calls) == 2)
    second.controller.runs.abandon()


def test_closing_the_second_view_leaves_nothing_behind(opened: Any, wait: Any, qtbot: Any) -> None:
    """Its slide would stay open, its job would go on, or its canvas would hold the graphics memory."""
    from napari.qt import QtViewer
    from qtpy.QtWidgets import QDockWidget

    second = open_beside(opened, wait, "other.svs")
    slide = second.controller.slides.current.slide
    second.controller.run()
    wait(lambda: second.controller.runs.progress is not None)
    model = weakref.ref(second.viewer)
    beside = second.beside
    opened.viewer.scene.camera.center = (300.0, 300.0)
    second.panel.bar.away.click()
    second = None
    wait(lambda: slide.closed)
    qtbot.wait(50)
    gc.collect()
    assert model() is None
    assert len(QtViewer._instances) == 1
    assert beside.panel is None
    assert beside.controller is None
    window = opened.viewer.window._qt_window
    assert not [dock for dock in window.findChildren(QDockWidget) if dock.objectName().startswith("slnBeside")]
    assert np.allclose(opened.viewer.scene.camera.center[-2:], (300.0, 300.0))
    opened.controller.beside.open()
    wait(lambda: beside.controller.slides.current is not None)


@pytest.mark.parametrize("running", [False, True])
def test_closing_the_window_with_two_views(opened: Any, wait: Any, running: bool) -> None:
    """The second slide would stay open, or its threads would live on."""
    second = open_beside(opened, wait)
    slides = list(opened.world.opened)
    if running:
        second.controller.run()
        wait(lambda: second.controller.runs.progress is not None)
    second = None
    opened.viewer.close()
    wait(lambda: all(slide.closed for slide in slides), seconds=3)


def test_keys_open_link_and_close(opened: Any, wait: Any) -> None:
    """The second view could not be had without a mouse."""
    handler = opened.viewer.window._qt_viewer._key_map_handler
    beside = opened.controller.beside
    handler.press_key("Alt+B")
    wait(lambda: beside.linked)
    handler.press_key("Alt+K")
    assert not beside.linked
    beside.panel.view._key_map_handler.press_key("Alt+K")
    assert beside.linked
    beside.panel.view._key_map_handler.press_key("Alt+B")
    assert beside.panel is None


def test_the_first_slide_changes_and_the_second_follows(opened: Any, wait: Any) -> None:
    """The two sides would stay linked at places of a slide that is gone."""
    second = open_beside(opened, wait)
    opened.controller.open("third.svs")
    wait(lambda: opened.controller.slides.current.slide.slide_id == "third" and second.beside.linked)
    assert stand(second.viewer) == pytest.approx(stand(opened.viewer))


def test_view_command_opens_two_beside(make_viewer: Any, fake_world: Any, wait: Any) -> None:
    """`slnpredict view A B --beside` would show one of them only."""
    viewer = make_viewer()
    launch.open_viewer(["a.svs", "b.svs"], viewer=viewer, beside=True)
    beside = controller_for(viewer).beside
    wait(lambda: beside.controller is not None and beside.controller.slides.current is not None)
    assert beside.controller.slides.current.slide.slide_id == "b"
    assert controller_for(viewer).slides.current.slide.slide_id == "a"
