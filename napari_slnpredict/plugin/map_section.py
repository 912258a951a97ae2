"""The map: its quantity, colours with unit and range, threshold with area, and the tiles that count most."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QComboBox, QGridLayout, QSizePolicy, QSlider, QWidget

from napari_slnpredict.colours import AMOUNT, SIDES

from . import words
from .asks import STRIP
from .legend import Legend
from .maps import BY_CLASS
from .widgets import ColourBar, Fold, Row, TileButton, Words

if TYPE_CHECKING:
    from .controller import Controller
    from .maps import Maps, MapState
    from .scores import Scores

#: The section's words follow its map by so much, ms.
WORDS_MS = 40
#: Steps of the threshold slider.
STEPS = 200

NO_MODEL_MAP = "the model's map (press Run)"
SCALE_WORDS = {
    "share": "attention, × mean", "attention": "attention, raw", "rank": "attention, rank", BY_CLASS: "tile classes",
}  # fmt: skip


class MapSection(Fold):
    """Controls of the map; absent without one."""

    def __init__(self, controller: Controller) -> None:
        super().__init__("Map")
        self._controller = controller
        self._maps = controller.maps
        self._scores = controller.scores
        self._listed: list[tuple[str, object]] = []
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
        self.legend = Legend()
        self.strip = StripWidget(controller)
        self.add(Row("Show", self.scale), self.colours, self.range, self.legend)
        self.threshold_row = Row("Above", self.threshold)
        self.add(self.threshold_row, self.area, self.strip)
        self.notes = Words(quiet=True)
        self.add(self.notes)
        # The picture first: new words lay the whole dock out anew, which the frame with the new map need not wait for.
        self._soon = QTimer(self, singleShot=True, interval=WORDS_MS)
        self._soon.timeout.connect(self.refresh)
        self._maps.changed.connect(self._soon.start)
        self._scores.changed.connect(self.refresh)
        controller.answer_changed.connect(self.refresh)
        self.refresh()

    @property
    def source(self) -> Maps | Scores:
        """Who the map comes from: the model, or a file of scores."""
        return self._maps if self._scores.file is None else self._scores

    def refresh(self) -> None:
        """Show the map's present state."""
        state, scales = self.source.state, self._controller.scales()
        self.setVisible(self._maps.values is not None or bool(self._scores.files))
        self._fill(self._entries(scales), self._scores.choice or state.scale)
        there = self.source.values is not None
        looks = state.looks if there else None
        for widget in (self.threshold_row, self.area):
            widget.setVisible(there)
        self.colours.setVisible(there and looks is None)
        self.range.setVisible(there)
        self.legend.show_classes(looks)
        file = self._scores.file
        self.notes.say("\n".join((words.score_facts(file.scores), *file.scores.notes)) if file is not None else "")
        if there:
            self._show(state, finished=bool(scales) or file is not None)

    def _entries(self, scales: list[str]) -> list[tuple[str, object]]:
        """Return what can be chosen, in words: the model's scales, then the columns of score files."""
        own: list[tuple[str, object]] = [(scale_words(scale), scale) for scale in scales or ["share"]]
        if self._maps.values is None:
            own = [(NO_MODEL_MAP, "share")]
        elif not scales and self._maps.state.looks is not None:
            own = [(scale_words(BY_CLASS), BY_CLASS)]
        return own + list(self._scores.choices())

    def _show(self, state: MapState, *, finished: bool) -> None:
        """Show colours, range and threshold."""
        self.colours.show_stops(SIDES if state.two_sided else AMOUNT)
        line = words.range_line(state.low, state.high, state.unit, top=None if state.two_sided else state.top)
        sides = "blue against, orange for · " if state.two_sided else ""
        self.range.say("" if state.looks is not None else sides + line + ("" if finished else " · so far"))
        lowest, reach = reach_of(state)
        self.threshold.blockSignals(True)
        self.threshold.setValue(round((state.threshold - lowest) / reach * STEPS))
        self.threshold.setEnabled(finished)
        self.threshold.blockSignals(False)
        sign = "±" if state.two_sided else "≥"
        limit = f"{sign} {words.three(state.threshold)}" if state.threshold > lowest else "all"
        self.area.say(f"{limit}: {words.area(state.area_mm2)} in {words.count(state.tiles)} tiles")

    def _fill(self, entries: list[tuple[str, object]], present: object) -> None:
        self.scale.blockSignals(True)
        if self._listed != entries:
            self._listed = entries
            self.scale.clear()
            for told, entry in entries:
                self.scale.addItem(told, entry if isinstance(entry, str) else None)
                self.scale.setItemData(self.scale.count() - 1, told, Qt.ItemDataRole.ToolTipRole)
        chosen = next((row for row, (_, entry) in enumerate(entries) if entry == present), 0)
        self.scale.setCurrentIndex(chosen)
        self.scale.blockSignals(False)

    def _scale_chosen(self, index: int) -> None:
        entry = self._listed[index][1]
        if isinstance(entry, str):
            self._scores.choose(None)
            self._maps.show_scale(entry)
            self.refresh()
        else:
            self._scores.choose(entry)

    def _threshold_moved(self, value: int) -> None:
        lowest, reach = reach_of(self.source.state)
        self.source.set_threshold(lowest + value / STEPS * reach)


def reach_of(state: MapState) -> tuple[float, float]:
    """Return where the threshold slider begins, and how far it reaches."""
    lowest = 0.0 if state.two_sided else state.low
    return lowest, (state.high - lowest) or 1.0


class StripWidget(QWidget):
    """The tiles that speak for and against, or those looked at most."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller = controller
        self._asks = controller.asks
        self._scores = controller.scores
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
        self._scores.changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show the present strip; it is the model's, not of somebody's scores."""
        strip = self._asks.strip if self._scores.file is None else None
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
