"""One slide in an index: where its tiles lie and what they look like, as one file that says what it is.

A page holds the descriptors twice: in half precision, which a search reads whole, and in single precision, of which it
reads the few rows that may be among the nearest.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.bundles.bundle import tensor_bytes
from napari_slnpredict.bundles.weights import map_tensors
from napari_slnpredict.encode.descriptor import Projection, describe
from napari_slnpredict.encode.features import Bag
from napari_slnpredict.errors import DataError
from napari_slnpredict.files import digest_bytes

FORMAT = "napari-slnpredict index page 1"
SUFFIX = ".page"
#: What a descriptor is: the encoder's own layer for it applied to the feature, or the feature itself.
PROJECTION, FEATURES = "projection", "features"


@dataclass(frozen=True)
class Page:
    """One slide in an index.

    Attributes
    ----------
    slide_id, content_id, patient, label : str
        Patient and label "" where nobody said.
    slide_path : str
        From the index's folder; "" where it shall not be known.
    encoder, encoder_digest, precision : str
        The digest covers the encoder and what makes descriptors of its features.
    tile_px : int
    mpp : float
        Of the tiles, um/px.
    size_level0 : float
        Side of a tile, level-0 px.
    places : (n, 2) int64
        Level-0 px, x then y, top-left corners.
    coarse : (n, k) float16
    exact : (n, k) float32
    descriptor : str
        ``projection`` or ``features``.
    """

    slide_id: str
    content_id: str
    patient: str
    label: str
    slide_path: str
    encoder: str
    encoder_digest: str
    precision: str
    tile_px: int
    mpp: float
    size_level0: float
    places: NDArray[np.int64] = field(repr=False)
    coarse: NDArray[np.float16] = field(repr=False)
    exact: NDArray[np.float32] = field(repr=False)
    descriptor: str = FEATURES

    def __len__(self) -> int:
        return len(self.places)

    @property
    def width(self) -> int:
        """Length of a descriptor."""
        return int(self.exact.shape[1])

    @property
    def holds(self) -> str:
        """What its numbers are, in words: ``128-d projection of hne-small``."""
        return holds_words(self.width, self.descriptor, self.encoder)

    def row_at(self, x: float, y: float) -> int | None:
        """Return the tile over a place (level-0 px), of several the one with the nearest middle; None where none is."""
        if not len(self):
            return None
        off = np.abs(self.places + self.size_level0 / 2 - (x, y)).max(axis=1)
        row = int(off.argmin())
        # Half a pixel of slack for places rounded to whole pixels: no gap between neighbours.
        return row if off[row] <= self.size_level0 / 2 + 0.5 else None


def holds_words(width: int, descriptor: str, encoder: str) -> str:
    """Say what descriptors are."""
    return f"{width:,}-d {descriptor} of {encoder}"


def descriptor_digest(encoder_digest: str, projection: Projection | None) -> str:
    """Return what tells two kinds of descriptors apart."""
    return encoder_digest if projection is None else digest_bytes(encoder_digest, projection.digest)


def page_of(
    bag: Bag,
    content_id: str,
    *,
    projection: Projection | None = None,
    slide_path: str = "",
    patient: str = "",
    label: str = "",
) -> Page:
    """Return a page of a slide's features, in memory; damaged tiles are left out."""
    kept = bag.kept
    exact = describe(bag.features[kept], projection)
    grid, kind = bag.grid, FEATURES if projection is None else PROJECTION
    digest = descriptor_digest(bag.encoder_digest, projection)
    return Page(
        grid.slide_id, content_id, patient, label, slide_path, bag.encoder_name, digest, bag.precision,
        grid.spec.tile_px, grid.spec.mpp, grid.size_level0, grid.locations[kept], exact.astype(np.float16), exact, kind,
    )  # fmt: skip


_WORDS = ("slide_id", "content_id", "patient", "label", "slide_path", "encoder", "encoder_digest", "precision",
          "descriptor")  # fmt: skip
_NUMBERS = ("tile_px", "mpp", "size_level0")


def page_bytes(page: Page) -> bytes:
    """Return a page as the content of its file."""
    facts = json.dumps({"format": FORMAT} | {name: getattr(page, name) for name in (*_WORDS, *_NUMBERS)})
    return tensor_bytes(
        {
            "facts": np.frombuffer(facts.encode(), np.uint8),
            "places": page.places,
            "coarse": page.coarse,
            "exact": page.exact,
        }
    )


def read_page(path: Path) -> Page:
    """Map a page's file into memory.

    Raises
    ------
    DataError, UnsafeFile, MissingWeights
        It is damaged, of another version, or no page; names the file.
    """
    tensors = map_tensors(path)
    try:
        facts: dict[str, Any] = json.loads(bytes(tensors["facts"]))
        if facts["format"] != FORMAT:
            raise DataError("is an index page of another version", file=path, do="make the index again")
        values = {name: facts[name] for name in (*_WORDS, *_NUMBERS)}
        page = Page(**values, places=tensors["places"], coarse=tensors["coarse"], exact=tensors["exact"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise DataError("is not a page of an index", file=path, do="remove it and index the slide again") from error
    if not (_shapes_fit(page) and _facts_fit(values)):
        raise DataError("its parts do not fit together", file=path, do="remove it and index the slide again")
    return page


def _shapes_fit(page: Page) -> bool:
    n, k = page.exact.shape if page.exact.ndim == 2 else (-1, -1)
    shapes = page.places.shape == (n, 2) and page.coarse.shape == (n, k)
    arrays = (page.places, page.coarse, page.exact)
    return shapes and [array.dtype.name for array in arrays] == ["int64", "float16", "float32"]


def _facts_fit(values: dict[str, Any]) -> bool:
    words = all(isinstance(values[name], str) for name in _WORDS) and values["descriptor"] in (PROJECTION, FEATURES)
    numbers = [values[name] for name in _NUMBERS]
    return words and all(type(value) in (int, float) and math.isfinite(value) and value > 0 for value in numbers)
