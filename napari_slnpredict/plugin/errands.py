"""Short jobs of one viewer beside its run, which need its slide: tissue for the brush, a kept edit, a report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject

from . import words
from .edits import TissueEdit
from .jobs import save_edit_job, save_job, tissue_job
from .preferences import viewer_options
from .worker import Outcome, Worker

if TYPE_CHECKING:
    from .controller import Controller
    from .slides import Shown

TISSUE_EDITED = "The tissue was edited: Run uses it."


class Errands(QObject):
    """Does them, each in a thread of its own that keeps the slide open.

    Parameters
    ----------
    controller : Controller
        Its parent; not kept beside that.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__(controller)
        self._workers: dict[str, Worker] = {}

    @property
    def _controller(self) -> Any:
        return self.parent()

    def _start(self, name: str, shown: Shown, make_job: Callable[[], Any], take: Callable[[Outcome], None]) -> None:
        release = shown.keeper.hold()
        if release is None:
            return
        worker = Worker(make_job, self, name=name, at_end=release)
        self._workers[name] = worker
        worker.ended.connect(take)
        worker.start()

    def _told(self, outcome: Outcome) -> None:
        """Show why an errand failed."""
        if outcome.error is not None:
            self._controller.show_problem(words.problem_of(outcome.error, outcome.details))

    # -- tissue ------------------------------------------------------------------------------------------------------

    def edit_tissue(self) -> None:
        """Give the user a brush on the tissue layer; found first when there is none."""
        controller = self._controller
        shown = controller.slides.current
        if not controller.tissue.draw() and shown is not None and not controller.runs.running:
            slide = shown.slide
            self._start("tissue", shown, lambda: tissue_job(slide), self._tissue_found)

    def _tissue_found(self, outcome: Outcome) -> None:
        controller = self._controller
        shown, tissue = controller.slides.current, controller.tissue
        if outcome.state == "done" and shown is not None and tissue.layer is None:
            tissue.show(outcome.result.mask, outcome.result.mpp, shown.slide.mpp)
            tissue.draw()
        self._told(outcome)

    def tissue_edited(self) -> None:
        """The user drew: what a click alone has found is old, an answer stays and says so."""
        controller = self._controller
        if controller.answered is None and not controller.runs.running and controller.asks.drop_peek():
            controller.maps.clear()
        if controller.answered is not None and controller.note != TISSUE_EDITED:
            controller.say(TISSUE_EDITED)

    def keep_edit(self, edit: TissueEdit) -> None:
        """Write down what the user drew, for the slide it was drawn on."""
        slides = self._controller.slides
        shown = slides.leaving or slides.current
        if shown is not None:
            options, content_id = viewer_options(), shown.slide.content_id
            self._start("edit", shown, lambda: save_edit_job(options, content_id, edit), self._told)

    # -- report ------------------------------------------------------------------------------------------------------

    def save_report(self, folder: Path) -> None:
        """Write all files of the prediction to a folder."""
        controller = self._controller
        shown, answered = controller.slides.current, controller.answered
        if shown is None or answered is None:
            return
        slide, prediction = shown.slide, answered.prediction
        options, mpp = viewer_options(), controller.given_mpp
        controller.say(f"Writing the report to {folder.name}…")
        self._start("save", shown, lambda: save_job(slide, prediction, folder, options, mpp), self._saved)

    def _saved(self, outcome: Outcome) -> None:
        if outcome.state == "done":
            self._controller.say(f"Saved: {outcome.result}")
        elif outcome.error is not None:
            self._controller.say("")
        self._told(outcome)
