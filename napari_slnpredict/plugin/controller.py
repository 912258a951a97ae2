"""The state of one viewer. Docks are views of it: closing a dock hides it, closing the window ends everything.

The controller is a child of the window. It holds the viewer weakly, owns the slides, the run, the maps and the answers,
and is the only place where they meet.
"""

from __future__ import annotations

import logging
import weakref
from pathlib import Path
from typing import Any

from qtpy.QtCore import QObject, Qt, QTimer, Signal

from napari_slnpredict.events import Partial

from . import keys, words
from .asks import Asks
from .beside import Beside
from .click import ClickMode
from .errands import Errands
from .jobs import Answered
from .label import SlideLabel
from .layers import assert_gui_thread
from .maps import BY_CLASS, Maps
from .measure import Measure
from .overlays import Overlays
from .overview import Overview
from .preferences import viewer_options, wish
from .remember import Memory
from .runs import Runs
from .scores import Scores
from .slides import Shown, Slides
from .stain import StainView
from .task_note import TaskNote
from .tissue_layer import TissueLayer
from .view import Camera, prepare_canvas

NAME = "slnpredict-controller"
#: The slide comes first: torch's import starts this long after it was shown, ms.
READY_AFTER_MS = 1500
#: The layer of a click's outline is made this long after a run, or after clicks were switched on, ms.
OUTLINE_AFTER_MS = 400
#: Files that come within this time of each other belong to one File > Open, ms.
TOGETHER_MS = 50
_log = logging.getLogger(__name__)


def unwrap(viewer: Any) -> Any:
    """Return the viewer behind napari's plugin proxy: keys and weak references need the real one."""
    return getattr(viewer, "__wrapped__", viewer)


def find_controller(viewer: Any) -> Controller | None:
    """Return a viewer's controller, or None."""
    window = getattr(unwrap(viewer).window, "_qt_window", None)
    if window is None:
        return None
    # Direct children only: a second view inside the window has one of its own.
    return window.findChild(Controller, NAME, Qt.FindChildOption.FindDirectChildrenOnly)


def controller_for(viewer: Any) -> Controller:
    """Return a viewer's controller, made when there is none."""
    assert_gui_thread()
    return find_controller(viewer) or Controller(unwrap(viewer))


class Controller(QObject):
    """One per viewer; see the module.

    Parameters
    ----------
    viewer : napari.Viewer
        Not a proxy; its window becomes the parent.
    beside : Beside, optional
        The pair of views this one belongs to; a window's own viewer makes it.
    """

    problem_changed = Signal()
    click_mode_changed = Signal()
    answer_changed = Signal()
    camera_moved = Signal()

    def __init__(self, viewer: Any, beside: Beside | None = None) -> None:
        super().__init__(viewer.window._qt_window)
        self.setObjectName(NAME)
        self._viewer = weakref.ref(viewer)
        self.problem: words.Problem | None = None
        self.note = ""
        self.answered: Answered | None = None
        self.given_mpp: float | None = None
        self.run_when_open = False
        self._to_open: list[Path] = []
        self._together = QTimer(self, singleShot=True, interval=TOGETHER_MS)
        self._together.timeout.connect(self._open_first)
        self.camera = Camera(viewer)
        self.maps = Maps(viewer, self)
        self.asks = Asks(viewer, self)
        self.overlays = Overlays(viewer, self.maps, self.asks.outline)
        self.click_mode = ClickMode(viewer, self.ask_at)
        self.overview = Overview(viewer, self.camera)
        self.measure = Measure(viewer, self)
        self.label = SlideLabel(self)
        self.memory = Memory(self)
        self.runs = Runs(self, TaskNote(viewer))
        self.tissue = TissueLayer(viewer, self)
        self.errands = Errands(self)
        self.slides = Slides(viewer, self)
        self.stain = StainView(self)
        self.beside = beside or Beside(viewer, self)
        # Started when a slide is on the screen: this imports torch, and must not be in the way of the first frame.
        self._ready_timer = QTimer(self, singleShot=True, interval=READY_AFTER_MS)
        self._ready_timer.timeout.connect(self._make_ready)
        self._ready_timer.timeout.connect(self.label.look)
        self._outline_timer = QTimer(self, singleShot=True, interval=OUTLINE_AFTER_MS)
        self._outline_timer.timeout.connect(self._prepare_outline)
        self._connect()
        self.scores = Scores(self)  # hears of a slide after the controller has cleaned up for it
        keys.bind(viewer, find_controller)
        if self.slides.current is not None:
            self._slide_changed()
        self.runs.look_for_models(viewer_options())

    def _connect(self) -> None:
        self.camera.on_moved = self.camera_moved.emit
        self.maps.moving = self.runs.moving = self.camera.is_moving
        self.slides.changed.connect(self._slide_changed)
        self.label.failed.connect(self.show_problem)
        self.slides.failed.connect(self.show_problem)
        self.runs.failed.connect(self.show_problem)
        self.runs.partial.connect(self._partial)
        self.runs.answered.connect(self._answered)
        self.asks.partial.connect(self._peeked)
        self.tissue.edited.connect(self.errands.tissue_edited)
        self.tissue.keep.connect(self.errands.keep_edit)

    def _make_ready(self) -> None:
        if self.slides.opening is not None:
            self._ready_timer.start()
        elif self.viewer is not None and not self.runs.ready_for(self.runs.model):
            self.runs.make_ready(viewer_options())

    def _prepare_outline(self) -> None:
        """Make the outline's layer while nothing else goes on; not before the camera rests."""
        shown = self.slides.current
        if self.camera.is_moving():
            self._outline_timer.start()
        elif shown is not None and shown.slide.mpp and self.slides.opening is None and not self.runs.running:
            self.asks.outline.prepare()

    @property
    def viewer(self) -> Any:
        """The napari viewer; None while the window is going."""
        return self._viewer()

    # -- slides ------------------------------------------------------------------------------------------------------

    def open(self, path: Path | str, mpp: float | None = None) -> None:
        """Open a slide in the background; the dock says so."""
        self.show_problem(None)
        self.given_mpp = mpp
        self.slides.open(Path(path), viewer_options(), mpp)

    def open_soon(self, path: Path) -> None:
        """Open a slide in a moment; of several that come together the first, the others wait in the list.

        napari hands over the files of one File > Open one by one, and works off events between them.
        """
        self._to_open.append(path)
        self._together.start()

    def _open_first(self) -> None:
        paths, self._to_open = self._to_open, []
        self.slides.choices.extend(path for path in paths if path not in self.slides.choices)
        if self.slides.opening is None:
            self.open(paths[0])
        else:
            self.slides.opening_changed.emit()  # the list has grown

    def give_mpp(self, mpp: float) -> None:
        """Open the present slide again with a pixel size the user knows."""
        shown = self.slides.current
        if shown is not None:
            self.open(shown.slide.path, mpp)

    def show_srgb(self, on: bool) -> None:
        """Show the slide through the scanner's colour profile, or as it is stored; models never see this."""
        shown = self.slides.current
        if shown is not None:
            shown.opened.look.srgb = on
            shown.layer.refresh(extent=False)
            self.overview.recolour(shown.opened.look(shown.opened.overview))  # kept as the file has it

    def _slide_changed(self) -> None:
        """Another slide, or none: everything about the old one goes."""
        self.runs.abandon()
        self.tissue.clear()
        self.answered, self.note = None, ""
        self.runs.line = ""
        self.asks.clear()
        self.maps.clear()
        self.label.clear()
        self.memory.keep_now()
        shown, viewer = self.slides.current, self.viewer
        if viewer is None:
            return
        if shown is None:
            self.camera.show(None)
            self.overview.show(None)
            self.measure.show(None)
        else:
            prepare_canvas(viewer, shown.opened.paper if wish("view", "paper_background", True) else (1.0, 1.0, 1.0))
            self.camera.show(shown.slide)
            self.overview.show(shown.opened.overview, shown.slide.dimensions)
            self.camera.fit()
            self.note = self.memory.come_back(shown)
            viewer.title = f"{shown.slide.slide_id} · SLN Predict"
            edit = shown.opened.tissue_edit
            if edit is not None:
                self.tissue.show(edit.pixels, edit.mpp, shown.slide.mpp, by_hand=True)
                self.note = "Your tissue edit of an earlier session is used."
        self.answer_changed.emit()
        self.problem_changed.emit()
        if shown is not None:
            self._ready_timer.start()
        if shown is not None and self.run_when_open:
            self.run_when_open = False
            self.run()

    # -- the run -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Predict the present slide."""
        shown = self.slides.current
        if shown is None or self.runs.running:
            return
        self.show_problem(None)
        self.note = ""
        self.answered = None
        self.asks.clear()
        self.maps.clear()
        self.answer_changed.emit()
        self.runs.start(shown, viewer_options(), self.camera.first, self.tissue.edit())

    def cancel(self) -> None:
        """Stop the run after the tiles in hand."""
        self.runs.stop()

    def _partial(self, event: Partial) -> None:
        shown = self.slides.current
        if event.kind == "tissue":
            if self.tissue.layer is None and shown is not None:
                self.tissue.show(event.data.mask, event.data.mpp, shown.slide.mpp)
        elif event.kind == "grid":
            self.maps.begin(event.data)
        elif event.kind == "attention" and self.answered is None:
            self.maps.grow(event.data)
        elif event.kind == "classes" and self.answered is None:
            self.maps.grow_classes(event.data)
        elif event.kind in ("ready", "so_far"):
            self.asks.take(event)
            if event.kind == "so_far" and shown is not None:
                self.asks.ask_again(shown, None)

    def _peeked(self, event: Partial) -> None:
        """A click before any run has laid the tiles, or looked at one of them: the map begins."""
        if event.kind in ("grid", "attention", "classes") and not self.runs.running:
            self._partial(event)

    def _answered(self, answered: Answered) -> None:
        self.answered = answered
        shown = self.slides.current
        if self.scales() or answered.prediction.verdict is not None:
            self.maps.finish(answered.prediction, (*self.scales(), "share")[0])
        if shown is not None:
            self.asks.tell_strip(shown, answered)
            self.asks.ask_again(shown, answered)
        self._outline_timer.start()
        self.answer_changed.emit()

    def scales(self) -> list[str]:
        """Return the scales the finished prediction can be shown on, the default first."""
        if self.answered is None:
            return []
        prediction = self.answered.prediction
        verdict, looks = prediction.verdict, [BY_CLASS] if prediction.tile_classes is not None else []
        if verdict is None:
            return looks
        found = ["share", "attention", "rank"] if verdict.attention is not None else []
        found += [f"evidence:{name}" for name in verdict.classes] if verdict.evidence is not None else []
        return found + looks

    # -- questions ---------------------------------------------------------------------------------------------------

    def switch_click(self, on: bool) -> None:
        """Click-to-predict on or off."""
        self.click_mode.switch(on)
        if on:
            self._outline_timer.start()
        self.click_mode_changed.emit()

    def ask_at(self, x_um: float, y_um: float) -> None:
        """Explain a place of napari's world (whose 0 is the middle of the first pixel)."""
        shown = self.slides.current
        if shown is None or not shown.slide.mpp:
            return
        half = shown.slide.mpp / 2
        self._ask(shown, (x_um + half, y_um + half))

    def _ask(self, shown: Shown, point_um: tuple[float, float]) -> None:
        """Explain a place by the scores chosen under Map, else by the model.

        Before any run the model is loaded and the tiles are laid for it.
        """
        if self.scores.ask(point_um):
            return
        asks, runs = self.asks, self.runs
        if asks.peeked and asks.peeked != runs.model and asks.drop_peek():
            self.maps.clear()
        if asks.so_far is not None or self.answered is not None or runs.running:
            asks.ask(shown, point_um, self.answered)
        else:
            make_job = runs.first_click(shown.slide, viewer_options(), self.tissue.edit(), point_um)
            asks.ask_first(shown, point_um, runs.model, make_job, runs.threads() + runs.wait_for())

    def jump_to(self, tile: int) -> None:
        """Show a tile and explain it."""
        grid, shown = self.maps.grid, self.slides.current
        if grid is None or shown is None:
            return
        x, y = (float(place) for place in grid.locations[tile] + grid.size_level0 / 2)
        self.camera.go_to(x, y, least_magnification=10)
        self._ask(shown, (x * grid.slide_mpp, y * grid.slide_mpp))

    def step_tile(self, step: int) -> None:
        """Show the next (+1) or previous (-1) tile by the map's values."""
        if self.scores.step(step):
            return
        tile = self.asks.next_tile(self.maps.values, step)
        if tile is not None:
            self.jump_to(tile)

    # -- layers ------------------------------------------------------------------------------------------------------

    def show_overlays(self, visible: bool | None) -> None:
        """Show or hide everything of ours that lies on the slide; None: the other way round."""
        self.overlays.show(visible)

    def edit_tissue(self) -> None:
        """Give the user a brush on the tissue layer; found first when there is none."""
        self.errands.edit_tissue()

    # -- results -----------------------------------------------------------------------------------------------------

    def save_report(self, folder: Path) -> None:
        """Write all files of the prediction to a folder, in the background."""
        self.errands.save_report(folder)

    def command(self) -> str:
        """Return the command that does what the dock does."""
        shown = self.slides.current
        if shown is None:
            return ""
        scores = self.scores.file
        if scores is not None:
            return words.view_command(Path(shown.slide.path), scores.wanted.path, scores.wanted.answers, self.given_mpp)
        wanted = viewer_options().get("device", "auto")
        return words.command_line(
            Path(shown.slide.path), self.runs.model, device=wanted, mpp=self.given_mpp, out=None
        )  # fmt: skip

    def say(self, note: str) -> None:
        """Show a line that is no error."""
        self.note = note
        self.problem_changed.emit()

    def show_problem(self, problem: words.Problem | None) -> None:
        """Show an error in the dock, or take it away."""
        self.problem = problem
        if problem is not None:
            _log.info("%s: %s", problem.title, problem.text)
        self.problem_changed.emit()
