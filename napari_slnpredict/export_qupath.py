"""Tiles for QuPath: GeoJSON in the pixels of QuPath's own image.

QuPath crops a slide to the rectangle its scanner calls interesting (``openslide.bounds-*``) unless it is told not to,
so its pixel (0, 0) is that rectangle's corner and not the file's. The file says in its metadata which origin it has.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from .export_classes import class_measurements, classification
from .pipeline import Prediction

if TYPE_CHECKING:
    from .slide.slide import Slide

#: The origins a user can ask for.
ORIGINS = ("qupath", "level0")
_NAMESPACE = uuid.UUID("5b0f6c1e-6f5c-5d0e-9c55-0d3b1a0c7e51")


def origin_offset(slide: Slide, origin: str) -> tuple[int, int]:
    """Return the level-0 px (x, y) that is (0, 0) in a file of this origin."""
    if origin not in ORIGINS:
        raise ValueError(f"origin is {' or '.join(ORIGINS)}, not {origin!r}")
    return (int(slide.bounds[0]), int(slide.bounds[1])) if origin == "qupath" else (0, 0)


def tiles_geojson(slide: Slide, prediction: Prediction, name: str, origin: str = "qupath") -> str:
    """Return every tile as a QuPath tile object, one feature a line.

    Tiles are of type ``tile`` and not ``annotation``: 20,000 annotations stop QuPath.
    """
    dx, dy = origin_offset(slide, origin)
    head = {
        "origin": origin,
        "origin_x": str(dx),
        "origin_y": str(dy),
        "unit": "pixels of the full image",
        "slide_id": name,
        "model": prediction.bundle.name,
    }
    features = ",\n".join(json.dumps(feature, ensure_ascii=False) for feature in _features(prediction, dx, dy))
    return (
        f'{{"type": "FeatureCollection",\n"metadata": {json.dumps(head, ensure_ascii=False)},\n'
        f'"features": [\n{features}\n]}}\n'
    )


def _features(prediction: Prediction, dx: int, dy: int) -> Iterator[dict[str, Any]]:
    grid = prediction.grid
    columns = _columns(prediction)
    for k, (x, y) in enumerate(grid.locations.tolist()):
        left, top = float(x - dx), float(y - dy)
        right, bottom = round(left + grid.size_level0, 3), round(top + grid.size_level0, 3)
        yield {
            "type": "Feature",
            "id": str(uuid.uuid5(_NAMESPACE, f"{prediction.content_id}/{grid.digest}/{k}")),
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]],
            },
            "properties": {
                "objectType": "tile",
                "name": f"Tile {k + 1}",
                "measurements": {name: _number(values[k]) for name, values in columns.items()},
                **classification(prediction, k),
            },
        }


def _columns(prediction: Prediction) -> dict[str, np.ndarray[Any, Any]]:
    """Return the measurements in words, each (n,)."""
    verdict = prediction.verdict
    columns: dict[str, np.ndarray[Any, Any]] = {"Tissue": prediction.grid.tissue}
    if verdict is not None and verdict.attention is not None:
        columns["Attention"] = verdict.attention
        columns["Attention share"] = verdict.attention * len(prediction.grid)
        columns["Attention rank"] = verdict.rank()
    if verdict is not None and verdict.evidence is not None:
        for k, name in enumerate(verdict.classes):
            columns[f"Evidence: {name}"] = verdict.evidence[:, k]
    return columns | class_measurements(prediction)


def _number(value: Any) -> float | int | str:
    """Return a JSON number; QuPath reads NaN as a string."""
    number = float(value)
    if not math.isfinite(number):
        return "NaN"
    return int(number) if isinstance(value, np.integer) else float(f"{number:.7g}")
