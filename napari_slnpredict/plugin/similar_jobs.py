"""What similar tiles need done beside the window; nothing here touches napari or Qt."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_slnpredict.events import Event, Job, Partial, Stage, relay
from napari_slnpredict.retrieval import Asked, Described, Hit, Index, Laid, Page
from napari_slnpredict.retrieval.leaving_out import NOTHING, OWN_SLIDE, LeftOut, own_patients, own_slides
from napari_slnpredict.settings import load_settings

from .model_jobs import NICE, Options
from .similar_ready import Prepared, Warm, build_network, prepare_job
from .similar_roles import COMPONENTS, SIMILARITY

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_slnpredict.retrieval import Components

    from .edits import TissueEdit

#: Tiles shown.
TOP = 20
#: What can be wanted beside the two layers (`similar_roles`).
HITS, PICTURES = "hits", "pictures"


@dataclass(frozen=True)
class Example:
    """A tile that is asked with, or shall be.

    Attributes
    ----------
    content_id, slide_id : str
    point : (float, float)
        Where it was clicked, x and y in level-0 px.
    like : bool
        False: "not like this".
    asked : Asked or None
        None: not looked at yet.
    picture : (p, p, 3) uint8 or None
    """

    content_id: str
    slide_id: str
    point: tuple[float, float]
    like: bool = True
    asked: Asked | None = None
    picture: NDArray[np.uint8] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Known:
    """What is known of the slide on the screen.

    Attributes
    ----------
    laid : Laid or None
        Its tiles.
    described : Described or None
        Their descriptors.
    """

    laid: Laid | None = None
    described: Described | None = None


@dataclass(frozen=True)
class Ask:
    """One thing to be done.

    Attributes
    ----------
    wants : tuple of str
        Of `HITS`, `PICTURES`, `SIMILARITY`, `COMPONENTS`.
    slide : Slide
        On the screen, open.
    encoder : str
    index : Index or None
        Where is looked; None: on this slide.
    left_out : str
        One of `leaving_out`'s words.
    examples : tuple of Example
    known : Known
    edit : TissueEdit or None
        What the user drew as tissue.
    where : callable
        Gives the file of a page's slide.
    before : sequence of Thread
        Threads that compute; embedding a slide waits for them.
    hits : tuple of Hit
        Whose pictures are wanted; those that are found are added.
    pictured : set of int
        Hits whose pictures are there.
    """

    wants: tuple[str, ...]
    slide: Any
    encoder: str
    index: Index | None
    left_out: str
    examples: tuple[Example, ...]
    known: Known
    edit: TissueEdit | None
    where: Callable[[Page], Path | None]
    before: Sequence[threading.Thread] = ()
    hits: tuple[Hit, ...] = ()
    pictured: frozenset[int] = frozenset()


def similar_job(
    ask: Ask, options: Options, warm: Warm, order: Callable[..., Any], moving: Callable[[], bool]
) -> Job[None]:
    """Do what is asked, the quickest first.

    Yields
    ------
    Partial
        ``laid`` and ``described`` (what becomes known of the slide), ``examples`` (looked at now), ``hits``,
        ``picture:<number>``, ``missing``, ``similarity`` ((Described, values)), ``components`` ((Described,
        Components)).
    """
    prepared = yield from prepare_job(ask.encoder, ask.index, options, warm)
    work = _Work(ask, prepared, load_settings(**options).cache_dir, order, moving)
    examples = yield from work.look_at_examples()
    hits = ask.hits
    if HITS in ask.wants:
        hits = yield from work.find(examples)
    if PICTURES in ask.wants:
        yield from work.read_pictures(hits)
    if SIMILARITY in ask.wants:
        from napari_slnpredict.retrieval import likeness

        described = yield from work.describe()
        yield Partial(SIMILARITY, (described, described.on_grid(likeness(described.page, question_of(examples)))))
    if COMPONENTS in ask.wants:
        from napari_slnpredict.retrieval import principal_components

        described = yield from work.describe()
        found: Components = principal_components(described.page)
        yield Partial(COMPONENTS, (described, found))


class _Work:
    """One job's way: what was found on it so far."""

    def __init__(
        self, ask: Ask, prepared: Prepared, cache: Path, order: Callable[..., Any], moving: Callable[[], bool]
    ) -> None:
        self.ask, self.prepared, self.cache, self.order, self.moving = ask, prepared, cache, order, moving
        self.laid, self.described = ask.known.laid, ask.known.described
        index = ask.index
        #: What the index holds of the slide on the screen.
        self.own: Page | None = index.page(ask.slide.content_id) if index is not None else None

    def look_at_examples(self) -> Job[list[Example]]:
        """Find the tile of each example: known already, of the index, or embedded now."""
        looked_at, here, changed = [], self.ask.slide.content_id, False
        for example in self.ask.examples:
            if example.asked is not None and example.asked.made_by == self.prepared.describer.made_by:
                looked_at.append(example)
                continue
            changed = True
            # A tile of another slide that another encoder has described cannot be looked at from here.
            if example.content_id == here:
                looked_at.append((yield from self._look_at(example)))
        if changed:
            yield Partial("examples", tuple(looked_at))
        return looked_at

    def _look_at(self, example: Example) -> Job[Example]:
        from napari_slnpredict.retrieval import ask_place
        from napari_slnpredict.retrieval.asking import asked_of

        slide = self.ask.slide
        page = self.described.page if self.described is not None else self.own
        asked = asked_of(page, *example.point) if page is not None else None
        if asked is None:
            laid = yield from self._lay()
            yield Stage("click", "Looking here")
            yield from build_network(self.prepared)
            asked = ask_place(slide, self.prepared.describer, laid, self.prepared.engine, *example.point)
        asked = replace(asked, content_id=slide.content_id, slide_id=slide.slide_id)
        picture = asked.picture if asked.picture is not None else self._picture(asked)
        return replace(example, asked=asked, picture=picture)

    def _picture(self, asked: Asked) -> NDArray[np.uint8]:
        from napari_slnpredict.retrieval.pictures import PICTURE_PX, square_picture

        return square_picture(self.ask.slide, asked.corner, asked.size_level0, PICTURE_PX)

    def find(self, examples: Sequence[Example]) -> Job[tuple[Hit, ...]]:
        """Find the nearest tiles."""
        from napari_slnpredict.retrieval import search
        from napari_slnpredict.retrieval.searching import rows_of

        index = self.ask.index
        pages = index.pages if index is not None else [(yield from self.describe()).page]
        left_out = left_out_of(self.ask, pages, examples) if index is not None else LeftOut()
        asked = [example.asked for example in examples if example.asked is not None]
        hits = search(pages, question_of(examples), TOP, leave_out=left_out.test, without=rows_of(pages, asked))
        yield Partial(HITS, (hits, left_out.words))
        return tuple(hits)

    def read_pictures(self, hits: Sequence[Hit]) -> Job[None]:
        """Read the pictures of the tiles that were found."""
        from napari_slnpredict.retrieval.pictures import read_pictures

        there = self.ask.pictured if HITS not in self.ask.wants else frozenset()
        job = read_pictures(hits, self.ask.where, own=self.ask.slide, there=there)
        yield from relay(job, _without_stages)

    def _lay(self) -> Job[Laid]:
        if self.laid is None:
            from napari_slnpredict.retrieval import lay_tiles
            from napari_slnpredict.slide.tissue import tissue_from_mask

            edit = self.ask.edit
            tissue = tissue_from_mask(edit.pixels, edit.mpp) if edit is not None else None
            self.laid = yield from lay_tiles(self.ask.slide, self.prepared.describer.spec, tissue)
        return self.laid

    def describe(self) -> Job[Described]:
        """Return the descriptors of the slide on the screen: known, of the index, of the cache, or embedded now."""
        if self.described is None:
            from napari_slnpredict.retrieval import described_from_page

            laid = yield from self._lay()
            if self.own is not None:
                self.described = described_from_page(self.own, laid.grid)
            if self.described is None:
                self.described = yield from self._embed(laid)
            yield Partial("described", self.described)
        return self.described

    def _embed(self, laid: Laid) -> Job[Described]:
        from napari_slnpredict.encode.engines import step_back
        from napari_slnpredict.retrieval import describe_slide

        while any(thread.is_alive() for thread in self.ask.before):
            yield Stage("wait", "Waiting for the run")
            time.sleep(0.1)
        step_back(NICE)
        return (
            yield from relay(
                describe_slide(
                    self.ask.slide, self.prepared.describer, cache=self.cache, engine=self.prepared.engine,
                    grid=laid.grid, order=self.order, nice=NICE, pressed=self.moving,
                ),
                _without_features,
            )
        )  # fmt: skip


def _without_stages(event: Event) -> Event | None:
    """Reading a few pictures is no work to be told of."""
    return None if isinstance(event, Stage) else event


def _without_features(event: Event) -> Event | None:
    """Leave out what nobody looks at: features on their way."""
    return None if isinstance(event, Partial) and event.kind == "features" else event


def question_of(examples: Sequence[Example]) -> NDArray[np.float32]:
    """Return what the examples ask for, (k,) float32."""
    from napari_slnpredict.retrieval.searching import joined

    like = [example.asked for example in examples if example.like and example.asked is not None]
    unlike = [example.asked for example in examples if not example.like and example.asked is not None]
    return joined(like, unlike)


def left_out_of(ask: Ask, pages: Sequence[Page], examples: Sequence[Example]) -> LeftOut:
    """Return what is not looked at: the slides that were asked with, or all of their patients'.

    Raises
    ------
    DataError
        The index does not know the patient of a slide that was asked with.
    """
    from napari_slnpredict.errors import DataError

    if ask.left_out == NOTHING:
        return LeftOut()
    names = {example.content_id: example.slide_id for example in examples}
    if ask.left_out == OWN_SLIDE:
        return own_slides(list(names), list(names.values()))
    known = {page.content_id: page.patient for page in pages}
    unknown = [name for content_id, name in names.items() if not known.get(content_id)]
    if unknown:
        raise DataError(
            f"the index does not say whose slide {unknown[0]} is",
            do="leave out the same slide only, or make the index from a table with patients",
        )
    return own_patients(pages, list(names), [known[content_id] for content_id in names])


def hit_example(hit: Hit, like: bool, picture: NDArray[np.uint8] | None) -> Example:
    """Return a tile that was found as one to ask with."""
    from napari_slnpredict.retrieval.asking import asked_of

    page, half = hit.page, hit.page.size_level0 / 2
    point = hit.location[0] + half, hit.location[1] + half
    return Example(page.content_id, page.slide_id, point, like, asked_of(page, *point), picture)
