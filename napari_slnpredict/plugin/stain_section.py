"""In whose stain the slide is shown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from . import words
from .stain_jobs import METHODS, Target
from .widgets import Row, ThinBar, Words

if TYPE_CHECKING:
    from .controller import Controller

AS_SCANNED = "as scanned"
OTHER_FILE = "as another slide…"
#: What stands below a stained picture: nobody shall take it for the scan.
FOR_LOOKING = "For looking only: the colours are computed; models see the slide as it was scanned."


class StainRows(QWidget):
    """The choice, its method, and how far it is."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller = controller
        self._stain = controller.stain
        self._listed: list[tuple[str, Target | None]] = []
        self.choice = QComboBox()
        self.choice.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.choice.setToolTip("Show the slide in the stain of another one, for looking")
        self.choice.activated.connect(self._chosen)
        self.method = QComboBox()
        self.method.setToolTip("How stains are found and given")
        for name, told in METHODS.items():
            self.method.addItem(told, name)
        self.method.activated.connect(lambda index: self._stain.choose_method(self.method.itemData(index)))
        self.seen = QCheckBox("shown")
        self.seen.setToolTip("Off: the slide as it was scanned")
        self.seen.toggled.connect(self._stain.show)
        self.cancel = QPushButton("Cancel")
        self.cancel.clicked.connect(self._stain.cancel)
        self.bar = ThinBar()
        self.line = Words(quiet=True)
        self.detail = QWidget()
        row = QHBoxLayout(self.detail)
        row.setContentsMargins(Row.NAME_WIDTH + 6, 0, 0, 0)
        row.setSpacing(6)
        row.addWidget(self.method, 1)
        row.addWidget(self.seen)
        row.addWidget(self.cancel)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        for widget in (Row("Stain", self.choice), self.detail, self.bar, self.line):
            layout.addWidget(widget)
        self._stain.changed.connect(self.refresh)
        controller.slides.changed.connect(self.refresh)
        controller.slides.opening_changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show what is chosen and how far it is."""
        stain, shown = self._stain, self._controller.slides.current
        self.setVisible(shown is not None and bool(shown.slide.mpp))
        target, running = stain.target, stain.running
        self._fill(target)
        self.detail.setVisible(target is not None)
        self.bar.setVisible(running)
        self.cancel.setVisible(running)
        self.seen.setVisible(not running)
        self.method.setCurrentIndex(self.method.findData(stain.method))
        self.seen.blockSignals(True)
        self.seen.setChecked(stain.visible)
        self.seen.blockSignals(False)
        self.line.setVisible(target is not None)
        if running:
            progress = stain.progress
            counted = progress is not None and progress.total > 1
            self.bar.show_share(progress.done / progress.total if progress is not None and counted else None)
            self.line.say(words.stage_line(stain.stage, progress, 0.0) if stain.stage is not None else "Starting")
        elif stain.stained is not None:
            found = f"From {words.count(stain.stained.tiles)} places of the tissue."
            self.line.say("\n".join((f"{found} {FOR_LOOKING}", *map(sentence, dict.fromkeys(stain.warnings)))))

    def _fill(self, target: Target | None) -> None:
        slides = self._controller.slides
        present = slides.current.slide.path if slides.current is not None else None
        paths = [Path(path) for path in slides.choices if Path(path) != present]
        if target is not None and target.path is not None and target.path not in paths:
            paths.append(target.path)
        entries: list[tuple[str, Target | None]] = [(AS_SCANNED, None), ("as reference H&E", Target())]
        entries += [(f"as {path.name}", Target(path)) for path in paths]
        self.choice.blockSignals(True)
        if entries != self._listed:
            self._listed = entries
            self.choice.clear()
            for told, each in entries:
                self.choice.addItem(told)
                tip = str(each.path) if each is not None and each.path is not None else told
                self.choice.setItemData(self.choice.count() - 1, tip, Qt.ItemDataRole.ToolTipRole)
            self.choice.addItem(OTHER_FILE)
        self.choice.setCurrentIndex(next(row for row, (_, each) in enumerate(entries) if each == target))
        self.choice.blockSignals(False)

    def _chosen(self, index: int) -> None:
        if index < len(self._listed):
            self._stain.choose(self._listed[index][1])
            return
        from .start_section import SLIDE_FILTER

        self.refresh()
        path, _ = QFileDialog.getOpenFileName(self, "Show in the stain of", "", SLIDE_FILTER)
        if path:
            self._stain.choose(Target(Path(path)))


def sentence(text: str) -> str:
    """Return a text as a sentence."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
