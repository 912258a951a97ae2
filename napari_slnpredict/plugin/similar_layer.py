"""Similar tiles on the slide: how alike each tile is, and the colours of the main components."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.slide.grid import map_tiles

from .click import OUTLINE
from .layers import AXES, ROLE_KEY, add_map, add_quietly, assert_gui_thread, place
from .maps import MAP_LAYERS
from .score_layer import SCORES
from .similar_roles import COMPONENTS, SIMILAR_LAYERS, SIMILARITY

if TYPE_CHECKING:
    from napari_slnpredict.retrieval import Components, Described
    from napari_slnpredict.slide.grid import TileGrid

#: Of the values of a slide: where its colours begin, and where they are darkest.
LOW, HIGH = 50, 99.5
#: Opacity of the components: the tissue's structure shows through.
COMPONENTS_OPACITY = 0.7


@dataclass(frozen=True)
class Range:
    """What the colours of the similarity span, and the highest value below the question itself."""

    low: float
    high: float
    top: float


class SimilarLayers:
    """The two layers of one viewer; one of them is there at a time, and no other map seen beneath it.

    Parameters
    ----------
    viewer : napari.Viewer
        Held weakly.
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = weakref.ref(viewer)
        self._hidden: list[Any] = []  # maps that gave way

    def layer(self, role: str) -> Any:
        """Return one of them, or None."""
        viewer = self._viewer()
        found = (layer for layer in viewer.layers if layer.metadata.get(ROLE_KEY) == role) if viewer else iter(())
        return next(found, None)

    @property
    def seen(self) -> str:
        """Which of them is seen, "" for none."""
        return next((role for role in SIMILAR_LAYERS if self._seen(role)), "")

    def show_similarity(self, described: Described, values: NDArray[np.float32]) -> Range:
        """Paint how alike each tile is to the question: cosines, (n,) float32, NaN where a tile has none."""
        span = range_of(values)
        image = map_tiles(described.grid, values, SIMILARITY, "cosine").image()
        layer = self._fresh(SIMILARITY, image.shape, described.grid)
        if layer is None:
            layer = add_map(self._viewer(), SIMILARITY, described.grid, image)
            layer.metadata["grid"] = described.grid
        else:
            layer.data = image
        layer.contrast_limits_range = layer.contrast_limits = (span.low, span.high)
        self._alone(layer)
        return span

    def show_components(self, described: Described, components: Components) -> None:
        """Paint the main components as red, green and blue; glass stays clear."""
        self.remove(COMPONENTS)
        grid, where = described.grid, place(described.grid)
        layer = add_quietly(
            self._viewer(),
            "add_image",
            component_image(described, components),
            rgb=True,
            name=COMPONENTS,
            scale=where.scale,
            translate=where.translate,
            units=("um", "um"),
            axis_labels=AXES,
            interpolation2d="nearest",
            opacity=COMPONENTS_OPACITY,
            blending="translucent_no_depth",
            cache=False,
            metadata={ROLE_KEY: COMPONENTS, "grid": grid},
        )
        self._alone(layer)

    def remove(self, role: str) -> None:
        """Take one of them away; what gave way to it comes back."""
        assert_gui_thread()
        layer, viewer = self.layer(role), self._viewer()
        if layer is not None and viewer is not None:
            viewer.layers.remove(layer)
        if not self.seen:
            self.give_back()

    def give_back(self) -> None:
        """Show the maps that gave way."""
        viewer = self._viewer()
        for layer in self._hidden:
            if viewer is not None and layer in viewer.layers:
                layer.visible = True
        self._hidden = []

    def _seen(self, role: str) -> bool:
        layer = self.layer(role)
        return layer is not None and layer.visible

    def _fresh(self, role: str, shape: tuple[int, ...], grid: TileGrid) -> Any:
        """Return the layer when it lies on the same grid; another one goes."""
        layer = self.layer(role)
        if layer is None:
            return None
        if layer.metadata.get("grid") is grid and layer.data.shape == shape:
            return layer
        self.remove(role)
        return None

    def _alone(self, shown: Any) -> None:
        """Hide what would lie beneath: two maps over each other cannot be read."""
        viewer = self._viewer()
        if viewer is None:
            return
        for layer in viewer.layers:
            role = layer.metadata.get(ROLE_KEY)
            if layer is shown or not layer.visible:
                continue
            if role in (*MAP_LAYERS, SCORES):
                layer.visible = False
                self._hidden.append(layer)
        shown.visible = True
        outline = self.layer(OUTLINE)
        if outline is not None:  # what was clicked stays in sight
            viewer.layers.move(viewer.layers.index(outline), len(viewer.layers))


def range_of(values: NDArray[np.float32]) -> Range:
    """Return what colours span: from the slide's median, which stays clear, to its 99.5th percentile."""
    known = values[np.isfinite(values)]
    if not len(known):
        return Range(0.0, 1.0, 0.0)
    low, high = (float(value) for value in np.percentile(known, (LOW, HIGH)))
    top = float(known.max())
    return Range(low, max(high, low + 1e-3), top)


def component_image(described: Described, components: Components) -> NDArray[np.uint8]:
    """Return colours on the lattice, (rows, columns, 4) uint8, clear where there is no tile."""
    picture = np.zeros((*described.grid.shape, 4), np.uint8)
    cells = described.grid.cells[described.tiles]
    picture[cells[:, 0], cells[:, 1], :3] = np.rint(components.colours * 255)
    picture[cells[:, 0], cells[:, 1], 3] = 255
    return picture
