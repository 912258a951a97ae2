"""Questions about places: clicks, the tiles that count most, stepping through them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Signal

from napari_slnpredict.events import Event, Partial

from . import words
from .click import Outline
from .jobs import Answered, click_job, early_click_job, pictures_job
from .worker import Outcome, Worker

if TYPE_CHECKING:
    from napari_slnpredict.events import Job
    from napari_slnpredict.pipeline import ClickAnswer
    from napari_slnpredict.slide.grid import TileGrid

    from .slides import Shown

#: Tiles shown for and against.
STRIP = 4
NOTHING_YET = "Nothing was looked at yet: press Run."
NO_TISSUE = "no tissue here"


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
    strip_changed = Signal()
    pictures_arrived = Signal()

    def __init__(self, viewer: Any, parent: QObject) -> None:
        super().__init__(parent)
        self.outline = Outline(viewer)
        self.here: ClickAnswer | None = None
        self.message = ""
        self.strip: Strip | None = None
        self.pictures: dict[int, NDArray[np.uint8]] = {}
        self._workers: dict[str, Worker] = {}
        self._position = -1

    def clear(self) -> None:
        """Another slide or another run: forget all answers."""
        for worker in self._workers.values():
            worker.abandon()
        self._workers.clear()
        self.here, self.message, self.strip, self.pictures, self._position = None, "", None, {}, -1
        self.outline.hide()
        self.here_changed.emit()
        self.strip_changed.emit()

    def ask(
        self,
        shown: Shown,
        point_um: tuple[float, float],
        grid: TileGrid | None,
        answered: Answered | None,
        shares: NDArray[np.float32] | None,
    ) -> None:
        """Explain a place; `point_um` is x, y in um from the slide's corner."""
        tile = self._tile_there(grid, point_um)
        if grid is None or tile is None:
            self.outline.hide()
            self._say(None, NOTHING_YET if grid is None else NO_TISSUE)
            return
        self.outline.show(grid, tile)
        slide = shown.slide
        if answered is not None and answered.prediction.grid is grid:
            head, prediction = answered.head, answered.prediction
            self._start("click", shown, lambda: click_job(slide, head, prediction, point_um), self._told)
        else:
            known = None if shares is None else shares.copy()
            self._start("click", shown, lambda: early_click_job(slide, grid, known, point_um), self._told)

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
        self, name: str, shown: Shown, make_job: Callable[[], Job[Any]], take: Callable[[Outcome], None]
    ) -> None:
        former = self._workers.pop(name, None)
        if former is not None:
            former.abandon()
        release = shown.keeper.hold()
        if release is None:
            return
        worker = Worker(make_job, self, name=name, at_end=release)
        self._workers[name] = worker

        def done(outcome: Outcome) -> None:
            self._workers.pop(name, None)
            take(outcome)

        worker.happened.connect(self._told_early)
        worker.ended.connect(done)
        worker.start()

    def _told_early(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Partial) and event.kind == "click":
                self._say(event.data, "")

    def _told(self, outcome: Outcome) -> None:
        if outcome.state == "done":
            answer = outcome.result
            self._say(answer, answer.reason)
        elif outcome.error is not None:
            self._say(None, words.problem_of(outcome.error).text)

    def _say(self, answer: ClickAnswer | None, message: str) -> None:
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
