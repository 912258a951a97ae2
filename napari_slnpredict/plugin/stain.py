"""The slide in another one's stain: a layer above its own.

The layer's arrays are a second display pyramid over the same stored tiles (`DisplayPyramid.twin`), painted by one
matrix for the whole slide, so tiles and levels agree and nothing flickers. While it covers the slide's own layer that
one is hidden: napari would read, upload and draw both at every step of the camera.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer, Signal

from napari_slnpredict.events import Event, Progress, Stage, Warn

from . import words
from .display import Freshener
from .layers import add_stained
from .stain_jobs import METHODS, Known, Stained, Target, discard_stained, stain_job
from .worker import Outcome, Worker

if TYPE_CHECKING:
    from .controller import Controller
    from .slides import Shown


class StainView(QObject):
    """Shows one viewer's slide in another stain.

    Parameters
    ----------
    controller : Controller
        Its parent; not kept beside that.
    """

    changed = Signal()

    def __init__(self, controller: Controller) -> None:
        super().__init__(controller)
        self._viewer = weakref.ref(controller.viewer)
        self._known: Known = {}
        self._worker: Worker | None = None
        self._wanted: Target | None = None
        self._shown: Shown | None = None
        self._freshener: Freshener | None = None
        self.layer: Any = None
        self.stained: Stained | None = None
        self.method = next(iter(METHODS))
        self.stage: Stage | None = None
        self.progress: Progress | None = None
        self.warnings: list[str] = []
        # Not at once: a window that closes throws all layers away, and must not be asked for the one below again.
        self._bare = QTimer(self, singleShot=True, interval=0)
        self._bare.timeout.connect(self._uncover)
        controller.slides.changed.connect(self._slide_changed)
        controller.viewer.layers.events.removed.connect(self._removed)

    @property
    def _controller(self) -> Any:
        return self.parent()

    @property
    def target(self) -> Target | None:
        """Whose stain is shown or being looked for; None: the slide as it was scanned."""
        return self._wanted if self.running else self.stained.target if self.stained is not None else None

    @property
    def running(self) -> bool:
        """Whether a stain is being looked for."""
        return self._worker is not None

    @property
    def visible(self) -> bool:
        """Whether the stained layer is seen."""
        return self.layer is not None and bool(self.layer.visible)

    # -- choosing ----------------------------------------------------------------------------------------------------

    def choose(self, target: Target | None) -> None:
        """Show the slide in a target's stain; None: as it was scanned."""
        self._abandon()
        self.warnings = []
        shown = self._controller.slides.current
        if target is None or shown is None:
            self._take_away()
        elif self.stained is None or (self.stained.target, self.stained.method) != (target, self.method):
            self._start(shown, target)
        else:
            self.show(True)
        self.changed.emit()

    def choose_method(self, method: str) -> None:
        """Find and give stains by another method."""
        target, self.method = self.target, method
        if target is not None:
            self.choose(target)

    def cancel(self) -> None:
        """Stop looking; what was shown before stays."""
        if self._worker is not None:
            self._worker.stop()
            self.changed.emit()

    def show(self, visible: bool) -> None:
        """Show the stained layer, or the slide as it was scanned below it."""
        if self.layer is not None:
            self.layer.visible = visible

    # -- the job -----------------------------------------------------------------------------------------------------

    def _start(self, shown: Shown, target: Target) -> None:
        release = shown.keeper.hold()
        if release is None:
            return
        opened, method, known = shown.opened, self.method, self._known
        worker = Worker(
            lambda: stain_job(opened, target, method, known),
            self,
            name="stain",
            discard=discard_stained,
            at_end=release,
        )
        self._controller.show_problem(None)
        self.stage = self.progress = None
        self._worker, self._wanted = worker, target
        worker.happened.connect(self._happened)
        worker.ended.connect(self._ended)
        worker.start()

    def _happened(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Stage):
                self.stage, self.progress = event, None
            elif isinstance(event, Progress):
                self.progress = event
            elif isinstance(event, Warn):
                self.warnings.append(event.message)
        self.changed.emit()

    def _ended(self, outcome: Outcome) -> None:
        self._worker = None
        shown = self._controller.slides.current
        if outcome.state == "done" and shown is not None:
            self._show(shown, outcome.result)
        elif outcome.state == "done":
            discard_stained(outcome.result)
        elif outcome.error is not None:
            self._controller.show_problem(words.problem_of(outcome.error, outcome.details))
        if self.stained is not None:
            self.method = self.stained.method  # what is shown, after an attempt in vain
        self.changed.emit()

    def _abandon(self) -> None:
        if self._worker is not None:
            self._worker.abandon()
            self._worker = None

    # -- the layer ---------------------------------------------------------------------------------------------------

    def _show(self, shown: Shown, stained: Stained) -> None:
        viewer = self._viewer()
        if viewer is None:
            discard_stained(stained)
            return
        former = self._leave()
        shown.keeper.when_leaving(stained.pyramid.close)
        layer = add_stained(viewer, shown.slide, list(stained.pyramid.levels), shown.layer, layer_name(stained))
        self.layer, self.stained, self._shown = layer, stained, shown
        self._freshener = Freshener(layer, stained.pyramid, self)
        for event in (layer.events.visible, layer.events.opacity):
            event.connect(self._cover)
        self._cover()
        if former is not None and former in viewer.layers:  # after the new one is there: nothing flashes between
            viewer.layers.remove(former)

    def _cover(self, event: object = None) -> None:
        """Draw the slide's own layer only where it is seen."""
        layer, shown, stained = self.layer, self._shown, self.stained
        if layer is None or shown is None or stained is None:
            return
        covered = bool(layer.visible) and float(layer.opacity) >= 1.0
        if shown.layer.visible == covered:
            shown.layer.visible = not covered
        overview = self._controller.overview
        overview.recolour((stained.look if layer.visible else shown.opened.look)(shown.opened.overview))
        self.changed.emit()

    def _take_away(self) -> None:
        viewer, layer = self._viewer(), self.layer
        if layer is not None and viewer is not None and layer in viewer.layers:
            layer.visible = False  # the scan first: nothing flashes between
            viewer.layers.remove(layer)

    def _uncover(self) -> None:
        """Show the slide's own layer again, if it is still there and nothing covers it."""
        shown = self._controller.slides.current
        if self.layer is None and shown is not None and not shown.layer.visible:
            shown.layer.visible = True

    def _removed(self, event: Any) -> None:
        if event.value is not self.layer:
            return
        shown = self._shown
        self._leave()
        if shown is not None and shown.opened.slide is not None:
            self._controller.overview.recolour(shown.opened.look(shown.opened.overview))
            self._bare.start()
        self.changed.emit()

    def _leave(self) -> Any:
        """End what stands behind the layer and forget it; returns the layer."""
        layer = self.layer
        if self._freshener is not None:
            self._freshener.leave()
        if self.stained is not None:
            self.stained.pyramid.close()
        if layer is not None:
            layer.events.visible.disconnect(self._cover)
            layer.events.opacity.disconnect(self._cover)
        self.layer = self.stained = self._shown = self._freshener = None
        return layer

    def _slide_changed(self) -> None:
        """Another slide, or none: its stain is not this one's."""
        self._abandon()
        self.warnings = []
        shown = self._controller.slides.current
        if self._shown is not None and (shown is None or shown.layer is not self._shown.layer):
            self._take_away()
        self.changed.emit()


def layer_name(stained: Stained) -> str:
    """Return the layer's name in napari's list."""
    return f"slide as {stained.target.title}"
