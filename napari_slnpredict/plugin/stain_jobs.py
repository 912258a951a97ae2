"""The job that makes a slide ready to be shown in another one's stain; touches neither napari nor Qt."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import DataError
from napari_slnpredict.events import Job, Stage

if TYPE_CHECKING:
    from napari_slnpredict.slide.display import DisplayPyramid
    from napari_slnpredict.slide.stain import SlideColours, StainMatrix

    from .jobs import Opened

    Stain = StainMatrix | SlideColours

#: The methods that can be chosen, and what a user reads; the first is the usual one.
METHODS = {"macenko": "Macenko", "vahadane": "Vahadane", "reinhard": "Reinhard"}


@dataclass(frozen=True)
class Target:
    """Whose stain a slide shall be shown in.

    Attributes
    ----------
    path : Path or None
        A slide's file; None: the stain of the method's own reference image.
    """

    path: Path | None = None

    @property
    def title(self) -> str:
        """What a user reads."""
        return "reference H&E" if self.path is None else self.path.stem


@dataclass(frozen=True)
class StainLook:
    """A slide's pixels in another stain (`slide.display_look.Look`).

    Attributes
    ----------
    paint : callable
        (h, w, 3) uint8 to the same; of value semantics, so that it tells one stain from another.
    """

    paint: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
    key: Hashable = field(init=False)

    def __post_init__(self) -> None:
        # A text is hashed once; the numbers within would be at every tile.
        object.__setattr__(self, "key", f"stain {self.paint!r}")

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return pixels in the target's stain."""
        return self.paint(pixels)


@dataclass(frozen=True)
class Stained:
    """A slide ready to be shown in another stain.

    Attributes
    ----------
    target : Target
    method : str
    look : StainLook
    pyramid : DisplayPyramid
        Its levels for the screen.
    tiles : int
        Places of the slide its stain was found in.
    """

    target: Target
    method: str
    look: StainLook
    pyramid: DisplayPyramid = field(repr=False)
    tiles: int = 0


#: What was found already: (content id, method) to a stain.
Known = dict[tuple[str, str], Any]


def stain_job(opened: Opened, target: Target, method: str, known: Known) -> Job[Stained]:
    """Find both stains (or take them from `known`) and paint the small levels.

    Raises
    ------
    SlideError
        One of the slides cannot be opened, or has no stain to speak of.
    """
    from napari_slnpredict.slide.stain import painter

    slide = opened.slide
    yield Stage("stain", "Looking at the stain")
    own, dyes = yield from _stain_of(slide, method, known)
    wanted, wanted_dyes = yield from _target_stain(target, method, known)
    yield Stage("paint", "Painting")
    painter(dyes, wanted_dyes, slide.path)  # refuses what must not be mixed, whatever the method looks at
    look = StainLook(painter(own, wanted, slide.path))
    return Stained(target, method, look, opened.pyramid.twin(look), own.tiles)


def discard_stained(stained: Stained) -> None:
    """End what nobody took."""
    stained.pyramid.close()


def _target_stain(target: Target, method: str, known: Known) -> Job[tuple[Stain, StainMatrix]]:
    from napari_slnpredict.slide.slide import open_slide
    from napari_slnpredict.slide.stain import REFERENCE

    if target.path is None:
        if method == "reinhard":
            raise DataError(
                "the reference is a pair of dyes, and Reinhard's method compares colours", do="choose a slide's stain"
            )
        return REFERENCE, REFERENCE
    yield Stage("open", f"Opening {target.path.name}")
    with open_slide(target.path) as slide:
        return (yield from _stain_of(slide, method, known))


def _stain_of(slide: Any, method: str, known: Known) -> Job[tuple[Stain, StainMatrix]]:
    """Return a slide's stain (with Reinhard's method its colours), and its two dyes in any case."""
    from napari_slnpredict.pipeline import check_slide
    from napari_slnpredict.slide.stain import slide_colours, slide_stain
    from napari_slnpredict.slide.tissue import find_tissue

    place, dyes = (slide.content_id, method), (slide.content_id, "macenko" if method == "reinhard" else method)
    if place not in known:
        check_slide(slide)
        yield Stage("tissue", f"Finding the tissue of {slide.slide_id}")
        tissue = find_tissue(slide)
        if dyes not in known:
            known[dyes] = yield from slide_stain(slide, tissue, method=dyes[1])
        if place not in known:
            known[place] = yield from slide_colours(slide, tissue)
    return known[place], known[dyes]
