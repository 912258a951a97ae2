"""Somebody's scores as a napari layer: one small image, placed by the tiles' own corners."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.colours import AMOUNT, SIDES

from .layers import AXES, ROLE_KEY, Placement, add_quietly, assert_gui_thread, colormap

if TYPE_CHECKING:
    from napari_slnpredict.foreign.explain import Shown
    from napari_slnpredict.foreign.places import Places

#: What our score layers say they are.
SCORES = "scores"


def place_scores(places: Places) -> Placement:
    """Return where the image of somebody's tiles lies; world 0 is the middle of level-0 pixel (0, 0)."""
    step, mpp, (left, top) = places.step, places.slide_mpp, places.origin
    half = (step - 1) / 2
    return Placement((step * mpp, step * mpp), ((top + half) * mpp, (left + half) * mpp))


def add_score_layer(viewer: Any, name: str, places: Places) -> Any:
    """Add an empty layer for somebody's scores, drawn nearest."""
    assert_gui_thread()
    where = place_scores(places)
    return add_quietly(
        viewer,
        "add_image",
        np.full(places.owner.shape, np.nan, np.float32),
        name=name,
        scale=where.scale,
        translate=where.translate,
        units=("um", "um"),
        axis_labels=AXES,
        colormap=colormap(AMOUNT, "slnpredict-amount"),
        contrast_limits=(0.0, 1.0),
        interpolation2d="nearest",
        blending="translucent_no_depth",
        cache=False,
        metadata={ROLE_KEY: SCORES},
    )


def paint_scores(layer: Any, places: Places, shown: Shown, above: NDArray[np.bool_]) -> None:
    """Write the values of the tiles that are shown, (n,) bool, into a layer and upload it once."""
    assert_gui_thread()
    layer.data[...] = places.image(np.where(above, shown.values, np.float32(np.nan)))
    wanted = "slnpredict-evidence" if shown.two_sided else "slnpredict-amount"
    if layer.colormap.name != wanted:
        layer.colormap = colormap(SIDES if shown.two_sided else AMOUNT, wanted)
    limits = (shown.low, shown.high)
    if tuple(layer.contrast_limits) != limits:
        layer.contrast_limits_range = limits
        layer.contrast_limits = limits
    layer.refresh(thumbnail=False, highlight=False, extent=False)
