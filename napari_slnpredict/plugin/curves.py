"""Curves of a training, painted as they grow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPalette, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

#: Blue, orange, green, pink (Okabe and Ito): apart for colour-blind eyes, readable on dark and light.
COLOURS = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167))


@dataclass(frozen=True)
class Line:
    """One curve.

    Attributes
    ----------
    name : str
    steps : (k,) float64
    values : (k,) float64
    dots : bool
        Each value is marked (few of them); else a running mean is drawn over the faint values.
    """

    name: str
    steps: NDArray[np.float64]
    values: NDArray[np.float64]
    dots: bool = False


class CurvePlot(QWidget):
    """Some curves over the steps of a training.

    Parameters
    ----------
    title : str
    """

    def __init__(self, title: str) -> None:
        super().__init__()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.title = title
        self.lines: tuple[Line, ...] = ()
        self._total = 1

    def sizeHint(self) -> QSize:
        """Some eight lines of text high."""
        return QSize(240, 8 * self.fontMetrics().height())

    def show_lines(self, lines: Sequence[Line], total: int) -> None:
        """Show curves; the axis goes to `total` steps. Without any the plot is hidden."""
        self.lines = tuple(line for line in lines if len(line.steps))
        self._total = max(total, 1)
        self.setVisible(bool(self.lines))
        told = ", ".join(f"{line.name} {line.values[-1]:.3g} at step {line.steps[-1]:.0f}" for line in self.lines)
        self.setAccessibleName(f"{self.title}: {told}")
        self.setToolTip(told)
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw."""
        if not self.lines:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        ink = self.palette().color(QPalette.ColorRole.WindowText)
        faint = QColor(ink)
        faint.setAlpha(90)
        low, high = _range(np.concatenate([line.values for line in self.lines]))
        box = self._frame(painter, ink, faint, low, high)
        for line, colour in zip(self.lines, COLOURS, strict=False):
            _draw(painter, line, QColor(*colour), box, (0, self._total, low, high))
        painter.end()

    def _frame(self, painter: QPainter, ink: QColor, faint: QColor, low: float, high: float) -> QRectF:
        """Draw names, axes and their ends; return where the curves go."""
        metrics = self.fontMetrics()
        height = metrics.height()
        margin = max(metrics.horizontalAdvance(f"{value:.3g}") for value in (low, high)) + 6
        rows = len(self.lines)
        box = QRectF(margin, rows * height + 4, self.width() - margin - 2, self.height() - (rows + 1) * height - 8)
        for row, (line, colour) in enumerate(zip(self.lines, COLOURS, strict=False)):
            painter.fillRect(QRectF(margin, (row + 0.35) * height, 10, 0.3 * height), QColor(*colour))
            painter.setPen(ink)
            painter.drawText(
                QPointF(margin + 16, row * height + metrics.ascent()), f"{line.name} {line.values[-1]:.3g}"
            )
        painter.setPen(QPen(faint, 1))
        painter.drawLine(box.bottomLeft(), box.bottomRight())
        painter.drawLine(box.bottomLeft(), box.topLeft())
        painter.setPen(ink)
        right = int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        for value, y in ((high, box.top()), (low, box.bottom())):
            painter.drawText(QRectF(0, y - height / 2, margin - 4, height), right, f"{value:.3g}")
        below = QRectF(box.left(), box.bottom() + 2, box.width(), height)
        painter.drawText(below, int(Qt.AlignmentFlag.AlignLeft), "0")
        painter.drawText(below, int(Qt.AlignmentFlag.AlignRight), f"{self._total} steps")
        return box


def _draw(
    painter: QPainter, line: Line, colour: QColor, box: QRectF, limits: tuple[float, float, float, float]
) -> None:
    """Draw one curve into a box whose limits are (left, right, low, high)."""
    left, right, low, high = limits

    def places(steps: NDArray[np.float64], values: NDArray[np.float64]) -> QPolygonF:
        x = box.left() + (steps - left) / (right - left) * box.width()
        y = box.bottom() - (np.clip(values, low, high) - low) / (high - low) * box.height()
        return QPolygonF([QPointF(float(a), float(b)) for a, b in zip(x, y, strict=True)])

    if line.dots:
        painter.setPen(QPen(colour, 2))
        painter.drawPolyline(places(line.steps, line.values))
        painter.setBrush(colour)
        for point in places(line.steps, line.values):
            painter.drawEllipse(point, 2.5, 2.5)
        return
    steps, values = _thinned(line, int(box.width()))
    pale = QColor(colour)
    pale.setAlpha(80)
    painter.setPen(QPen(pale, 1))
    painter.drawPolyline(places(steps, values))
    painter.setPen(QPen(colour, 2))
    painter.drawPolyline(places(steps, smoothed(values)))


def _thinned(line: Line, most: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return at most `most` of a curve's points, means of neighbours."""
    groups = max(1, -(-len(line.steps) // max(most, 1)))
    cuts = np.arange(0, len(line.steps), groups)
    count = np.diff([*cuts, len(line.steps)])
    return np.add.reduceat(line.steps, cuts) / count, np.add.reduceat(line.values, cuts) / count


def smoothed(values: NDArray[np.float64], share: float = 0.1) -> NDArray[np.float64]:
    """Return the mean over a window of a share of the curve, cut off at its ends."""
    reach = int(share * len(values) / 2)
    total = np.concatenate([[0.0], np.cumsum(values)])
    begin = np.maximum(np.arange(len(values)) - reach, 0)
    end = np.minimum(np.arange(len(values)) + reach + 1, len(values))
    mean: NDArray[np.float64] = (total[end] - total[begin]) / (end - begin)
    return mean


def _range(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return limits that hold nearly all values: a first step's outlier must not press the rest flat."""
    low, high = (float(value) for value in np.percentile(values, (1, 99)))
    slack = 0.05 * (high - low) or 0.05 * abs(high) or 0.05
    return low - slack, high + slack
