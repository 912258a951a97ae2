"""Opening slides off the GUI thread, showing them, and closing them when their layer goes."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qtpy.QtCore import QObject, Signal

from . import words
from .display import Freshener
from .jobs import Opened, Options, discard_opened, open_job
from .keeper import Keeper
from .layers import SLIDE_KEY, assert_gui_thread, is_slide, slide_layer
from .worker import Outcome, Worker

#: Key of `Layer.metadata` under which a slide read by napari's own Open brings what the dock needs.
OPENED_KEY = "slnpredict_opened"


@dataclass(frozen=True)
class Shown:
    """A slide on the screen."""

    opened: Opened
    layer: Any
    keeper: Keeper
    freshener: Freshener

    @property
    def slide(self) -> Any:
        """The open slide."""
        return self.opened.slide


class Slides(QObject):
    """The slides of one viewer; the one opened last is the current one.

    Parameters
    ----------
    viewer : napari.Viewer
        Held weakly.
    parent : QObject
    """

    changed = Signal()  # the current slide is another one, or none
    opening_changed = Signal()
    failed = Signal(object)  # words.Problem
    silence_changed = Signal()  # the drive of a slide does not answer, or does again

    def __init__(self, viewer: Any, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = weakref.ref(viewer)
        self._shown: list[Shown] = []
        self._worker: Worker | None = None
        self.choices: list[Path] = []
        self.opening: Path | None = None
        self.leaving: Shown | None = None  # being removed: what was drawn on it can still be kept
        keepers: set[Keeper] = set()
        self._keepers = keepers
        # The window may go without its layers being removed one by one.
        self.destroyed.connect(lambda: [keeper.retire() for keeper in list(keepers)])
        viewer.layers.events.inserted.connect(self._inserted)
        viewer.layers.events.removed.connect(self._removed)
        for layer in viewer.layers:
            self._adopt(layer)

    @property
    def current(self) -> Shown | None:
        """The slide the dock speaks of."""
        return self._shown[-1] if self._shown else None

    @property
    def silent(self) -> Path | None:
        """The slide whose drive does not answer at present."""
        return next((shown.slide.path for shown in self._shown if shown.opened.pyramid.is_silent), None)

    def open(self, path: Path, options: Options, mpp: float | None = None) -> None:
        """Open a slide in place of the present one."""
        assert_gui_thread()
        if self._worker is not None:
            self._worker.abandon()
        path = Path(path)
        if path not in self.choices:
            self.choices.append(path)
        self.opening = path
        worker = Worker(lambda: open_job(path, mpp, options), self, name="open", discard=discard_opened)
        worker.ended.connect(self._opened)
        self._worker = worker
        worker.start()
        self.opening_changed.emit()

    def _opened(self, outcome: Outcome) -> None:
        self._worker, self.opening = None, None
        if outcome.state == "done":
            self._show(outcome.result)
        elif outcome.error is not None:
            self.failed.emit(words.problem_of(outcome.error, outcome.details))
        self.opening_changed.emit()

    def _show(self, opened: Opened) -> None:
        viewer = self._viewer()
        if viewer is None:
            discard_opened(opened)
            return
        for shown in list(self._shown):
            if shown.layer in viewer.layers:
                viewer.layers.remove(shown.layer)
        data, kwargs = slide_layer(opened.slide, opened.levels)
        kwargs["metadata"][OPENED_KEY] = opened
        layer = viewer.add_image(data, **kwargs)
        viewer.layers.move(viewer.layers.index(layer), 0)

    def _inserted(self, event: Any) -> None:
        self._adopt(event.value)

    def _adopt(self, layer: Any) -> None:
        """Take over a slide layer, whoever added it (our own worker, napari's Open, a script)."""
        opened = getattr(layer, "metadata", {}).get(OPENED_KEY) if is_slide(layer) else None
        if opened is None or any(shown.layer is layer for shown in self._shown):
            return
        keeper = opened.keeper
        if keeper.closed:  # a layer that was removed and is put back: its file is gone from memory
            return
        self._keepers.add(keeper)
        if opened.slide.path not in self.choices:
            self.choices.append(opened.slide.path)
        freshener = Freshener(layer, opened.pyramid, self)
        freshener.silence_changed.connect(self.silence_changed)
        self._shown.append(Shown(opened, layer, keeper, freshener))
        self.changed.emit()

    def _removed(self, event: Any) -> None:
        layer = event.value
        gone = next((shown for shown in self._shown if shown.layer is layer), None)
        if gone is None:
            return
        was_current = gone is self.current
        self._shown.remove(gone)
        layer.metadata.pop(OPENED_KEY, None)
        layer.metadata.pop(SLIDE_KEY, None)
        if was_current:
            self.leaving = gone
            self.changed.emit()  # first stop what reads it
            self.leaving = None
        gone.freshener.leave()
        gone.keeper.retire()
        self._keepers.discard(gone.keeper)
