"""What a search does not look at: the asked tile's own slide, or all slides of its patient.

Neighbours on one slide are alike without meaning anything, and so are slides of one patient (one stain, one scan).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .pages import Page

#: What can be left out.
NOTHING, OWN_SLIDE, OWN_PATIENT = "nothing", "own slide", "own patient"


@dataclass(frozen=True)
class LeftOut:
    """Pages that are not looked at.

    Attributes
    ----------
    test : callable
        Whether a page is left out.
    words : str
        What that is, for people; "" for nothing.
    """

    test: Callable[[Page], bool] = field(default=lambda page: False, repr=False)
    words: str = ""


def own_slides(content_ids: Sequence[str], names: Sequence[str]) -> LeftOut:
    """Leave out the slides that were asked with."""
    here = frozenset(content_ids)
    return LeftOut(lambda page: page.content_id in here, ", ".join(dict.fromkeys(names)))


def own_patients(pages: Sequence[Page], content_ids: Sequence[str], patients: Sequence[str]) -> LeftOut:
    """Leave out every slide of some patients, the slides asked with, and those whose patient nobody knows."""
    here, named = frozenset(content_ids), frozenset(patients)

    def test(page: Page) -> bool:
        return not page.patient or page.patient in named or page.content_id in here

    unknown = sum(not page.patient and page.content_id not in here for page in pages)
    words = "patient " + ", ".join(dict.fromkeys(patients))
    if unknown:
        words += f", {unknown:,} slide{'s' * (unknown > 1)} of unknown patients"
    return LeftOut(test, words)
