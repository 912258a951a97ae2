"""The lengths beside measured lines: small labels over the canvas, on a ground of their own.

napari's layer text has neither ground nor border: on an H&E slide no colour of it is read on glass and on nuclei alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QWidget

from .crosshair import on_canvas

#: Between the line's upper end and the label's lower edge, screen px.
GAP_PX = 4
STYLE = "background: rgba(255, 255, 255, 215); color: #101010; padding: 1px 4px; border-radius: 2px; font-weight: bold;"


class Tags:
    """The labels of one canvas.

    Parameters
    ----------
    canvas : QWidget
        Their parent; they go with it.
    """

    def __init__(self, canvas: QWidget) -> None:
        self._canvas = canvas
        self.labels: list[QLabel] = []

    def show(self, viewer: Any, lines: Sequence[Any], texts: Sequence[str], *, visible: bool) -> None:
        """Put each text above its line ((k, 2), world)."""
        while len(self.labels) < len(lines):
            label = QLabel(self._canvas)
            label.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
            label.setStyleSheet(STYLE)
            self.labels.append(label)
        while len(self.labels) > len(lines):
            gone = self.labels.pop()
            gone.hide()
            gone.deleteLater()
        for label, line, text in zip(self.labels, lines, texts, strict=True):
            if label.text() != text:
                label.setText(text)
                label.adjustSize()
            y, x = np.asarray(line, float)[:, -2:].mean(axis=0)
            across, down = on_canvas(viewer, (float(y), float(x)))
            label.move(round(across - label.width() / 2), round(down - label.height() - GAP_PX))
            label.setVisible(visible)
