"""Two slides, or two models on one slide, side by side with linked cameras.

The first view is the window's own; the second (`second.SecondPanel`) has a controller, a dock and answers of its own.
Nothing of this module is loaded before somebody asks for a second view.
"""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QObject, Qt, Signal
from qtpy.QtWidgets import QDockWidget, QWidget

if TYPE_CHECKING:
    from .controller import Controller
    from .crosshair import Pointers
    from .link import CameraLink
    from .second import SecondPanel

NO_SCALE = "Only one of the two files says how large a pixel is: they cannot be linked."


class Beside(QObject):
    """The second view of a window; there is at most one.

    Parameters
    ----------
    viewer : napari.Viewer
        The window's own; held weakly.
    parent : Controller
        Its controller.
    """

    changed = Signal()  # opened, closed, linked, unlinked, other slide or answer on either side

    def __init__(self, viewer: Any, parent: Controller) -> None:
        super().__init__(parent)
        self._viewer = weakref.ref(viewer)
        self.first = parent
        self.panel: SecondPanel | None = None
        self.controller: Controller | None = None
        self.link: CameraLink | None = None
        self.why_not = ""  # why they cannot be linked
        self._wanted = True
        self._pointers: Pointers | None = None
        self._dock: QDockWidget | None = None
        self._closing_window = False

    # -- open and close ----------------------------------------------------------------------------------------------

    def open(self, path: Path | str | None = None, model: str | None = None, mpp: float | None = None) -> None:
        """Show a slide beside the present one; None: the present one itself, for another model."""
        shown = self.first.slides.current
        if path is None:
            if shown is None:
                return
            path, mpp = shown.slide.path, self.first.given_mpp
        if self.panel is None:
            self._make()
        second = self.controller
        assert second is not None
        if model is not None:
            second.runs.choose_model(model)
        second.open(Path(path), mpp)
        self.changed.emit()

    def close(self) -> None:
        """Take the second view away with everything in it."""
        if self.panel is not None:
            self.panel.close()

    def toggle(self) -> None:
        """Open the present slide a second time, or close the second view."""
        if self.panel is None:
            self.open()
        else:
            self.close()

    def _make(self) -> None:
        viewer = self._viewer()
        from .beside_bar import BesideBar
        from .controller import Controller
        from .crosshair import Pointers
        from .link import CameraLink
        from .predict_dock import PredictDock
        from .second import SecondPanel

        panel = SecondPanel(viewer, self._leaving)
        second = Controller(panel.viewer, self)
        second.runs.models, second.runs.model = self.first.runs.models, self.first.runs.model
        self.panel, self.controller = panel, second
        self.link = CameraLink(viewer, panel.viewer)
        self._pointers = Pointers(viewer, panel.viewer, self.link, self)
        panel.bar = BesideBar(self)
        panel.column.insertWidget(0, panel.bar)
        window = viewer.window._qt_window
        main_dock = self._main_dock(window)
        panel.sit_beside(main_dock)
        self._dock = _dock_for(PredictDock(panel.viewer), window, main_dock)
        window.installEventFilter(self)
        for side, controller in enumerate((self.first, second)):
            native = controller.viewer.window._qt_viewer.canvas.native
            native.installEventFilter(self)
            controller.slides.changed.connect(self._slide_changed)
            controller.slides.opening_changed.connect(self._opening_changed)
            controller.answer_changed.connect(self.changed)
            controller.runs.wait_for = (second, self.first)[side].runs.threads
        viewer.events.theme.connect(self._theme_changed)

    def _leaving(self) -> None:
        """The panel goes: first everything that holds on to it."""
        viewer, second = self._viewer(), self.controller
        window = self.panel.parentWidget() if self.panel is not None else None
        if window is not None:
            window.removeEventFilter(self)
        for controller in (self.first, second):
            if controller is not None and controller.viewer is not None:
                controller.viewer.window._qt_viewer.canvas.native.removeEventFilter(self)
        self.first.slides.changed.disconnect(self._slide_changed)
        self.first.slides.opening_changed.disconnect(self._opening_changed)
        self.first.answer_changed.disconnect(self.changed)
        self.first.runs.wait_for = list
        if viewer is not None:
            viewer.events.theme.disconnect(self._theme_changed)
        if self._pointers is not None:
            self._pointers.leave()
            self._pointers.deleteLater()
        if self.link is not None:
            self.link.leave()
        if self._dock is not None:
            self._dock.setParent(None)
            self._dock.deleteLater()
        self.panel = self.controller = self.link = self._pointers = self._dock = None
        self.changed.emit()

    @staticmethod
    def _main_dock(window: QWidget) -> QDockWidget | None:
        from .predict_dock import PredictDock

        found = window.findChild(PredictDock)
        parent = found.parentWidget() if found is not None else None
        while parent is not None and not isinstance(parent, QDockWidget):
            parent = parent.parentWidget()
        return parent if parent is not None and not parent.isHidden() else None

    # -- the link ----------------------------------------------------------------------------------------------------

    @property
    def linked(self) -> bool:
        """Whether the cameras move as one."""
        return self.link is not None and self.link.on

    def switch_link(self, on: bool) -> None:
        """Link (at the places linked before) or unlink."""
        self._wanted = on
        self._settle()

    def link_here(self) -> None:
        """Link the places both sides show now: for two sections that lie differently on their glasses."""
        self._wanted = True
        if self.link is not None and not self.why_not:
            self.link.link_here()
        self.changed.emit()

    def _settle(self, lead: int = 0) -> None:
        """Bring the link to what is wanted and possible."""
        if self.link is None:
            return
        first, second = self._slides()
        self.why_not = NO_SCALE if first and second and bool(first.mpp) != bool(second.mpp) else ""
        possible = first is not None and second is not None and not self.why_not
        self.link.switch(self._wanted and possible, lead)
        if not self.link.on and self._pointers is not None:
            self._pointers.hide()
        self.changed.emit()

    def _slides(self) -> tuple[Any, Any]:
        controllers = (self.first, self.controller)
        shown = [None if controller is None else controller.slides.current for controller in controllers]
        return tuple(None if each is None else each.slide for each in shown)  # type: ignore[return-value]

    def _opening_changed(self) -> None:
        """A slide that is being opened is fitted first, which must not move the other side."""
        opening = any(
            controller is not None and controller.slides.opening is not None
            for controller in (self.first, self.controller)
        )
        if opening and self.link is not None:
            self.link.switch(False)
        else:
            self._settle()

    def _slide_changed(self) -> None:
        first, second = self._slides()
        if self.link is not None and first is not None and second is not None:
            self.link.offset = offset_between(first, second)
        opening = self.controller is not None and self.controller.slides.opening is not None
        if not opening and self.first.slides.opening is None:
            self._settle()

    # -- the window --------------------------------------------------------------------------------------------------

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Close with the window; show the dock of the canvas that is pressed."""
        if event.type() == QEvent.Type.MouseButtonPress and self.controller is not None:
            second = self.controller.viewer.window._qt_viewer.canvas.native
            self.show_dock(second=watched is second)
        elif event.type() == QEvent.Type.Close:
            self._closing_window = True
        elif self._closes(event) and self.panel is not None:
            self.panel.leave()
        return False

    def _closes(self, event: QEvent) -> bool:
        """Whether the window goes: hidden after a close, not minimised after a cancelled one."""
        return event.type() == QEvent.Type.Hide and self._closing_window and not event.spontaneous()

    def show_dock(self, *, second: bool) -> None:
        """Bring one side's dock to the front."""
        viewer = self._viewer()
        dock = self._dock if second else self._main_dock(viewer.window._qt_window) if viewer is not None else None
        if dock is not None:
            dock.raise_()

    def _theme_changed(self, event: object = None) -> None:
        viewer = self._viewer()
        if viewer is not None and self.controller is not None:
            self.controller.viewer.theme = viewer.theme


def _dock_for(widget: QWidget, window: Any, main_dock: QDockWidget | None) -> QDockWidget:
    """Return a dock behind the main one, as a tab."""
    dock = QDockWidget("Beside", window)
    dock.setObjectName("slnBesideDock")
    dock.setFeatures(QDockWidget.DockWidgetFeature.NoDockWidgetFeatures)
    dock.setTitleBarWidget(QWidget())
    dock.setWidget(widget)
    window.addDockWidget(Qt.DockWidgetArea.RightDockWidgetArea, dock)
    if main_dock is not None and not main_dock.isFloating():
        window.tabifyDockWidget(main_dock, dock)
    return dock


def offset_between(first: Any, second: Any) -> tuple[float, float]:
    """Return where the second slide's place lies that belongs to a place of the first: y, x, um.

    The same slide: the same place. Another one: middles together, which the user corrects with "Link here".
    """
    if first.content_id == second.content_id:
        return 0.0, 0.0
    (width, height), pixel = first.dimensions, first.mpp or 1.0
    (other_width, other_height), other_pixel = second.dimensions, second.mpp or 1.0
    return (other_height * other_pixel - height * pixel) / 2, (other_width * other_pixel - width * pixel) / 2
