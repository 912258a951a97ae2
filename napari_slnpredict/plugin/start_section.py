"""The top of the dock: slide, scale, model, device, Run, progress."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QApplication,
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QTextBrowser,
    QVBoxLayout,
    QWidget,
)

from . import keys, words
from .widgets import Row, ThinBar, Words

if TYPE_CHECKING:
    from .controller import Controller

OTHER_FOLDER = "Other folder…"
#: What `--mpp` and the field accept (um/px), as the reader does.
MPP_RANGE = (0.05, 20.0)
SLIDE_FILTER = "Slides (*.svs *.ndpi *.scn *.mrxs *.bif *.svslide *.vms *.vmu *.tif *.tiff *.dcm);;All files (*)"


class SlideRows(QWidget):
    """Which slide, its facts, and its scale when the file has none."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller = controller
        self._choice = QComboBox()
        self._choice.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self._choice.setToolTip("The slides given or opened in this window")
        self._choice.activated.connect(self._chosen)
        self._open = QPushButton("Open…")
        self._open.setToolTip("Open a slide; or drop one on this panel")
        self._open.clicked.connect(self.ask_for_file)
        self._facts = Words(quiet=True)
        self.srgb = QCheckBox("Colours by the scanner's profile (sRGB)")
        self.srgb.setToolTip("For looking only: models always see the colours as they are stored")
        self.srgb.toggled.connect(controller.show_srgb)
        self._ask = QWidget()
        self.mpp = QDoubleSpinBox()
        self.mpp.setRange(*MPP_RANGE)
        self.mpp.setDecimals(4)
        self.mpp.setSingleStep(0.05)
        self.mpp.setValue(0.5)
        self.mpp.setSuffix(" µm/px")
        self.use_mpp = QPushButton("Use")
        self.use_mpp.clicked.connect(lambda: controller.give_mpp(self.mpp.value()))
        line = QHBoxLayout()
        line.setContentsMargins(0, 0, 0, 0)
        line.addWidget(self.mpp, 1)
        line.addWidget(self.use_mpp)
        column = QVBoxLayout(self._ask)
        column.setContentsMargins(0, 2, 0, 2)
        column.setSpacing(2)
        column.addWidget(Words("The file does not say how large a pixel is.", strong=True))
        column.addLayout(line)
        hint = Words("20x is usually 0.5, 40x 0.25. Sizes and models depend on it.", quiet=True)
        column.addWidget(hint)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(Row("Slide", self._choice))
        facts = QHBoxLayout()
        facts.setContentsMargins(0, 0, 0, 0)
        facts.addWidget(self._facts, 1)
        facts.addWidget(self._open, 0, Qt.AlignmentFlag.AlignTop)
        layout.addLayout(facts)
        layout.addWidget(self.srgb)
        layout.addWidget(self._ask)
        controller.slides.changed.connect(self.refresh)
        controller.slides.opening_changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show the present slide."""
        slides = self._controller.slides
        shown, opening = slides.current, slides.opening
        self._choice.blockSignals(True)
        self._choice.clear()
        for path in slides.choices:
            self._choice.addItem(Path(path).name, str(path))
            self._choice.setItemData(self._choice.count() - 1, str(path), Qt.ItemDataRole.ToolTipRole)
        present = opening or (shown.slide.path if shown is not None else None)
        self._choice.setCurrentIndex(self._choice.findData(str(present)) if present is not None else -1)
        self._choice.setPlaceholderText("no slide yet")
        self._choice.blockSignals(False)
        if opening is not None:
            self._facts.say(f"Opening {opening.name}…")
        elif shown is not None:
            self._facts.say(words.slide_facts(shown.slide))
        else:
            self._facts.say("Open a slide, or drop one here.")
        look = shown.opened.look if shown is not None else None
        self.srgb.setVisible(opening is None and look is not None and look.can_convert)
        self.srgb.blockSignals(True)
        self.srgb.setChecked(look is not None and look.srgb)
        self.srgb.blockSignals(False)
        self._ask.setVisible(opening is None and shown is not None and not shown.slide.mpp)

    def _chosen(self, index: int) -> None:
        self._controller.open(self._choice.itemData(index))

    def ask_for_file(self) -> None:
        """Let the user choose a file."""
        path, _ = QFileDialog.getOpenFileName(self, "Open a slide", "", SLIDE_FILTER)
        if path:
            self._controller.open(path)


class ModelRows(QWidget):
    """Which model and which device."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller = controller
        self._runs = controller.runs
        self._choice = QComboBox()
        self._choice.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self._choice.activated.connect(self._chosen)
        self._info = QPushButton("i")
        self._info.setAccessibleName("Model card")
        self._info.setCheckable(True)
        self._info.setToolTip("What this model is, was trained on, and must not be used for")
        self._card = QTextBrowser()
        self._card.setMaximumHeight(220)
        self._card.setOpenExternalLinks(False)
        self._card.setOpenLinks(False)
        self._card.hide()
        self._info.toggled.connect(self._card.setVisible)
        self._device = Words()
        self._device.setToolTip("Chosen automatically; Preferences > SLN Predict changes it")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(Row("Model", self._choice, self._info))
        layout.addWidget(self._card)
        layout.addWidget(Row("Device", self._device))
        self._runs.models_changed.connect(self.refresh)
        self._runs.device_changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show models and device."""
        runs = self._runs
        self._choice.blockSignals(True)
        self._choice.clear()
        for choice in runs.models:
            self._choice.addItem(choice.label, choice.name)
            row = self._choice.count() - 1
            self._choice.setItemData(row, choice.problem or choice.name, Qt.ItemDataRole.ToolTipRole)
        if self._choice.findData(runs.model) < 0:
            self._choice.addItem(runs.model, runs.model)
        self._choice.addItem(OTHER_FOLDER, OTHER_FOLDER)
        self._choice.setCurrentIndex(self._choice.findData(runs.model))
        self._choice.blockSignals(False)
        chosen = next((choice for choice in runs.models if choice.name == runs.model), None)
        card = chosen.card if chosen is not None else ""
        self._card.setMarkdown(f"{chosen.terms}\n\n{without_front_matter(card)}" if chosen is not None else "")
        self._info.setEnabled(bool(card))
        device = runs.device
        self._device.say(device_words(device) if device is not None else "being looked for…")

    def _chosen(self, index: int) -> None:
        name = self._choice.itemData(index)
        if name != OTHER_FOLDER:
            self._runs.choose_model(name)
            return
        folder = QFileDialog.getExistingDirectory(self, "Choose a model's folder")
        self.refresh()
        if folder:
            self._runs.choose_folder(Path(folder))


class RunRows(QWidget):
    """The one prominent button, and how far it is."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller = controller
        self._runs = controller.runs
        self.button = QPushButton("Run")
        self.button.setObjectName("slnRun")
        self.button.clicked.connect(self._pressed)
        self.bar = ThinBar()
        self.line = Words()
        self.warnings = Words(quiet=True)
        self.click = QPushButton("Click to predict")
        self.click.setCheckable(True)
        self.click.setToolTip("Q. Then click on the slide: what did the model make of this place?")
        self.click.toggled.connect(self._clicking)
        self.help = QPushButton("?")
        self.help.setCheckable(True)
        self.help.setToolTip("Keys")
        self._keys = QLabel(keys.help_text())
        self._keys.setTextFormat(Qt.TextFormat.RichText)
        self._keys.setWordWrap(True)
        self._keys.hide()
        self.help.toggled.connect(self._keys.setVisible)
        line = QHBoxLayout()
        line.setContentsMargins(0, 0, 0, 0)
        line.addWidget(self.click, 1)
        line.addWidget(self.help)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 2, 0, 0)
        layout.setSpacing(4)
        for widget in (self.button, self.bar, self.line, self.warnings):
            layout.addWidget(widget)
        layout.addLayout(line)
        layout.addWidget(self._keys)
        for signal in (self._runs.changed, self._runs.progressed, controller.slides.changed):
            signal.connect(self.refresh)
        controller.slides.opening_changed.connect(self.refresh)
        controller.click_mode_changed.connect(self._mode)
        self.refresh()

    def refresh(self) -> None:
        """Show where the run stands."""
        runs, shown = self._runs, self._controller.slides.current
        running = runs.running
        told = "Cancel" if running else "Run"
        if self.button.text() != told:
            self.button.setText(told)
        self.button.setToolTip("Ctrl+. or Esc" if running else "Ctrl+Return")
        ready = shown is not None and bool(shown.slide.mpp) and self._controller.slides.opening is None
        self.button.setEnabled(not runs.stopping if running else ready)
        if self.bar.isHidden() == running:
            self.bar.setVisible(running)
        progress = runs.progress
        if running:
            counted = progress is not None and progress.total > 1
            self.bar.show_share(progress.done / progress.total if counted else None)
        self.line.say(runs.status)
        self.warnings.say("\n".join(dict.fromkeys(runs.warnings)) if running else "")

    def _pressed(self) -> None:
        if self._runs.running:
            self._controller.cancel()
        else:
            self._controller.run()

    def _clicking(self, on: bool) -> None:
        if on != self._controller.click_mode.on:
            self._controller.switch_click(on)

    def _mode(self) -> None:
        self.click.setChecked(self._controller.click_mode.on)


class ProblemRow(QWidget):
    """What went wrong, and the details to copy; or a line that is no error."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller = controller
        self.box = QWidget()
        self.box.setObjectName("slnProblem")
        self.title = Words(strong=True)
        self.text = Words()
        self.copy = QPushButton("Copy details")
        self.copy.clicked.connect(self._copied)
        self.away = QPushButton("Dismiss")
        self.away.clicked.connect(lambda: controller.show_problem(None))
        self.note = Words()
        line = QHBoxLayout()
        line.setContentsMargins(0, 0, 0, 0)
        line.addWidget(self.copy)
        line.addWidget(self.away)
        line.addStretch(1)
        inside = QVBoxLayout(self.box)
        inside.setContentsMargins(8, 6, 8, 6)
        inside.setSpacing(4)
        inside.addWidget(self.title)
        inside.addWidget(self.text)
        inside.addLayout(line)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.box)
        layout.addWidget(self.note)
        controller.problem_changed.connect(self.refresh)
        controller.slides.silence_changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show the present state."""
        problem = self._controller.problem
        silence = words.drive_words(self._controller.slides.silent)
        self.box.setVisible(problem is not None)
        if problem is not None:
            self.title.say(problem.title)
            self.text.say(problem.text)
            self.copy.setText("Copy details")
        note = "\n".join(line for line in (silence, self._controller.note) if line)
        self.note.say(note)
        self.setVisible(problem is not None or bool(note))

    def _copied(self) -> None:
        problem = self._controller.problem
        if problem is not None:
            QApplication.clipboard().setText(f"{problem.title}\n{problem.text}\n\n{problem.details}".strip() + "\n")
            self.copy.setText("Copied")


def device_words(device: object) -> str:
    """Return device, engine and reason: ``CPU, OpenVINO bf16 · no CUDA device found``."""
    name, how, why = (str(getattr(device, field, "")) for field in ("name", "how", "why"))
    shown = name.upper() if name in ("cpu", "mps") else name
    shown = f"{shown}, {how}" if how else shown
    return f"{shown} · {why}" if why else shown


def without_front_matter(card: str) -> str:
    """Return a model card without its YAML head."""
    if card.startswith("---"):
        _, _, rest = card[3:].partition("\n---")
        return rest.lstrip("-\n")
    return card
