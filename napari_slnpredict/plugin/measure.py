"""Measuring: a layer of lines, each with its length beside it; they stay with their slide."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer, Signal

from .last_view import Line
from .layers import AXES, ROLE_KEY, add_quietly, um_units
from .measure_tags import Tags

MEASURE = "measure"
#: Near black: no stain is as dark; the lengths have a ground of their own (`measure_tags`).
COLOUR = "#101010"
#: Width of a line on the screen, px.
WIDTH_PX = 2.5
#: Lines take their width on the screen anew this long after the last zoom step, ms: each is triangulated again.
SETTLE_MS = 60


class Measure(QObject):
    """The measuring tool of one viewer.

    Parameters
    ----------
    viewer : napari.Viewer
        Held weakly.
    parent : QObject
    """

    changed = Signal()  # on, off
    drawn = Signal()  # a line came, went or was moved

    def __init__(self, viewer: Any, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = weakref.ref(viewer)
        self._mpp: float | None = None
        self._pixel = 1.0
        self._timer = QTimer(self, singleShot=True, interval=SETTLE_MS)
        self._timer.timeout.connect(self._rescale)
        self._tags: Tags | None = None
        viewer.scene.camera.events.zoom.connect(self._zoomed)
        for event in (viewer.scene.camera.events.zoom, viewer.scene.camera.events.center, viewer.canvas.events.size):
            event.connect(self._place_tags)
        viewer.layers.events.removed.connect(self._place_tags)
        viewer.layers.selection.events.active.connect(self._another_layer)

    @property
    def layer(self) -> Any:
        """The layer of lines, or None."""
        viewer = self._viewer()
        if viewer is None:
            return None
        return next((layer for layer in viewer.layers if layer.metadata.get(ROLE_KEY) == MEASURE), None)

    @property
    def on(self) -> bool:
        """Whether a drag draws a line."""
        viewer, layer = self._viewer(), self.layer
        return layer is not None and viewer.layers.selection.active is layer and str(layer.mode) == "add_line"

    def switch(self, on: bool) -> None:
        """Take the tool up, or put it away; the lines stay."""
        viewer = self._viewer()
        if viewer is None or on == self.on:
            return
        if on:
            layer = self.layer or self._make([])
            viewer.layers.selection = {layer}
            layer.current_edge_width = self._width()
            layer.mode = "add_line"
        else:
            self.layer.mode = "pan_zoom"
            slides = [layer for layer in viewer.layers if layer.metadata.get(ROLE_KEY) is None]
            viewer.layers.selection = set(slides[:1])
        self.changed.emit()

    def show(self, slide: Any, lines: Sequence[Line] = ()) -> None:
        """Another slide: the former one's lines go, this one's come; None: no slide."""
        viewer, layer = self._viewer(), self.layer
        if viewer is not None and layer is not None:
            viewer.layers.remove(layer)
        self._mpp = None if slide is None else slide.mpp
        self._pixel = self._mpp or 1.0
        if slide is not None and lines:
            ends = np.asarray(lines, float).reshape(-1, 2, 2)[..., ::-1]  # x, y to y, x
            self._make(list((ends - 0.5) * self._pixel))
        self.changed.emit()

    def lines(self) -> tuple[Line, ...]:
        """Return the lines' ends, level-0 px."""
        layer = self.layer
        if layer is None:
            return ()
        found = []
        for points in layer.data:
            (y, x), (to_y, to_x) = (np.asarray(points[end], float) / self._pixel + 0.5 for end in (0, -1))
            found.append((float(x), float(y), float(to_x), float(to_y)))
        return tuple(found)

    def _make(self, lines: list[NDArray[np.float64]]) -> Any:
        layer = add_quietly(
            self._viewer(),
            "add_shapes",
            lines or None,
            shape_type="line",
            name=MEASURE,
            ndim=2,
            units=um_units(self._mpp),
            axis_labels=AXES,
            edge_color=COLOUR,
            edge_width=self._width(),
            opacity=1.0,
            features={"length": self._lengths(lines)},
            metadata={ROLE_KEY: MEASURE},
        )
        layer.events.data.connect(self._label)
        layer.events.set_data.connect(self._label_drawn)  # while a line is being drawn, napari tells nothing else
        layer.events.mode.connect(self._another_mode)
        layer.events.visible.connect(self._place_tags)
        self._place_tags()
        return layer

    def _lengths(self, lines: Sequence[Any]) -> NDArray[np.object_]:
        return np.asarray([length_text(line, self._mpp) for line in lines], dtype=object)

    def _label_drawn(self, event: Any) -> None:
        layer = event.source
        if layer._is_creating and len(layer.features) == layer.nshapes:
            self._label(event)

    def _label(self, event: Any) -> None:
        layer = event.source
        lengths = self._lengths(layer.data)
        if list(layer.features.get("length", [])) != list(lengths):
            layer.features = {"length": lengths}
            self.drawn.emit()
        self._place_tags()

    def _place_tags(self, event: object = None) -> None:
        """Put the lengths where the lines are on the screen now."""
        viewer, layer = self._viewer(), self.layer
        if viewer is None or (layer is None and self._tags is None):
            return
        if self._tags is None:
            canvas = getattr(getattr(viewer.window, "_qt_viewer", None), "canvas", None)
            if canvas is None:
                return
            self._tags = Tags(canvas.native)
        lines = [] if layer is None else list(layer.data)
        self._tags.show(viewer, lines, list(self._lengths(lines)), visible=layer is not None and layer.visible)

    def _width(self) -> float:
        viewer = self._viewer()
        return WIDTH_PX / viewer.scene.camera.zoom if viewer is not None else 1.0

    def _zoomed(self, event: object = None) -> None:
        if self.layer is not None:
            self._timer.start()

    def _rescale(self) -> None:
        """Keep the lines' width on the screen."""
        layer = self.layer
        if layer is None:
            return
        width = self._width()
        if layer.nshapes and not layer._is_creating:
            layer.edge_width = [width] * layer.nshapes
        layer.current_edge_width = width

    def _another_layer(self, event: object = None) -> None:
        self.changed.emit()

    def _another_mode(self, event: object = None) -> None:
        self.changed.emit()


def length_text(points: Any, mpp: float | None = 1.0) -> str:
    """Return the length of a line through points ((k, 2), world) in um or mm; in pixels where there is no scale."""
    length = float(np.linalg.norm(np.diff(np.asarray(points, float), axis=0), axis=1).sum())
    if not mpp:
        return f"{length:,.0f} px"
    return f"{length / 1000:.2f} mm" if length >= 1000 else f"{length:.0f} µm" if length >= 10 else f"{length:.1f} µm"
