"""Measuring in um: a layer of lines, each with its length beside it."""

from __future__ import annotations

from typing import Any

import numpy as np

from .layers import AXES, ROLE_KEY

MEASURE = "measure"
COLOUR = "#00539b"


def start_measuring(viewer: Any) -> None:
    """Make the measuring layer (once), select it and draw lines."""
    layer = next((layer for layer in viewer.layers if layer.metadata.get(ROLE_KEY) == MEASURE), None)
    if layer is None:
        layer = viewer.add_shapes(
            name=MEASURE,
            ndim=2,
            units=("um", "um"),
            axis_labels=AXES,
            edge_color=COLOUR,
            edge_width=2.0 / viewer.scene.camera.zoom,
            features={"length": np.empty(0, dtype=object)},
            text={"string": "{length}", "size": 11, "color": COLOUR, "anchor": "upper_left"},
            metadata={ROLE_KEY: MEASURE},
        )
        layer.events.data.connect(_label)
    viewer.layers.selection = {layer}
    layer.current_edge_width = 2.0 / viewer.scene.camera.zoom
    layer.mode = "add_line"


def _label(event: Any) -> None:
    layer = event.source
    lengths = [length_text(shape) for shape in layer.data]
    if list(layer.features.get("length", [])) != lengths:
        layer.features = {"length": np.asarray(lengths, dtype=object)}
        layer.refresh_text()


def length_text(points: Any) -> str:
    """Return the length of a line through points ((k, 2), um) in um or mm."""
    um = float(np.linalg.norm(np.diff(np.asarray(points, float), axis=0), axis=1).sum())
    return f"{um / 1000:.2f} mm" if um >= 1000 else f"{um:.0f} µm" if um >= 10 else f"{um:.1f} µm"
