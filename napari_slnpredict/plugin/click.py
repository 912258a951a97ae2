"""Click to predict: a mouse mode with a crosshair, and the outline of the tile that was asked about."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .layers import AXES, ROLE_KEY, add_quietly, assert_gui_thread, to_world

if TYPE_CHECKING:
    from napari_slnpredict.foreign.places import Places
    from napari_slnpredict.slide.grid import TileGrid

OUTLINE = "clicked tile"
#: Widths on the screen, px: a dark line with a light one inside shows on any tissue.
DARK_PX, LIGHT_PX = 2.0, 2.0
DARK, LIGHT = (0.05, 0.05, 0.05, 1.0), (1.0, 1.0, 0.35, 1.0)
#: Corners of a square, (4, 2), world y x.
Square = NDArray[np.float64]
#: A press that moves less than this many screen px is a click.
STILL_PX = 4.0


class ClickMode:
    """Turns clicks on the canvas into places on the slide while it is on.

    Parameters
    ----------
    viewer : napari.Viewer
        Held weakly.
    on_click : callable
        Given x and y of the click, um in napari's world.
    """

    def __init__(self, viewer: Any, on_click: Callable[[float, float], None]) -> None:
        self._viewer = weakref.ref(viewer)
        self._on_click = on_click
        self._on = False
        viewer.mouse_drag_callbacks.append(self._pressed)
        # Selecting another layer sets that layer's cursor: the crosshair comes back.
        viewer.cursor.events.style.connect(self._keep_crosshair)

    @property
    def on(self) -> bool:
        """Whether clicks ask."""
        return self._on

    def switch(self, on: bool) -> None:
        """Turn the mode on or off."""
        self._on = on
        viewer = self._viewer()
        if viewer is not None:
            viewer.cursor.style = "crosshair" if on else "standard"

    def _keep_crosshair(self, event: Any) -> None:
        viewer = self._viewer()
        active = viewer.layers.selection.active if viewer is not None else None
        # A brush keeps its own cursor: painting tissue is another mode.
        if self._on and viewer is not None and event.value == "standard" and _is_panning(active):
            viewer.cursor.style = "crosshair"

    def _pressed(self, viewer: Any, event: Any) -> Generator[None, None, None]:
        if not self._on or event.button != 1 or getattr(event, "modifiers", ()):
            return
        if not _is_panning(viewer.layers.selection.active):
            return
        start = np.asarray(event.pos, float)
        yield
        moved = False
        while event.type == "mouse_move":
            moved = moved or float(np.abs(np.asarray(event.pos, float) - start).max()) > STILL_PX
            yield
        if not moved and event.type == "mouse_release":
            y, x = event.position[-2:]
            self._on_click(float(x), float(y))


def _is_panning(layer: Any) -> bool:
    return layer is None or str(layer.mode) == "pan_zoom"


#: A square without extent near the slide's corner: within even the smallest, so that all layers span what it spans.
NOWHERE: Square = np.ones((4, 2))


class Outline:
    """A square round one tile whose lines keep their width on the screen at every zoom.

    Parameters
    ----------
    viewer : napari.Viewer
        Held weakly.
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = weakref.ref(viewer)
        self._tile: tuple[float, float, float] | None = None  # left, top, side, um in the world
        viewer.scene.camera.events.zoom.connect(self._rescale)

    @property
    def layer(self) -> Any:
        """The Shapes layer, or None."""
        viewer = self._viewer()
        found = (layer for layer in viewer.layers if layer.metadata.get(ROLE_KEY) == OUTLINE) if viewer else iter(())
        return next(found, None)

    @property
    def shown(self) -> bool:
        """Whether a tile is outlined."""
        return self._tile is not None

    def show(self, grid: TileGrid | Places, corner: tuple[float, float]) -> None:
        """Outline a tile's place, given by its corner (x, y in level-0 px)."""
        mpp = grid.slide_mpp
        x, y = corner
        first = not self.shown
        self._tile = (to_world(x, mpp), to_world(y, mpp), grid.size_level0 * mpp)
        self._draw()
        layer = self.layer
        if first and layer is not None:
            self._on_top(layer)
            layer.visible = True

    def hide(self) -> None:
        """Outline nothing; the layer stays, for the next click is answered sooner with it.

        It stays for runs and slides to come as well: with napari 0.9 on Mesa, removing a Shapes layer and adding
        another one a frame later was seen to end the process.
        """
        assert_gui_thread()
        self._tile = None
        layer = self.layer
        if layer is not None:
            layer.visible = False
            layer.data = [NOWHERE, NOWHERE]  # the next slide may be smaller than this tile is far: the view fits all

    def prepare(self) -> None:
        """Make the layer, hidden: napari takes a third of a second for it, which the first click need not wait for."""
        assert_gui_thread()
        if self._viewer() is not None and self.layer is None:
            self._make(NOWHERE, NOWHERE, 1.0, visible=False)

    def _draw(self) -> None:
        assert_gui_thread()
        viewer = self._viewer()
        if viewer is None or self._tile is None:
            return
        dark, light, px = self._squares(viewer.scene.camera.zoom)
        layer = self.layer
        if layer is None:
            self._make(dark, light, px)
            return
        layer.data = [dark, light]  # two shapes as before: they keep their colours
        layer.edge_width = [DARK_PX * px, LIGHT_PX * px]

    def _make(self, dark: Square, light: Square, px: float, *, visible: bool = True) -> None:
        add_quietly(
            self._viewer(),
            "add_shapes",
            [dark, light],
            shape_type=["rectangle", "rectangle"],
            edge_width=[DARK_PX * px, LIGHT_PX * px],
            edge_color=[DARK, LIGHT],
            face_color="transparent",
            name=OUTLINE,
            units=("um", "um"),
            axis_labels=AXES,
            opacity=1.0,
            visible=visible,
            metadata={ROLE_KEY: OUTLINE},
        )

    def _on_top(self, layer: Any) -> None:
        """Lay it over maps that came after it."""
        viewer = self._viewer()
        if viewer is not None and viewer.layers[-1] is not layer:
            viewer.layers.move(viewer.layers.index(layer), len(viewer.layers))

    def _squares(self, zoom: float) -> tuple[Square, Square, float]:
        """Return the dark and the light square, (4, 2) float64, world y x, and the um of a screen px."""
        assert self._tile is not None
        left, top, side = self._tile
        px = 1.0 / zoom
        unit = np.asarray([[0, 0], [0, 1], [1, 1], [1, 0]], float)
        corner = np.asarray([top, left])

        def square(outwards: float) -> Square:
            return np.asarray(corner - outwards + unit * (side + 2 * outwards), np.float64)

        # The light line runs just outside the tile, the dark one just outside the light one: the tile stays free.
        return square((LIGHT_PX + DARK_PX / 2) * px), square(LIGHT_PX / 2 * px), px

    def _rescale(self, event: object = None) -> None:
        if self._tile is not None and self.layer is not None:
            self._draw()
