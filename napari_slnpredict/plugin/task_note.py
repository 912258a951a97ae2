"""What napari's close dialog knows of a run: that closing the window would end it."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any


class TaskNote:
    """Tells one viewer's window what runs; called as `runs.Runs` asks for.

    Parameters
    ----------
    viewer : napari.Viewer
        Held weakly.
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = weakref.ref(viewer)

    def __call__(self, description: str, stop: Callable[[], bool]) -> Callable[[str], None]:
        """Note that a run is on; the function returned takes the note back, given the end state.

        napari 0.9 keeps this list on the window; windows of before know none.
        """
        from napari.utils.task_status import Status

        window = getattr(self._viewer(), "window", None)
        register = getattr(window, "_register_task_status", None)
        if register is None:
            return lambda state: None
        number = register("SLN Predict", Status.BUSY, description, cancel_callback=stop)
        weak = weakref.ref(window)

        def take_back(state: str) -> None:
            alive = weak()
            if alive is not None:
                alive._update_task_status(number, getattr(Status, state), description)

        return take_back
