"""The slide's label and macro pictures: a small window, on request only.

They may carry a name. So nothing decodes them before somebody asks, nothing keeps or writes them, they do not become a
napari layer (which could be saved), and the window goes with the slide.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtWidgets import QDialog, QLabel, QVBoxLayout, QWidget

from . import words
from .overview import to_pixmap
from .view_jobs import Pictures, has_label_job, label_job
from .worker import Outcome, Worker

#: Longest side on the screen, px.
MOST_PX = 420


class SlideLabel(QObject):
    """Shows the label and macro of the present slide.

    Parameters
    ----------
    parent : QObject
        The controller, a child of the window that the pictures appear over.
    """

    changed = Signal()  # whether there is one
    failed = Signal(object)  # words.Problem

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._worker: Worker | None = None
        self._looker: Worker | None = None
        self.there = False
        self.dialog: LabelWindow | None = None

    def look(self) -> None:
        """Find out in the background whether the slide has a label or macro; a library has to open the file for it."""
        shown = self._controller.slides.current
        release = shown.keeper.hold() if shown is not None and self._looker is None else None
        if shown is None or release is None:
            return
        slide = shown.slide
        self._looker = Worker(lambda: has_label_job(slide), self, name="has label", at_end=release)
        self._looker.ended.connect(self._looked)
        self._looker.start()

    def _looked(self, outcome: Outcome) -> None:
        self._looker = None
        # What could not be found out is told when the user asks for it.
        self._offer(outcome.error is not None or bool(outcome.result))

    def _offer(self, there: bool) -> None:
        if there != self.there:
            self.there = there
            self.changed.emit()

    def ask(self) -> None:
        """Decode the pictures in the background, then show them; a second time: bring the window to the front."""
        if self.dialog is not None:
            self.dialog.show()
            self.dialog.raise_()
            return
        shown = self._controller.slides.current
        release = shown.keeper.hold() if shown is not None and self._worker is None else None
        if shown is None or release is None:
            return
        slide = shown.slide
        self._worker = Worker(lambda: label_job(slide), self, name="label", at_end=release)
        self._worker.ended.connect(self._arrived)
        self._worker.start()

    @property
    def _controller(self) -> Any:
        return self.parent()  # not kept, nor is the window: held by one of its children it could never go

    def clear(self) -> None:
        """The slide goes: so do its pictures."""
        if self._looker is not None:
            self._looker.abandon()
            self._looker = None
        self._offer(False)
        self.close()

    def close(self) -> None:
        """Take the pictures away."""
        if self._worker is not None:
            self._worker.abandon()
            self._worker = None
        if self.dialog is not None:
            self.dialog.hide()
            self.dialog.deleteLater()
            self.dialog = None

    def _arrived(self, outcome: Outcome) -> None:
        self._worker = None
        if outcome.state == "done":
            self.dialog = LabelWindow(self._controller.parent(), outcome.result)
            self.dialog.finished.connect(self.close)
            self.dialog.show()
        elif outcome.error is not None:
            self.failed.emit(words.problem_of(outcome.error, outcome.details))


class LabelWindow(QDialog):
    """The pictures below each other, nothing else: no button, no menu, no way to a file."""

    def __init__(self, parent: QWidget, pictures: Pictures) -> None:
        super().__init__(parent)
        self.setObjectName("slnLabel")
        self.setWindowTitle("Slide label")
        layout = QVBoxLayout(self)
        if pictures:
            layout.addWidget(QLabel("From the slide's file. It may name the patient: it is shown here only."))
        for name, picture in pictures.items():
            layout.addWidget(QLabel(name))
            layout.addWidget(picture_label(picture, name))
        if not pictures:
            layout.addWidget(QLabel("This file has neither a label nor a macro picture."))


def picture_label(picture: NDArray[np.uint8], name: str) -> QLabel:
    """Return a picture ((h, w, 3) uint8) as a widget."""
    label = QLabel()
    label.setAccessibleName(f"{name} picture of the slide")
    pixmap: Any = to_pixmap(picture)
    if max(pixmap.width(), pixmap.height()) > MOST_PX:
        pixmap = pixmap.scaled(
            MOST_PX, MOST_PX, Qt.AspectRatioMode.KeepAspectRatio, Qt.TransformationMode.SmoothTransformation
        )
    label.setPixmap(pixmap)
    return label
