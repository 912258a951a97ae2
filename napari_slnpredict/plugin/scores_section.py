"""What the dock has for anyone's scores: a button, and the fields for what a file does not say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QHBoxLayout,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_slnpredict.foreign.scores import Answers

from . import words
from .scores import Question
from .widgets import Row, Words

if TYPE_CHECKING:
    from .controller import Controller

SCORE_FILTER = "Scores (*.csv *.tsv *.txt *.h5 *.hdf5);;All files (*)"
UNITS = (("pixels of the full image", "px"), ("µm", "um"), ("another unit", ""))


class ScoreButton(QPushButton):
    """Opens score files."""

    def __init__(self, controller: Controller) -> None:
        super().__init__("Open scores…")
        self._controller = controller
        self.setToolTip("Show a CSV or h5 of CLAM, TRIDENT, STAMP, WSInfer or ours as a map; or drop it on this panel")
        self.clicked.connect(self._ask_for_files)
        controller.slides.changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Scores need a slide to lie on."""
        self.setVisible(self._controller.slides.current is not None)

    def _ask_for_files(self) -> None:
        paths, _ = QFileDialog.getOpenFileNames(self, "Open scores", "", SCORE_FILTER)
        if paths:
            self._controller.scores.open([Path(path) for path in paths])


class ScoreQuestion(QWidget):
    """Fields for what a score file does not say: the tiles' size, the unit of their places."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._scores = controller.scores
        self._question: Question | None = None
        self._controller = controller
        self.setObjectName("slnScoreQuestion")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)  # else its border is not drawn
        self.title = Words(strong=True)
        self.text = Words()
        self.unit = QComboBox()
        self.unit.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        for name, unit in UNITS:
            self.unit.addItem(name, unit)
        self.unit.currentIndexChanged.connect(self._unit_changed)
        self.um = _spin(0.0001, 1e5, 4, 1.0)
        self.um.setPrefix("1 is ")
        self.um.setSuffix(" µm")
        self.size = _spin(0.01, 1e6, 2, 256.0)
        self.hint = Words(quiet=True)
        self.use = QPushButton("Show")
        self.use.clicked.connect(self._use)
        self.leave = QPushButton("Leave it")
        self.leave.clicked.connect(lambda: self._answer(None))
        self._unit_row = Row("Places", self.unit)
        self._size_row = Row("Tile", self.size)
        line = QHBoxLayout()
        line.setContentsMargins(0, 0, 0, 0)
        line.addWidget(self.use)
        line.addWidget(self.leave)
        line.addStretch(1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 6, 8, 6)
        layout.setSpacing(4)
        for widget in (self.title, self.text, self._unit_row, self.um, self._size_row, self.hint):
            layout.addWidget(widget)
        layout.addLayout(line)
        self._scores.question_changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show the first question."""
        question = self._scores.questions[0] if self._scores.questions else None
        self.setVisible(question is not None)
        if question is self._question:
            return
        self._question = question
        if question is None:
            return
        error = question.error
        self.title.say(error.title)
        self.text.say(f"{error.file}: {error.what}.")
        self._unit_row.setVisible("unit" in error.missing)
        self._size_row.setVisible("size" in error.missing)
        self.hint.say(words.size_hint(error.suggestion) if "size" in error.missing else "")
        self.unit.setCurrentIndex(self.unit.findData(error.unit) if error.unit else 0)
        # A suggestion, in sight of the user: nothing is shown before Show is pressed.
        self.size.setValue(error.suggestion or 256.0)
        self._unit_changed()

    def _unit_changed(self) -> None:
        error = self._question.error if self._question is not None else None
        asked = error is not None and "unit" in error.missing
        unit = self.unit.currentData()
        self.um.setVisible(asked and unit == "")
        self.size.setSuffix({"px": " px", "um": " µm"}.get(unit, ""))

    def _use(self) -> None:
        question = self._question
        if question is None:
            return
        missing = question.error.missing
        unit = (self.unit.currentData() or f"{self.um.value():.6g}") if "unit" in missing else ""
        self._answer(Answers(self.size.value() if "size" in missing else None, unit))

    def _answer(self, answers: Answers | None) -> None:
        question = self._question
        if question is not None:
            self._scores.answer(question, answers)


def _spin(low: float, high: float, decimals: int, value: float) -> QDoubleSpinBox:
    field = QDoubleSpinBox()
    field.setRange(low, high)
    field.setDecimals(decimals)
    field.setValue(value)
    field.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    return field
