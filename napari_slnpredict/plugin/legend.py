"""The legend of a map of classes: colour, name, share of the tissue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QPainter, QPixmap
from qtpy.QtWidgets import QGridLayout, QLabel, QWidget

from napari_slnpredict.colours import class_colour

from . import words
from .widgets import Words

if TYPE_CHECKING:
    from napari_slnpredict.tile_classes import TileClasses

#: Side of a colour's square, px.
SIDE = 14


class Legend(QWidget):
    """One row a class, the largest first; absent without classes."""

    def __init__(self) -> None:
        super().__init__()
        self._rows: list[tuple[QLabel, Words, QLabel]] = []
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 2, 0, 2)
        self._grid.setHorizontalSpacing(8)
        self._grid.setVerticalSpacing(2)
        self._grid.setColumnStretch(1, 1)
        self.hide()

    def show_classes(self, looks: TileClasses | None) -> None:
        """Show a map's classes; None: it has none."""
        self.setVisible(looks is not None)
        if looks is None:
            return
        from napari_slnpredict.tile_classes import per_cent

        rows = looks.ranked()
        while len(self._rows) < len(rows):
            self._add_row()
        for place, (square, name, share) in enumerate(self._rows):
            for widget in (square, name, share):
                widget.setVisible(place < len(rows))
            if place < len(rows):
                told, part, mm2 = rows[place]
                square.setPixmap(square_of(class_colour(looks.classes.index(told))))
                name.say(told)
                share.setText(f"{per_cent(part)} · {words.area(mm2)}")

    def _add_row(self) -> None:
        row = len(self._rows)
        widgets = QLabel(), Words(), QLabel()
        for column, widget in enumerate(widgets):
            self._grid.addWidget(widget, row, column, Qt.AlignmentFlag.AlignVCenter)
        self._rows.append(widgets)


def square_of(colour: tuple[int, int, int]) -> QPixmap:
    """Return a square of a colour with a rim that shows on any theme."""
    pixmap = QPixmap(SIDE, SIDE)
    pixmap.fill(QColor(*colour))
    painter = QPainter(pixmap)
    painter.setPen(QColor(110, 110, 110))
    painter.drawRect(0, 0, SIDE - 1, SIDE - 1)
    painter.end()
    return pixmap
