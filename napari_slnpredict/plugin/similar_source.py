"""Where similar tiles are looked for: which encoder describes them, in which index, and what is left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_slnpredict.retrieval.leaving_out import NOTHING

from . import words
from .preferences import viewer_options
from .similar_ready import Warm, encoders_job, index_job, warm_job
from .worker import Outcome, Worker

if TYPE_CHECKING:
    from napari_slnpredict.retrieval import Index

DEFAULT_ENCODER = "hne-small"


class Source(QObject):
    """The choices of one viewer's search, and the short jobs behind them.

    Parameters
    ----------
    warm : Warm
        Where a prepared encoder is kept.
    parent : QObject
    """

    changed = Signal()  # what can be chosen, or a line about it
    another = Signal()  # another place to look in: what was found is old
    replaced = Signal()  # another encoder: what was asked means nothing to it
    failed = Signal(object)  # words.Problem

    def __init__(self, warm: Warm, parent: QObject) -> None:
        super().__init__(parent)
        self.warm = warm
        self.encoders: list[str] = [DEFAULT_ENCODER]
        self.encoder = DEFAULT_ENCODER
        self.index: Index | None = None
        self.in_index = False
        self.left_out = NOTHING
        self.reading: Path | None = None
        #: Whether nothing was asked yet, so that an index may bring its own encoder.
        self.is_free: Callable[[], bool] = lambda: True
        self._workers: dict[str, Worker] = {}
        options = viewer_options()
        self._start("encoders", lambda: encoders_job(options), self._take_encoders)

    @property
    def chosen_index(self) -> Index | None:
        """The index that is looked in; None: the slide on the screen."""
        return self.index if self.in_index else None

    def choose_encoder(self, name: str) -> None:
        """Describe tiles with another encoder."""
        if name != self.encoder:
            self.encoder = name
            self.replaced.emit()
            self.changed.emit()

    def choose_left_out(self, what: str) -> None:
        """Say which slides of the index are not looked at."""
        if what != self.left_out:
            self.left_out = what
            self.changed.emit()
            self.another.emit()

    def look_in_index(self, on: bool) -> None:
        """Look in the index, or on the slide on the screen."""
        if self.in_index != (on and self.index is not None):
            self.in_index = not self.in_index
            self.changed.emit()
            self.another.emit()

    def open_index(self, folder: Path) -> None:
        """Look in another index from now on."""
        self.reading = folder
        self.changed.emit()
        self._start("index", lambda: index_job(folder), self._take_index)

    def warm_up(self) -> None:
        """Build the network before the first click needs it; what goes wrong is told by the click."""
        name, options, warm, index = self.encoder, viewer_options(), self.warm, self.chosen_index
        self._start("warm", lambda: warm_job(name, index, options, warm), lambda outcome: None)

    def _take_index(self, outcome: Outcome) -> None:
        self.reading = None
        if outcome.state == "done":
            self.index, self.in_index = outcome.result, True
            named = self.index.first.encoder
            fitting = [name for name in (named, named.removeprefix("local:")) if name in self.encoders]
            if self.is_free() and fitting:
                self.encoder = fitting[0]
            self.changed.emit()
            self.another.emit()
            return
        self.changed.emit()
        self._tell(outcome)

    def _take_encoders(self, outcome: Outcome) -> None:
        if outcome.state == "done":
            self.encoders = outcome.result or [DEFAULT_ENCODER]
            if self.encoder not in self.encoders:
                self.encoder = self.encoders[0]
        self.changed.emit()
        self._tell(outcome)

    def _tell(self, outcome: Outcome) -> None:
        if outcome.error is not None:
            self.failed.emit(words.problem_of(outcome.error, outcome.details))

    def _start(self, name: str, make_job: Callable[[], Any], take: Callable[[Outcome], None]) -> None:
        """Run a short job that needs no slide; a newer one of the same name replaces it."""
        former = self._workers.pop(name, None)
        if former is not None:
            former.abandon()
        worker = Worker(make_job, self, name=name)
        self._workers[name] = worker

        def done(outcome: Outcome) -> None:
            self._workers.pop(name, None)
            take(outcome)

        worker.ended.connect(done)
        worker.start()
