"""The dock "Train encoder": what `slnpredict pretrain` does, with its curves before one's eyes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QApplication,
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_slnpredict.encode.methods import METHODS
from napari_slnpredict.encode.training import Training, TrainingOptions, kept_steps
from napari_slnpredict.settings import load_settings

from .controller import unwrap
from .curves import CurvePlot, Line
from .dock_page import DockPage
from .preferences import viewer_options
from .pretrain_form import SettingsForm
from .pretrain_runs import Trainings, trainings_for
from .problem_box import ProblemBox
from .widgets import Row, ThinBar, Words

TILE_FILES = "Tiles (*.csv *.zip *.h5 *.hdf5 *.svs *.ndpi *.tif *.tiff *.mrxs *.scn);;All files (*)"


class PretrainDock(DockPage):
    """Choose tiles, a start and a method; train; the encoder joins the list.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        napari fills this in by name.
    """

    def __init__(self, napari_viewer: Any) -> None:
        viewer = unwrap(napari_viewer)
        super().__init__(viewer, "slnPretrainDock")
        self.trainings: Trainings = trainings_for(viewer)
        self.method = MethodRows()
        self.tiles = TileRows(self.trainings)
        self.start = StartRow(self.trainings)
        self.name = QLineEdit()
        self.name.setToolTip("The encoder's name; it goes into your models folder")
        self.options = SettingsForm(TrainingOptions, without=("start",), more="Tiles and computing")
        self.run = TrainRows(self.trainings, self.press)
        self.problem = ProblemBox()
        self.loss = CurvePlot("Loss")
        self.looks = CurvePlot("Judged on the way")
        self.copy = QPushButton("Copy as command")
        self.copy.setToolTip("Copy the command that does the same without a window")
        sections = (
            self.method, self.tiles, self.start, Row("Name", self.name), self.method.form_place, self.options,
            self.run, self.problem, self.loss, self.looks, self.copy,
        )  # fmt: skip
        for section in sections:
            self.column.addWidget(section)
        self.column.addStretch(1)
        self._named = False
        self.name.textEdited.connect(self._name_edited)
        self.copy.clicked.connect(self._copy)
        self.method.changed_method = self._suggest_name
        for signal in (self.trainings.changed, self.name.textChanged, self.tiles.path.textChanged):
            signal.connect(self.refresh)
        self.trainings.progressed.connect(self.run.refresh)
        self.trainings.curve_grew.connect(self._draw)
        self.trainings.problem_changed.connect(self._show_problem)
        self.problem.dismissed.connect(self._dismiss)
        self._suggest_name()
        self._draw()
        self._show_problem()
        self.trainings.look_for_starts(viewer_options())

    @property
    def training(self) -> Training:
        """What the form describes."""
        out = load_settings(**viewer_options()).models_dir / _file_name(self.name.text())
        device = str(viewer_options().get("device", "auto"))
        options = self.options.settings(start=self.start.chosen)
        if options.device == "auto" and device != "auto":
            options = self.options.settings(start=self.start.chosen, device=device)
        return Training(self.method.name, self.tiles.named, out, options, self.method.form.settings())

    def press(self) -> None:
        """Train, go on, or stop."""
        if self.trainings.running:
            self.trainings.stop()
        else:
            self.trainings.start(self.training, viewer_options())

    def refresh(self) -> None:
        """Show what can be done now."""
        ready = bool(self.tiles.named) and bool(self.name.text().strip())
        self.run.ready = ready or self.trainings.running
        self.run.goes_on = ready and kept_steps(self.training.out)
        self.copy.setEnabled(ready)
        self.copy.setText("Copy as command")
        for widget in (self.method, self.tiles, self.start, self.name, self.method.form_place, self.options):
            widget.setEnabled(not self.trainings.running)
        self.run.refresh()

    def _name_edited(self) -> None:
        self._named = True

    def _suggest_name(self) -> None:
        """Name the encoder after its method, until the user names it."""
        if not self._named:
            self.name.setText(f"my-{self.method.name}")
        self.refresh()

    def _draw(self) -> None:
        curve, probes = self.trainings.curve, self.trainings.probes
        self.loss.show_lines([_line("loss", curve)], self.trainings.steps)
        names = [name for name in (probes[-1].figures if probes else ()) if "ratio" not in name]
        self.looks.show_lines([_line(name, probes, dots=True) for name in names], self.trainings.steps)

    def _show_problem(self) -> None:
        self.problem.show_problem(self.trainings.problem)

    def _dismiss(self) -> None:
        self.trainings.show_problem(None)

    def _copy(self) -> None:
        QApplication.clipboard().setText(self.training.command())
        self.copy.setText("Copied")


class MethodRows(QWidget):
    """Which method, what it does in a sentence, and its settings."""

    def __init__(self) -> None:
        super().__init__()
        self.changed_method: Any = lambda: None
        self.choice = QComboBox()
        self.choice.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        for row in METHODS.values():
            self.choice.addItem(row.title, row.name)
            self.choice.setItemData(self.choice.count() - 1, row.text, Qt.ItemDataRole.ToolTipRole)
        self.text = Words(quiet=True)
        #: Where the method's form stands; the forms of the others wait with what was typed into them.
        self.form_place = QWidget()
        self._forms = {name: SettingsForm(row.settings) for name, row in METHODS.items()}
        place = QVBoxLayout(self.form_place)
        place.setContentsMargins(0, 0, 0, 0)
        for form in self._forms.values():
            place.addWidget(form)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(Row("Method", self.choice))
        layout.addWidget(self.text)
        self.choice.currentIndexChanged.connect(self._changed)
        self._changed()

    @property
    def name(self) -> str:
        """The method chosen."""
        return str(self.choice.currentData())

    @property
    def form(self) -> SettingsForm:
        """Its form."""
        return self._forms[self.name]

    def choose(self, name: str) -> None:
        """Choose a method."""
        self.choice.setCurrentIndex(self.choice.findData(name))

    def _changed(self) -> None:
        self.text.say(METHODS[self.name].text)
        for name, form in self._forms.items():
            form.setVisible(name == self.name)
        self.changed_method()


class TileRows(QWidget):
    """What to train on: a table, a folder, a zip."""

    def __init__(self, trainings: Trainings) -> None:
        super().__init__()
        self._trainings = trainings
        self.path = QLineEdit()
        self.path.setPlaceholderText("cohort table, folder or zip of tiles")
        self.path.setToolTip("A cohort CSV, a folder of slides or of tiles, a zip of tiles, PatchCamelyon's h5")
        self.file = QPushButton("File…")
        self.folder = QPushButton("Folder…")
        self.facts = Words(quiet=True)
        line = QHBoxLayout()
        line.setContentsMargins(0, 0, 0, 0)
        line.addStretch(1)
        line.addWidget(self.file)
        line.addWidget(self.folder)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(Row("Tiles", self.path))
        layout.addLayout(line)
        layout.addWidget(self.facts)
        self.facts.say("")
        self.file.clicked.connect(self._ask_file)
        self.folder.clicked.connect(self._ask_folder)
        self.path.editingFinished.connect(self.look)
        trainings.table_read.connect(self.facts.say)

    @property
    def named(self) -> tuple[str, ...]:
        """What the field names."""
        text = self.path.text().strip()
        return (text,) if text else ()

    def choose(self, path: str) -> None:
        """Take a path; a table is read at once."""
        self.path.setText(path)
        self.look()

    def look(self) -> None:
        """Say what is in the table."""
        self.facts.say("")
        path = Path(self.path.text().strip())
        if path.suffix.lower() == ".csv":
            self._trainings.read_table(path, TrainingOptions().split)

    def _ask_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Tiles to train on", "", TILE_FILES)
        if path:
            self.choose(path)

    def _ask_folder(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "Folder of slides or tiles")
        if path:
            self.choose(path)


class StartRow(QWidget):
    """The encoder to begin from."""

    def __init__(self, trainings: Trainings) -> None:
        super().__init__()
        self._trainings = trainings
        self.choice = QComboBox()
        self.choice.setEditable(True)
        self.choice.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.choice.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.choice.setToolTip("Encoder to begin from: one of the list, timm:NAME, local:FOLDER, random:NAME")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(Row("Start", self.choice))
        self.choice.setCurrentText(TrainingOptions().start)
        trainings.starts_changed.connect(self.refresh)
        self.refresh()

    @property
    def chosen(self) -> str:
        """Its name."""
        return self.choice.currentText().strip() or TrainingOptions().start

    def refresh(self) -> None:
        """Show the list; what is chosen stays."""
        chosen = self.choice.currentText()
        self.choice.blockSignals(True)
        self.choice.clear()
        for name, label in self._trainings.starts:
            self.choice.addItem(name)
            self.choice.setItemData(self.choice.count() - 1, label, Qt.ItemDataRole.ToolTipRole)
        self.choice.setCurrentText(chosen)
        self.choice.blockSignals(False)


class TrainRows(QWidget):
    """The button, how far it is, and what was said on the way."""

    def __init__(self, trainings: Trainings, press: Any) -> None:
        super().__init__()
        self._trainings = trainings
        self.ready = self.goes_on = False
        self.button = QPushButton("Train")
        self.button.setObjectName("slnRun")
        self.button.clicked.connect(press)
        self.bar = ThinBar()
        self.line = Words()
        self.notes = Words(quiet=True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 2, 0, 0)
        layout.setSpacing(4)
        for widget in (self.button, self.bar, self.line, self.notes):
            layout.addWidget(widget)
        self.refresh()

    def refresh(self) -> None:
        """Show where the training stands."""
        trainings = self._trainings
        running = trainings.running
        self.button.setText("Cancel" if running else "Resume" if self.goes_on else "Train")
        self.button.setEnabled(self.ready and not trainings.stopping)
        if self.bar.isHidden() == running:
            self.bar.setVisible(running)
        progress = trainings.progress
        if running:
            counted = progress is not None and progress.total > 1
            self.bar.show_share(progress.done / progress.total if counted else None)
        self.line.say(trainings.status)
        self.notes.say("\n".join(dict.fromkeys(trainings.notes)))


def _line(name: str, steps: Any, *, dots: bool = False) -> Line:
    kept = [step for step in steps if name in step.figures]
    numbers = np.array([step.number for step in kept], np.float64)
    return Line(name, numbers, np.array([step.figures[name] for step in kept], np.float64), dots)


def _file_name(text: str) -> str:
    """Return a name that may be a folder's and a bundle's."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.strip().lower()).strip("._-") or "encoder"
