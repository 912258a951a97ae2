"""The camera: what is in view, at which magnification, and which tiles that puts first."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import words
from .last_view import LastView
from .layers import ASIDE_PX, from_world, to_world

if TYPE_CHECKING:
    from napari_slnpredict.slide.grid import TileGrid

#: Magnifications of the keys Alt+1 ... Alt+6.
MAGNIFICATIONS = (1, 2, 5, 10, 20, 40)
#: Drawn unseen while a slide is being opened: preparing a canvas's letters takes 0.2 s and would delay the first frame.
GLYPHS = "0123456789.x · µm/px nk"
#: A camera that moved within this time is still moving, s.
STILL_MOVING_S = 0.25
#: um per pixel at 1x, the convention behind "20x is 0.5".
UM_PER_PX_AT_1X = 10.0


@dataclass(frozen=True)
class Rectangle:
    """A part of the slide, level-0 px."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def centre(self) -> tuple[float, float]:
        """Its middle, x then y."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2


class ViewFirst:
    """Orders tiles so that those in view come first; read by the job's thread, updated by the window's.

    Between two runs of a hundred tiles the camera may have moved: `embed` asks again before every chunk.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._view: Rectangle | None = None

    def look_at(self, view: Rectangle | None) -> None:
        """Note what is on the screen now."""
        with self._lock:
            self._view = view

    @property
    def view(self) -> Rectangle | None:
        """What is on the screen."""
        with self._lock:
            return self._view

    def __call__(self, grid: TileGrid, remaining: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return `remaining` reordered: tiles in view first, from the middle outwards; the others as they came."""
        view = self.view
        if view is None or not len(remaining):
            return remaining
        side = grid.size_level0
        x, y = (grid.locations[remaining, axis] for axis in (0, 1))
        seen = (x + side > view.left) & (x < view.right) & (y + side > view.top) & (y < view.bottom)
        first, later = remaining[seen], remaining[~seen]
        centre = np.asarray(view.centre)
        # Whole blocks of tiles are read at once: rank by blocks of four tiles, so that one read serves its neighbours.
        blocks = np.floor(grid.locations[first] / (4 * side))
        distance = np.abs((blocks + 0.5) * 4 * side - centre).max(axis=1) if len(first) else np.zeros(0)
        order = np.lexsort((first, blocks[:, 1], blocks[:, 0], distance)) if len(first) else np.zeros(0, np.int64)
        return np.concatenate([first[order], later])


class Camera:
    """A napari viewer's camera in the words of a microscope.

    Parameters
    ----------
    viewer : napari.Viewer
        Held weakly.
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = weakref.ref(viewer)
        self.first = ViewFirst()
        self._mpp: float | None = None
        self._pixel: float | None = None  # a level-0 px in the world: um, or 1 where the slide has no scale
        self._fitted: tuple[float, ...] = ()  # where the camera stood after the last fit
        self.on_moved: Callable[[], None] = lambda: None
        self._moved_at = 0.0
        camera, canvas = viewer.scene.camera, viewer.canvas
        for event in (camera.events.zoom, camera.events.center):
            event.connect(self._moved)
        canvas.events.size.connect(self._resized)
        self._moved()

    def show(self, slide: Any) -> None:
        """Say which slide is on the screen; None: none."""
        self._mpp = None if slide is None else slide.mpp
        self._pixel = None if slide is None else slide.mpp or 1.0
        self._moved()

    def is_moving(self) -> bool:
        """Whether the user pans or zooms just now: what can wait a moment does (`Maps`, `Runs`)."""
        return time.monotonic() - self._moved_at < STILL_MOVING_S

    @property
    def um_per_screen_px(self) -> float:
        """What one (logical) pixel of the screen shows, um."""
        viewer = self._viewer()
        return 1.0 / viewer.scene.camera.zoom if viewer is not None else 1.0

    def rectangle(self) -> Rectangle | None:
        """Return what is on the screen, level-0 px; None without a slide."""
        viewer = self._viewer()
        if viewer is None or self._pixel is None:
            return None
        y, x = viewer.scene.camera.center[-2:]
        height, width = viewer.canvas.size
        zoom, pixel = viewer.scene.camera.zoom, self._pixel
        half_w, half_h = width / zoom / 2 / pixel, height / zoom / 2 / pixel
        x, y = from_world(x, pixel), from_world(y, pixel)
        return Rectangle(x - half_w, y - half_h, x + half_w, y + half_h)

    @property
    def magnification(self) -> float | None:
        """What the screen shows, as an objective's magnification; None without a slide or its scale."""
        return UM_PER_PX_AT_1X / self.um_per_screen_px if self._mpp else None

    def stand(self) -> LastView | None:
        """Return what is on the screen, to come back to; None without a slide."""
        view, viewer = self.rectangle(), self._viewer()
        if view is None or viewer is None or self._pixel is None:
            return None
        x, y = view.centre
        fitted = bool(self._fitted) and self._fitted == self._stand(viewer)
        return LastView(x, y, 1.0 / viewer.scene.camera.zoom / self._pixel, fitted)

    def restore(self, last: LastView) -> None:
        """Show what was on the screen the last time."""
        viewer = self._viewer()
        if viewer is None or self._pixel is None:
            return
        viewer.scene.camera.zoom = 1.0 / (last.px_per_screen_px * self._pixel)
        self.go_to(last.x, last.y)

    def magnify(self, times: float) -> None:
        """Show the slide as an objective of that magnification would; without a scale there is none."""
        viewer = self._viewer()
        if viewer is not None and self._mpp:
            viewer.scene.camera.zoom = times / UM_PER_PX_AT_1X

    def fit(self) -> None:
        """Show the whole slide."""
        viewer = self._viewer()
        if viewer is not None:
            viewer.reset_view(margin=0.03)
            aside = ASIDE_PX * (self._pixel or 0.0)
            y, x = viewer.scene.camera.center[-2:]
            viewer.scene.camera.center = (y - aside, x - aside)
            self._fitted = self._stand(viewer)

    @staticmethod
    def _stand(viewer: Any) -> tuple[float, ...]:
        return (viewer.scene.camera.zoom, *viewer.scene.camera.center[-2:])

    def _resized(self, event: object = None) -> None:
        """Keep a slide fitted that was not moved since: docks open and windows grow after the first frame."""
        viewer = self._viewer()
        if viewer is not None and self._fitted and self._fitted == self._stand(viewer):
            self.fit()
        self._moved()

    def go_to(self, x: float, y: float, *, least_magnification: float = 0.0) -> None:
        """Put a place (level-0 px) in the middle of the screen, zooming in when it would be too small to see."""
        viewer = self._viewer()
        if viewer is None or self._pixel is None:
            return
        if least_magnification and viewer.scene.camera.zoom * UM_PER_PX_AT_1X < least_magnification:
            self.magnify(least_magnification)
        viewer.scene.camera.center = (to_world(y, self._pixel), to_world(x, self._pixel))

    def _moved(self, event: object = None) -> None:
        self._moved_at = time.monotonic()
        self.first.look_at(self.rectangle())
        viewer = self._viewer()
        if viewer is None:
            return
        self.on_moved()
        text = viewer.canvas.overlays.text
        text.text = words.magnification(self.um_per_screen_px) if self._mpp else GLYPHS
        text.opacity = 1.0 if self._mpp else 0.0
        text.box = bool(self._mpp)


def prepare_canvas(viewer: Any, paper: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> None:
    """White round the slide, a scale bar at the bottom left, the magnification at the top left."""
    viewer.canvas.background_color_override = (*paper, 1.0)
    bar, text = viewer.canvas.overlays.scale_bar, viewer.canvas.overlays.text
    bar.visible, bar.position, bar.font_size = True, "bottom_left", 11
    text.visible, text.position, text.font_size = True, "top_left", 11
    for overlay in (bar, text):
        overlay.box_color = (1.0, 1.0, 1.0, 0.75)
    bar.box = True
    text.color = (0.1, 0.1, 0.1, 1.0)
