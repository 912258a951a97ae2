"""Many slides into one index: what is there already is skipped, what changed is done again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from napari_slnpredict.events import run
from napari_slnpredict.files import digest_bytes

from .slides import Input, Label
from .work import Embedding, EmbedPlan, OnEvent, Stopped

if TYPE_CHECKING:
    from napari_slnpredict.retrieval import Describer, Index, Page
    from napari_slnpredict.slide.slide import Slide

#: What became of a slide.
ADDED, KEPT, RENAMED, REDONE, COPY = "added", "already in", "facts changed", "done again", "a copy"


@dataclass(frozen=True)
class IndexPlan(EmbedPlan):
    """Put the descriptors of slides into the index that is the output folder.

    Attributes
    ----------
    pseudonym : bool
        The index shall name no file and no patient.
    """

    pseudonym: bool = False

    def ready(self, threads: int | None = None) -> Indexing:
        """Load the encoder's record and its layer for descriptors, choose the device, read the index."""
        from napari_slnpredict.retrieval import Index, make_describer

        assert self.out is not None
        made = super().ready(threads)
        describer = make_describer(made.encoder, made.spec)
        index = Index(self.out)
        tile = made.spec.tile_px, made.spec.mpp
        index.require(describer.digest, describer.holds, tile, "these slides would have")
        inherited = {part.name: getattr(made, part.name) for part in fields(made)}
        return Indexing(**inherited, describer=describer, index=index, pseudonym=self.pseudonym)


@dataclass(frozen=True)
class Indexing(Embedding):
    """What every slide of an index is described with."""

    describer: Describer
    index: Index
    pseudonym: bool

    def __call__(
        self, slide: Slide, item: Input, label: Label, on_event: OnEvent, stop: Stopped
    ) -> tuple[dict[str, Any], str]:
        """Describe one slide's tissue tiles, unless the index holds them."""
        from napari_slnpredict.retrieval import describe_slide

        facts = self._facts(slide, item, label)
        there = self.index.look_again(slide.content_id)
        state = self._state(there, facts) if there is not None else ADDED
        if there is None:
            engine, cache = self.engine, self.plan.settings.cache_dir
            job = describe_slide(slide, self.describer, cache=cache, engine=engine)
            page = self.index.add(_with(run(job, on_event, stop).page, facts))
            state = REDONE if self._drop_older(page) else ADDED
        elif state == RENAMED:
            page = self.index.add(_with(there, _said(facts)))
        else:
            page = there
        return _told(page, state, facts["slide_id"])

    def _facts(self, slide: Slide, item: Input, label: Label) -> dict[str, str]:
        """Return what a page says of its slide beside the descriptors."""
        patient = item.patient
        if self.pseudonym and patient:  # slides of one patient must still be told from others
            patient = digest_bytes(patient)[:12]
        return {
            "slide_id": label.name(slide.content_id),
            "slide_path": "" if self.pseudonym else self.index.relative(item.path),
            "patient": patient,
            "label": item.label,
        }

    def _state(self, there: Page, facts: dict[str, str]) -> str:
        """Return what to do with a slide that the index holds."""
        if all(getattr(there, name) == value for name, value in _said(facts).items()):
            return KEPT
        old = self.index.slide_of(there)
        moved = facts["slide_path"] != there.slide_path
        if moved and facts["slide_path"] and old is not None and old.exists():
            return COPY
        return RENAMED

    def _drop_older(self, page: Page) -> bool:
        """Take out what this file held before it changed."""
        older = [
            known
            for known in self.index.pages
            if page.slide_path and known.slide_path == page.slide_path and known.content_id != page.content_id
        ]
        for known in older:
            self.index.remove(known)
        return bool(older)


def _told(page: Page, state: str, name: str) -> tuple[dict[str, Any], str]:
    """Return the record of a slide, and the line to show."""
    record: dict[str, Any] = {
        "slide_id": name, "content_id": page.content_id, "state": state, "tiles": len(page), "width": page.width,
        "descriptor": page.descriptor, "precision": page.precision,
        "encoder": {"name": page.encoder, "digest": page.encoder_digest},
    }  # fmt: skip
    if state == COPY:
        return record | {"copy_of": page.slide_id}, f"{state} of {page.slide_id}, which is in the index"
    if not len(page):
        return record, f"{state}: no tissue found on this slide"
    return record, f"{state}: {len(page):,} tiles, {page.holds}"


def _with(page: Page, facts: Mapping[str, str]) -> Page:
    """Return a page that says other things of its slide."""
    changed: dict[str, Any] = dict(facts)
    return replace(page, **changed)


def _said(facts: dict[str, str]) -> dict[str, str]:
    """Leave out what nobody said: a folder of slides knows no patients, and does not wipe out what a table said."""
    return {name: value for name, value in facts.items() if value or name not in ("patient", "label")}
