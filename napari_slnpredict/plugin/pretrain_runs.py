"""The training of one window: started, followed, stopped; its dock is a view of it and may be closed meanwhile."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Qt, QTimer, Signal

from napari_slnpredict.events import Event, Partial, Progress, Stage, Warn

from . import words
from .pretrain_jobs import starts_job, table_job, training_job
from .task_note import TaskNote
from .worker import Outcome, Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_slnpredict.encode.pretrain import Step
    from napari_slnpredict.encode.training import Training
    from napari_slnpredict.events import Job

    from .model_jobs import Options

NAME = "slnpredict-trainings"
#: Every so often the line under the bar is written anew, ms.
HEARTBEAT_MS = 500


def trainings_for(viewer: Any) -> Trainings:
    """Return a window's trainings, made when there are none."""
    viewer = getattr(viewer, "__wrapped__", viewer)
    window = viewer.window._qt_window
    there = window.findChild(Trainings, NAME, Qt.FindChildOption.FindDirectChildrenOnly)
    return there or Trainings(viewer)


class Trainings(QObject):
    """At most one training at a time.

    Parameters
    ----------
    viewer : napari.Viewer
        Its window becomes the parent.
    """

    changed = Signal()  # started, stopping, ended
    progressed = Signal()
    curve_grew = Signal()
    starts_changed = Signal()
    table_read = Signal(str)  # a line about the chosen table
    problem_changed = Signal()
    finished = Signal(object)  # Path of the bundle

    def __init__(self, viewer: Any) -> None:
        super().__init__(viewer.window._qt_window)
        self.setObjectName(NAME)
        self._note_task = TaskNote(viewer)
        self._unnote: Callable[[str], None] = lambda state: None
        self._worker: Worker | None = None
        self._side: dict[str, Worker] = {}
        self.starts: list[tuple[str, str]] = []
        self.curve: list[Step] = []
        self.probes: list[Step] = []
        self.steps = 0
        self.stage: Stage | None = None
        self.progress: Progress | None = None
        self.notes: list[str] = []
        self.line = ""
        self.problem: words.Problem | None = None
        self._began = 0.0
        self._heart = QTimer(self, interval=HEARTBEAT_MS)
        self._heart.timeout.connect(self.progressed)

    @property
    def running(self) -> bool:
        """Whether a training is on."""
        return self._worker is not None

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._worker is not None and self._worker.stopping

    @property
    def status(self) -> str:
        """The line under the bar."""
        if not self.running:
            return self.line
        if self.stopping:
            return "Stopping after this step; what was learned is kept…"
        return words.stage_line(self.stage, self.progress, time.monotonic() - self._began)

    def look_for_starts(self, options: Options) -> None:
        """List the encoders to begin from, beside the window."""
        self._beside("encoders", lambda: starts_job(options), self._take_starts)

    def read_table(self, path: Path, split: str) -> None:
        """Look into a cohort table, beside the window."""
        self._beside("table", lambda: table_job(path, split), self._take_table)

    def start(self, training: Training, options: Options) -> None:
        """Start, or go on with what was stopped."""
        if self.running:
            return
        self.show_problem(None)
        self.curve, self.probes, self.notes, self.line = [], [], [], ""
        self.steps, self.stage, self.progress = training.settings.steps, None, None
        self._began = time.monotonic()
        worker = Worker(lambda: training_job(training, options), self, name="train")
        worker.happened.connect(self._happened)
        worker.ended.connect(self._ended)
        self._worker = worker
        self._unnote = self._note_task(f"training {training.name}", worker.stopper())
        self._heart.start()
        worker.start()
        self.changed.emit()
        self.curve_grew.emit()

    def stop(self) -> None:
        """Stop after the step in hand; the end is shown."""
        if self._worker is not None:
            self._worker.stop()
            self.changed.emit()

    def show_problem(self, problem: words.Problem | None) -> None:
        """Show an error in the dock, or take it away."""
        self.problem = problem
        self.problem_changed.emit()

    def _happened(self, events: list[Event]) -> None:
        grew = False
        for event in events:
            if isinstance(event, Stage):
                self.stage, self.progress = event, None
            elif isinstance(event, Progress):
                self.progress = event
            elif isinstance(event, Warn):
                self.notes.append(event.message)
            elif isinstance(event, Partial):
                grew = self._take_partial(event) or grew
        if grew:
            self.curve_grew.emit()
        self.progressed.emit()

    def _take_partial(self, event: Partial) -> bool:
        """Take one partial result; return whether a curve grew."""
        if event.kind == "note":
            self.notes.insert(0, str(event.data))
        elif event.kind == "curve":  # of the run that is gone on with
            self.curve, self.probes = list(event.data[0]), list(event.data[1])
        elif event.kind == "step":
            self.curve.append(event.data)
        elif event.kind == "probe":
            self.probes.append(event.data)
        return event.kind in ("curve", "step", "probe")

    def _ended(self, outcome: Outcome) -> None:
        self._worker = None
        self._heart.stop()
        self._unnote({"done": "COMPLETED", "stopped": "CANCELLED"}.get(outcome.state, "FAILED"))
        self._unnote = lambda state: None
        if outcome.state == "done":
            trained = outcome.result
            self.line = f"Trained: {trained.bundle.name} is in your list of encoders."
            if trained.already:
                self.line = f"{trained.bundle.name} was trained before with these very settings."
            self.finished.emit(trained.bundle.folder)
        elif outcome.state == "stopped":
            done = self.progress.done if self.progress is not None and self.curve else 0
            self.line = f"Stopped. {done} steps are kept; Resume continues from there." if done else "Stopped."
        elif outcome.error is not None:
            self.show_problem(words.problem_of(outcome.error, outcome.details))
        self.changed.emit()

    def _beside(self, name: str, make_job: Callable[[], Job[Any]], take: Callable[[Outcome], None]) -> None:
        """Run a short job; a newer one of the same name replaces it."""
        former = self._side.pop(name, None)
        if former is not None:
            former.abandon()
        worker = Worker(make_job, self, name=name)
        self._side[name] = worker

        def done(outcome: Outcome) -> None:
            self._side.pop(name, None)
            take(outcome)

        worker.ended.connect(done)
        worker.start()

    def _take_starts(self, outcome: Outcome) -> None:
        if outcome.state == "done":
            self.starts = outcome.result
            self.starts_changed.emit()
        self._told(outcome)

    def _take_table(self, outcome: Outcome) -> None:
        if outcome.state == "done":
            self.table_read.emit(outcome.result)
        self._told(outcome)

    def _told(self, outcome: Outcome) -> None:
        if outcome.error is not None:
            self.show_problem(words.problem_of(outcome.error, outcome.details))
