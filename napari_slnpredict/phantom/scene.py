"""What lies where on a synthetic slide: the vocabulary that layout, rendering and truth share.

A scene is a description, not a picture: smooth fields at 8 um per pixel whose zero line is a border (positive inside,
in um from it), a table of nuclei, a truth mask and a table of instances. Places are um from the slide's corner, x then
y; arrays are rows then columns.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .noise import Field
from .nuclei import Nuclei

FIELD_UM = 8  # um per pixel of fields and truth masks
OUTSIDE = np.float32(-1e4)  # a field that is nowhere inside


class Tissue(IntEnum):
    """Values of the truth mask."""

    GLASS = 0
    STROMA = 1
    NEST = 2  # ordinary tumour nest
    ALTERED = 3  # aggressive (sln) or altered (her2) nest
    LYMPHOID = 4  # lymphocyte aggregate, or the body of a lymph node
    PALE = 5  # germinal centre, sheet of histiocytes: benign, looks a little like a deposit
    SINUS = 6
    DEPOSIT = 7  # metastasis
    FAT = 8
    VESSEL = 9


class Artefact(IntEnum):
    """Values of the artefact mask."""

    NONE = 0
    FOLD = 1
    INK = 2
    BLOOD = 3
    BUBBLE = 4
    PIGMENT = 5


@dataclass(frozen=True)
class Canvas:
    """The rectangle a slide is drawn on; both sides are multiples of 64 um."""

    width: int
    height: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of fields, 8 um a pixel."""
        return self.height // FIELD_UM, self.width // FIELD_UM

    @cached_property
    def centres(self) -> tuple[Field, Field]:
        """X and y of the field pixels' centres, um, each of `shape`."""
        rows, columns = self.shape
        x = (np.arange(columns, dtype=np.float32) + 0.5) * FIELD_UM
        y = (np.arange(rows, dtype=np.float32) + 0.5) * FIELD_UM
        return np.broadcast_to(x, self.shape), np.broadcast_to(y[:, None], self.shape)

    def nothing(self) -> Field:
        """Return a field that is nowhere inside."""
        return np.full(self.shape, OUTSIDE, np.float32)


@dataclass(frozen=True)
class Instance:
    """One thing of the truth: a nest, an aggregate, a deposit, an artefact.

    Attributes
    ----------
    kind : str
        ``nest``, ``altered nest``, ``aggregate``, ``germinal centre``, ``deposit`` or the artefact's name.
    x_um, y_um, diameter_um, area_um2 : float
    nuclei : int
        Nuclei in it (0 for artefacts).
    altered : float
        Share of atypical nuclei in it.
    touching : int
        Aggregates next to a nest (task ``sln-relation``).
    """

    kind: str
    x_um: float
    y_um: float
    diameter_um: float
    area_um2: float
    nuclei: int = 0
    altered: float = 0.0
    touching: int = 0


@dataclass(frozen=True)
class Streams:
    """Independent random streams, so that the label moves nothing but what it is meant to move.

    Two slides of one seed and different labels share outline, nests, stain and artefacts.
    """

    layout: np.random.Generator
    cells: np.random.Generator
    label: np.random.Generator
    stain: np.random.Generator
    artefacts: np.random.Generator
    texture: np.random.Generator

    @classmethod
    def of(cls, *entropy: int) -> Streams:
        """Split one seed into the streams."""
        children = np.random.SeedSequence(entropy).spawn(6)
        return cls(*(np.random.default_rng(child) for child in children))


@dataclass
class Scene:
    """A slide before it is stained.

    Attributes
    ----------
    fields : dict of str to (h, w) float32
        ``tissue``, ``nest``, ``lumen``, ``lymphoid``, ``pale``, ``sheet``, ``sinus``, ``vessel``, ``fat``; a missing
        one is nowhere. ``flow_u`` and ``flow_v`` are the coordinates along and across the fibres, um.
    nuclei : Nuclei
    membranes : (m, 3) float32 or None
        Place and strength (0 to 1) of membrane staining by DAB, one a tumour cell (task ``her2``).
    """

    canvas: Canvas
    fields: dict[str, Field]
    nuclei: Nuclei
    truth: NDArray[np.uint8]
    instances: tuple[Instance, ...]
    membranes: NDArray[np.float32] | None = None
    artefacts: NDArray[np.uint8] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.artefacts = np.zeros(self.canvas.shape, np.uint8)

    def field(self, name: str) -> Field:
        """Return a field, nowhere inside when the scene has none of that name."""
        found = self.fields.get(name)
        return self.canvas.nothing() if found is None else found


def paint_truth(canvas: Canvas, fields: dict[str, Field], order: tuple[tuple[str, Tissue], ...]) -> NDArray[np.uint8]:
    """Return the truth mask (h, w) uint8: fields painted in order, the later over the earlier, tissue only."""
    truth = np.where(fields["tissue"] > 0, np.uint8(Tissue.STROMA), np.uint8(Tissue.GLASS))
    for name, value in order:
        if name in fields:
            truth[(fields[name] > 0) & (fields["tissue"] > 0)] = value
    return truth.astype(np.uint8)


@dataclass(frozen=True)
class PhantomSlide:
    """A synthetic slide with its truth.

    Attributes
    ----------
    pixels : (h, w, 3) uint8
        1 um per pixel.
    truth, artefacts : (h / 8, w / 8) uint8
        `scene.Tissue` and `scene.Artefact` at 8 um per pixel.
    instances : tuple of Instance
    nuclei : int
    quality : int
        JPEG quality of the lab.
    """

    task: str
    label: str
    seed: int
    lab: str
    stain: str
    pixels: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    artefacts: NDArray[np.uint8]
    instances: tuple[Instance, ...]
    nuclei: int
    quality: int
    mpp: float = 1.0
