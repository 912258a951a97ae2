"""Questions about places: clicks, the tiles that count most, stepping through them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Signal

from napari_slnpredict.events import Event, Partial
from napari_slnpredict.foreign.explain import ScoreAnswer

from . import words
from .click import Outline
from .jobs import Answered, click_job, pictures_job, place_job
from .worker import Outcome, Worker

if TYPE_CHECKING:
    import threading

    from napari_slnpredict.events import Job
    from napari_slnpredict.foreign.places import Places
    from napari_slnpredict.pipeline import ClickAnswer, SoFar
    from napari_slnpredict.slide.grid import TileGrid

    from .slides import Shown

#: Tiles shown for and against.
STRIP = 4
NO_TISSUE = "no tissue here"
LOOKING = "looking here…"
#: The run has not laid its tiles yet: the question is kept.
BEGINNING = "the run is just beginning: this place is answered as soon as its tiles are laid"


@dataclass(frozen=True)
class Strip:
    """The tiles that count most.

    Attributes
    ----------
    first_word, second_word : str
        What they do: "speaks for positive", "against"; or "most looked at".
    first, second : tuple of int
        Tile indices, strongest first.
    """

    first_word: str
    first: tuple[int, ...]
    second_word: str = ""
    second: tuple[int, ...] = ()


class Asks(QObject):
    """Answers for one viewer.

    Parameters
    ----------
    viewer : napari.Viewer
    parent : QObject
    """

    here_changed = Signal()
    partial = Signal(object)  # events.Partial: what a click before any run has found out about the slide
    strip_changed = Signal()
    pictures_arrived = Signal()

    def __init__(self, viewer: Any, parent: QObject) -> None:
        super().__init__(parent)
        self.outline = Outline(viewer)
        self.here: ClickAnswer | ScoreAnswer | None = None
        self.message = ""
        self.strip: Strip | None = None
        self.pictures: dict[int, NDArray[np.uint8]] = {}
        self.so_far: SoFar | None = None
        self.peeked = ""  # the model of a click before any run that found `so_far`; empty: a run did
        self._engine: Any = None
        self._point: tuple[float, float] | None = None  # the last question
        self._workers: dict[str, Worker] = {}
        self._position = -1

    def clear(self) -> None:
        """Another slide or another run: forget all answers."""
        for worker in self._workers.values():
            worker.abandon()
        self._workers.clear()
        self.here, self.message, self.strip, self.pictures, self._position = None, "", None, {}, -1
        self.so_far, self.peeked, self._point = None, "", None
        self.outline.hide()
        self.here_changed.emit()
        self.strip_changed.emit()

    def take(self, event: Partial) -> None:
        """Note what a run (or a first click) has made ready for questions."""
        if event.kind == "ready":
            self._engine = event.data.engine
        elif event.kind == "so_far":
            self.so_far = event.data

    def ask(self, shown: Shown, point_um: tuple[float, float], answered: Answered | None) -> None:
        """Explain a place; `point_um` is x, y in um from the slide's corner.

        From the answer where it looked there, else by embedding the place on the spot. While a run has not laid its
        tiles the question waits for `ask_again`.
        """
        self._point = point_um
        so_far = self.so_far
        grid = answered.prediction.grid if answered is not None else None if so_far is None else so_far.grid
        if grid is None:
            self._say(None, BEGINNING)
            return
        tile = self._tile_there(grid, point_um)
        corner = None
        if tile is not None:
            corner = (int(grid.locations[tile, 0]), int(grid.locations[tile, 1]))
        elif so_far is not None:
            corner = so_far.corner_at(point_um)
        if corner is None:
            self.forget_click()
            self._say(None, NO_TISSUE)
            return
        slide, engine = shown.slide, self._engine
        if answered is not None and tile is not None:
            head, prediction = answered.head, answered.prediction
            self._start("click", shown, lambda: click_job(slide, head, prediction, point_um), self._told)
        elif so_far is not None:
            self._start("click", shown, lambda: place_job(slide, so_far, engine, point_um), self._told)
        # After the job was started: the answer is found while the square is drawn, and comes before the next frame.
        self.outline.show(grid, corner)

    def ask_first(
        self,
        shown: Shown,
        point_um: tuple[float, float],
        model: str,
        make_job: Callable[[], Job[Any]],
        after: Sequence[threading.Thread],
    ) -> None:
        """Explain a place of a slide that no run has looked at; `make_job` loads the model and lays the tiles too."""
        self._point, self.peeked = point_um, model
        self._say(None, LOOKING)
        self._start("click", shown, make_job, self._told, after)

    def ask_again(self, shown: Shown, answered: Answered | None) -> None:
        """The run has come further: answer what was asked too early, or only so far."""
        waits = self.here is None or self.here.tiles_so_far is not None
        if self._point is not None and waits:
            self.ask(shown, self._point, answered)

    def ask_scores(
        self, shown: Shown, places: Places, corner: tuple[float, float] | None, make_job: Callable[[], Job[Any]]
    ) -> None:
        """Explain a place by somebody's scores; `corner` is that of the tile there, None where there is none."""
        self.forget_click()
        self._point = None
        if corner is not None:
            self.outline.show(places, corner)
        self._start("click", shown, make_job, self._told_score)

    def forget_scores(self) -> None:
        """Take away what was said by somebody's scores."""
        if isinstance(self.here, ScoreAnswer):
            self.forget_click()
            self._say(None, "")

    def forget_click(self) -> None:
        """Ask nothing and outline nothing."""
        worker = self._workers.pop("click", None)
        if worker is not None:
            worker.abandon()
        self.outline.hide()

    def drop_peek(self) -> bool:
        """Forget what a click before any run has found; False when there is nothing of that kind."""
        if not self.peeked or self.so_far is None:
            return False
        self.clear()
        return True

    def tell_strip(self, shown: Shown, answered: Answered) -> None:
        """Find the tiles that count most and read their pictures."""
        strip = strip_of(answered.prediction)
        self.strip, self._position = strip, -1
        self.strip_changed.emit()
        if strip is None:
            return
        slide, grid = shown.slide, answered.prediction.grid
        tiles = (*strip.first, *strip.second)
        self._start("pictures", shown, lambda: pictures_job(slide, grid, tiles), self._pictured)

    def next_tile(self, values: NDArray[np.float32] | None, step: int) -> int | None:
        """Return the next tile by the map's values, highest first; None without a map."""
        if values is None or not np.isfinite(values).any():
            return None
        order = np.argsort(-np.where(np.isfinite(values), values, -np.inf), kind="stable")
        known = int(np.isfinite(values).sum())
        self._position = (self._position + step) % known if self._position >= 0 or step > 0 else known - 1
        return int(order[self._position])

    def _tile_there(self, grid: TileGrid | None, point_um: tuple[float, float]) -> int | None:
        if grid is None or not len(grid):
            return None
        from napari_slnpredict.slide.grid import tile_at

        return tile_at(grid, point_um[0] / grid.slide_mpp, point_um[1] / grid.slide_mpp)

    def _start(
        self,
        name: str,
        shown: Shown,
        make_job: Callable[[], Job[Any]],
        take: Callable[[Outcome], None],
        after: Sequence[threading.Thread] = (),
    ) -> None:
        former = self._workers.pop(name, None)
        if former is not None:
            former.abandon()
        release = shown.keeper.hold()
        if release is None:
            return
        worker = Worker(make_job, self, name=name, at_end=release, after=after)
        self._workers[name] = worker

        def done(outcome: Outcome) -> None:
            self._workers.pop(name, None)
            take(outcome)

        worker.happened.connect(self._told_early)
        worker.ended.connect(done)
        worker.start()

    def _told_early(self, events: list[Event]) -> None:
        for event in events:
            if not isinstance(event, Partial):
                continue
            if event.kind == "click":
                self._say(event.data, "")
            else:
                self.take(event)
                self.partial.emit(event)

    def _told(self, outcome: Outcome) -> None:
        if outcome.state == "done":
            answer = outcome.result
            if answer.location is not None and self.so_far is not None:
                self.outline.show(self.so_far.grid, answer.location)  # a first click had no tiles to outline
            self._say(answer, answer.reason)
        elif outcome.error is not None:
            self._say(None, words.problem_of(outcome.error).text)

    def _told_score(self, outcome: Outcome) -> None:
        if outcome.state == "done":
            self._say(outcome.result, outcome.result.reason)
        elif outcome.error is not None:
            self._say(None, words.problem_of(outcome.error).text)

    def _say(self, answer: ClickAnswer | ScoreAnswer | None, message: str) -> None:
        self.here, self.message = answer, message
        self.here_changed.emit()

    def _pictured(self, outcome: Outcome) -> None:
        if outcome.state == "done":
            self.pictures = outcome.result
            self.pictures_arrived.emit()


def strip_of(prediction: Any) -> Strip | None:
    """Choose the tiles that count most: by evidence for the leading class, else by attention."""
    verdict = prediction.verdict
    if verdict is None or not len(prediction.grid):
        return None
    if verdict.evidence is not None:
        column = shown_class(prediction)
        name = str(verdict.classes[column])
        # Tiles that could not be read have none.
        values = np.nan_to_num(np.asarray(verdict.evidence[:, column]))
        order = np.argsort(values, kind="stable")
        for_it = tuple(int(tile) for tile in order[::-1][:STRIP] if values[tile] > 0)
        against = tuple(int(tile) for tile in order[:STRIP] if values[tile] < 0)
        return Strip(f"for {name}", for_it, "against", against)
    if verdict.attention is not None:
        order = np.argsort(-verdict.attention, kind="stable")
        return Strip("most looked at", tuple(int(tile) for tile in order[: 2 * STRIP]))
    return None


def shown_class(prediction: Any) -> int:
    """Return the class evidence and probability are told for, as in reports."""
    from napari_slnpredict.export_pictures import main_class

    return list(prediction.bundle.classes).index(main_class(prediction))
