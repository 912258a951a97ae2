"""What the docks beside "SLN Predict" share: one column that scrolls, in napari's colours, never sideways."""

from __future__ import annotations

from typing import Any

from napari.utils.theme import get_theme
from qtpy.QtCore import QEvent, QObject, QSize, Qt
from qtpy.QtWidgets import QScrollArea, QVBoxLayout, QWidget

from .predict_dock import STYLE, WIDTH, blend


class DockPage(QScrollArea):
    """A dock's column of sections.

    Parameters
    ----------
    viewer : napari.Viewer
        Not a proxy; its theme is followed.
    name : str
        Qt's object name.
    """

    def __init__(self, viewer: Any, name: str) -> None:
        super().__init__()
        self.setObjectName(name)
        self.setWidgetResizable(True)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setFrameShape(QScrollArea.Shape.NoFrame)
        self.setMinimumWidth(WIDTH)
        viewer.events.theme.connect(self._restyle)
        self._follow(viewer.theme)
        page = QWidget()
        self.column = QVBoxLayout(page)
        self.column.setContentsMargins(10, 8, 10, 8)
        self.column.setSpacing(6)
        self.setWidget(page)
        page.installEventFilter(self)

    def _restyle(self, event: Any) -> None:
        self._follow(event.value)

    def _follow(self, name: str) -> None:
        """Take the faint colours from napari's theme."""
        theme = get_theme(name)
        faint = blend(theme.text.as_rgb_tuple(), theme.background.as_rgb_tuple(), 0.75)
        ground = blend(theme.foreground.as_rgb_tuple(), theme.background.as_rgb_tuple(), 0.7)
        self.setStyleSheet(STYLE.replace("QUIET_GROUND", ground).replace("QUIET", faint))

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Widen with the user's font: nothing is cut off."""
        if event.type() == QEvent.Type.LayoutRequest and watched is self.widget():
            bar = self.verticalScrollBar().sizeHint().width() + 4
            self.setMinimumWidth(max(WIDTH, watched.minimumSizeHint().width() + bar))
        return False

    def sizeHint(self) -> QSize:
        """As wide as the design says."""
        return QSize(WIDTH, 700)
