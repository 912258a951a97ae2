"""Outlines drawn on slides, as the Camelyon challenges publish them: ASAP's XML, polygons in level-0 px."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import DataError, SlideError, one_line
from napari_slnpredict.slide.metadata import check_xml

#: Groups of outlines that hold tumour, and those that are cut out of it, in Camelyon16 and 17.
INSIDE = frozenset(("_0", "_1", "tumor", "metastases"))
OUTSIDE = frozenset(("_2", "exclusion", "normal"))


@dataclass(frozen=True)
class Outlines:
    """What was outlined on one slide.

    Attributes
    ----------
    inside, outside : tuple of (k, 2) float64
        Polygons, level-0 px, x then y. A place is marked where it lies in one of the first and in none of the second.
    """

    inside: tuple[NDArray[np.float64], ...] = field(repr=False)
    outside: tuple[NDArray[np.float64], ...] = field(default=(), repr=False)

    def covers(self, places: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Tell which places (n, 2), level-0 px, x then y, are marked."""
        marked = np.zeros(len(places), bool)
        for polygon in self.inside:
            marked |= inside(polygon, places)
        for polygon in self.outside:
            marked &= ~inside(polygon, places)
        return marked


def inside(polygon: NDArray[np.float64], places: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Tell which places (n, 2) lie in a polygon (k, 2): an odd number of its edges is to their right."""
    x, y = np.asarray(places, np.float64).T
    low, high = polygon.min(axis=0), polygon.max(axis=0)
    near = np.flatnonzero((x >= low[0]) & (x <= high[0]) & (y >= low[1]) & (y <= high[1]))
    odd = np.zeros(len(near), bool)
    px, py = x[near], y[near]
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        crosses = (y0 > py) != (y1 > py)
        if crosses.any():
            odd ^= crosses & (px < x0 + (x1 - x0) * (py - y0) / (y1 - y0))
    found = np.zeros(len(x), bool)
    found[near] = odd
    return found


def read_outlines(path: Path) -> Outlines:
    """Read ASAP's XML.

    Raises
    ------
    DataError
        Not that XML, or an outline of an unknown group or without three corners; names the file.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        check_xml(data, path)  # entities and endless nesting are refused before anything builds a tree
        root = ElementTree.fromstring(data)
    except (OSError, SlideError, ElementTree.ParseError) as error:
        raise DataError(f"cannot be read ({one_line(error, 160)})", file=path, do="fetch it again") from error
    sides: dict[bool, list[NDArray[np.float64]]] = {True: [], False: []}
    for drawn in root.iterfind("./Annotations/Annotation"):
        group = drawn.get("PartOfGroup", "").lower()
        if group not in INSIDE | OUTSIDE:
            raise DataError(f"an outline of group {one_line(group, 40)!r}", file=path, do="only Camelyon's are known")
        sides[group in INSIDE].append(_polygon(drawn, path))
    return Outlines(tuple(sides[True]), tuple(sides[False]))


def _polygon(drawn: ElementTree.Element, path: Path) -> NDArray[np.float64]:
    try:
        corners = [(float(c.attrib["X"]), float(c.attrib["Y"])) for c in drawn.iterfind("./Coordinates/Coordinate")]
    except (KeyError, ValueError) as error:
        raise DataError("a corner without numbers", file=path, do="fetch it again") from error
    polygon = np.array(corners, np.float64).reshape(-1, 2)
    if len(polygon) < 3 or not np.isfinite(polygon).all():
        raise DataError(f"an outline of {len(polygon)} corners", file=path, do="fetch it again")
    return polygon
