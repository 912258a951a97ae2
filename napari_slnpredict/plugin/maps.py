"""The map layers: painted in place while a run goes on, rescaled and cut by a threshold afterwards."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer, Signal

from napari_slnpredict.slide.grid import TileGrid, TileMap, map_tiles

from .layers import ROLE_KEY, add_classes, add_map, assert_gui_thread, ink

if TYPE_CHECKING:
    from napari_slnpredict.pipeline import Prediction
    from napari_slnpredict.tile_classes import TileClasses

#: Least time between two uploads of a growing map, ms. Each makes a frame longer: while the user pans they are so rare
#: that they are less than one frame in twenty.
PAINT_MS, PAINT_MOVING_MS = 100, 1000
#: A growing map's range moves only when it is off by more than this: colours must not flicker.
RANGE_SLACK = 1.25
ATTENTION, EVIDENCE, CLASSES = "attention", "evidence", "tile classes"
MAP_LAYERS = (ATTENTION, EVIDENCE, CLASSES)
#: The scale of the tile classes.
BY_CLASS = "classes"


@dataclass(frozen=True)
class MapState:
    """What the map shows, for the dock.

    Attributes
    ----------
    scale : str
        ``share``, ``attention``, ``rank``, ``evidence:<class>`` or ``classes``.
    low, high, top : float
        Range of the colours and highest value, in `unit`.
    threshold : float
        Tiles below it (evidence: nearer to zero) are not painted.
    area_mm2 : float
        Tissue at or above the threshold.
    tiles : int
        Number of those tiles.
    two_sided : bool
    looks : TileClasses or None
        What is shown, where it is classes and no number; the values are then the class's probability.
    """

    scale: str = "share"
    unit: str = "× mean"
    low: float = 0.0
    high: float = 1.0
    top: float = 0.0
    threshold: float = 0.0
    area_mm2: float = 0.0
    tiles: int = 0
    two_sided: bool = False
    looks: TileClasses | None = None

    @property
    def layer(self) -> str:
        """Role of the layer that shows it."""
        return CLASSES if self.looks is not None else EVIDENCE if self.two_sided else ATTENTION


class Maps(QObject):
    """Owns the map layers of one viewer.

    Parameters
    ----------
    viewer : napari.Viewer
        Held weakly.
    parent : QObject
    """

    changed = Signal()

    def __init__(self, viewer: Any, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = weakref.ref(viewer)
        self._grid: TileGrid | None = None
        self._map: TileMap | None = None
        self._prediction: Prediction | None = None
        self._known: TileGrid | None = None  # the grid of the two that follow
        self._flat = np.zeros(0, np.intp)  # where each tile lies in the map's array, rows after each other
        self._tissue = np.zeros(0, np.float32)  # tissue of each tile, at most 1
        self._scales: dict[str, tuple[TileMap, tuple[float, float, float]]] = {}  # seen scales of the prediction
        self.state = MapState()
        self._painted_at = 0.0
        #: Whether the camera is moving just now.
        self.moving: Callable[[], bool] = lambda: False
        self._timer = QTimer(self, singleShot=True)
        self._timer.timeout.connect(self._paint)

    @property
    def grid(self) -> TileGrid | None:
        """The grid of the present map."""
        return self._grid

    @property
    def values(self) -> NDArray[np.float32] | None:
        """The map's values, (n,) float32, NaN where nothing is known; None without a map."""
        return None if self._map is None else self._map.values

    def layer(self, name: str) -> Any:
        """Return one of our map layers, or None."""
        viewer = self._viewer()
        if viewer is None:
            return None
        return next((layer for layer in viewer.layers if layer.metadata.get(ROLE_KEY) == name), None)

    def clear(self) -> None:
        """Remove every map: another slide, or another grid."""
        assert_gui_thread()
        self._timer.stop()
        self._grid = self._map = self._prediction = None
        self._scales.clear()
        self.state = MapState()
        for name in MAP_LAYERS:
            self._drop(name)
        self.changed.emit()

    def begin(self, grid: TileGrid) -> None:
        """A run has laid its tiles: an empty map of them."""
        self.clear()
        self._grid = grid
        if len(grid):
            self._layer_for()

    def grow(self, tile_map: TileMap) -> None:
        """Show what is known so far; at most one upload per `PAINT_MS`."""
        if self._grid is None:
            self.begin(tile_map.grid)
        self._map = tile_map
        low, high, top = ink(tile_map)
        old = self.state.high
        high = old if self._painted_at and old / RANGE_SLACK <= high <= old * RANGE_SLACK else high
        self.state = replace(self.state, scale="share", unit=tile_map.unit, low=low, high=high, top=top)
        self._paint_soon()

    def grow_classes(self, looks: TileClasses) -> None:
        """Show the classes known so far; at most one upload per `PAINT_MS`."""
        if self._grid is None:
            self.begin(looks.grid)
        self._take(looks)
        self._paint_soon()

    def _take(self, looks: TileClasses) -> None:
        even = 1.0 / len(looks.classes)  # no class that leads has less
        self._map = map_tiles(looks.grid, looks.belief, "tile class", "probability")
        self.state = MapState(BY_CLASS, "probability", even, 1.0, 1.0, looks=looks)
        if self._prediction is None or self._prediction.verdict is None:
            self._drop(ATTENTION)  # laid ahead, for a model that has any

    def finish(self, prediction: Prediction, scale: str) -> None:
        """A run has ended: its final values."""
        self._prediction, self._grid = prediction, prediction.grid
        self._scales.clear()
        self.state = replace(self.state, threshold=0.0)
        self.show_scale(scale)

    def show_scale(self, scale: str) -> None:
        """Show another quantity of the finished prediction."""
        assert_gui_thread()
        if self._prediction is None or not len(self._prediction.grid):
            return
        if scale == BY_CLASS and self._prediction.tile_classes is not None:
            self._take(self._prediction.tile_classes)
            self._paint()
            return
        two_sided = scale.startswith("evidence")
        if scale not in self._scales:
            from napari_slnpredict.pipeline import scale_values

            found = scale_values(self._prediction, scale)
            self._scales[scale] = found, ink(found, scale=scale)
        tile_map, (low, high, top) = self._scales[scale]
        self._map = tile_map
        self.state = MapState(scale, tile_map.unit, low, high, top, 0.0, two_sided=two_sided)
        self._paint()

    def set_threshold(self, value: float) -> None:
        """Paint only tiles at or above a value (evidence: at least that far from zero)."""
        self.state = replace(self.state, threshold=float(value))
        self._paint()

    def _paint_soon(self) -> None:
        # The first tiles of a run are shown at once.
        moving = self.moving() and self.state.tiles > 0
        wait = (PAINT_MOVING_MS if moving else PAINT_MS) - (time.monotonic() - self._painted_at) * 1000
        if wait <= 0:
            self._paint()
        elif not self._timer.isActive():
            self._timer.start(int(wait) + 1)

    def _paint(self) -> None:
        """Write the values into the layer's own array and upload it once."""
        assert_gui_thread()
        if self._map is None or self._viewer() is None:
            return
        self._painted_at = time.monotonic()
        self._know(self._map.grid)
        shown = self._above(self._map.values)
        self._count(shown)
        layer, looks = self._layer_for(), self.state.looks
        if looks is not None:
            np.put(layer.data, self._flat, np.where(shown, looks.best + 1, 0))
            layer.refresh(thumbnail=False, highlight=False, extent=False)
            self.changed.emit()
            return
        np.put(layer.data, self._flat, np.where(shown, self._map.values, np.float32(np.nan)))
        limits = (self.state.low, self.state.high)
        if tuple(layer.contrast_limits) != limits:
            layer.contrast_limits_range = limits
            layer.contrast_limits = limits
        layer.refresh(thumbnail=False, highlight=False, extent=False)
        self.changed.emit()

    def _know(self, grid: TileGrid) -> None:
        """Work out once what every painting of a grid needs."""
        if self._known is not grid:
            self._known = grid
            self._flat = np.ravel_multi_index((grid.cells[:, 0], grid.cells[:, 1]), grid.shape)
            self._tissue = np.minimum(grid.tissue, 1.0).astype(np.float32)

    def _above(self, values: NDArray[np.float32]) -> NDArray[np.bool_]:
        strength = np.abs(values) if self.state.two_sided else values
        with np.errstate(invalid="ignore"):
            return np.asarray(np.isfinite(values) & (strength >= self.state.threshold))

    def _count(self, shown: NDArray[np.bool_]) -> None:
        assert self._map is not None
        grid = self._map.grid
        # Cells do not overlap even where tiles do.
        cell_mm2 = (grid.stride_level0 * grid.slide_mpp / 1000.0) ** 2
        mm2 = float(self._tissue @ shown) * cell_mm2
        self.state = replace(self.state, area_mm2=mm2, tiles=int(shown.sum()))

    def _layer_for(self) -> Any:
        """Return the layer of the present quantity, made when it is not there; only it is visible."""
        assert self._grid is not None
        name, looks, viewer = self.state.layer, self.state.looks, self._viewer()
        layer = self.layer(name)
        if layer is None and looks is not None:
            layer = add_classes(viewer, name, self._grid, np.zeros(self._grid.shape, np.uint8), looks.classes)
        elif layer is None:
            empty = np.full(self._grid.shape, np.nan, np.float32)
            layer = add_map(viewer, name, self._grid, empty, two_sided=self.state.two_sided)
        for other in MAP_LAYERS:
            hidden = self.layer(other) if other != name else None
            if hidden is not None and hidden.visible:
                hidden.visible = False
                layer.visible = True
        return layer

    def _drop(self, name: str) -> None:
        viewer, layer = self._viewer(), self.layer(name)
        if viewer is not None and layer is not None:
            viewer.layers.remove(layer)
