"""Anyone's scores in one viewer: files waiting, being read, asked about, shown; what of them the map shows.

Scores work beside a model's map or without one. What is chosen under *Map* answers clicks: the model, or a file. A file
whose layer is removed is forgotten; another slide forgets them all.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Signal

from napari_slnpredict.foreign.explain import Shown, on_scale, scales
from napari_slnpredict.foreign.scores import Answers, ForeignScores, MissingPlaces, facts_of

from . import words
from .maps import ATTENTION, EVIDENCE, MapState
from .score_jobs import score_click_job, scores_job, sort_job
from .score_layer import add_score_layer, paint_scores
from .worker import Outcome, Worker

if TYPE_CHECKING:
    from .controller import Controller
    from .slides import Shown as ShownSlide

NO_SLIDE = "Open the slide they belong to; the scores follow."
NO_SCALE = "The slide has no pixel size: give it above; the scores follow."


@dataclass(frozen=True)
class Wanted:
    """A file to be shown.

    Attributes
    ----------
    path : Path
    answers : Answers
        What the user said where the file does not.
    slide : Path or None
        The slide it was given for; None: the one that is being opened.
    """

    path: Path
    answers: Answers
    slide: Path | None


@dataclass(frozen=True)
class Question:
    """A file that does not say where its tiles lie."""

    wanted: Wanted
    error: MissingPlaces


@dataclass(frozen=True)
class Choice:
    """A column of a file on a scale."""

    file: int
    column: int
    scale: str


@dataclass
class File:
    """A file on the screen."""

    wanted: Wanted
    scores: ForeignScores
    layer: Any


class Scores(QObject):
    """Owns the score layers of one viewer.

    Parameters
    ----------
    controller : Controller
        The parent.
    """

    changed = Signal()  # files, or what of them is shown
    question_changed = Signal()

    def __init__(self, controller: Controller) -> None:
        super().__init__(controller)
        self._controller = controller
        self._viewer = weakref.ref(controller.viewer)
        self._numbers = count(1)
        self._queue: list[Wanted] = []
        self._reading: Wanted | None = None
        self._worker: Worker | None = None
        self._sorter: Worker | None = None
        self._model_grid: Any = None
        self._place: tuple[float, float] | None = None  # the last question, level-0 px
        self.files: dict[int, File] = {}
        self.questions: list[Question] = []
        self.choice: Choice | None = None
        self.shown: Shown | None = None
        self.state = MapState()
        controller.slides.changed.connect(self._slide_changed)
        controller.slides.failed.connect(self._slide_failed)
        controller.maps.changed.connect(self._model_map_changed)
        controller.viewer.layers.events.removed.connect(self._layer_removed)

    # -- files -------------------------------------------------------------------------------------------------------

    def open_dropped(self, paths: Sequence[Path]) -> None:
        """Open what was dropped: slides as slides, score files as maps, told apart by what is in them."""
        if self._sorter is not None:
            self._sorter.abandon()
        worker = Worker(lambda: sort_job(paths), self, name="sort")
        worker.ended.connect(self._sorted)
        self._sorter = worker
        worker.start()

    def _sorted(self, outcome: Outcome) -> None:
        self._sorter = None
        if outcome.error is not None:
            self._controller.show_problem(words.problem_of(outcome.error, outcome.details))
        if outcome.state != "done":
            return
        slides, scores = outcome.result
        choices = self._controller.slides.choices
        choices.extend(path for path in slides[1:] if path not in choices)
        if slides:
            self._controller.open(slides[0])
        self.open(scores)

    def open(self, paths: Sequence[Path], answers: Answers | None = None) -> None:
        """Read score files and show them on the present slide, or on the one that is being opened."""
        slides = self._controller.slides
        waits = slides.opening is not None or slides.current is None
        slide = None if waits else slides.current.slide.path
        self._queue += [Wanted(Path(path), answers or Answers(), slide) for path in paths]
        self._next()

    def answer(self, question: Question, answers: Answers | None) -> None:
        """Take the user's answer to a question; None: leave the file."""
        if question in self.questions:
            self.questions.remove(question)
            self.question_changed.emit()
        if answers is not None:
            old = question.wanted.answers
            given = Answers(old.size if answers.size is None else answers.size, answers.unit or old.unit)
            self._queue.append(replace(question.wanted, answers=given))
            self._next()

    def _next(self) -> None:
        """Read the next file, when there is a slide to lay it on."""
        slides = self._controller.slides
        if self._worker is not None or not self._queue or slides.opening is not None:
            return
        shown = slides.current
        if shown is None or not shown.slide.mpp:
            self._controller.say(NO_SLIDE if shown is None else NO_SCALE)
            return
        wanted = replace(self._queue.pop(0), slide=shown.slide.path)
        facts = facts_of(shown.slide)
        self._reading = wanted
        self._controller.say(f"Reading {wanted.path.name}…")
        worker = Worker(lambda: scores_job(wanted.path, facts, wanted.answers), self, name="scores")
        worker.ended.connect(self._read)
        self._worker = worker
        worker.start()

    def _read(self, outcome: Outcome) -> None:
        wanted, self._reading, self._worker = self._reading, None, None
        if wanted is None:
            return
        self._controller.say("")
        if outcome.state == "done":
            self._show(wanted, outcome.result)
        elif isinstance(outcome.error, MissingPlaces):
            self.questions.append(Question(wanted, outcome.error))
            self.question_changed.emit()
        elif outcome.error is not None:
            self._controller.show_problem(words.problem_of(outcome.error, outcome.details))
        self._next()

    def _show(self, wanted: Wanted, scores: ForeignScores) -> None:
        viewer = self._viewer()
        if viewer is None:
            return
        for number, file in list(self.files.items()):
            if file.wanted.path == wanted.path:  # given again: the new one stands in its place
                self._forget(number)
        number = next(self._numbers)
        layer = add_score_layer(viewer, f"scores: {scores.source}", scores.places)
        self.files[number] = File(wanted, scores, layer)
        self.choose(self._first_of(number))

    def _forget(self, number: int) -> None:
        file = self.files.pop(number)
        viewer = self._viewer()
        if viewer is not None and file.layer in viewer.layers:
            viewer.layers.remove(file.layer)

    def _layer_removed(self, event: Any) -> None:
        """The user threw a layer away: its file is forgotten."""
        number = next((n for n, file in self.files.items() if file.layer is event.value), None)
        if number is None:
            return
        del self.files[number]
        if self.choice is not None and self.choice.file == number:
            self.choose(self._instead())
        else:
            self.changed.emit()

    # -- slides and models come and go -------------------------------------------------------------------------------

    def _slide_changed(self) -> None:
        """Another slide forgets all files; the same one, opened again with a pixel size, brings them back."""
        back = [file.wanted for file in self.files.values()] + [question.wanted for question in self.questions]
        back += [self._reading] if self._reading is not None else []
        self._queue = back + self._queue
        self._clear()
        shown = self._controller.slides.current
        if shown is not None:
            self._queue = [wanted for wanted in self._queue if wanted.slide in (None, shown.slide.path)]
            self._next()

    def _slide_failed(self, problem: object) -> None:
        """The slide that files waited for does not open."""
        self._queue = [wanted for wanted in self._queue if wanted.slide is not None]

    def _clear(self) -> None:
        if self._worker is not None:
            self._worker.abandon()
        self._worker = self._reading = self._place = None
        self.questions.clear()
        self.choice = self.shown = None
        for number in list(self.files):
            self._forget(number)
        self.state = MapState()
        self.question_changed.emit()
        self.changed.emit()

    def _model_map_changed(self) -> None:
        """A model's map begins: it is shown. It goes: what somebody else found is shown again."""
        grid = self._controller.maps.grid
        if grid is self._model_grid:
            return
        self._model_grid = grid
        if grid is not None and self.choice is not None:
            self.choose(None)
        elif grid is None and self.choice is None and self.files:
            self.choose(self._instead())

    def _instead(self) -> Choice | None:
        """Return what to show when what was shown has gone: the model's map, else the file opened last."""
        if self._controller.maps.grid is not None or not self.files:
            return None
        return self._first_of(max(self.files))

    def _first_of(self, number: int) -> Choice:
        return Choice(number, 0, scales(self.files[number].scores.columns[0])[0])

    # -- the map -----------------------------------------------------------------------------------------------------

    @property
    def file(self) -> File | None:
        """The file that is chosen."""
        return None if self.choice is None else self.files.get(self.choice.file)

    @property
    def values(self) -> NDArray[np.float32] | None:
        """The values shown, (n,) float32; None when no file is chosen."""
        return None if self.shown is None else self.shown.values

    def choices(self) -> list[tuple[str, Choice]]:
        """Return everything that can be chosen, with its words."""
        return [
            (words.score_choice(file.scores, column.name, scale), Choice(number, k, scale))
            for number, file in self.files.items()
            for k, column in enumerate(file.scores.columns)
            for scale in scales(column)[: 1 if file.scores.coverage_only else None]
        ]

    def choose(self, choice: Choice | None) -> None:
        """Show a column of a file, and nothing else; None shows the model's map."""
        self.choice = choice
        file = self.file
        if choice is None or file is None:
            self.choice = self.shown = self._place = None
            self._controller.asks.forget_scores()
        else:
            self.shown = on_scale(file.scores.columns[choice.column], choice.scale)
            at_zero = 0.0 if self.shown.two_sided else self.shown.low
            self.state = MapState(
                choice.scale, self.shown.unit, self.shown.low, self.shown.high, self.shown.top, at_zero,
                two_sided=self.shown.two_sided,
            )  # fmt: skip
        self._show_only_chosen()
        self._paint()
        if self._place is not None:
            self._ask(self._place)

    def _show_only_chosen(self) -> None:
        """Two maps over each other cannot be read; whoever wants both switches the other on in the layer list."""
        chosen = self.file
        for file in self.files.values():
            file.layer.visible = file is chosen
        maps = self._controller.maps
        for name in (ATTENTION, EVIDENCE):
            layer = maps.layer(name)
            if layer is not None:
                layer.visible = chosen is None and name == (EVIDENCE if maps.state.two_sided else ATTENTION)

    def set_threshold(self, value: float) -> None:
        """Paint only tiles at or above a value (two-sided: at least that far from zero)."""
        self.state = replace(self.state, threshold=float(value))
        self._paint()

    def _paint(self) -> None:
        file = self.file
        if file is not None and self.shown is not None:
            above = self._above(self.shown)
            area = file.scores.places.area_mm2(above)
            self.state = replace(self.state, area_mm2=area, tiles=int(above.sum()))
            paint_scores(file.layer, file.scores.places, self.shown, above)
        self.changed.emit()

    def _above(self, shown: Shown) -> NDArray[np.bool_]:
        known = np.isfinite(shown.values)
        lowest = 0.0 if shown.two_sided else shown.low
        if self.state.threshold <= lowest:  # the range leaves out a few outliers; nothing is cut off by that
            return np.asarray(known)
        strength = np.abs(shown.values) if shown.two_sided else shown.values
        with np.errstate(invalid="ignore"):
            return np.asarray(known & (strength >= self.state.threshold))

    # -- questions ---------------------------------------------------------------------------------------------------

    def ask(self, point_um: tuple[float, float]) -> bool:
        """Explain a place (um from the slide's corner) by the chosen file; False when none is chosen."""
        file = self.file
        if file is None:
            return False
        mpp = file.scores.places.slide_mpp
        self._ask((point_um[0] / mpp, point_um[1] / mpp))
        return True

    def _ask(self, place: tuple[float, float]) -> None:
        file, choice, slide = self.file, self.choice, self._controller.slides.current
        if file is None or choice is None or slide is None:
            return
        self._place = place
        scores, column = file.scores, choice.column
        tile = scores.places.tile_at(*place)
        corner = None if tile is None else tuple(float(v) for v in scores.places.locations[tile])
        self._controller.asks.ask_scores(slide, scores.places, corner, self._click_job(slide, scores, column, place))

    def _click_job(self, slide: ShownSlide, scores: ForeignScores, column: int, place: tuple[float, float]) -> Any:
        opened = slide.slide
        return lambda: score_click_job(opened, scores, column, place)

    def step(self, step: int) -> bool:
        """Show the next (+1) or previous (-1) tile by the chosen values; False when no file is chosen."""
        file = self.file
        if file is None:
            return False
        tile = self._controller.asks.next_tile(self.values, step)
        if tile is not None:
            places = file.scores.places
            x, y = (float(v) for v in places.locations[tile] + places.size_level0 / 2)
            self._controller.camera.go_to(x, y, least_magnification=10)
            self._ask((x, y))
        return True
