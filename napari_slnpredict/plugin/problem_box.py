"""What went wrong, with the details to copy: any dock's last word."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QApplication, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from . import words
from .widgets import Words


class ProblemBox(QWidget):
    """Shows one `words.Problem`, or nothing."""

    dismissed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("slnProblem")
        self._problem: words.Problem | None = None
        self.title = Words(strong=True)
        self.text = Words()
        self.copy = QPushButton("Copy details")
        self.copy.clicked.connect(self._copied)
        self.away = QPushButton("Dismiss")
        self.away.clicked.connect(self.dismissed)
        line = QHBoxLayout()
        line.setContentsMargins(0, 0, 0, 0)
        line.addWidget(self.copy)
        line.addWidget(self.away)
        line.addStretch(1)
        inside = QVBoxLayout(self)
        inside.setContentsMargins(8, 6, 8, 6)
        inside.setSpacing(4)
        inside.addWidget(self.title)
        inside.addWidget(self.text)
        inside.addLayout(line)
        self.show_problem(None)

    def show_problem(self, problem: words.Problem | None) -> None:
        """Show a problem; None takes no room."""
        self._problem = problem
        self.setVisible(problem is not None)
        if problem is not None:
            self.title.say(problem.title)
            self.text.say(problem.text)
            self.copy.setText("Copy details")

    def _copied(self) -> None:
        if self._problem is not None:
            parts = (self._problem.title, self._problem.text, "", self._problem.details)
            QApplication.clipboard().setText("\n".join(parts).strip() + "\n")
            self.copy.setText("Copied")
