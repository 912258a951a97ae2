"""Two cameras that move as one, in um: the same magnification on both sides, at places that belong together."""

from __future__ import annotations

import weakref
from typing import Any

Place = tuple[float, float]


class CameraLink:
    """Keeps two viewers' cameras together.

    Both worlds are in um, so equal zooms are equal magnifications whatever the slides' pixel sizes. The second camera
    looks at the first one's centre plus `offset`.

    Parameters
    ----------
    first, second : napari viewer models
        Held weakly.
    """

    def __init__(self, first: Any, second: Any) -> None:
        self._viewers = (weakref.ref(first), weakref.ref(second))
        self.offset: Place = (0.0, 0.0)
        self._on = False
        self._moving = False
        self._slots = (self._first_moved, self._second_moved)
        for viewer, slot in zip((first, second), self._slots, strict=True):
            events = viewer.scene.camera.events
            events.zoom.connect(slot)
            events.center.connect(slot)

    @property
    def on(self) -> bool:
        """Whether a move of one moves the other."""
        return self._on

    def switch(self, on: bool, lead: int = 0) -> None:
        """Link or unlink; on linking the side that does not lead (0: first, 1: second) goes to the other's place."""
        self._on = on
        if on:
            self._follow(lead)

    def link_here(self) -> None:
        """Link the places both sides show now."""
        first, second = self._cameras()
        if first is not None and second is not None:
            (y, x), (other_y, other_x) = first.center[-2:], second.center[-2:]
            self.offset = (other_y - y, other_x - x)
            self.switch(True)

    def corresponding(self, side: int, place: Place) -> Place:
        """Return the place (y, x, um) on the other side that belongs to one on `side` (0: first, 1: second)."""
        sign = -1 if side else 1
        return place[0] + sign * self.offset[0], place[1] + sign * self.offset[1]

    def leave(self) -> None:
        """Hold on to nothing."""
        self._on = False
        for camera, slot in zip(self._cameras(), self._slots, strict=True):
            if camera is not None:
                camera.events.zoom.disconnect(slot)
                camera.events.center.disconnect(slot)

    def _cameras(self) -> tuple[Any, Any]:
        first, second = (viewer() for viewer in self._viewers)
        return (None if first is None else first.scene.camera, None if second is None else second.scene.camera)

    def _first_moved(self, event: object = None) -> None:
        self._follow(0)

    def _second_moved(self, event: object = None) -> None:
        self._follow(1)

    def _follow(self, lead: int) -> None:
        cameras = self._cameras()
        leader, follower = cameras[lead], cameras[1 - lead]
        if not self._on or self._moving or leader is None or follower is None:
            return
        self._moving = True  # what follows must not lead back
        try:
            y, x = self.corresponding(lead, tuple(leader.center[-2:]))
            if follower.zoom != leader.zoom:
                follower.zoom = leader.zoom
            follower.center = (y, x)
        finally:
            self._moving = False
