"""What makes a viewer pleasant: magnifications, overview, measuring, the last view, the label, the keyboard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QAbstractButton, QComboBox, QDialog

from napari_slnpredict.plugin import last_view, launch
from napari_slnpredict.plugin.controller import controller_for
from napari_slnpredict.plugin.layers import ROLE_KEY
from napari_slnpredict.plugin.measure import length_text
from napari_slnpredict.slide.slide import open_slide


def test_magnification_buttons(opened: Any) -> None:
    """A button would show another magnification than it says, or look set when it is not."""
    rows = opened.dock.view
    assert list(rows.times) == [1, 2, 5, 10, 20, 40]
    for times in rows.times:
        rows.times[times].click()
        assert opened.viewer.scene.camera.zoom == pytest.approx(times / 10)  # screen px per um: 10x is 1 um/px
        assert [number for number, button in rows.times.items() if button.isChecked()] == [times]
        opened.viewer.scene.camera.zoom *= 1.3
        assert not any(button.isChecked() for button in rows.times.values())
    rows.fit.click()
    view = opened.controller.camera.rectangle()
    assert view.left < 0
    assert view.right > opened.world.side


def test_magnifications_need_a_scale(make_viewer: Any, fake_world: Any, wait: Any) -> None:
    """20x would be told of a slide whose pixels have no size."""
    fake_world.mpp = None
    viewer = make_viewer()
    launch.open_viewer(["plain.tif"], viewer=viewer)
    controller, dock = controller_for(viewer), launch.add_dock(viewer)
    wait(lambda: controller.slides.current is not None)
    assert not any(button.isEnabled() for button in dock.view.times.values())
    before = viewer.scene.camera.zoom
    controller.camera.magnify(20)
    assert viewer.scene.camera.zoom == before


def test_scale_bar_in_um_then_mm(opened: Any) -> None:
    """The bar would count pixels or thousands of um."""
    bar = opened.viewer.canvas.overlays.scale_bar
    assert bar.visible
    assert str(opened.viewer.layers["slide"].units[0]) == "micrometer"
    (drawn,) = opened.viewer.window._qt_viewer.canvas._viewer_overlay_to_visual[bar]
    for zoom, unit in ((2.0, "µm"), (0.05, "mm")):  # screen px per um
        opened.viewer.scene.camera.zoom = zoom
        assert drawn.node.text.text.endswith(unit), drawn.node.text.text


def test_overview_drag_moves_the_camera(opened: Any) -> None:
    """The frame in the overview could not be dragged, or would lead elsewhere."""
    opened.controller.camera.magnify(20)
    inset = opened.controller.overview.widget
    width, height = inset.width(), inset.height()
    QTest.mousePress(inset, Qt.MouseButton.LeftButton, pos=QPoint(width // 4, height // 4))
    x, y = opened.controller.camera.rectangle().centre
    assert (x, y) == pytest.approx((512, 512), abs=30)
    QTest.mouseMove(inset, QPoint(width * 3 // 4, height // 2))
    QTest.mouseRelease(inset, Qt.MouseButton.LeftButton, pos=QPoint(width * 3 // 4, height // 2))
    x, y = opened.controller.camera.rectangle().centre
    assert (x, y) == pytest.approx((1536, 1024), abs=30)


def test_overview_stays_in_its_corner(opened: Any, wait: Any) -> None:
    """After a resize the inset would lie outside the canvas."""
    window = opened.viewer.window._qt_window
    inset = opened.controller.overview.widget
    for size in ((1000, 700), (1500, 900)):
        window.resize(*size)
        canvas = inset.parentWidget()
        wait(lambda canvas=canvas: inset.geometry().right() == canvas.width() - 11)
        assert inset.geometry().top() == 10


@pytest.mark.parametrize(
    ("um", "text"), [(3.25, "3.2 µm"), (250, "250 µm"), (999.4, "999 µm"), (1000, "1.00 mm"), (12345, "12.35 mm")]
)
def test_lengths_are_told_in_um_and_mm(um: float, text: str) -> None:
    """A length would be told with a wrong unit or too many digits."""
    assert length_text([(0, 0), (0, um)]) == text
    assert length_text([(0, 0), (3, 4)], None) == "5 px"


def test_measuring_by_mouse(opened: Any, wait: Any) -> None:
    """A drag of 100 screen px at 10x would not be told as 100 um, or the lines would be lost with the tool."""
    controller, viewer, dock = opened.controller, opened.viewer, opened.dock
    controller.camera.magnify(10)
    dock.view.measure.click()
    assert controller.measure.on
    native = viewer.window._qt_viewer.canvas.native
    start = QPoint(native.width() // 2, native.height() // 2)
    for across in (100, 140):
        begin = start + QPoint(0, across)
        QTest.mousePress(native, Qt.MouseButton.LeftButton, pos=begin)
        for step in range(1, 6):
            QTest.mouseMove(native, begin + QPoint(across * step // 5, 0))
            QTest.qWait(20)
        QTest.mouseRelease(native, Qt.MouseButton.LeftButton, pos=begin + QPoint(across, 0))
    layer = controller.measure.layer
    assert list(layer.features["length"]) == ["100 µm", "140 µm"]
    viewer.window._qt_viewer._key_map_handler.press_key("Backspace")
    assert list(layer.features["length"]) == ["100 µm"]
    viewer.window._qt_viewer._key_map_handler.press_key("Alt+M")
    assert not controller.measure.on
    assert not dock.view.measure.isChecked()
    assert viewer.layers.selection.active.name == "slide"
    assert len(controller.measure.lines()) == 1
    x, _, to_x, _ = controller.measure.lines()[0]
    assert (to_x - x) * 0.5 == pytest.approx(100, abs=1)
    controller.camera.magnify(40)
    wait(lambda: layer.edge_width[0] == pytest.approx(2.5 / 4, rel=0.01))


def test_last_view_comes_back_with_its_lines(opened: Any, wait: Any) -> None:
    """A slide would have to be searched again for the place it was left at."""
    controller, viewer = opened.controller, opened.viewer
    opened.world.opened[0].content_id = "ab" * 32
    controller.memory._desk.content_id = "ab" * 32
    controller.camera.magnify(20)
    viewer.scene.camera.center = (333.0, 222.0)
    controller.measure.switch(True)
    controller.measure.layer.add_lines(np.array([[100.0, 100.0], [100.0, 350.0]]))
    viewer.layers.remove("slide")
    assert controller.measure.layer is None
    wait(lambda: last_view.load("ab" * 32) is not None)
    stored = (last_view.folder() / f"{'ab' * 32}.json").read_text()
    assert "fake" not in stored  # neither the slide's name nor its path
    assert set(json.loads(stored)) == {"format", "x", "y", "px_per_screen_px", "fitted", "lines"}

    from napari_slnpredict.plugin import jobs

    real = jobs.last_view.load
    jobs.last_view.load = lambda content_id: real("ab" * 32)  # the stand-in always has the same content
    try:
        controller.open("fake.svs")
        wait(lambda: controller.slides.current is not None)
    finally:
        jobs.last_view.load = real
    assert viewer.scene.camera.zoom == pytest.approx(2.0)
    assert tuple(viewer.scene.camera.center[-2:]) == pytest.approx((333, 222), abs=0.1)
    assert list(controller.measure.layer.features["length"]) == ["250 µm"]
    assert "where you left it" in controller.note


def test_view_is_kept_when_the_window_goes(opened: Any, wait: Any) -> None:
    """Closing the window at once after moving would lose the place."""
    content = "0" * 64
    opened.controller.camera.magnify(5)
    opened.viewer.close()
    wait(lambda: last_view.load(content) is not None, seconds=5)
    assert last_view.load(content).px_per_screen_px == pytest.approx(4.0, rel=1e-3)


def test_label_is_shown_only_on_request_and_goes_with_the_slide(opened: Any, wait: Any, qtbot: Any) -> None:
    """A patient's name would stand on the screen unasked, or stay there beside the next slide."""
    controller, asked = opened.controller, []

    def associated(name: str) -> Any:
        asked.append(name)
        return np.full((60, 80, 3), 200, np.uint8)

    slide = controller.slides.current.slide
    slide.associated = associated
    qtbot.wait(100)
    assert asked == []
    assert controller.label.dialog is None
    opened.dock.view.label.click()
    wait(lambda: controller.label.dialog is not None and controller.label.dialog.isVisible())
    assert asked == ["label", "macro"]
    dialog = controller.label.dialog
    assert dialog.findChildren(QAbstractButton) == []
    assert not any(layer.name in ("label", "macro") for layer in opened.viewer.layers)
    controller.open("second.svs")
    wait(lambda: controller.slides.current is not None and controller.slides.current.slide.slide_id == "second")
    assert controller.label.dialog is None
    wait(lambda: not opened.viewer.window._qt_window.findChildren(QDialog, "slnLabel"))


def test_label_is_offered_only_where_there_is_one(opened: Any, wait: Any) -> None:
    """A button would lead to an empty window."""
    label, button = opened.controller.label, opened.dock.view.label
    wait(lambda: label.there)
    assert button.isVisibleTo(opened.dock)
    for names, offered in (((), False), (("macro",), True), (("thumbnail",), False)):
        opened.controller.slides.current.slide.pictures_beside = names
        label.clear()
        assert not button.isVisibleTo(opened.dock)
        label.look()
        wait(lambda: label._looker is None)
        assert button.isVisibleTo(opened.dock) == offered, names


def test_everything_in_the_dock_is_reached_by_tab(opened: Any, wait: Any) -> None:
    """A user without a mouse could not press a button."""
    opened.controller.run()
    wait(lambda: opened.controller.answered is not None)
    wait(lambda: bool(opened.controller.asks.pictures))
    page = opened.dock.widget()
    wanted = {
        widget
        for kind in (QAbstractButton, QComboBox)
        for widget in page.findChildren(kind)
        if widget.isVisibleTo(page) and widget.isEnabled()
    }
    assert len(wanted) > 20
    unreachable = [widget for widget in wanted if not widget.focusPolicy() & Qt.FocusPolicy.TabFocus]
    assert not unreachable, [(type(widget).__name__, getattr(widget, "text", str)()) for widget in unreachable]
    chain, widget = set(), page.nextInFocusChain()
    while widget is not None and widget is not page:
        chain.add(widget)
        widget = widget.nextInFocusChain()
    assert wanted <= chain
    nameless = [
        widget
        for widget in wanted
        if isinstance(widget, QAbstractButton) and not (widget.text() or widget.accessibleName())
    ]
    assert not nameless


@pytest.mark.parametrize("points", [9, 14])
def test_nothing_is_cut_off(opened: Any, wait: Any, points: int, qtbot: Any) -> None:
    """With large letters a button's words would be cut, or the dock would scroll sideways."""
    from napari.settings import get_settings

    get_settings().appearance.font_size = points
    opened.controller.run()
    wait(lambda: opened.controller.answered is not None)
    qtbot.wait(200)
    dock = opened.dock
    page = dock.widget()
    assert page.minimumSizeHint().width() <= dock.viewport().width()
    for button in page.findChildren(QAbstractButton):
        if button.isVisible() and button.text():
            assert button.width() >= button.fontMetrics().horizontalAdvance(button.text()), button.text()
    if points == 9:
        assert dock.width() <= 320


def test_measure_layer_is_in_um_like_the_rest(opened: Any) -> None:
    """One layer in pixels would cost the scale bar its unit."""
    opened.controller.measure.switch(True)
    layer = next(layer for layer in opened.viewer.layers if layer.metadata.get(ROLE_KEY) == "measure")
    assert [str(unit) for unit in layer.units] == ["micrometer", "micrometer"]


def test_srgb_changes_picture_and_overview(opened: Any, wait: Any, tmp_path: Path, qtbot: Any) -> None:
    """The switch would change one of the two, and they would disagree; or it would not come back."""
    controller, viewer, switch = opened.controller, opened.viewer, opened.dock.slide.srgb
    assert not switch.isVisibleTo(opened.dock)  # the stand-in has no profile
    path = tmp_path / "profiled.tif"
    write_profiled(path)
    opened.world.make = lambda place, mpp: open_slide(path, mpp=0.5)
    controller.open(path)
    wait(lambda: controller.slides.current is not None and controller.slides.current.slide.path == path)
    assert switch.isVisibleTo(opened.dock)

    def colours() -> tuple[Any, Any]:
        native, inset = viewer.window._qt_viewer.canvas.native, controller.overview.widget
        qtbot.wait(300)
        picture, small = native.grabFramebuffer(), inset.grab().toImage()
        places = (
            (picture, picture.width() // 2, picture.height() // 2),
            (small, small.width() // 2, small.height() // 2),
        )
        return tuple(image.pixelColor(x, y).getRgb()[:3] for image, x, y in places)

    stored = colours()
    switch.click()
    shown = colours()
    for before, after in zip(stored, shown, strict=True):
        assert before == pytest.approx((200, 100, 150), abs=3)
        assert max(abs(a - b) for a, b in zip(before, after, strict=True)) > 15
    assert shown[0] == pytest.approx(shown[1], abs=3)
    switch.click()
    assert colours() == stored


def write_profiled(path: Path) -> None:
    """Write a slide of one colour whose profile has red and blue exchanged."""
    import tifffile
    from PIL import ImageCms

    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile = profile.replace(b"rXYZ", b"tmp0", 1).replace(b"bXYZ", b"rXYZ", 1).replace(b"tmp0", b"bXYZ", 1)
    pixels = np.full((1024, 1024, 3), (200, 100, 150), np.uint8)
    tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb", iccprofile=bytes(profile))
