"""Jobs of what surrounds the slide: its label, and where it was looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.events import Job, Stage

from . import last_view

#: By name ("label", "macro"): (h, w, 3) uint8.
Pictures = dict[str, NDArray[np.uint8]]
#: What is shown on request; the thumbnail adds nothing to the overview.
ASKED_FOR = ("label", "macro")


def has_label_job(slide: Any) -> Job[bool]:
    """Find out whether a slide has a picture that would be shown; decodes none."""
    yield Stage("label", "Looking for the slide's label")
    return any(name in ASKED_FOR for name in slide.associated_names())


def label_job(slide: Any) -> Job[Pictures]:
    """Decode the label and macro pictures; called only when somebody asked for them."""
    yield Stage("label", "Reading the slide's label")
    there = slide.associated_names()
    return {name: slide.associated(name) for name in ASKED_FOR if name in there}


def save_view_job(content_id: str, view: last_view.LastView, place: Path) -> Job[None]:
    """Remember where a slide was looked at."""
    yield Stage("view", "Remembering the view")
    last_view.save(content_id, view, place)
