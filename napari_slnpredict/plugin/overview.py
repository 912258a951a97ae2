"""The overview inset: the whole slide, small, at the canvas's top right, with what is on the screen framed."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QEvent, QObject, QPoint, QRectF, Qt
from qtpy.QtGui import QColor, QImage, QPainter, QPen, QPixmap
from qtpy.QtWidgets import QWidget

if TYPE_CHECKING:
    from qtpy.QtGui import QMouseEvent, QPaintEvent

    from .view import Camera

#: Longest side, share of the canvas's shorter side, and px at most.
SHARE, MOST_PX = 0.24, 200
MARGIN = 10


class Overview:
    """Puts the inset on a viewer's canvas, when there is a canvas to put it on.

    Parameters
    ----------
    viewer : napari.Viewer
        Held weakly.
    camera : Camera
    """

    def __init__(self, viewer: Any, camera: Camera) -> None:
        self._viewer = weakref.ref(viewer)
        self._camera = camera
        self._inset: Inset | None = None
        events = viewer.scene.camera.events
        for event in (events.zoom, events.center, viewer.canvas.events.size):
            event.connect(self._moved)

    @property
    def widget(self) -> Inset | None:
        """The inset, or None while there is no slide."""
        return self._inset

    def show(self, picture: NDArray[np.uint8] | None, dimensions: tuple[int, int] = (1, 1)) -> None:
        """Show a slide's overview; None takes it away."""
        if self._inset is not None:
            self._inset.leave()
            self._inset = None
        canvas = self._canvas()
        if picture is None or canvas is None:
            return
        self._inset = Inset(canvas, picture, dimensions, self._camera)
        self._inset.settle()
        self._inset.show()

    def recolour(self, picture: NDArray[np.uint8]) -> None:
        """Show the same slide in other colours."""
        if self._inset is not None:
            self._inset.recolour(picture)

    def _canvas(self) -> QWidget | None:
        viewer = self._viewer()
        qt_viewer = getattr(getattr(viewer, "window", None), "_qt_viewer", None)
        native = getattr(getattr(qt_viewer, "canvas", None), "native", None)
        return native if isinstance(native, QWidget) else None

    def _moved(self, event: object = None) -> None:
        if self._inset is not None:
            self._inset.update()


class Inset(QWidget):
    """The small picture itself; a press goes to that place."""

    def __init__(
        self, canvas: QWidget, picture: NDArray[np.uint8], dimensions: tuple[int, int], camera: Camera
    ) -> None:
        super().__init__(canvas)
        self.setObjectName("slnOverview")
        self.setToolTip("The whole slide. Press to go there.")
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self._dimensions, self._camera = dimensions, camera
        self._pixmap = to_pixmap(picture)
        canvas.installEventFilter(self)

    def recolour(self, picture: NDArray[np.uint8]) -> None:
        """Show another picture of the same slide."""
        self._pixmap = to_pixmap(picture)
        self.update()

    def leave(self) -> None:
        """Go away for good."""
        parent = self.parent()
        if parent is not None:
            parent.removeEventFilter(self)
        self.hide()
        self.deleteLater()

    def settle(self) -> None:
        """Take place and size from the canvas."""
        canvas = self.parentWidget()
        longest = min(MOST_PX, round(SHARE * min(canvas.width(), canvas.height())))
        width, height = self._dimensions
        scale = longest / max(width, height)
        self.resize(max(24, round(width * scale)) + 2, max(24, round(height * scale)) + 2)
        self.move(canvas.width() - self.width() - MARGIN, MARGIN)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Follow the canvas's size."""
        if event.type() == QEvent.Type.Resize and watched is self.parent():
            self.settle()
        return False

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw picture and frame."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        inside = self.rect().adjusted(1, 1, -1, -1)
        painter.drawPixmap(inside, self._pixmap)
        painter.setPen(QPen(QColor(90, 90, 90), 1))
        painter.drawRect(self.rect().adjusted(0, 0, -1, -1))
        view = self._camera.rectangle()
        if view is not None:
            across, down = inside.width() / self._dimensions[0], inside.height() / self._dimensions[1]
            frame = QRectF(
                inside.left() + view.left * across,
                inside.top() + view.top * down,
                max(4.0, (view.right - view.left) * across),
                max(4.0, (view.bottom - view.top) * down),
            ).intersected(QRectF(inside))
            painter.setPen(QPen(QColor(255, 255, 255), 3))
            painter.drawRect(frame)
            painter.setPen(QPen(QColor(0, 60, 140), 1.5))
            painter.drawRect(frame)
        painter.end()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Go there."""
        self._go(event.position().toPoint())

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Drag the frame."""
        self._go(event.position().toPoint())

    def _go(self, point: QPoint) -> None:
        width, height = self._dimensions
        self._camera.go_to(point.x() / self.width() * width, point.y() / self.height() * height)


def to_pixmap(picture: NDArray[np.uint8]) -> QPixmap:
    """Return a (h, w, 3) uint8 picture as a pixmap."""
    pixels = np.ascontiguousarray(picture)
    height, width = pixels.shape[:2]
    return QPixmap.fromImage(QImage(pixels.data, width, height, 3 * width, QImage.Format.Format_RGB888).copy())
