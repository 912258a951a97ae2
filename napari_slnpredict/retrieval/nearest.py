"""Exact search for the nearest descriptors.

All tiles are compared in half precision, in blocks; the few that may be among the nearest are compared again in single
precision. With the bound on the rounding of the first that makes the search exact at half of the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import BundleMismatch, DataError
from napari_slnpredict.torch_door import import_torch

from .pages import Page

#: Rows compared at a time: every call of torch waits for all of its threads, which costs beside other work. How many
#: rows say what is worth keeping, and how many candidates the coarse pass hands on at first.
_ROWS, _SAMPLE, _CANDIDATES = 1 << 20, 1 << 16, 200
#: What half precision may change of a cosine: the rounding of both vectors (2 ** -11 each), and the sum's.
_SLACK = 4 * 2.0**-11
#: How much a tile that was called unlike pulls the question away.
_AGAINST = 0.5


@dataclass(frozen=True)
class Hit:
    """A tile found.

    Attributes
    ----------
    page : Page
    row : int
        Of the page.
    cosine : float
        Of the angle to the question, -1 to 1.
    """

    page: Page
    row: int
    cosine: float

    @property
    def location(self) -> tuple[int, int]:
        """Level-0 px, x then y, top-left corner."""
        x, y = self.page.places[self.row].tolist()
        return x, y

    @property
    def distance(self) -> float:
        """Distance of the two unit vectors, 0 to 2."""
        return float(np.sqrt(max(0.0, 2 - 2 * self.cosine)))


def question(like: NDArray[np.float32], unlike: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Join descriptors into the one that is searched for.

    Parameters
    ----------
    like : (m, k) float32
        What is looked for; at least one row.
    unlike : (l, k) float32, optional
        What is not ("not like this"): its mean pulls half as strongly the other way (Rocchio 1971).

    Returns
    -------
    (k,) float32 of length 1
    """
    if not len(like):
        raise DataError("no tile was given to search for", do="click a tile first")
    joined = np.asarray(like, np.float32).mean(axis=0)
    if unlike is not None and len(unlike):
        joined = joined - _AGAINST * np.asarray(unlike, np.float32).mean(axis=0)
    length = float(np.linalg.norm(joined))
    if not np.isfinite(length) or length == 0:
        raise DataError("the tiles given cancel each other out", do="search for fewer tiles at once")
    unit: NDArray[np.float32] = (joined / length).astype(np.float32)
    return unit


def search(
    pages: Sequence[Page],
    wanted: NDArray[np.float32],
    top: int = 20,
    *,
    leave_out: Callable[[Page], bool] | None = None,
    without: Sequence[tuple[str, int]] = (),
) -> list[Hit]:
    """Return the tiles nearest to a question, nearest first; exact.

    Parameters
    ----------
    pages : sequence of Page
    wanted : (k,) float32
        From `question`.
    top : int
    leave_out : callable, optional
        Pages not to look at: the question's own slide, or patient.
    without : sequence of (content id, row)
        Single tiles not to name: those that were asked with.

    Raises
    ------
    BundleMismatch
        The question is not of the index's encoder.
    """
    looked_at = [page for page in pages if len(page) and not (leave_out is not None and leave_out(page))]
    for page in looked_at:
        if page.width != len(wanted):
            raise BundleMismatch(
                f"the index holds descriptors of length {page.width}, the question has {len(wanted)}",
                do="search with the encoder the index was made with",
            )
    ends = np.cumsum([len(page) for page in looked_at], dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    named = set(without)
    few = _CANDIDATES + top + len(named)
    while True:
        rows, least = _candidates(looked_at, wanted, few)
        hits = [hit for hit in _measured(looked_at, ends, rows, wanted) if (hit.page.content_id, hit.row) not in named]
        hits.sort(key=lambda hit: -hit.cosine)
        # What the coarse pass left behind lies, exactly measured, no higher than this.
        if few >= total or (len(hits) >= top and hits[top - 1].cosine >= least + _SLACK):
            return hits[:top]
        few *= 8


def _measured(
    pages: Sequence[Page], ends: NDArray[np.int64], rows: NDArray[np.int64], wanted: NDArray[np.float32]
) -> Iterator[Hit]:
    """Compare some tiles, given by their number among all, in single precision."""
    which = np.searchsorted(ends, rows, side="right")
    for at in np.unique(which).tolist():
        page = pages[at]
        here = rows[which == at] - (ends[at] - len(page))
        for row, cosine in zip(here.tolist(), (page.exact[here] @ wanted).tolist(), strict=True):
            yield Hit(page, row, cosine)


def _candidates(pages: Sequence[Page], wanted: NDArray[np.float32], few: int) -> tuple[NDArray[np.int64], float]:
    """Return the `few` tiles nearest in half precision, as numbers among all tiles, and the lowest of their cosines."""
    torch = import_torch()
    asked = torch.from_numpy(wanted.astype(np.float16))
    rows, cosines = np.zeros(0, np.int64), np.zeros(0, np.float32)
    floor = -np.inf  # the lowest of `few` tiles known already: what lies below cannot be among them
    with torch.inference_mode():
        buffer = torch.empty(min(_ROWS, sum(len(page) for page in pages)), dtype=torch.float16)
        for first, blocks in _groups(pages):
            filled = 0
            for block in blocks:
                torch.mv(torch.from_numpy(block), asked, out=buffer[filled : filled + len(block)])
                filled += len(block)
            near = buffer[:filled].numpy()
            if floor == -np.inf and filled > _SAMPLE > few:
                floor = float(np.partition(near[:_SAMPLE].astype(np.float32), -few)[-few])
            places = np.flatnonzero(_at_least(near, floor))
            rows = np.concatenate([rows, first + places])
            cosines = np.concatenate([cosines, near[places].astype(np.float32)])
            if len(cosines) > few:
                kept = np.argpartition(-cosines, few - 1)[:few]
                rows, cosines = rows[kept], cosines[kept]
                floor = float(cosines.min())
    return rows, float(cosines.min()) if len(cosines) else -1.0


def _at_least(near: NDArray[np.float16], floor: float) -> NDArray[np.bool_]:
    """Return which numbers are no lower than one that is a half-precision number itself."""
    if floor > 0:  # halves above zero are ordered as their bits are, and whole numbers are compared faster
        return np.asarray(near.view(np.int16) >= np.float16(floor).view(np.int16))
    return np.asarray(near.astype(np.float32) >= floor)


def _groups(pages: Sequence[Page]) -> Iterator[tuple[int, list[NDArray[np.float16]]]]:
    """Yield blocks of rows, of several small pages or of a part of a large one, and the number of their first row.

    A cohort is thousands of pages: what follows the comparison costs as much for ten rows as for thousands.
    """
    first, filled, group = 0, 0, list[NDArray[np.float16]]()
    for page in pages:
        for start in range(0, len(page), _ROWS):
            block = page.coarse[start : start + _ROWS]
            if filled + len(block) > _ROWS:
                yield first, group
                first, filled, group = first + filled, 0, []
            group.append(block)
            filled += len(block)
    if group:
        yield first, group


def likeness(page: Page, wanted: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the cosine of every tile of a slide to a question, (n,) float32: the similarity layer."""
    return np.asarray(page.exact @ np.asarray(wanted, np.float32), np.float32)
