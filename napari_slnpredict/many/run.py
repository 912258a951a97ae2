"""Many slides on this machine, one after another: a bad slide costs itself, a full disk ends the run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Protocol

from napari_slnpredict.events import Event

from .slides import Named
from .work import Plan, Receipt, Stopped, Work, do_slide


class Listener(Protocol):
    """Hears what becomes of each slide; `place` is the slide's in the list that was given, from 0."""

    def began(self, place: int) -> None:
        """Work on a slide begins (on a cluster perhaps again)."""

    def told(self, place: int, event: Event) -> None:
        """A slide's job says something."""

    def ended(self, place: int, receipt: Receipt) -> None:
        """A slide is finished or failed."""

    def say(self, text: str) -> None:
        """Something about the run as a whole."""


def run_here(plan: Plan, work: Work, slides: Sequence[Named], listener: Listener, stop: Stopped) -> None:
    """Work on each slide in turn, until the last, a stop, or a failure of the environment."""
    for place, slide in enumerate(slides):
        if stop():
            return
        listener.began(place)
        receipt = do_slide(plan, lambda: work, slide, partial(listener.told, place), stop)
        if receipt.stopped:
            return
        listener.ended(place, receipt)
        if receipt.ends_run:
            return
