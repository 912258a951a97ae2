"""A second canvas in the same window: a viewer model of its own, its Qt view, and a bar above it.

napari makes a window for every `napari.Viewer`, and its grid mode gives all cells one camera; neither lets two slides
of different offsets lie side by side. A `ViewerModel` with a `QtViewer` in a panel does. Closed, nothing of it stays:
the slide, its jobs and its GL context go with the panel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from napari.components import ViewerModel
from napari.qt import QtViewer
from napari.utils.events.event_utils import disconnect_events
from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QDockWidget, QVBoxLayout, QWidget

#: The window has laid its parts out by then, ms; before that nobody knows how much room there is.
HALVE_MS = 50


@dataclass(eq=False)
class Window:
    """What the plugin's parts ask a napari window for.

    Attributes
    ----------
    _qt_window : QWidget
        Parent of whatever belongs to the view.
    _qt_viewer : QtViewer
    _register_task_status, _update_task_status : callable
        The main window's list of what runs, for napari's close dialog.
    """

    _qt_window: Any
    _qt_viewer: Any
    _register_task_status: Callable[..., Any]
    _update_task_status: Callable[..., Any]


class SecondViewer(ViewerModel):
    """A viewer model that answers like a `napari.Viewer` to the plugin's own parts."""

    _window: Any = None

    @property
    def window(self) -> Any:
        """Parent widget and Qt view, named as in napari's window."""
        return self._window


class SecondPanel(QDockWidget):
    """Canvas and bar of the second view; closing it ends everything in it.

    Parameters
    ----------
    main : napari.Viewer
        The viewer whose window it becomes a part of.
    closing : callable
        Called once, first thing when the panel goes.
    """

    def __init__(self, main: Any, closing: Callable[[], None]) -> None:
        super().__init__("Beside", main.window._qt_window)
        self.setObjectName("slnBeside")
        self.setFeatures(QDockWidget.DockWidgetFeature.DockWidgetClosable)  # a GL canvas must not change its window
        self._closing: Callable[[], None] | None = closing
        self.viewer: Any = SecondViewer(title="SLN Predict, beside")
        # The main window works its status line out in a thread of its own; this one has none to fill.
        self.viewer.cursor.events.position.disconnect(self.viewer.update_status_from_cursor)
        self.view = QtViewer(self.viewer)
        window = main.window
        self.viewer._window = Window(self, self.view, window._register_task_status, window._update_task_status)
        self.bar: QWidget | None = None
        self._beside: QDockWidget | None = None
        self._halve = QTimer(self, singleShot=True, interval=HALVE_MS)
        self._halve.timeout.connect(self._share_width)
        self.body = QWidget()
        self.column = QVBoxLayout(self.body)
        self.column.setContentsMargins(0, 0, 0, 0)
        self.column.setSpacing(0)
        self.column.addWidget(self.view, 1)
        self.setWidget(self.body)
        self.setTitleBarWidget(QWidget())  # the bar above the canvas says what this is

    def closeEvent(self, event: QCloseEvent) -> None:
        """Leave for good."""
        self.leave()
        super().closeEvent(event)

    def leave(self) -> None:
        """Close the slide, stop its jobs, give the canvas back; safe to call twice."""
        closing, self._closing = self._closing, None
        if closing is None:
            return
        closing()
        viewer = self.viewer
        viewer._layer_slicer.shutdown()
        disconnect_events(viewer.dims.events, viewer)
        viewer.layers.clear()
        self.view.close()
        self.setParent(None)
        self.deleteLater()

    def _share_width(self) -> None:
        """Give both canvases the same width; the dock keeps its own."""
        window: Any = self.parentWidget()
        half = (window.centralWidget().width() + self.width()) // 2
        docks = [self] if self._beside is None else [self, self._beside]
        widths = [half] if self._beside is None else [half, self._beside.width()]
        window.resizeDocks(docks, widths, Qt.Orientation.Horizontal)

    def sit_beside(self, dock: QDockWidget | None) -> None:
        """Take half of what the main canvas has, left of the dock."""
        window: Any = self.parentWidget()
        if dock is None or dock.isFloating():
            window.addDockWidget(Qt.DockWidgetArea.RightDockWidgetArea, self)
        else:
            window.addDockWidget(Qt.DockWidgetArea.RightDockWidgetArea, self)
            window.splitDockWidget(self, dock, Qt.Orientation.Horizontal)
        self._beside = dock
        self._halve.start()
