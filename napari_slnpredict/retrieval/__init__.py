"""Similar tiles: descriptors of slides, exact search for the nearest of them in a slide or in an index of many."""

from __future__ import annotations

from .asking import Asked, Laid, ask_place, lay_tiles
from .components import Components, principal_colours, principal_components
from .describing import Described, Describer, describe_slide, described_from_page, make_describer
from .index import Index, open_index
from .nearest import Hit, likeness, question, search
from .pages import SUFFIX, Page, page_of

__all__ = [
    "SUFFIX", "Asked", "Components", "Described", "Describer", "Hit", "Index", "Laid", "Page", "ask_place",
    "describe_slide", "described_from_page", "lay_tiles", "likeness", "make_describer", "open_index", "page_of",
    "principal_colours", "principal_components", "question", "search",
]  # fmt: skip
