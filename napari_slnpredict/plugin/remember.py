"""Keeps the present slide's view, so that it opens where it was left."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, QTimer

from .last_view import LastView, folder
from .preferences import wish
from .view_jobs import save_view_job
from .worker import JobThread, Mailbox

if TYPE_CHECKING:
    from .controller import Controller
    from .slides import Shown

LEFT_HERE = "Shown where you left it. Alt+0 shows the whole slide."
#: A view is written down when nothing has moved for so long, ms; and when its slide goes.
REST_MS = 4000


class Desk:
    """What is to be written down; outlives the window, which may go without a word.

    Attributes
    ----------
    content_id : str
        Empty: nothing.
    view : LastView or None
    """

    def __init__(self) -> None:
        self.content_id = ""
        self.view: LastView | None = None
        self._place = folder()  # now: a window that goes writes late, when settings may be another's
        self._written: tuple[str, LastView | None] = ("", None)

    def write(self) -> None:
        """Write in a thread of its own, which needs nobody to wait for it."""
        content_id, view = self.content_id, self.view
        if not content_id or view is None or self._written == (content_id, view):
            return
        self._written = (content_id, view)
        place, mailbox = self._place, Mailbox(lambda: None, lambda result: None)
        JobThread(
            lambda: save_view_job(content_id, view, place), mailbox, name="view", at_end=lambda: None, after=()
        ).start()  # fmt: skip


class Memory(QObject):
    """Follows one controller's camera and measurements.

    Parameters
    ----------
    controller : Controller
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__(controller)
        self._controller = weakref.ref(controller)
        self._desk = Desk()
        self._timer = QTimer(self, singleShot=True, interval=REST_MS)
        self._timer.timeout.connect(self._desk.write)
        controller.camera_moved.connect(self._changed)
        controller.measure.drawn.connect(self._changed)
        desk = self._desk
        self.destroyed.connect(lambda: desk.write())

    def come_back(self, shown: Shown) -> str:
        """Show what the user saw of this slide the last time, with what was measured; returns what to say about it."""
        controller, last = self._controller(), shown.opened.last_view
        if controller is None:
            return ""
        controller.measure.show(shown.slide, last.lines if last is not None else ())
        second = controller.beside.first is not controller  # its camera follows the first one's
        restored = last is not None and not last.fitted and not second and wish("view", "restore_view", True)
        if restored and last is not None:
            controller.camera.restore(last)
        self._desk.content_id = shown.slide.content_id
        self._desk_now()
        return LEFT_HERE if restored else ""

    def keep_now(self) -> None:
        """The slide goes: write down what was seen last, and watch nothing."""
        self._timer.stop()
        self._desk.write()
        self._desk.content_id, self._desk.view = "", None

    def _changed(self) -> None:
        if self._desk.content_id:
            self._desk_now()
            self._timer.start()

    def _desk_now(self) -> None:
        controller = self._controller()
        view = controller.camera.stand() if controller is not None else None
        if controller is not None and view is not None:
            self._desk.view = replace(view, lines=controller.measure.lines())
