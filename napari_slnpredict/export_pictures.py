"""The map as pictures: overlay.png for people, map.ome.tif for programs.

A map has one pixel a tile. Tiles are drawn as squares, never smoothed: a tile is what the model saw. One function,
`map_extent`, says where they lie; the viewer, the overlay and the OME-TIFF all use it.
"""

from __future__ import annotations

import io
import json
import math
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .colours import AMOUNT, SIDES, Stops, colour, ramp
from .export_classes import class_maps, draw_classes, draw_legend
from .export_qupath import origin_offset
from .pipeline import Prediction, scale_values
from .slide.grid import TileGrid, TileMap
from .tile_classes import TileClasses

if TYPE_CHECKING:
    from .export import Sheet
    from .slide.slide import Slide

#: Long side of the picture of the whole slide, px.
PICTURE_PX = 1600
_DPI = 100
#: Attention below this many times the mean is never drawn darkest: an even map must look even, not alarming.
LEAST_SHARE = 3.0
_MOST_HATCHED = 2000


@dataclass(frozen=True)
class Shade:
    """How a map is coloured: its ramp and the range the ramp spans."""

    stops: Stops
    low: float
    high: float
    label: str


def map_extent(grid: TileGrid) -> tuple[float, float, float, float]:
    """Return the rectangle that `TileMap.image` covers: x, y, width, height in level-0 px.

    A pixel of the map stands at the centre of its tile and is one stride wide: with overlap it covers the tile's
    middle, without overlap the whole tile.
    """
    stride, inset = grid.stride_level0, (grid.size_level0 - grid.stride_level0) / 2
    rows, columns = grid.shape
    return grid.origin[0] + inset, grid.origin[1] + inset, columns * stride, rows * stride


def attention_shade(shown: TileMap) -> Shade:
    """Return the colours of an attention map in times the mean: clear at zero, darkest at the 99.5th percentile."""
    known = shown.values[np.isfinite(shown.values)]
    high = max(float(np.quantile(known, 0.995)), LEAST_SHARE) if known.size else LEAST_SHARE
    reach = f", largest {known.max():.3g}" if known.size else ""
    return Shade(AMOUNT, 0.0, high, f"attention, {shown.unit}{reach}")


def evidence_shade(shown: TileMap) -> Shade:
    """Return the colours of an evidence map: the same range on both sides of a clear zero."""
    known = np.abs(shown.values[np.isfinite(shown.values)])
    reach = max(float(np.quantile(known, 0.99)), 1e-9) if known.size else 1.0
    return Shade(SIDES, -reach, reach, f"{shown.name}, {shown.unit}: blue against, orange for")


def main_class(prediction: Prediction) -> str:
    """Return the class whose evidence is shown first: the positive one, else the one that leads."""
    positive = prediction.bundle.task.get("positive")
    if positive in prediction.bundle.classes:
        return str(positive)
    leads = int(np.argmax(prediction.verdict.probabilities)) if prediction.verdict is not None else -1
    return str(prediction.bundle.classes[leads])


def first_map(prediction: Prediction) -> tuple[TileMap, Shade] | None:
    """Return the map to show first: attention, for a model without attention its evidence, else none."""
    verdict = prediction.verdict
    if verdict is None:
        return None
    if verdict.attention is not None:
        shown = scale_values(prediction, "share")
        return shown, attention_shade(shown)
    return evidence_map(prediction)


def evidence_map(prediction: Prediction) -> tuple[TileMap, Shade] | None:
    """Return the evidence of the main class and its colours, None where the model gives none."""
    if prediction.verdict is None or prediction.verdict.evidence is None:
        return None
    shown = scale_values(prediction, f"evidence:{main_class(prediction)}")
    return shown, evidence_shade(shown)


def overlay_png(slide: Slide, prediction: Prediction) -> bytes:
    """Return overlay.png: the slide, the map over it, its colour bar with unit and range, a scale bar.

    Without a map of the slide's answer, that of the tile classes.
    """
    return picture_of(slide, prediction, first_map(prediction) or prediction.tile_classes, "png")


def picture_of(
    slide: Slide,
    prediction: Prediction,
    layer: tuple[TileMap, Shade] | TileClasses | None,
    kind: str,
    long_side: int = PICTURE_PX,
    words: float = 1.0,
) -> bytes:
    """Draw the whole slide with a map over it.

    Parameters
    ----------
    layer : (TileMap, Shade), TileClasses or None
        None draws the slide alone.
    kind : str
        ``png`` or ``jpg``.
    long_side : int
        Of the slide's picture, px.
    words : float
        How large words are; 1 is right for a picture shown at its full size.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    thumbnail = slide.thumbnail(long_side)
    height, width = thumbnail.shape[:2]
    times = max(1.0, 640 / width)  # narrow slides still need room for the colour bar
    wide, tall = math.ceil(width * times), math.ceil(height * times)
    text = words * max(0.8, wide / 900)  # words grow with the picture
    band = round(110 * text) if layer is not None else 0
    figure = Figure(figsize=(wide / _DPI, (tall + band) / _DPI), dpi=_DPI, facecolor="white")
    axes = figure.add_axes((0.0, band / (tall + band), 1.0, tall / (tall + band)))
    axes.imshow(thumbnail, extent=(0, slide.dimensions[0], slide.dimensions[1], 0), interpolation="antialiased")
    if isinstance(layer, TileClasses):
        draw_classes(axes, layer)
        draw_legend(figure, layer, wide, tall + band, text)
    elif layer is not None:
        _draw_map(axes, *layer)
        _draw_bar(figure, layer[1], wide, tall + band, text)
    _draw_damaged(axes, prediction)
    _draw_scale(axes, slide, text)
    axes.set_xlim(0, slide.dimensions[0])
    axes.set_ylim(slide.dimensions[1], 0)
    axes.set_axis_off()
    target = io.BytesIO()
    # No date and no library name in the file: the same prediction gives the same picture.
    extra: dict[str, Any] = {"metadata": {"Software": None}} if kind == "png" else {"pil_kwargs": {"quality": 88}}
    FigureCanvasAgg(figure).print_figure(target, format=kind, dpi=_DPI, **extra)
    return target.getvalue()


def _draw_map(axes: Any, shown: TileMap, shade: Shade) -> None:
    x, y, width, height = map_extent(shown.grid)
    painted = colour(shown.image(), shade.low, shade.high, shade.stops)
    axes.imshow(painted, extent=(x, x + width, y + height, y), interpolation="nearest", aspect="equal")


def _draw_bar(figure: Any, shade: Shade, wide: int, tall: int, text: float) -> None:
    """Draw the colour bar below the picture, on the grey of glass, so that what is clear looks clear."""
    left, width = 45 * text / wide, min(wide - 90 * text, 560 * text) / wide
    axes = figure.add_axes((left, 48 * text / tall, width, 22 * text / tall))
    colours = ramp(shade.stops)[None]
    axes.imshow(np.full_like(colours, 0.97), extent=(shade.low, shade.high, 0, 1), aspect="auto")
    axes.imshow(colours, extent=(shade.low, shade.high, 0, 1), aspect="auto")
    axes.set_yticks([])
    ticks = np.linspace(shade.low, shade.high, 5)
    first = f"≤ {_short(ticks[0])}" if shade.low < 0 else _short(ticks[0])
    labels = [first, *(_short(tick) for tick in ticks[1:-1]), f"≥ {_short(ticks[-1])}"]
    axes.set_xticks(ticks, labels, fontsize=10 * text)
    axes.set_title(shade.label, fontsize=11 * text, loc="left", pad=5 * text)
    axes.tick_params(length=4 * text, pad=3 * text)
    for side in axes.spines.values():
        side.set_linewidth(0.6)


def _short(value: float) -> str:
    return "0" if abs(value) < 1e-12 else f"{value:.3g}".replace("-", "−")


def _draw_damaged(axes: Any, prediction: Prediction) -> None:
    """Hatch the tiles that could not be read."""
    if prediction.bag is None:
        return
    from matplotlib.patches import Rectangle

    size = prediction.grid.size_level0
    for k in np.flatnonzero(prediction.bag.damaged)[:_MOST_HATCHED]:
        x, y = prediction.grid.locations[k]
        axes.add_patch(Rectangle((x, y), size, size, fill=False, hatch="xxx", edgecolor="0.3", linewidth=0.8))


def _draw_scale(axes: Any, slide: Slide, text: float) -> None:
    """Draw a scale bar at the bottom left, about a fifth of the width."""
    if slide.mpp is None:
        return
    from matplotlib.patches import Rectangle

    width, height = slide.dimensions
    length = round_length(width * slide.mpp / 5)
    bar, margin = length / slide.mpp, 0.02 * width
    thick = 0.006 * max(width, height)
    words = f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm"
    top = height - margin - thick
    axes.add_patch(Rectangle((margin, top), bar, thick, facecolor="black", edgecolor="white", linewidth=1.2))
    label = axes.text(margin + bar / 2, top - thick, words, ha="center", va="bottom", fontsize=11 * text, color="black")
    label.set_bbox({"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.5})


def round_length(um: float) -> float:
    """Return the largest of 1, 2, 5 times a power of ten that is not above `um`."""
    power = 10.0 ** math.floor(math.log10(max(um, 1e-6)))
    return float(max(step * power for step in (1, 2, 5) if step * power <= um * (1 + 1e-9)))


def map_ome_tiff(path: Path, slide: Slide, prediction: Prediction, sheet: Sheet) -> None:
    """Write the maps as a float32 OME-TIFF, one channel a map, one pixel a tile, NaN where there is none.

    The physical size is the tiles' stride; ``PositionX/Y`` is the top-left corner of the first pixel in um from the
    origin that the annotation names.
    """
    import tifffile

    maps = _all_maps(prediction)
    planes = np.stack([shown.image() for shown in maps]) if len(prediction.grid) else _empty_planes(maps)
    x, y, _, _ = map_extent(prediction.grid)
    dx, dy = origin_offset(slide, sheet.origin)
    mpp = prediction.grid.slide_mpp
    step = prediction.grid.stride_level0 * mpp
    left, top = (x - dx) * mpp, (y - dy) * mpp
    count = len(maps)
    place = {"origin": sheet.origin, "origin_px": [dx, dy], "slide_mpp": mpp, "position": "top-left corner"}
    tifffile.imwrite(
        path,
        planes,
        ome=True,
        photometric="minisblack",
        compression="zlib",
        resolution=(1e4 / step, 1e4 / step),
        resolutionunit="CENTIMETER",
        metadata={
            "axes": "CYX",
            "Name": sheet.name,
            # tifffile's own would be made of the time and this machine's network address.
            "UUID": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{prediction.content_id}/{prediction.grid.digest}")),
            "Description": json.dumps(place),
            "PhysicalSizeX": step,
            "PhysicalSizeXUnit": "µm",
            "PhysicalSizeY": step,
            "PhysicalSizeYUnit": "µm",
            "Channel": {"Name": [f"{shown.name} ({shown.unit})" for shown in maps]},
            "Plane": {
                "PositionX": [left] * count,
                "PositionXUnit": ["µm"] * count,
                "PositionY": [top] * count,
                "PositionYUnit": ["µm"] * count,
            },
        },
    )


def _all_maps(prediction: Prediction) -> list[TileMap]:
    scales = ["share", *(f"evidence:{name}" for name in prediction.bundle.classes)]
    judged = [scale_values(prediction, scale) for scale in scales]
    if prediction.verdict is None and prediction.tile_classes is not None:
        judged = []  # planes without a value would only be in the way
    return judged + class_maps(prediction)


def _empty_planes(maps: list[TileMap]) -> NDArray[np.float32]:
    """Return planes without a value for a slide without tissue; a TIFF needs at least one pixel."""
    rows, columns = maps[0].grid.shape
    return np.full((len(maps), max(1, rows), max(1, columns)), np.nan, np.float32)
