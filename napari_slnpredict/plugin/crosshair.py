"""A cross on one canvas at the place that the mouse points at on the other."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QObject, QPointF, Qt
from qtpy.QtGui import QColor, QPainter, QPen
from qtpy.QtWidgets import QWidget

if TYPE_CHECKING:
    from qtpy.QtGui import QPaintEvent

    from .link import CameraLink, Place

#: Side of the cross and of the gap in its middle, screen px: what is pointed at stays visible.
SIDE, GAP = 31, 5


class Cross(QWidget):
    """The cross itself: a small widget over the canvas, so that moving it does not draw the canvas anew.

    Parameters
    ----------
    canvas : QWidget
        The canvas it lies on.
    """

    def __init__(self, canvas: QWidget) -> None:
        super().__init__(canvas)
        self.setObjectName("slnCross")
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.resize(SIDE, SIDE)
        self.hide()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw two lines, light under dark: they show on any tissue."""
        painter = QPainter(self)
        middle = SIDE / 2
        for colour, width in ((QColor(255, 255, 255), 4), (QColor(10, 60, 140), 1.5)):
            painter.setPen(QPen(colour, width))
            for begin, end in ((1.0, middle - GAP), (middle + GAP, SIDE - 1.0)):
                painter.drawLine(QPointF(begin, middle), QPointF(end, middle))
                painter.drawLine(QPointF(middle, begin), QPointF(middle, end))
        painter.end()


class Pointers(QObject):
    """Shows on each of two canvases what is pointed at on the other, while their cameras are linked.

    Parameters
    ----------
    first, second : napari viewer models
        Held weakly.
    link : CameraLink
    parent : QObject
    """

    def __init__(self, first: Any, second: Any, link: CameraLink, parent: QObject) -> None:
        super().__init__(parent)
        self._link = link
        self._viewers = (weakref.ref(first), weakref.ref(second))
        self._natives = tuple(viewer.window._qt_viewer.canvas.native for viewer in (first, second))
        self.crosses = tuple(Cross(native) for native in self._natives)
        self._slots = (self._first_pointed, self._second_pointed)
        for viewer, slot, native in zip((first, second), self._slots, self._natives, strict=True):
            viewer.mouse_move_callbacks.append(slot)
            native.installEventFilter(self)

    def leave(self) -> None:
        """Take both crosses away and hear nothing more."""
        for viewer, slot, native, cross in zip(self._viewers, self._slots, self._natives, self.crosses, strict=True):
            alive = viewer()
            if alive is not None and slot in alive.mouse_move_callbacks:
                alive.mouse_move_callbacks.remove(slot)
            native.removeEventFilter(self)
            cross.hide()
            cross.deleteLater()
        self._natives, self.crosses = (), ()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """The mouse leaves a canvas: nothing is pointed at."""
        if event.type() == QEvent.Type.Leave and watched in self._natives:
            self.hide()
        return False

    def hide(self) -> None:
        """Show no cross."""
        for cross in self.crosses:
            cross.hide()

    def _first_pointed(self, viewer: Any, event: Any) -> None:
        self._point(0, event.position[-2:])

    def _second_pointed(self, viewer: Any, event: Any) -> None:
        self._point(1, event.position[-2:])

    def _point(self, side: int, place: Place) -> None:
        if not self.crosses:
            return
        self.crosses[side].hide()
        other, cross = self._viewers[1 - side](), self.crosses[1 - side]
        if not self._link.on or other is None:
            cross.hide()
            return
        x, y = on_canvas(other, self._link.corresponding(side, place))
        cross.move(round(x - SIDE / 2), round(y - SIDE / 2))
        cross.show()


def on_canvas(viewer: Any, place: Place) -> tuple[float, float]:
    """Return where a place of the world (y, x) lies on a viewer's canvas: x, y in screen px."""
    camera, (height, width) = viewer.scene.camera, viewer.canvas.size
    y, x = camera.center[-2:]
    return width / 2 + (place[1] - x) * camera.zoom, height / 2 + (place[0] - y) * camera.zoom
