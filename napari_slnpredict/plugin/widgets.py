"""Small widgets the dock is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QPointF, QRectF, QSize, Qt, QTimer
from qtpy.QtGui import QColor, QHideEvent, QIcon, QImage, QPainter, QPaintEvent, QPalette, QPen, QPixmap
from qtpy.QtWidgets import QFrame, QHBoxLayout, QLabel, QPushButton, QSizePolicy, QToolButton, QVBoxLayout, QWidget

from napari_slnpredict.colours import Stops, ramp

from .overview import to_pixmap

#: Longer words are given places to break.
LONG_WORD = 24
#: The dock's blue: readable on napari's dark and light ground.
ACCENT = QColor(10, 116, 200)


class Words(QLabel):
    """A label that wraps, can be selected, and never asks for more width than there is.

    Parameters
    ----------
    strong : bool
        What the eye should find first.
    quiet : bool
        What explains, beside what says; the dock's style makes it fainter.
    """

    def __init__(self, text: str = "", *, strong: bool = False, quiet: bool = False, size: float = 1.0) -> None:
        super().__init__(text)
        self.setProperty("quiet", quiet)
        self.said = text
        self.setWordWrap(True)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        # Long file names have no spaces: without this they would widen the dock.
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
        font = self.font()
        font.setBold(strong)
        if size != 1.0:
            font.setPointSizeF(font.pointSizeF() * size)
        self.setFont(font)

    def hasHeightForWidth(self) -> bool:
        """Wrapped text needs a height for its width."""
        return True

    def say(self, text: str) -> None:
        """Show a text; an empty one takes no room."""
        if text == self.said and self.isHidden() != bool(text):
            return
        self.said = text
        self.setText(soft_breaks(text))
        self.setVisible(bool(text))


def soft_breaks(text: str) -> str:
    """Allow words too long for the dock (names, paths) to wrap at their joints, by zero-width spaces."""

    def loosened(word: str) -> str:
        return "".join(c + "\u200b" if c in "_/\\-.=" else c for c in word) if len(word) > LONG_WORD else word

    return " ".join(loosened(word) for word in text.split(" "))


class Row(QWidget):
    """A name at the left, things at the right."""

    NAME_WIDTH = 50

    def __init__(self, name: str, *things: QWidget, stretch: int = 0) -> None:
        super().__init__()
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(6)
        label = QLabel(name)
        label.setMinimumWidth(self.NAME_WIDTH)
        layout.addWidget(label, 0, Qt.AlignmentFlag.AlignTop if len(things) == 1 else Qt.AlignmentFlag.AlignVCenter)
        for number, thing in enumerate(things):
            layout.addWidget(thing, 1 if number == stretch else 0)


class Fold(QWidget):
    """A section with a heading that folds it."""

    def __init__(self, title: str, *, opened: bool = True) -> None:
        super().__init__()
        self._title = title
        self._head = QPushButton()
        self._head.setObjectName("slnFold")
        self._head.setCheckable(True)
        self._head.setChecked(opened)
        self._head.toggled.connect(self._fold)
        line = QFrame()
        line.setFrameShape(QFrame.Shape.HLine)
        line.setObjectName("slnLine")
        self.body = QWidget()
        self.column = QVBoxLayout(self.body)
        self.column.setContentsMargins(0, 0, 0, 2)
        self.column.setSpacing(4)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 4, 0, 0)
        layout.setSpacing(2)
        for widget in (line, self._head, self.body):
            layout.addWidget(widget)
        self._fold(opened)

    def add(self, *widgets: QWidget) -> None:
        """Add widgets below each other."""
        for widget in widgets:
            self.column.addWidget(widget)

    def _fold(self, shown: bool) -> None:
        self._head.setText(f"{'▾' if shown else '▸'} {self._title}")
        self.body.setVisible(shown)


class ProbabilityBar(QWidget):
    """0 to 1 with the interval as a band, the probability as a dot, the threshold as a tick."""

    def __init__(self) -> None:
        super().__init__()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self._value: float | None = None
        self._interval: tuple[float, float] | None = None
        self._threshold: float | None = None

    def sizeHint(self) -> QSize:
        """As high as a line of text."""
        return QSize(200, self.fontMetrics().height() + 8)

    def show_value(self, value: float, interval: Sequence[float] | None, threshold: float | None) -> None:
        """Show a probability."""
        self._value, self._threshold = value, threshold
        self._interval = (float(interval[0]), float(interval[1])) if interval is not None else None
        told = f"Probability {value:.2f} on a scale from 0 to 1"
        told += f", interval {interval[0]:.2f} to {interval[1]:.2f}" if interval is not None else ""
        told += f", threshold {threshold:.2f}" if threshold is not None else ""
        self.setToolTip(told)
        self.setAccessibleName(told)
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw."""
        if self._value is None:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        ink = self.palette().color(QPalette.ColorRole.WindowText)
        metrics = self.fontMetrics()
        zero, one = metrics.horizontalAdvance("0") + 8, metrics.horizontalAdvance("1") + 8
        left, right, middle = zero, self.width() - one, self.height() / 2
        painter.setPen(ink)
        painter.drawText(QRectF(0, 0, zero, self.height()), Qt.AlignmentFlag.AlignVCenter, "0")
        painter.drawText(
            QRectF(right, 0, one, self.height()), int(Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignRight), "1"
        )

        def at(value: float) -> float:
            return left + min(max(value, 0.0), 1.0) * (right - left)

        painter.setPen(QPen(ink, 1))
        painter.drawLine(QPointF(left, middle), QPointF(right, middle))
        if self._interval is not None:
            low, high = self._interval
            band = QColor(0, 124, 200, 110)
            painter.fillRect(QRectF(at(low), middle - 4, max(2.0, at(high) - at(low)), 8), band)
        if self._threshold is not None:
            x = at(self._threshold)
            painter.setPen(QPen(ink, 2))
            painter.drawLine(QPointF(x, middle - 8), QPointF(x, middle + 8))
        painter.setPen(QPen(QColor(255, 255, 255), 1.5))
        painter.setBrush(QColor(0, 104, 181))
        painter.drawEllipse(QPointF(at(self._value), middle), 6, 6)
        painter.end()


class ThinBar(QWidget):
    """Progress as a thin bar; while nothing can be counted a stripe moves.

    Not a QProgressBar: that one repaints at once on every value, and beside a GL canvas each repaint composes the whole
    window anew.
    """

    STRIPE_MS = 250

    def __init__(self) -> None:
        super().__init__()
        self.setFixedHeight(8)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self._share: float | None = None
        self._step = 0
        self._timer = QTimer(self, interval=self.STRIPE_MS)
        self._timer.timeout.connect(self._move)

    def show_share(self, share: float | None) -> None:
        """Show 0 to 1; None where nothing can be counted."""
        if share is None:
            self._timer.start()
        else:
            self._timer.stop()
        self._share = share
        self.setAccessibleName("in progress" if share is None else f"{share:.0%} done")
        self.update()

    def hideEvent(self, event: QHideEvent) -> None:
        """Nothing moves unseen."""
        self._timer.stop()

    def _move(self) -> None:
        self._step += 1
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw."""
        painter = QPainter(self)
        painter.fillRect(self.rect(), QColor(128, 128, 128, 90))
        width = self.width()
        if self._share is not None:
            painter.fillRect(QRectF(0, 0, width * min(max(self._share, 0.0), 1.0), self.height()), ACCENT)
        else:
            left = (self._step * width / 8) % (width * 1.25) - width / 4
            painter.fillRect(QRectF(left, 0, width / 4, self.height()), ACCENT)
        painter.end()


class ColourBar(QLabel):
    """The colours of a map on white and grey, as they look on glass."""

    def __init__(self) -> None:
        super().__init__()
        self.setFixedHeight(12)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setScaledContents(True)
        self.setMinimumWidth(40)

    def show_stops(self, stops: Stops) -> None:
        """Show a ramp of colours over white."""
        table = ramp(stops)
        opacity = table[:, 3:]
        flat = table[:, :3] * opacity + (1 - opacity)
        row = (flat * 255).round().astype(np.uint8)
        self.setPixmap(to_pixmap(np.repeat(row[None], 4, axis=0)))


class TileButton(QToolButton):
    """A tile's picture; a press goes there."""

    SIDE = 52

    def __init__(self, press: Callable[[int], None]) -> None:
        super().__init__()
        self.tile = -1
        self._press = press
        self.setIconSize(QSize(self.SIDE - 4, self.SIDE - 4))
        self.setFixedSize(self.SIDE, self.SIDE)
        self.setProperty("tile", True)
        self.clicked.connect(lambda: self._press(self.tile))

    def show_tile(self, tile: int, picture: NDArray[np.uint8] | None, words: str) -> None:
        """Show a tile, its picture as soon as there is one."""
        self.tile = tile
        self.setToolTip(words)
        self.setAccessibleName(words)
        self.setIcon(QIcon(to_pixmap(picture)) if picture is not None else QIcon())


def faded(picture: NDArray[np.uint8], side: int) -> QPixmap:
    """Return a picture at a side length, smooth."""
    image = QImage(
        np.ascontiguousarray(picture).data,
        picture.shape[1],
        picture.shape[0],
        3 * picture.shape[1],
        QImage.Format.Format_RGB888,
    )
    return QPixmap.fromImage(
        image.scaled(
            side, side, Qt.AspectRatioMode.KeepAspectRatio, Qt.TransformationMode.SmoothTransformation
        )
    )  # fmt: skip
