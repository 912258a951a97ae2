"""Similar tiles in one viewer: what is asked with, where is looked, what was found, where it leads.

A child of the viewer's controller, made when its dock is opened. A search outlives its slide: what was found on other
slides is shown there, and the way back is kept.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Qt, QTimer, Signal

from napari_slnpredict.events import Event, Partial, Progress, Stage, Warn

from . import similar_words, words
from .click import ClickMode
from .layers import from_world
from .preferences import viewer_options
from .similar_jobs import HITS, PICTURES, Ask, Example, Known, hit_example, similar_job
from .similar_journey import Journey, Square
from .similar_layer import Range, SimilarLayers
from .similar_question import Question
from .similar_ready import Warm
from .similar_roles import COMPONENTS, SIMILAR_LAYERS, SIMILARITY
from .similar_source import Source
from .worker import Outcome, Worker

if TYPE_CHECKING:
    from napari_slnpredict.retrieval import Hit

    from .controller import Controller

NAME = "slnpredict-similar"
#: Every so often the line under the bar is written anew, ms.
HEARTBEAT_MS = 500
#: The layer of a click's outline is made this long after clicks were switched on, ms.
OUTLINE_AFTER_MS = 400


def similar_for(controller: Controller) -> Similar:
    """Return a controller's search for similar tiles, made when there is none."""
    there = controller.findChild(Similar, NAME, Qt.FindChildOption.FindDirectChildrenOnly)
    return there or Similar(controller)


class Similar(QObject):
    """One search at a time; see the module.

    Parameters
    ----------
    controller : Controller
        The parent.
    """

    changed = Signal()  # encoder, index, examples, what the next click does
    progressed = Signal()
    found = Signal()  # another set of hits, or none
    picture_arrived = Signal(int)
    maps_changed = Signal()

    def __init__(self, controller: Controller) -> None:
        super().__init__(controller)
        self.setObjectName(NAME)
        self._controller = controller
        viewer = controller.viewer
        self.layers = SimilarLayers(viewer)
        self.journey = Journey(controller, self)
        self.click_mode = ClickMode(viewer, self.ask_at)
        self.source = Source(Warm(controller.runs.warm), self)
        self.question = Question()
        self.hits: list[Hit] = []
        self.told_left_out = ""
        self.pictures: dict[int, NDArray[np.uint8]] = {}
        self.missing: dict[str, str] = {}
        self.problem: words.Problem | None = None
        self.line = ""
        self.range: Range | None = None
        self.shares: NDArray[np.float64] | None = None
        self.stage: Stage | None = None
        self.progress: Progress | None = None
        self._known = Known()
        self.wants_similarity = False  # of this slide and those that are jumped to
        self._wants: set[str] = set()  # what is to be done still
        self._worker: Worker | None = None
        self._started = 0.0
        self._heart = QTimer(self, interval=HEARTBEAT_MS)
        self._heart.timeout.connect(self.progressed)
        self._outline_timer = QTimer(self, singleShot=True, interval=OUTLINE_AFTER_MS)
        self._outline_timer.timeout.connect(controller.asks.outline.prepare)
        controller.slides.changed.connect(self._slide_changed)
        controller.runs.changed.connect(self._run_changed)
        controller.click_mode_changed.connect(self._other_click_mode)
        controller.tissue.edited.connect(self._tissue_edited)
        viewer.layers.events.removed.connect(self._layer_removed)
        self.source.is_free = lambda: not self.question.examples
        self.source.another.connect(self._another)
        self.source.replaced.connect(self._replaced)
        self.source.failed.connect(self._show_problem)

    # -- what is asked -----------------------------------------------------------------------------------------------

    def switch_click(self, on: bool) -> None:
        """Clicks on the slide search, or not; the other click mode gives way."""
        if on and self._controller.click_mode.on:
            self._controller.switch_click(False)
        self.click_mode.switch(on)
        if on:
            self.source.warm_up()
            self._outline_timer.start()
        self.changed.emit()

    def _other_click_mode(self) -> None:
        if self._controller.click_mode.on and self.click_mode.on:
            self.click_mode.switch(False)
            self._controller.click_mode.switch(True)  # the cursor is one
            self.changed.emit()

    def choose_next(self, what: str) -> None:
        """Say what the next click does: a new question, another tile like that, or one unlike."""
        self.question.next_click = what
        self.changed.emit()

    def ask_at(self, x_um: float, y_um: float) -> None:
        """Search for a place of napari's world (whose 0 is the middle of the first pixel)."""
        shown = self._controller.slides.current
        if shown is None or not shown.slide.mpp:
            return
        point = tuple(from_world(place, shown.slide.mpp) for place in (x_um, y_um))
        if self.question.click(Example(shown.slide.content_id, shown.slide.slide_id, point)):
            self.changed.emit()
            self._search()
        else:
            self.say("First click a tile to be like.")

    def use_hit(self, number: int, like: bool) -> None:
        """Ask with a tile that was found, too: more like this, or not like this."""
        self.question.add(hit_example(self.hits[number], like, self.pictures.get(number)))
        self.changed.emit()
        self._search()

    def drop(self, number: int) -> None:
        """Ask without one of the examples."""
        self.question.drop(number)
        if self.question.ready:
            self.changed.emit()
            self._search()
        else:
            self.clear()

    def clear(self) -> None:
        """Forget the question and what was found."""
        self._stop_work()
        self.question.examples = ()
        self.hits, self.pictures, self.missing = [], {}, {}
        self.told_left_out, self.line = "", ""
        self.journey.forget()
        self.show_similarity(False)
        self._settle()

    def _replaced(self) -> None:
        """Another encoder: what was found and painted by the former goes, the same tiles are asked with."""
        self.show_components(False)
        if self.click_mode.on:
            self.source.warm_up()
        self._another()

    def _another(self) -> None:
        self._known, self.hits = Known(), []
        self._show_problem(None)
        self.found.emit()
        self._search()

    @property
    def has_slide(self) -> bool:
        """Whether there is a slide on the screen whose tiles have a size."""
        shown = self._controller.slides.current
        return shown is not None and bool(shown.slide.mpp)

    @property
    def wants_components(self) -> bool:
        """Whether the components are shown, or on their way."""
        return self.shares is not None or COMPONENTS in self._wants

    # -- work --------------------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether something is being done."""
        return self._worker is not None

    @property
    def status(self) -> str:
        """The line under the progress bar."""
        if self._worker is None:
            return self.line
        elapsed = time.monotonic() - self._started
        return words.stage_line(self.stage, self.progress, elapsed, stopping=self._worker.stopping)

    def _search(self) -> None:
        if self.question.ready:
            self.hits, self.pictures, self.missing = [], {}, {}
            self.journey.forget()
            self._do(HITS, PICTURES, *([SIMILARITY] if self.wants_similarity else []))

    def _do(self, *wants: str) -> None:
        """Begin a job; one that is under way gives way, and what it had not done is done by the new one."""
        controller = self._controller
        shown = controller.slides.current
        if shown is None or not shown.slide.mpp:
            return
        before = controller.runs.threads() + ([self._worker.thread_object] if self._worker is not None else [])
        remaining = self._wants if self._worker is not None else set()
        self._stop_work()
        self._wants = remaining | set(wants)
        self._show_problem(None)
        release = shown.keeper.hold()
        if release is None:
            return
        source, examples = self.source, self.question.examples
        index = source.chosen_index
        ask = Ask(
            tuple(self._wants), shown.slide, source.encoder, index, source.left_out, examples, self._known,
            controller.tissue.edit(), self.journey.where(index), before, tuple(self.hits), frozenset(self.pictures),
        )  # fmt: skip
        options, warm, order, moving = viewer_options(), source.warm, controller.camera.first, controller.runs.moving
        worker = Worker(lambda: similar_job(ask, options, warm, order, moving), self, name="similar", at_end=release)
        worker.happened.connect(self._happened)
        worker.ended.connect(self._ended)
        self._worker, self._started = worker, time.monotonic()
        self.stage = self.progress = None
        self.line = ""
        self._heart.start()
        worker.start()
        self.progressed.emit()

    def cancel(self) -> None:
        """Stop what is being done; features that were computed are kept."""
        if self._worker is not None:
            self._worker.stop()
            self.progressed.emit()

    def _stop_work(self) -> None:
        if self._worker is not None:
            self._worker.abandon()
            self._worker = None
            self._heart.stop()

    def _run_changed(self) -> None:
        """A run begins while a slide is embedded here: it goes first, and this waits for it."""
        embedding = self.stage is not None and self.stage.name in ("embed", "tissue")
        if self._worker is not None and embedding and self._controller.runs.running:
            self._do()

    def _happened(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Stage):
                self.stage, self.progress = event, None
            elif isinstance(event, Progress):
                self.progress = event
            elif isinstance(event, Warn):
                self._controller.say(event.message)
            elif isinstance(event, Partial):
                self._take(event)
        self.progressed.emit()

    def _take(self, event: Partial) -> None:
        kind, _, number = event.kind.partition(":")
        if kind == "laid":
            self._known = replace(self._known, laid=event.data)
        elif kind == "described":
            self._known = replace(self._known, described=event.data)
        elif kind == "examples":
            self._take_examples(event.data)
        elif kind == HITS:
            self._wants.discard(HITS)
            self.hits, self.told_left_out = event.data
            self.line = similar_words.found_line(self.hits, self.told_left_out)
            self.found.emit()
        elif kind == "picture":
            self.pictures[int(number)] = event.data
            self.picture_arrived.emit(int(number))
        elif kind == "missing":
            self.missing = dict(event.data.missing)
            self.found.emit()
        elif kind == SIMILARITY:
            self._wants.discard(SIMILARITY)
            self.range = self.layers.show_similarity(*event.data)
            self.maps_changed.emit()
        elif kind == COMPONENTS:
            self._wants.discard(COMPONENTS)
            described, components = event.data
            self.layers.show_components(described, components)
            self.shares = components.shares
            self.maps_changed.emit()

    def _take_examples(self, examples: tuple[Example, ...]) -> None:
        self.question.examples = examples
        shown = self._controller.slides.current
        last = examples[-1].asked if examples else None
        if shown is not None and last is not None and shown.slide.content_id == last.content_id:
            self._controller.asks.outline.show(Square(shown.slide.mpp, last.size_level0), last.corner)
        self.changed.emit()

    def _ended(self, outcome: Outcome) -> None:
        progress = self.progress
        self._worker, self._wants = None, set()
        self._heart.stop()
        if outcome.state == "stopped":
            self.line = similar_words.stopped_line(progress)
        elif outcome.error is not None:
            self._show_problem(words.problem_of(outcome.error, outcome.details))
        elif self.hits:
            self.line = similar_words.found_line(self.hits, self.told_left_out)
        if outcome.state != "done":
            self.question.forget_unknown()
            self.wants_similarity = self.range is not None
        self._settle()

    # -- maps --------------------------------------------------------------------------------------------------------

    def show_similarity(self, on: bool) -> None:
        """Paint how alike each tile of the slide on the screen is to the question, or take that away."""
        self.wants_similarity = on
        if not on:
            self.range = None
            self._wants.discard(SIMILARITY)
            self.layers.remove(SIMILARITY)
        elif self.question.ready:
            self.show_components(False)
            self._do(SIMILARITY)
        self.maps_changed.emit()

    def show_components(self, on: bool) -> None:
        """Paint the main components of the slide on the screen, or take them away."""
        if on:
            self.show_similarity(False)
            self._do(COMPONENTS)
        else:
            self.shares = None
            self._wants.discard(COMPONENTS)
            self.layers.remove(COMPONENTS)
        self.maps_changed.emit()

    def _layer_removed(self, event: Any) -> None:
        """The user threw a layer away."""
        if self.range is not None and self.layers.layer(SIMILARITY) is None:
            self.range, self.wants_similarity = None, False
            self.maps_changed.emit()
        if self.shares is not None and self.layers.layer(COMPONENTS) is None:
            self.shares = None
            self.maps_changed.emit()

    # -- going there and back ----------------------------------------------------------------------------------------

    def go_to(self, number: int) -> None:
        """Show a tile that was found; its slide is opened when it is another one."""
        self.journey.go_to(self.hits[number], self.source.index)

    # -- slides come and go ------------------------------------------------------------------------------------------

    def _slide_changed(self) -> None:
        """Another slide, or none: what is about the old one goes; what was found in an index stays."""
        self._stop_work()
        self._wants, self._known = set(), Known()
        self.range = self.shares = None
        for role in SIMILAR_LAYERS:
            self.layers.remove(role)
        arrived = self.journey.arrive()
        shown, index = self._controller.slides.current, self.source.chosen_index
        if shown is not None:
            content_id = shown.slide.content_id
            if index is None and not arrived and not self.question.is_of(content_id):
                self.clear()
            elif index is not None:
                # A slide of the index is painted at once; another one would have to be embedded first, unasked.
                self.wants_similarity = self.wants_similarity and index.holds(content_id)
                wants = [SIMILARITY] if self.wants_similarity and self.question.ready else []
                wants += [PICTURES] if len(self.pictures) < len(self.hits) else []
                if wants:
                    self._do(*wants)
        self._settle()

    def _settle(self) -> None:
        self.changed.emit()
        self.found.emit()
        self.maps_changed.emit()
        self.progressed.emit()

    def _tissue_edited(self) -> None:
        """The user drew: tiles are laid anew when they are asked for next."""
        self._known = Known()

    # -- words -------------------------------------------------------------------------------------------------------

    def command(self) -> str:
        """Return the command that does what the dock does."""
        shown = self._controller.slides.current
        if shown is None:
            return ""
        source, path = self.source, Path(shown.slide.path)
        folder = source.chosen_index.folder if source.chosen_index is not None else None
        return similar_words.command(
            path, folder, source.encoder, self.question.examples, source.left_out, self.journey.paths
        )

    def say(self, line: str) -> None:
        """Show a line."""
        self.line = line
        self.progressed.emit()

    def _show_problem(self, problem: words.Problem | None) -> None:
        self.problem = problem
        self.changed.emit()

    def dismiss(self) -> None:
        """Take the problem away."""
        self._show_problem(None)
