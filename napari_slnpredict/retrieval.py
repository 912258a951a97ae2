"""Similar tiles: exact search for the nearest descriptors in a slide or in an index of many slides.

An index is a folder with one page a slide, a safetensors file of its own that says what it is: adding a slide touches
nothing else, a killed run goes on where it was, and several processes may add to one index. A page holds the
descriptors twice: in half precision, which a search reads whole, and in single precision, of which it reads the few
rows that may be among the nearest. With the bound on the rounding of the first that makes the search exact at half of
the memory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.bundles.bundle import tensor_bytes
from napari_slnpredict.bundles.weights import map_tensors
from napari_slnpredict.encode.descriptor import Projection, describe
from napari_slnpredict.encode.features import Bag
from napari_slnpredict.errors import BundleMismatch, DataError
from napari_slnpredict.files import digest_bytes, write_file
from napari_slnpredict.torch_door import import_torch

FORMAT = "napari-slnpredict index page 1"
SUFFIX = ".page"
#: Rows compared at a time, and how many candidates the coarse pass hands on at first.
_ROWS, _CANDIDATES = 65_536, 200
#: What half precision may change of a cosine: the rounding of both vectors (2 ** -11 each), and the sum's.
_SLACK = 4 * 2.0**-11
#: How much a tile that was called unlike pulls the question away.
_AGAINST = 0.5


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

    def __len__(self) -> int:
        return len(self.places)


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
    grid = bag.grid
    digest = bag.encoder_digest if projection is None else digest_bytes(bag.encoder_digest, projection.digest)
    return Page(
        grid.slide_id, content_id, patient, label, slide_path, bag.encoder_name, digest, bag.precision,
        grid.spec.tile_px, grid.spec.mpp, grid.size_level0, grid.locations[kept], exact.astype(np.float16), exact,
    )  # fmt: skip


_FACTS = (
    "slide_id", "content_id", "patient", "label", "slide_path", "encoder", "encoder_digest", "precision", "tile_px",
    "mpp", "size_level0",
)  # fmt: skip


class Index:
    """A folder of pages, all of one encoder and one size of tile.

    Parameters
    ----------
    folder : Path
        Need not exist yet.

    Raises
    ------
    DataError
        A page that cannot be read (named).
    BundleMismatch
        Pages of different encoders (both named).
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.pages: list[Page] = []
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            page = _read(path)
            self.check(page)
            self.pages.append(page)

    def __len__(self) -> int:
        """Return the number of tiles."""
        return sum(len(page) for page in self.pages)

    def holds(self, content_id: str) -> bool:
        """Whether a slide is in it, under whatever name."""
        return any(page.content_id == content_id for page in self.pages)

    def check(self, page: Page) -> None:
        """Raise `BundleMismatch` unless a page's descriptors can be compared with those here."""
        if not self.pages:
            return
        first = self.pages[0]
        if page.encoder_digest != first.encoder_digest:
            raise BundleMismatch(
                f"the index holds descriptors of {first.encoder} ({first.encoder_digest[:8]}), {page.slide_id} has "
                f"those of {page.encoder} ({page.encoder_digest[:8]})",
                file=self.folder,
                do="make another index for another encoder",
            )
        if (page.tile_px, page.mpp) != (first.tile_px, first.mpp):
            raise BundleMismatch(
                f"the index holds tiles of {first.tile_px} px at {first.mpp:g} um/px, {page.slide_id} has "
                f"{page.tile_px} px at {page.mpp:g}",
                file=self.folder,
                do="make another index for tiles of another size",
            )

    def add(self, page: Page) -> Page:
        """Write a page, whole or not at all, in place of an older one of the same slide; return it as read back."""
        self.pages = [known for known in self.pages if known.content_id != page.content_id]
        self.check(page)
        facts = json.dumps({"format": FORMAT} | {name: getattr(page, name) for name in _FACTS})
        tensors: dict[str, NDArray[Any]] = {
            "facts": np.frombuffer(facts.encode(), np.uint8),
            "places": page.places,
            "coarse": page.coarse,
            "exact": page.exact,
        }
        path = write_file(self.folder / f"{page.content_id[:40]}{SUFFIX}", tensor_bytes(tensors))
        self.pages.append(_read(path))
        return self.pages[-1]

    def relative(self, slide: Path) -> str:
        """Return a slide's path as a page names it: from the index's folder, so that both can move together."""
        return Path(os.path.relpath(Path(slide).resolve(), self.folder.resolve())).as_posix()

    def slide_of(self, page: Page) -> Path | None:
        """Return where the slide of a page should lie; None where the page does not say."""
        return (self.folder / page.slide_path).resolve() if page.slide_path else None


def _read(path: Path) -> Page:
    tensors = map_tensors(path)
    try:
        facts: dict[str, Any] = json.loads(bytes(tensors["facts"]))
        if facts["format"] != FORMAT:
            raise DataError("is an index page of another version", file=path, do="make the index again")
        values = {name: facts[name] for name in _FACTS}
        page = Page(**values, places=tensors["places"], coarse=tensors["coarse"], exact=tensors["exact"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise DataError("is not a page of an index", file=path, do="remove it and index the slide again") from error
    n, k = page.exact.shape if page.exact.ndim == 2 else (-1, -1)
    shapes = page.places.shape == (n, 2) and page.coarse.shape == (n, k)
    types = page.places.dtype == np.int64 and page.coarse.dtype == np.float16 and page.exact.dtype == np.float32
    words = all(isinstance(values[name], str) for name in _FACTS[:8])
    if not (shapes and types and words):
        raise DataError("its parts do not fit together", file=path, do="remove it and index the slide again")
    return page


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
        if page.exact.shape[1] != len(wanted):
            raise BundleMismatch(
                f"the index holds descriptors of length {page.exact.shape[1]}, the question has {len(wanted)}",
                do="search with the encoder the index was made with",
            )
    total = sum(len(page) for page in looked_at)
    named = set(without)
    few = _CANDIDATES + top + len(named)
    while True:
        which, rows, least = _candidates(looked_at, wanted, few)
        hits = [
            Hit(looked_at[w], int(r), float(looked_at[w].exact[r] @ wanted))
            for w, r in zip(which, rows, strict=True)
            if (looked_at[w].content_id, int(r)) not in named
        ]
        hits.sort(key=lambda hit: -hit.cosine)
        # What the coarse pass left behind lies, exactly measured, no higher than this.
        if few >= total or (len(hits) >= top and hits[top - 1].cosine >= least + _SLACK):
            return hits[:top]
        few *= 8


def _candidates(
    pages: Sequence[Page], wanted: NDArray[np.float32], few: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], float]:
    """Return page, row and lowest coarse cosine of the `few` tiles nearest in half precision."""
    torch = import_torch()
    asked = torch.from_numpy(wanted.astype(np.float16))
    which, rows, cosines = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
    floor = -np.inf  # the lowest of `few` tiles known already: what lies below cannot be among them
    with torch.inference_mode():
        for at, start, block in _blocks(pages):
            near = torch.mv(torch.from_numpy(block), asked)
            places = torch.nonzero(near >= floor).flatten()
            which = np.concatenate([which, np.full(len(places), at)])
            rows = np.concatenate([rows, start + places.numpy()])
            cosines = np.concatenate([cosines, near[places].float().numpy()])
            if len(cosines) > few:
                kept = np.argpartition(-cosines, few - 1)[:few]
                which, rows, cosines = which[kept], rows[kept], cosines[kept]
                floor = float(cosines.min())
    return which, rows, float(cosines.min()) if len(cosines) else -1.0


def _blocks(pages: Sequence[Page]) -> Iterator[tuple[int, int, NDArray[np.float16]]]:
    for at, page in enumerate(pages):
        for start in range(0, len(page), _ROWS):
            yield at, start, page.coarse[start : start + _ROWS]


def likeness(page: Page, wanted: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the cosine of every tile of a slide to a question, (n,) float32: the similarity layer."""
    return np.asarray(page.exact @ np.asarray(wanted, np.float32), np.float32)


def principal_colours(page: Page) -> NDArray[np.float32]:
    """Return a colour for each tile: its place along the slide's first three principal components.

    Each component runs from its 1st percentile (0) to its 99th (1); its sign is such that its longest entry is
    positive, so that the same slide has the same colours every time.

    Returns
    -------
    (n, 3) float32, 0 to 1; grey where the slide's tiles do not differ
    """
    colours = np.full((len(page), 3), 0.5, np.float32)
    if len(page) < 2:
        return colours
    centred = page.exact - page.exact.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T.astype(np.float64) @ centred)
    for channel, axis in enumerate(axes.T[::-1][:3]):
        upright = axis * np.sign(axis[np.abs(axis).argmax()])
        along = centred @ upright.astype(np.float32)
        low, high = np.percentile(along, (1, 99))
        if high - low > 1e-6:
            colours[:, channel] = np.clip((along - low) / (high - low), 0, 1)
    return colours
