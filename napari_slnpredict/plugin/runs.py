"""The one long job of a viewer: start, events, end; and the models and device it may use."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer, Signal

from napari_slnpredict.events import Event, Partial, Progress, Stage, Warn

from . import words
from .jobs import first_click_job, predict_job
from .model_jobs import ModelChoice, Options, WarmModel, folder_model_job, models_job, ready_job
from .worker import Outcome, Worker

if TYPE_CHECKING:
    from napari_slnpredict.events import Job

    from .edits import TissueEdit
    from .slides import Shown

#: The model chosen when the user has not chosen one.
DEFAULT_MODEL = "demo-sln"
#: Every so often the line under the bar is written anew, ms: nothing may look stuck.
HEARTBEAT_MS = 500
#: Least time between two changes of that line: each one composes the window anew. While the user pans: rarer.
LEAST_MS, LEAST_MOVING_MS = 200, 1000


class Runs(QObject):
    """Prediction runs of one viewer; at most one at a time.

    Parameters
    ----------
    parent : QObject
    note_task : callable
        Given a description and a function that stops the job, tells napari's close dialog about it and returns a
        function that takes the note back (given the end state).
    """

    models_changed = Signal()
    device_changed = Signal()
    changed = Signal()  # started, stopping, ended
    progressed = Signal()
    partial = Signal(object)  # events.Partial
    answered = Signal(object)  # jobs.Answered
    failed = Signal(object)  # words.Problem

    def __init__(self, parent: QObject, note_task: Callable[[str, Callable[[], bool]], Callable[[str], None]]) -> None:
        super().__init__(parent)
        self._note_task = note_task
        self._unnote: Callable[[str], None] = lambda state: None
        self._worker: Worker | None = None
        self._last_thread: threading.Thread | None = None
        #: Threads of a second view in the window: two heavy ones at a time would only fight for the cores.
        self.wait_for: Callable[[], list[threading.Thread]] = list
        self._side: dict[str, Worker] = {}
        self.models: list[ModelChoice] = []
        self.model = DEFAULT_MODEL
        self.device: Any = None
        self._warm = WarmModel()
        self._warming: threading.Thread | None = None
        self._ready_options: Options | None = None
        self._made_ready = ""
        self.stage: Stage | None = None
        self.progress: Progress | None = None
        self.warnings: list[str] = []
        self.line = ""
        self._started = 0.0
        self._told = 0.0
        #: Whether the camera is moving just now.
        self.moving: Callable[[], bool] = lambda: False
        self._heart = QTimer(self, interval=HEARTBEAT_MS)
        self._heart.timeout.connect(self._beat)

    @property
    def running(self) -> bool:
        """Whether a run is on."""
        return self._worker is not None

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._worker is not None and self._worker.stopping

    @property
    def status(self) -> str:
        """The line under the progress bar."""
        if not self.running:
            return self.line
        return words.stage_line(
            self.stage, self.progress, time.monotonic() - self._started, stopping=self.stopping
        )  # fmt: skip

    @property
    def warm(self) -> WarmModel:
        """Keeps the model that was made ready last."""
        return self._warm

    def threads(self) -> list[threading.Thread]:
        """Return the threads of the run and of the model's loading; they may have ended."""
        return [thread for thread in (self._last_thread, self._warming) if thread is not None]

    def look_for_models(self, options: Options) -> None:
        """List the models, beside the window."""
        self._beside("models", lambda: models_job(options), self._take_models)

    def make_ready(self, options: Options) -> None:
        """Choose the device and load the model, beside the window, so that Run need not wait for either."""
        if self.running:
            return
        self._ready_options = options
        model, warm = self.model, self._warm
        worker = self._beside("ready", lambda: ready_job(model, options, warm), self._take_ready)
        worker.happened.connect(self._heard_of_device)
        self._warming = worker.thread_object

    def ready_for(self, model: str) -> bool:
        """Whether this model was made ready already, or is being made so."""
        return self._warming is not None or self._made_ready == model

    def choose_folder(self, folder: Any) -> None:
        """Check a model folder and choose it."""
        self._beside("folder", lambda: folder_model_job(folder), self._take_model)

    def choose_model(self, name: str) -> None:
        """Choose a model by name."""
        self.model = name
        self.models_changed.emit()
        if self._ready_options is not None:
            self.make_ready(self._ready_options)

    def start(self, shown: Shown, options: Options, order: Callable[..., Any], edit: TissueEdit | None) -> bool:
        """Start a run; False when the slide is just leaving."""
        self.abandon()
        release = shown.keeper.hold()
        if release is None:
            return False
        slide, model, warm, moving = shown.slide, self.model, self._warm, self.moving
        before = self.threads() + self.wait_for()
        worker = Worker(
            lambda: predict_job(slide, model, options, warm, order, moving, edit),
            self,
            name="run",
            at_end=release,
            after=before,
        )
        worker.happened.connect(self._happened)
        worker.ended.connect(self._ended)
        self.stage = self.progress = None
        self.warnings, self.line = [], ""
        self._started = time.monotonic()
        self._worker, self._last_thread = worker, worker.thread_object
        self._unnote = self._note_task(f"predicting {slide.slide_id}", worker.stopper())
        self._heart.start()
        worker.start()
        self.changed.emit()
        return True

    def first_click(
        self, slide: Any, options: Options, edit: TissueEdit | None, point_um: tuple[float, float]
    ) -> Callable[[], Job[Any]]:
        """Return what makes the job of a click before any run: with the model that Run would use, loaded once."""
        model, warm = self.model, self._warm
        if not self.ready_for(model):
            self.make_ready(options)
        return lambda: first_click_job(slide, model, options, warm, edit, point_um)

    def stop(self) -> None:
        """Stop after the step in hand; the end is shown."""
        if self._worker is not None:
            self._worker.stop()
            self.changed.emit()
            self.progressed.emit()

    def abandon(self) -> None:
        """Stop and forget: the slide is going, or another run begins."""
        if self._worker is None:
            return
        self._worker.abandon()
        self._close("CANCELLED")
        self.changed.emit()

    def _close(self, state: str) -> None:
        self._worker = None
        self._heart.stop()
        self._unnote(state)
        self._unnote = lambda state: None

    def _happened(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Stage):
                self.stage, self.progress = event, None
            elif isinstance(event, Progress):
                self.progress = event
            elif isinstance(event, Warn):
                self.warnings.append(event.message)
            elif isinstance(event, Partial) and event.kind == "device":
                self._name_device(event.data)
            elif isinstance(event, Partial):
                self.partial.emit(event)
        self._tell(at_once=any(isinstance(event, Stage) for event in events))

    def _beat(self) -> None:
        """Write the line anew though nothing was heard: its clock goes on."""
        self._tell()

    def _tell(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        least = LEAST_MOVING_MS if self.moving() else LEAST_MS
        if at_once or (now - self._told) * 1000 >= least:
            self._told = now
            self.progressed.emit()

    def _ended(self, outcome: Outcome) -> None:
        progress = self.progress
        self._close({"done": "COMPLETED", "stopped": "CANCELLED"}.get(outcome.state, "FAILED"))
        if outcome.state == "done":
            self.line = ""
            self.answered.emit(outcome.result)
        elif outcome.state == "stopped":
            self.line = words.stopped_line(progress)
        elif outcome.error is not None:
            self.failed.emit(words.problem_of(outcome.error, outcome.details))
        self.changed.emit()

    def _beside(self, name: str, make_job: Callable[[], Any], take: Callable[[Outcome], None]) -> Worker:
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
        return worker

    def _take_models(self, outcome: Outcome) -> None:
        if outcome.state == "done":
            self.models = outcome.result
            usable = [choice.name for choice in self.models if not choice.problem]
            if self.model == DEFAULT_MODEL and usable and DEFAULT_MODEL not in usable:
                self.model = usable[0]
        elif outcome.error is not None:
            self.failed.emit(words.problem_of(outcome.error, outcome.details))
        self.models_changed.emit()

    def _take_model(self, outcome: Outcome) -> None:
        if outcome.state == "done":
            choice: ModelChoice = outcome.result
            self.models = [known for known in self.models if known.name != choice.name] + [choice]
            self.choose_model(choice.name)
        elif outcome.error is not None:
            self.failed.emit(words.problem_of(outcome.error, outcome.details))

    def _heard_of_device(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Partial) and event.kind == "device":
                self._name_device(event.data)

    def _name_device(self, device: Any) -> None:
        self.device = device
        self.device_changed.emit()

    def _take_ready(self, outcome: Outcome) -> None:
        self._warming = None
        if outcome.state == "done":
            self._made_ready = self.model
        # A model that cannot be loaded is told by Run, when the user wants it; a device that is not there, now.
        if outcome.error is not None and self.device is None:
            self.failed.emit(words.problem_of(outcome.error, outcome.details))
            self.device_changed.emit()
