"""Everything that becomes a napari layer, and the one function that places tile maps.

Every layer carries ``units=("um", "um")``: a single layer in pixels among them would cost the scale bar its unit. Only
the GUI thread may come here; napari itself does not notice an image added from another thread until it crashes.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.colours import AMOUNT, CLASS_OPACITY, SIDES, Stops, class_colour, ramp
from napari_slnpredict.slide.grid import TileGrid, TileMap

if TYPE_CHECKING:
    from napari.layers import Image, Labels, Layer

AXES = ("y", "x")
#: Key of `Layer.metadata` under which a slide layer carries its `Slide`.
SLIDE_KEY = "slnpredict"
#: Key under which our other layers say what they are.
ROLE_KEY = "slnpredict_role"
#: Role of the layer that shows the slide in another stain.
STAIN = "stain"
#: The slide lies this much (level-0 px) right of and below its place. Exactly in it, a round magnification can put the
#: middles of the screen's pixels on the borders of the slide's: which of the two is drawn is then left to rounding,
#: from pixel to pixel, and rows come out dotted.
ASIDE_PX = 0.1
#: Tissue outline: a green that eosin and haematoxylin leave free.
TISSUE_COLOUR = (0.0, 0.52, 0.32, 1.0)


def assert_gui_thread() -> None:
    """Fail loudly where napari would crash later."""
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("layers may only be touched from the window's thread")


def um_units(mpp: float | None) -> tuple[str, str]:
    """Return the units of a layer's axes: pixels where the slide has no scale."""
    return ("um", "um") if mpp else ("pixel", "pixel")


def to_world(place_px: float, pixel: float) -> float:
    """Return where a place along one axis (level-0 px) lies in napari's world, whose 0 is the middle of pixel 0.

    Parameters
    ----------
    pixel : float
        A level-0 px in the world: um, or 1 where the slide has no scale.
    """
    return (place_px - 0.5) * pixel


def from_world(world: float, pixel: float) -> float:
    """Return the place along one axis, level-0 px, of a coordinate of napari's world (`to_world`)."""
    return world / pixel + 0.5


@dataclass(frozen=True)
class Placement:
    """Where a small image lies in the world.

    Attributes
    ----------
    scale, translate : (float, float)
        Row and column; um (level-0 px where the slide has no scale).
    """

    scale: tuple[float, float]
    translate: tuple[float, float]


def place(grid: TileGrid) -> Placement:
    """Return the placement of a map with one pixel per lattice cell.

    World 0 is the centre of level-0 pixel (0, 0): a pixel of P level-0 px that begins at level-0 px x has its centre at
    x + (P - 1) / 2.
    """
    from napari_slnpredict.export_pictures import map_extent

    left, top, _, _ = map_extent(grid)
    pitch, mpp = grid.stride_level0, grid.slide_mpp
    return Placement((pitch * mpp, pitch * mpp), ((top + (pitch - 1) / 2) * mpp, (left + (pitch - 1) / 2) * mpp))


def place_mask(mask_mpp: float, slide_mpp: float) -> Placement:
    """Return the placement of a mask whose pixel (0, 0) begins at the slide's corner."""
    shift = (mask_mpp - slide_mpp) / 2
    return Placement((mask_mpp, mask_mpp), (shift, shift))


def slide_layer(slide: Any, levels: list[Any]) -> tuple[list[Any], dict[str, Any]]:
    """Return data and arguments of the slide's image layer."""
    mpp = slide.mpp or 1.0
    return levels, {
        "name": "slide",
        "multiscale": True,
        "rgb": True,
        "contrast_limits": (0, 255),
        "scale": (mpp, mpp),
        "translate": (ASIDE_PX * mpp, ASIDE_PX * mpp),
        "units": um_units(slide.mpp),
        "axis_labels": AXES,
        "cache": False,
        "metadata": {SLIDE_KEY: slide},
    }


def add_stained(viewer: Any, slide: Any, levels: list[Any], below: Any, name: str) -> Image:
    """Add a slide's levels in another stain, right above its own layer."""
    assert_gui_thread()
    data, arguments = slide_layer(slide, levels)
    arguments |= {"name": name, "metadata": {ROLE_KEY: STAIN}}
    layer: Image = add_quietly(viewer, "add_image", data, **arguments)
    viewer.layers.move(viewer.layers.index(layer), viewer.layers.index(below) + 1)
    return layer


def paper_colour(thumbnail: NDArray[np.uint8]) -> tuple[float, float, float]:
    """Return the colour of the slide's own empty glass, 0 to 1: the commonest of its bright, grey pixels."""
    pixels = thumbnail.reshape(-1, 3).astype(np.int16)
    bright = pixels[(pixels.min(axis=1) > 200) & (np.ptp(pixels, axis=1) < 25)]
    if len(bright) < 0.02 * len(pixels):
        return (1.0, 1.0, 1.0)
    red, green, blue = np.median(bright, axis=0) / 255.0
    return (float(red), float(green), float(blue))


def colormap(stops: Stops, name: str) -> Any:
    """Return a napari colormap; what is not known is clear."""
    from napari.utils import Colormap

    return Colormap(ramp(stops), name=name, display_name=name, nan_color=(0, 0, 0, 0))


def add_map(viewer: Any, name: str, grid: TileGrid, image: NDArray[np.float32], *, two_sided: bool = False) -> Image:
    """Add a map layer, one pixel per lattice cell, drawn nearest: a tile is what the model saw."""
    assert_gui_thread()
    where = place(grid)
    stops, ramp_name = (SIDES, "slnpredict-evidence") if two_sided else (AMOUNT, "slnpredict-amount")
    return add_quietly(
        viewer,
        "add_image",
        image,
        name=name,
        scale=where.scale,
        translate=where.translate,
        units=("um", "um"),
        axis_labels=AXES,
        colormap=colormap(stops, ramp_name),
        contrast_limits=(-1.0, 1.0) if two_sided else (0.0, 1.0),
        interpolation2d="nearest",
        opacity=1.0,  # the ramp itself leaves the tissue visible
        blending="translucent_no_depth",
        cache=False,
        metadata={ROLE_KEY: name},
    )


def add_classes(viewer: Any, name: str, grid: TileGrid, image: NDArray[np.uint8], classes: tuple[str, ...]) -> Labels:
    """Add a map of classes, one pixel per lattice cell: 0 is clear, class k of the list is k + 1."""
    from napari.utils.colormaps import DirectLabelColormap

    assert_gui_thread()
    where = place(grid)
    colours: dict[Any, Any] = {0: "transparent", None: "transparent"}
    colours |= {k + 1: (*(part / 255 for part in class_colour(k)), 1.0) for k in range(len(classes))}
    layer: Labels = add_quietly(
        viewer,
        "add_labels",
        image,
        name=name,
        scale=where.scale,
        translate=where.translate,
        units=("um", "um"),
        axis_labels=AXES,
        colormap=DirectLabelColormap(color_dict=colours),
        features={"class": ["", *classes]},  # napari's status bar reads it under the pointer
        opacity=CLASS_OPACITY,
        blending="translucent_no_depth",
        cache=False,
        metadata={ROLE_KEY: name},
    )
    layer.editable = False
    return layer


def add_tissue(viewer: Any, mask: NDArray[np.bool_], mask_mpp: float, slide_mpp: float) -> Labels:
    """Add the editable tissue layer: an outline at the mask's own resolution."""
    from napari.utils.colormaps import DirectLabelColormap

    assert_gui_thread()
    where = place_mask(mask_mpp, slide_mpp)
    layer: Labels = add_quietly(
        viewer,
        "add_labels",
        mask.astype(np.uint8),
        name="tissue",
        scale=where.scale,
        translate=where.translate,
        units=("um", "um"),
        axis_labels=AXES,
        colormap=DirectLabelColormap(color_dict={0: "transparent", 1: TISSUE_COLOUR, None: TISSUE_COLOUR}),
        opacity=0.8,
        cache=False,
        metadata={ROLE_KEY: "tissue"},
    )
    layer.contour = 1
    layer.selected_label = 1
    layer.brush_size = 20
    return layer


def add_quietly(viewer: Any, method: str, *args: Any, **kwargs: Any) -> Any:
    """Add a layer without taking the selection away from the layer the user works on, and without moving the camera."""
    chosen = set(viewer.layers.selection)
    layer = getattr(viewer, method)(*args, **kwargs)
    if chosen:
        viewer.layers.selection = {kept for kept in chosen if kept in viewer.layers}
    return layer


def is_slide(layer: Layer) -> bool:
    """Whether a layer shows one of our slides."""
    return SLIDE_KEY in getattr(layer, "metadata", {})


def ink(tile_map: TileMap, *, scale: str = "share") -> tuple[float, float, float]:
    """Return the range a map's colours span and its highest value, the same as in reports.

    A few tiles may exceed the range: a single one that the model adores would leave the rest invisible.
    """
    from napari_slnpredict.export_pictures import attention_shade, evidence_shade

    values = tile_map.values[np.isfinite(tile_map.values)]
    highest = float(values.max()) if len(values) else 0.0
    if scale == "rank":
        return 0.0, 1.0, highest
    if scale.startswith("evidence"):
        shade = evidence_shade(tile_map)
        return shade.low, shade.high, highest
    # Raw attention is the share divided by the number of tiles: both look the same.
    times = len(tile_map.values) if scale == "attention" else 1
    shade = attention_shade(replace(tile_map, values=tile_map.values * times))
    return 0.0, shade.high / times, highest
