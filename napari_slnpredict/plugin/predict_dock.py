"""The dock "SLN Predict": a view of the viewer's controller, nothing more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.utils.theme import get_theme
from qtpy.QtCore import QEvent, QObject, QSize, Qt, QTimer
from qtpy.QtGui import QKeySequence, QShortcut
from qtpy.QtWidgets import (
    QApplication,
    QFileDialog,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from .answer_section import AnswerSection
from .controller import Controller, controller_for
from .here_section import HereSection
from .map_section import MapSection
from .scores_section import ScoreButton, ScoreQuestion
from .similar_button import SimilarButton
from .stain_section import StainRows
from .start_section import ModelRows, ProblemRow, RunRows, SlideRows
from .view_section import ViewRows

if TYPE_CHECKING:
    from qtpy.QtGui import QDragEnterEvent, QDropEvent

WIDTH = 320
#: Blue with white letters is readable on both of napari's themes.
STYLE = """
QPushButton#slnRun { background: #0a66b0; color: white; font-weight: bold; padding: 7px; border-radius: 3px; }
QPushButton#slnRun:hover { background: #0b78cf; }
QPushButton#slnRun:focus { border: 2px solid #7fc4ff; }
QPushButton#slnRun:disabled { background: QUIET_GROUND; color: QUIET; }
QLabel[quiet="true"] { color: QUIET; }
QPushButton#slnFold { background: none; border: none; text-align: left; font-weight: bold; padding: 2px 0px; }
QPushButton#slnFold:focus { border: 1px solid #7fc4ff; }
QPushButton[small="true"] { padding: 4px 0px; border: 1px solid QUIET_GROUND; border-radius: 2px; }
QPushButton[small="true"]:checked { background: #0a66b0; color: white; }
QPushButton[small="true"]:focus { border: 1px solid #7fc4ff; }
QFrame#slnLine { background: QUIET_GROUND; border: none; max-height: 1px; min-height: 1px; }
QToolButton[tile="true"] { padding: 0px; border: 1px solid QUIET_GROUND; }
QToolButton[tile="true"]:focus { border: 2px solid #7fc4ff; }
QWidget#slnProblem { border: 1px solid #c8641e; border-left: 5px solid #c8641e; border-radius: 3px; }
QWidget#slnProblem QLabel { border: none; }
QWidget#slnScoreQuestion { border: 1px solid #0a66b0; border-left: 5px solid #0a66b0; border-radius: 3px; }
QWidget#slnScoreQuestion QLabel { border: none; }
"""


class PredictDock(QScrollArea):
    """What a pathologist needs beside the slide.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        napari fills this in by name.
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self.controller: Controller = controller_for(napari_viewer)
        self.setObjectName("slnPredictDock")
        self.setWidgetResizable(True)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setFrameShape(QScrollArea.Shape.NoFrame)
        self.setMinimumWidth(WIDTH)
        self.setAcceptDrops(True)
        self.controller.viewer.events.theme.connect(self._restyle)
        self._restyle()
        page = QWidget()
        layout = QVBoxLayout(page)
        layout.setContentsMargins(10, 8, 10, 8)
        layout.setSpacing(6)
        self.slide = SlideRows(self.controller)
        self.view = ViewRows(self.controller)
        self.stain = StainRows(self.controller)
        self.model = ModelRows(self.controller)
        self.run = RunRows(self.controller)
        self.problem = ProblemRow(self.controller)
        self.answer = AnswerSection(self.controller)
        self.score_question = ScoreQuestion(self.controller)
        self.map = MapSection(self.controller)
        self.here = HereSection(self.controller)
        self.similar_button = SimilarButton(self.controller)
        self.score_button = ScoreButton(self.controller)
        self.ends = EndRow(self.controller)
        sections = (
            self.slide, self.view, self.stain, self.model, self.run, self.problem, self.score_question, self.answer,
            self.map, self.here, self.similar_button, self.score_button, self.ends,
        )  # fmt: skip
        for section in sections:
            layout.addWidget(section)
        layout.addStretch(1)
        self.setWidget(page)
        page.installEventFilter(self)
        self._scroll = QTimer(self, singleShot=True, interval=50)
        self._scroll.timeout.connect(self._scroll_to_here)
        self.controller.asks.here_changed.connect(self._show_here)
        self._shortcut("Escape", self.controller.cancel)
        self._shortcut("Ctrl+Return", self.controller.run)

    def _restyle(self, event: object = None) -> None:
        """Take the faint colours from napari's theme."""
        viewer = self.controller.viewer
        if viewer is not None:
            theme = get_theme(viewer.theme)
            faint = blend(theme.text.as_rgb_tuple(), theme.background.as_rgb_tuple(), 0.75)
            ground = blend(theme.foreground.as_rgb_tuple(), theme.background.as_rgb_tuple(), 0.7)
            self.setStyleSheet(STYLE.replace("QUIET_GROUND", ground).replace("QUIET", faint))

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Widen with the user's font: nothing is cut off, and nothing scrolls sideways."""
        if event.type() == QEvent.Type.LayoutRequest and watched is self.widget():
            bar = self.verticalScrollBar().sizeHint().width() + 4  # a style sheet's bar is wider than it says
            self.setMinimumWidth(max(WIDTH, watched.minimumSizeHint().width() + bar))
        return False

    def sizeHint(self) -> QSize:
        """As wide as the design says."""
        return QSize(WIDTH, 700)

    def _shortcut(self, key: str, act: Any) -> None:
        shortcut = QShortcut(QKeySequence(key), self)
        shortcut.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
        shortcut.activated.connect(act)

    def _show_here(self) -> None:
        """A click is answered where the user sees it; the panel must have grown to its new text first."""
        self._scroll.start()

    def _scroll_to_here(self) -> None:
        if self.here.isVisible():
            self.ensureWidgetVisible(self.here, 0, 8)

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        """Files are welcome."""
        if event.mimeData().hasUrls():
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        """Open what was dropped: the first slide is shown, the others wait in the list; scores become maps."""
        paths = [Path(url.toLocalFile()) for url in event.mimeData().urls() if url.isLocalFile()]
        if not paths:
            return
        event.acceptProposedAction()
        self.controller.scores.open_dropped(paths)


def blend(above: Sequence[float], below: Sequence[float], share: float) -> str:
    """Return a colour between two (0 to 255) as a style sheet writes it."""
    mixed = (round(share * a + (1 - share) * b) for a, b in zip(above[:3], below[:3], strict=True))
    return "rgb({}, {}, {})".format(*mixed)


class EndRow(QWidget):
    """Save report, Copy as command."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller = controller
        self.save = QPushButton("Save report…")
        self.save.setToolTip("Write the report, maps and tables to a folder")
        self.save.clicked.connect(self._save)
        self.copy = QPushButton("Copy as command")
        self.copy.setToolTip("Copy the command that does the same without a window")
        self.copy.clicked.connect(self._copy)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 6, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.save)
        layout.addWidget(self.copy)
        controller.answer_changed.connect(self.refresh)
        controller.slides.changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """There is something to save, or not."""
        self.save.setVisible(self._controller.answered is not None)
        self.copy.setVisible(self._controller.slides.current is not None)

    def _save(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Save the report to")
        if folder:
            self._controller.save_report(Path(folder))

    def _copy(self) -> None:
        QApplication.clipboard().setText(self._controller.command())
        self._controller.say("The command is on the clipboard.")
