"""The ways an encoder can be trained: one row each. Adding one is a file like `simclr` and a row here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .method import Method, Schedule
from .simclr import SimClr, SimClrSettings
from .similarity import Similarity, SimilaritySettings
from .stain_invariant import StainInvariant, StainInvariantSettings
from .supervised import Supervised, SupervisedSettings


@dataclass(frozen=True)
class MethodRow:
    """One method as a user meets it.

    Attributes
    ----------
    name : str
        As the command spells it.
    title, text : str
        What a form calls it, and what it does, in a sentence.
    settings : type
        Frozen dataclass of its `option` fields.
    make : callable
        Settings -> `Method`.
    """

    name: str
    title: str
    text: str
    settings: type[Schedule]
    make: Callable[[Any], Method]


METHODS = {
    row.name: row
    for row in (
        MethodRow(
            SimClr.name,
            "SimCLR",
            "Learn without labels: two views of a tile lie close, views of other tiles far.",
            SimClrSettings,
            SimClr,
        ),
        MethodRow(
            StainInvariant.name,
            "Stain-invariant",
            "Learn without labels (or jointly with them): a tile and the same tile in another stain lie close.",
            StainInvariantSettings,
            StainInvariant,
        ),
        MethodRow(
            Similarity.name,
            "Spatial similarity",
            "Learn 128-number descriptors from places alone: tiles near each other are alike, tiles far apart not.",
            SimilaritySettings,
            Similarity,
        ),
        MethodRow(
            Supervised.name,
            "Supervised (labelled tiles)",
            "Learn from labelled tiles; the tile classifier stays with the encoder.",
            SupervisedSettings,
            Supervised,
        ),
    )
}
