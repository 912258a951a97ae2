"""The dock "Similar tiles": a view of one viewer's search, nothing more."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QApplication,
    QButtonGroup,
    QComboBox,
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_slnpredict.colours import AMOUNT

from . import similar_words
from .controller import controller_for
from .dock_page import DockPage
from .problem_box import ProblemBox
from .similar import Similar, similar_for
from .similar_gallery import ExampleRow, Gallery
from .similar_question import LIKE, NEW, UNLIKE
from .similar_roles import COMPONENTS, SIMILARITY
from .start_section import OTHER_FOLDER, SLIDE_FILTER
from .view_section import small_button
from .widgets import ColourBar, Row, ThinBar, Words

if TYPE_CHECKING:
    from .controller import Controller

DOCK = "Similar tiles"
THIS_SLIDE, OPEN_INDEX = "this slide", "Open an index…"


class SimilarDock(DockPage):
    """Search for tiles that look alike.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        napari fills this in by name.
    """

    def __init__(self, napari_viewer: Any) -> None:
        controller = controller_for(napari_viewer)
        super().__init__(controller.viewer, "slnSimilarDock")
        self.controller = controller
        self.similar = similar = similar_for(controller)
        self.source = SourceRows(similar)
        self.ask = AskRows(similar)
        self.work = WorkRows(similar)
        self.problem = ProblemBox()
        self.problem.dismissed.connect(similar.dismiss)
        similar.changed.connect(lambda: self.problem.show_problem(similar.problem))
        self.lost = LostBox(similar)
        self.like, self.unlike = ExampleRow(similar, like=True), ExampleRow(similar, like=False)
        self.gallery = Gallery(similar)
        self.maps = MapRows(similar)
        self.ends = EndRows(controller, similar)
        for section in (
            self.source, self.ask, self.problem, self.like, self.unlike, self.maps, self.work, self.lost, self.gallery,
            self.ends,
        ):  # fmt: skip
            self.column.addWidget(section)
        self.column.addStretch(1)


class SourceRows(QWidget):
    """Which encoder, where, and what is left out."""

    def __init__(self, similar: Similar) -> None:
        super().__init__()
        self._source = source = similar.source
        self.encoder = _choice("What describes the tiles; two encoders' distances cannot be compared")
        self.encoder.activated.connect(self._encoder_chosen)
        self.place = _choice("The slide on the screen, or an index made by slnpredict index")
        self.place.activated.connect(self._placed)
        self.left_out = _choice("Neighbours on one slide are alike, and so are slides of one patient")
        for what, told in similar_words.LEFT_OUT_WORDS.items():
            self.left_out.addItem(told, what)
        self.left_out.activated.connect(lambda row: source.choose_left_out(self.left_out.itemData(row)))
        self.left_out_name = QLabel("Of")
        self.facts = Words(quiet=True)
        grid = QGridLayout(self)  # one left edge for all boxes, whatever the font
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(4)
        names = (QLabel("Encoder"), QLabel("Look in"), self.left_out_name)
        for row, name, box in zip((0, 1, 3), names, (self.encoder, self.place, self.left_out), strict=True):
            grid.addWidget(name, row, 0)
            grid.addWidget(box, row, 1)
        grid.addWidget(self.facts, 2, 0, 1, 2)
        grid.setColumnStretch(1, 1)
        source.changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show the present choices."""
        source = self._source
        names = source.encoders if source.encoder in source.encoders else [*source.encoders, source.encoder]
        _fill(self.encoder, [*names, OTHER_FOLDER], source.encoder)
        index = source.index
        places = [THIS_SLIDE, *([f"index {index.folder.name}"] if index is not None else []), OPEN_INDEX]
        _fill(self.place, places, places[1] if source.in_index else THIS_SLIDE)
        reading = f"Reading {source.reading.name}…" if source.reading is not None else ""
        self.facts.say(reading or (similar_words.index_facts(index) if source.in_index and index is not None else ""))
        for part in (self.left_out_name, self.left_out):
            part.setVisible(source.in_index)
        self.left_out.setCurrentIndex(self.left_out.findData(source.left_out))

    def _encoder_chosen(self, row: int) -> None:
        chosen = self.encoder.itemText(row)
        if chosen == OTHER_FOLDER:
            self.refresh()
            folder = QFileDialog.getExistingDirectory(self, "Choose an encoder's folder")
            chosen = f"local:{folder}" if folder else self._source.encoder
        self._source.choose_encoder(chosen)

    def _placed(self, row: int) -> None:
        chosen = self.place.itemText(row)
        self.refresh()
        if chosen == OPEN_INDEX:
            self.ask_for_index()
        else:
            self._source.look_in_index(chosen != THIS_SLIDE)

    def ask_for_index(self) -> None:
        """Let the user choose a folder."""
        folder = QFileDialog.getExistingDirectory(self, "Open an index of similar tiles")
        if folder:
            self._source.open_index(Path(folder))


class AskRows(QWidget):
    """The switch for clicks, and what the next one does."""

    NEXT = (
        (NEW, "new search", "The next click asks anew"),
        (LIKE, "+ like", "The next click adds a tile to be like"),
        (UNLIKE, "− unlike", "The next click adds a tile not to be like"),
    )

    def __init__(self, similar: Similar) -> None:
        super().__init__()
        self._similar = similar
        self.click = QPushButton("Click a tile to find its like")
        self.click.setObjectName("slnRun")
        self.click.setCheckable(True)
        self.click.setToolTip("Then click on the tissue; again: clicks do what they did before")
        self.click.clicked.connect(similar.switch_click)
        self.next: dict[str, QPushButton] = {}
        group = QButtonGroup(self)
        line = QHBoxLayout()
        line.setContentsMargins(0, 0, 0, 0)
        line.setSpacing(2)
        for what, told, tip in self.NEXT:
            button = small_button(told, tip)
            button.clicked.connect(lambda checked, what=what: similar.choose_next(what))
            group.addButton(button)
            self.next[what] = button
            line.addWidget(button, 1)
        self.next_row = QWidget()
        self.next_row.setLayout(line)
        layout = _column(self)
        layout.addWidget(self.click)
        layout.addWidget(self.next_row)
        similar.changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show what clicks do."""
        on = self._similar.click_mode.on
        self.click.setChecked(on)
        self.click.setText("Now click a tile on the slide" if on else "Click a tile to find its like")
        self.next_row.setVisible(on)
        self.next[self._similar.question.next_click].setChecked(True)


class WorkRows(QWidget):
    """What is being done or was found, how far it is, Cancel, and the way back."""

    def __init__(self, similar: Similar) -> None:
        super().__init__()
        self._similar = similar
        self.bar = ThinBar()
        self.cancel = QPushButton("Cancel")
        self.cancel.setToolTip("What was computed is kept")
        self.cancel.clicked.connect(similar.cancel)
        self.line = Words()
        self.back = QPushButton("Back")
        self.back.setToolTip("To where you were before you went to a tile")
        self.back.clicked.connect(similar.journey.go_back)
        line = QHBoxLayout()
        line.setContentsMargins(0, 0, 0, 0)
        line.addWidget(self.line, 1)
        line.addWidget(self.back, 0, Qt.AlignmentFlag.AlignTop)
        layout = _column(self)
        layout.addWidget(self.bar)
        layout.addLayout(line)
        layout.addWidget(self.cancel)
        similar.progressed.connect(self.refresh)
        similar.journey.changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show the present state; what takes a moment only shows no bar."""
        similar, progress = self._similar, self._similar.progress
        embedding = similar.running and similar.stage is not None and similar.stage.name in ("embed", "wait", "engine")
        self.bar.setVisible(embedding)
        self.cancel.setVisible(embedding)
        if embedding:
            self.bar.show_share(progress.done / progress.total if progress is not None and progress.total else None)
        self.line.say(similar.status)
        self.back.setVisible(similar.journey.can_go_back)
        self.setVisible(bool(similar.status) or similar.journey.can_go_back)


class LostBox(QWidget):
    """Asks for a slide that is not where its index says."""

    def __init__(self, similar: Similar) -> None:
        super().__init__()
        self._similar, self._journey = similar, similar.journey
        self.setObjectName("slnScoreQuestion")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        self.text = Words()
        self.find = QPushButton("Find it…")
        self.find.clicked.connect(self.ask_for_file)
        self.leave = QPushButton("Leave it")
        self.leave.clicked.connect(self._journey.forget)
        line = QHBoxLayout()
        line.setContentsMargins(0, 0, 0, 0)
        line.addWidget(self.find)
        line.addWidget(self.leave)
        line.addStretch(1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 6, 8, 6)
        layout.addWidget(self.text)
        layout.addLayout(line)
        self._journey.changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show the question, if there is one."""
        hit, index = self._journey.lost, self._similar.source.index
        self.setVisible(hit is not None)
        if hit is not None:
            said = index.slide_of(hit.page) if index is not None else None
            self.text.say(f"{self._journey.told} {similar_words.lost_line(hit, said)}".strip())

    def ask_for_file(self) -> None:
        """Let the user choose the slide's file."""
        path, _ = QFileDialog.getOpenFileName(self, "Find the slide", "", SLIDE_FILTER)
        if path:
            self._journey.use_file(Path(path))


class MapRows(QWidget):
    """The two maps of descriptors over the slide on the screen, with unit and range."""

    def __init__(self, similar: Similar) -> None:
        super().__init__()
        self._similar = similar
        self.similarity = small_button("How alike", "Paint the slide by each tile's likeness to what was asked")
        self.similarity.clicked.connect(similar.show_similarity)
        self.components = small_button("Components", "")
        self.components.clicked.connect(similar.show_components)
        buttons = QWidget()
        line = QHBoxLayout(buttons)
        line.setContentsMargins(0, 0, 0, 0)
        line.setSpacing(2)
        line.addWidget(self.similarity, 1)
        line.addWidget(self.components, 1)
        self.colours = ColourBar()
        self.colours.show_stops(AMOUNT)
        self.told = Words(quiet=True)
        layout = _column(self)
        for widget in (Row("Paint", buttons), self.colours, self.told):
            layout.addWidget(widget)
        similar.maps_changed.connect(self.refresh)
        similar.changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show what is painted, with unit and range."""
        similar = self._similar
        self.setVisible(similar.has_slide)
        self.similarity.setEnabled(similar.question.ready)
        self.similarity.setChecked(similar.wants_similarity)
        self.components.setChecked(similar.wants_components)
        seen, shares = similar.layers.seen, similar.shares
        span = similar.range if seen == SIMILARITY else None
        self.colours.setVisible(span is not None)
        told = similar_words.shares_line(shares) if shares is not None else ""
        self.components.setToolTip(
            "The three directions in which this slide's tiles differ most, as red, green and blue. Tiles of one colour "
            "are alike; the colours are this slide's own." + (f"\n{told}" if told else "")
        )
        if span is not None:
            self.told.say(similar_words.range_line(span.low, span.high, span.top))
        else:
            self.told.say(told if seen == COMPONENTS else "")


class EndRows(QWidget):
    """Copy as command."""

    def __init__(self, controller: Controller, similar: Similar) -> None:
        super().__init__()
        self._controller, self._similar = controller, similar
        self.copy = QPushButton("Copy as command")
        self.copy.setToolTip("Copy the command that does the same without a window")
        self.copy.clicked.connect(self._copy)
        _column(self).addWidget(self.copy)
        similar.changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """There is something to copy, or not."""
        self.setVisible(self._similar.has_slide)

    def _copy(self) -> None:
        QApplication.clipboard().setText(self._similar.command())
        self._similar.say("The command is on the clipboard.")


def _choice(tip: str) -> QComboBox:
    box = QComboBox()
    box.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    box.setToolTip(tip)
    return box


def _fill(box: QComboBox, entries: list[str], chosen: str) -> None:
    if [box.itemText(row) for row in range(box.count())] != entries:
        box.clear()
        box.addItems(entries)
    box.setCurrentIndex(entries.index(chosen))


def _column(widget: QWidget) -> QVBoxLayout:
    layout = QVBoxLayout(widget)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(4)
    return layout
