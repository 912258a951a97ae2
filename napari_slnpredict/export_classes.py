"""Tile classes in a prediction's files: columns, measurements, planes, and a map with its legend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .colours import CLASS_OPACITY, class_colour
from .slide.grid import TileMap, map_tiles
from .tile_classes import HOW_COUNTED, TileClasses, per_cent

if TYPE_CHECKING:
    from .pipeline import Prediction

#: A legend's entries in a column, and columns at most.
_LEGEND_ROWS, _LEGEND_COLUMNS = 2, 5


def classes_record(prediction: Prediction) -> dict[str, Any] | None:
    """Return `tile_classes` of prediction.json."""
    found = prediction.tile_classes
    if found is None:
        return None
    mean = np.nan_to_num(np.nanmean(found.probabilities, axis=0)) if found.seen else np.zeros(len(found.classes))
    return {
        "classes": list(found.classes),
        "fractions": _named(found, found.fractions),
        "area_mm2": _named(found, found.area_mm2),
        "mean_probability": _named(found, mean),
        "interval": None,
        "tiles": found.seen,
        "counted": HOW_COUNTED,
        "model": {"name": found.name, "digest": found.digest},
    }


def _named(found: TileClasses, values: Any) -> dict[str, float]:
    return {name: round(float(value), 6) for name, value in zip(found.classes, values, strict=True)}


def class_columns(prediction: Prediction) -> tuple[list[str], list[list[Any]]]:
    """Return the header and one row a tile for tiles.csv: the class looked most like, then each one's probability."""
    found = prediction.tile_classes
    if found is None:
        return [], [[] for _ in range(len(prediction.grid))]
    rows = [
        ["", *(None for _ in found.classes)] if best < 0 else [found.classes[best], *map(float, row)]
        for best, row in zip(found.best.tolist(), found.probabilities, strict=True)
    ]
    return ["tile_class", *(f"class_{name}" for name in found.classes)], rows


def class_measurements(prediction: Prediction) -> dict[str, np.ndarray[Any, Any]]:
    """Return the measurements for QuPath, each (n,)."""
    found = prediction.tile_classes
    if found is None:
        return {}
    return {f"Tile class: {name}": found.probabilities[:, k] for k, name in enumerate(found.classes)}


def classification(prediction: Prediction, tile: int) -> dict[str, Any]:
    """Return a tile's class as QuPath's objects carry it; nothing where it is not known."""
    found = prediction.tile_classes
    if found is None or found.best[tile] < 0:
        return {}
    number = int(found.best[tile])
    return {"classification": {"name": found.classes[number], "color": list(class_colour(number))}}


def class_maps(prediction: Prediction) -> list[TileMap]:
    """Return one map a class: the probability of each tile."""
    found = prediction.tile_classes
    if found is None:
        return []
    return [
        map_tiles(found.grid, found.probabilities[:, k], f"tile class {name}", "probability")
        for k, name in enumerate(found.classes)
    ]


def class_rows(prediction: Prediction) -> list[dict[str, Any]]:
    """Return what the report's table shows, the largest class first."""
    found = prediction.tile_classes
    if found is None:
        return []
    return [
        {"name": name, "share": share, "told": per_cent(share), "mm2": mm2,
         "colour": "#{:02x}{:02x}{:02x}".format(*class_colour(found.classes.index(name)))}
        for name, share, mm2 in found.ranked()
    ]  # fmt: skip


def painted_classes(found: TileClasses) -> np.ndarray[Any, Any]:
    """Return the map in its colours, (rows, columns, 4) float32, 0 to 1; clear where nothing is known."""
    table = np.array([(*class_colour(k), 255 * CLASS_OPACITY) for k in range(len(found.classes))], np.float32) / 255
    picture = np.zeros((*found.grid.shape, 4), np.float32)
    known = found.best >= 0
    rows, columns = found.grid.cells[known, 0], found.grid.cells[known, 1]
    picture[rows, columns] = table[found.best[known]]
    return picture


def draw_classes(axes: Any, found: TileClasses) -> None:
    """Draw the map over the slide."""
    from .export_pictures import map_extent

    x, y, width, height = map_extent(found.grid)
    extent = (x, x + width, y + height, y)
    axes.imshow(painted_classes(found), extent=extent, interpolation="nearest", aspect="equal")


def draw_legend(figure: Any, found: TileClasses, wide: int, tall: int, text: float) -> None:
    """Draw the classes' colours and shares below the picture, on the grey of glass."""
    from matplotlib.patches import Rectangle

    axes = figure.add_axes((0.0, 0.0, 1.0, 100 * text / tall))
    axes.set_xlim(0, wide)
    axes.set_ylim(100 * text, 0)
    axes.set_axis_off()
    axes.text(45 * text, 20 * text, "tile classes, share of tissue", fontsize=11 * text, va="center")
    entries = found.ranked()[: _LEGEND_ROWS * _LEGEND_COLUMNS]
    across = min(_LEGEND_COLUMNS, -(-len(entries) // _LEGEND_ROWS)) if len(entries) > _LEGEND_COLUMNS else len(entries)
    step = min((wide - 60 * text) / max(1, across), 210 * text)
    for place, (name, share, _) in enumerate(entries):
        row, column = divmod(place, across)
        x, y = 45 * text + column * step, (42 + 26 * row) * text
        red, green, blue = (part / 255 for part in class_colour(found.classes.index(name)))
        patch = Rectangle((x, y - 8 * text), 16 * text, 16 * text, facecolor=(red, green, blue, 0.85), edgecolor="0.4")
        axes.add_patch(patch)
        axes.text(x + 22 * text, y, f"{name}  {per_cent(share)}", fontsize=10 * text, va="center")
