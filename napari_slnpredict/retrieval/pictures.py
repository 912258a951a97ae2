"""The pictures of tiles that were found: each slide is opened once; one that is not where it was is named."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import SlnPredictError
from napari_slnpredict.events import Job, Partial, Stage

from .nearest import Hit
from .pages import Page

if TYPE_CHECKING:
    from napari_slnpredict.slide.slide import Slide

#: Side of a picture, px.
PICTURE_PX = 160
NOT_THERE = "not where the index says"
ANOTHER = "another slide lies in its place"


@dataclass
class Pictures:
    """What was read.

    Attributes
    ----------
    found : dict of int to (p, p, 3) uint8
        By the hit's number.
    missing : dict of str to str
        Content ids of slides that could not be read, and why.
    """

    found: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def read_pictures(
    hits: Sequence[Hit],
    where: Callable[[Page], Path | None],
    *,
    own: Slide | None = None,
    side: int = PICTURE_PX,
    there: Container[int] = (),
) -> Job[Pictures]:
    """Read the tiles' pictures, slide by slide in the order of the best hit.

    Parameters
    ----------
    hits : sequence of Hit
    where : callable
        Gives the file of a page's slide; None where nobody knows.
    own : Slide, optional
        A slide that is open already.
    side : int
        Longest side of a picture, px.
    there : container of int
        Numbers of hits whose pictures are not wanted.

    Yields
    ------
    Partial
        Of kind ``picture:<number>``, the picture; ``missing``, the `Pictures` so far.
    """
    pictures = Pictures()
    by_slide: dict[str, list[int]] = {}
    for number, hit in enumerate(hits):
        if number not in there:
            by_slide.setdefault(hit.page.content_id, []).append(number)
    for content_id, numbers in by_slide.items():
        page = hits[numbers[0]].page
        yield Stage("pictures", "Reading pictures")
        try:
            if own is not None and own.content_id == content_id:
                yield from _read(own, hits, numbers, side, pictures)
            else:
                yield from _open_and_read(where(page), hits, numbers, side, pictures)
        except SlnPredictError as error:
            pictures.missing[content_id] = error.what
        if content_id in pictures.missing:
            yield Partial("missing", pictures)
    return pictures


def _open_and_read(
    path: Path | None, hits: Sequence[Hit], numbers: list[int], side: int, pictures: Pictures
) -> Job[None]:
    from napari_slnpredict.slide.slide import open_slide

    content_id = hits[numbers[0]].page.content_id
    if path is None or not path.exists():
        pictures.missing[content_id] = NOT_THERE
        return
    with open_slide(path) as slide:
        if slide.content_id != content_id:
            pictures.missing[content_id] = ANOTHER
            return
        yield from _read(slide, hits, numbers, side, pictures)


def _read(slide: Slide, hits: Sequence[Hit], numbers: list[int], side: int, pictures: Pictures) -> Job[None]:
    for number in numbers:
        hit = hits[number]
        pictures.found[number] = square_picture(slide, hit.location, hit.page.size_level0, side)
        yield Partial(f"picture:{number}", pictures.found[number])


def square_picture(slide: Slide, corner: tuple[float, float], size_level0: float, side: int) -> NDArray[np.uint8]:
    """Read a square of a slide at no more detail than a picture of it shows, (p, p, 3) uint8, p at most `side`."""
    from PIL import Image

    level = slide.best_level(max(1.0, size_level0 / side))
    down = float(slide.level_downsamples[level])
    px = max(1, round(size_level0 / down))
    pixels, _ = slide.read_level(level, round(corner[0] / down), round(corner[1] / down), px, px)
    if px <= side:
        return np.asarray(pixels, np.uint8)
    small = Image.fromarray(np.ascontiguousarray(pixels)).resize((side, side), Image.Resampling.BOX)
    return np.asarray(small, np.uint8)
