"""The map: its quantity, colours with unit and range, threshold with area, and the tiles that count most."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QGridLayout, QSizePolicy, QSlider, QWidget

from napari_slnpredict.colours import AMOUNT, SIDES

from . import words
from .asks import STRIP
from .widgets import ColourBar, Fold, Row, TileButton, Words

if TYPE_CHECKING:
    from .controller import Controller

#: Steps of the threshold slider.
STEPS = 200

SCALE_WORDS = {"share": "attention, × mean", "attention": "attention, raw", "rank": "attention, rank"}


class MapSection(Fold):
    """Controls of the map; absent without one."""

    def __init__(self, controller: Controller) -> None:
        super().__init__("Map")
        self._controller = controller
        self._maps = controller.maps
        self.scale = QComboBox()
        self.scale.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.scale.setToolTip("Attention says where the model looked; evidence says what it made of it")
        self.scale.activated.connect(self._scale_chosen)
        self.colours = ColourBar()
        self.range = Words(quiet=True)
        self.threshold = QSlider(Qt.Orientation.Horizontal)
        self.threshold.setRange(0, STEPS)
        self.threshold.setToolTip("Paint only tiles at or above this value")
        self.threshold.valueChanged.connect(self._threshold_moved)
        self.area = Words()
        self.strip = StripWidget(controller)
        self.add(Row("Show", self.scale), self.colours, self.range)
        self.add(Row("Above", self.threshold), self.area, self.strip)
        self._maps.changed.connect(self.refresh)
        controller.answer_changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show the map's present state."""
        state, scales = self._maps.state, self._controller.scales()
        self.setVisible(self._maps.values is not None)
        self._fill(scales or ["share"], state.scale)
        self.colours.show_stops(SIDES if state.two_sided else AMOUNT)
        line = words.range_line(state.low, state.high, state.unit, top=None if state.two_sided else state.top)
        sides = "blue against, orange for · " if state.two_sided else ""
        self.range.say(sides + line + ("" if scales else " · so far"))
        reach = state.high or 1.0
        self.threshold.blockSignals(True)
        self.threshold.setValue(round(state.threshold / reach * STEPS))
        self.threshold.setEnabled(bool(scales))
        self.threshold.blockSignals(False)
        sign = "±" if state.two_sided else "≥"
        limit = f"{sign} {words.three(state.threshold)}" if state.threshold > 0 else "all"
        self.area.say(f"{limit}: {words.area(state.area_mm2)} in {words.count(state.tiles)} tiles")

    def _fill(self, scales: list[str], present: str) -> None:
        listed = [self.scale.itemData(row) for row in range(self.scale.count())]
        self.scale.blockSignals(True)
        if listed != scales:
            self.scale.clear()
            for scale in scales:
                self.scale.addItem(scale_words(scale), scale)
        self.scale.setCurrentIndex(max(0, self.scale.findData(present)))
        self.scale.blockSignals(False)

    def _scale_chosen(self, index: int) -> None:
        self._maps.show_scale(self.scale.itemData(index))

    def _threshold_moved(self, value: int) -> None:
        self._maps.set_threshold(value / STEPS * self._maps.state.high)


class StripWidget(QWidget):
    """The tiles that speak for and against, or those looked at most."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller = controller
        self._asks = controller.asks
        self._labels = [Words(), Words()]
        self._buttons = [[TileButton(controller.jump_to) for _ in range(STRIP)] for _ in range(2)]
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 2, 0, 0)
        layout.setSpacing(3)
        for row in range(2):
            layout.addWidget(self._labels[row], row, 0)
            for column, button in enumerate(self._buttons[row]):
                layout.addWidget(button, row, column + 1)
        layout.setColumnStretch(0, 1)
        self._asks.strip_changed.connect(self.refresh)
        self._asks.pictures_arrived.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show the present strip."""
        strip = self._asks.strip
        self.setVisible(strip is not None)
        if strip is None:
            return
        first, second = strip.first, strip.second
        if not strip.second_word and len(first) > STRIP:
            first, second = first[:STRIP], first[STRIP:]
        for row, (word, tiles) in enumerate(((strip.first_word, first), (strip.second_word, second))):
            told = f"speaks {word}" if word.startswith("for ") or word == "against" else word
            label = self._labels[row]
            label.say(word + (": none" if word and not tiles else ""))
            longest = max((label.fontMetrics().horizontalAdvance(part) for part in label.said.split()), default=0)
            label.setMinimumWidth(longest + 6)
            for column, button in enumerate(self._buttons[row]):
                button.setVisible(column < len(tiles))
                if column < len(tiles):
                    tile = tiles[column]
                    told_tile = f"{told or strip.first_word}, number {column + 1}: press to go there"
                    button.show_tile(tile, self._asks.pictures.get(tile), told_tile)


def scale_words(scale: str) -> str:
    """Return a scale as the user chooses it."""
    kind, _, name = scale.partition(":")
    return f"evidence for {name}" if kind == "evidence" else SCALE_WORDS.get(scale, scale)
