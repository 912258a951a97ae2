"""The tiles that were found, four across: press to go there, right button to say more or less like this."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from qtpy.QtCore import QPoint, QSize, Qt
from qtpy.QtWidgets import QGridLayout, QLabel, QMenu, QSizePolicy, QVBoxLayout, QWidget

from . import similar_words
from .similar_jobs import TOP
from .widgets import TileButton

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_slnpredict.retrieval import Hit

    from .similar import Similar

ACROSS = 4


class Caption(QLabel):
    """A line under a tile; what does not fit ends in an ellipsis."""

    def __init__(self, *, quiet: bool = False) -> None:
        super().__init__()
        self.setProperty("quiet", quiet)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        font = self.font()
        font.setPointSizeF(font.pointSizeF() * 0.85)
        self.setFont(font)

    def say(self, text: str, width: int) -> None:
        """Show a text within a width, px."""
        self.setText(self.fontMetrics().elidedText(text, Qt.TextElideMode.ElideMiddle, width))
        self.setVisible(bool(text))


#: Side of a picture, px, and in heights of a line where letters are large: the captions below need the room.
SIDE, LINES = 68, 3.3


class Card(QWidget):
    """One tile that was found, with its distance, its slide and, where known, its label."""

    def __init__(self, press: Callable[[int], None], ask: Callable[[int, QPoint], None]) -> None:
        super().__init__()
        self.button = TileButton(press)
        self.button.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.button.customContextMenuRequested.connect(
            lambda where: ask(self.button.tile, self.button.mapToGlobal(where))
        )
        self.distance, self.slide, self.label = Caption(), Caption(quiet=True), Caption(quiet=True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 2)
        layout.setSpacing(0)
        for widget in (self.button, self.distance, self.slide, self.label):
            layout.addWidget(widget)
        layout.addStretch(1)

    def show_hit(self, number: int, hit: Hit, picture: NDArray[np.uint8] | None, why_not: str, side: int) -> None:
        """Show a tile; its picture as soon as there is one."""
        if self.button.width() != side:
            self.button.setFixedSize(side, side)
            self.button.setIconSize(QSize(side - 4, side - 4))
        told = similar_words.hit_lines(hit, number) + (f"\nNo picture: {why_not}" if why_not else "")
        self.button.show_tile(number, picture, told)
        self.button.setText("?" if why_not else "")
        captions = (self.distance, self.slide, self.label)
        texts = (similar_words.distance(hit.distance), hit.page.slide_id, hit.page.label)
        for caption, text in zip(captions, texts, strict=True):
            caption.say(text, side)
            caption.setToolTip(told)


class Gallery(QWidget):
    """All tiles that were found; absent when there are none."""

    def __init__(self, similar: Similar) -> None:
        super().__init__()
        self._similar = similar
        self.cards = [Card(similar.go_to, self._menu) for _ in range(TOP)]
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 2, 0, 0)
        layout.setSpacing(4)
        for number, card in enumerate(self.cards):
            layout.addWidget(card, number // ACROSS, number % ACROSS)
        layout.setColumnStretch(ACROSS, 1)
        similar.found.connect(self.refresh)
        similar.picture_arrived.connect(self._show)
        self.refresh()

    def refresh(self) -> None:
        """Show what was found."""
        hits = self._similar.hits
        self.setVisible(bool(hits))
        for number, card in enumerate(self.cards):
            card.setVisible(number < len(hits))
            if number < len(hits):
                self._show(number)

    def _show(self, number: int) -> None:
        similar = self._similar
        if number < len(similar.hits):
            hit = similar.hits[number]
            picture = similar.pictures.get(number)
            why_not = similar.missing.get(hit.page.content_id, "") if picture is None else ""
            self.cards[number].show_hit(number, hit, picture, why_not, self._side())

    def _side(self) -> int:
        self.ensurePolished()  # napari's style sets the font
        return max(SIDE, round(LINES * self.fontMetrics().height()))

    def _menu(self, number: int, where: QPoint) -> None:
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.addAction("Go there").triggered.connect(lambda: self._similar.go_to(number))
        menu.addAction("More like this").triggered.connect(lambda: self._similar.use_hit(number, True))
        menu.addAction("Not like this").triggered.connect(lambda: self._similar.use_hit(number, False))
        menu.popup(where)


class ExampleRow(QWidget):
    """The tiles that are asked with: press one to ask without it."""

    MOST = 5

    def __init__(self, similar: Similar, *, like: bool) -> None:
        super().__init__()
        self._similar, self._like = similar, like
        self.label = QLabel("Like" if like else "Not like")
        self.label.setMinimumWidth(self.label.fontMetrics().horizontalAdvance("Not like") + 6)
        self.buttons = [TileButton(similar.drop) for _ in range(self.MOST)]
        self.more = Caption(quiet=True)
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(3)
        layout.addWidget(self.label, 0, 0)
        for column, button in enumerate(self.buttons, 1):
            layout.addWidget(button, 0, column)
        layout.setColumnStretch(self.MOST + 1, 1)
        layout.addWidget(self.more, 1, 1, 1, self.MOST)
        similar.changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show the present examples, the latest of too many."""
        mine = [(k, known) for k, known in enumerate(self._similar.question.examples) if known.like == self._like]
        self.setVisible(bool(mine))
        over = max(0, len(mine) - self.MOST)
        self.more.say(f"and {over} before" if over else "", 200)
        for button, entry in zip(self.buttons, [*mine[over:], *[None] * self.MOST], strict=False):
            button.setVisible(entry is not None)
            if entry is not None:
                number, example = entry
                sign = "to be like" if self._like else "not to be like"
                button.show_tile(number, example.picture, f"{example.slide_id}: {sign}. Press to ask without it.")
