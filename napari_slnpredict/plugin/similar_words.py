"""What the dock of similar tiles says. No Qt here."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_slnpredict.events import Progress
from napari_slnpredict.retrieval.leaving_out import OWN_PATIENT, OWN_SLIDE

from . import words

if TYPE_CHECKING:
    from napari_slnpredict.retrieval import Hit, Index

    from .similar_jobs import Example

#: How the choice of what is left out is told, and its option on the command line.
LEFT_OUT_WORDS = {"nothing": "all slides", OWN_SLIDE: "other slides only", OWN_PATIENT: "other patients only"}
_OPTIONS = {OWN_SLIDE: "--other-slides", OWN_PATIENT: "--other-patients"}


def index_facts(index: Index) -> str:
    """Return what an index holds: ``4 slides, 1,240 tiles of 128 µm · 128-d projection of hne-small``."""
    first = index.first
    assert first is not None
    slides = f"{words.count(len(index.pages))} slide{'s' * (len(index.pages) != 1)}"
    return f"{slides}, {words.count(len(index))} tiles of {words.three(first.tile_px * first.mpp)} µm · {first.holds}"


def distance(value: float) -> str:
    """Return a distance as it stands below a tile."""
    return f"{value:.2f}"


def hit_lines(hit: Hit, number: int) -> str:
    """Return what is known of a tile that was found, a fact a line."""
    page, (x, y) = hit.page, hit.location
    lines = [f"{number + 1}. {page.slide_id}"]
    lines += [f"label {page.label}"] if page.label else []
    lines += [f"patient {page.patient}"] if page.patient else []
    lines.append(f"distance {hit.distance:.3f} (0 the same, 1.41 nothing in common), cosine {words.three(hit.cosine)}")
    lines.append(f"x {words.count(x)}, y {words.count(y)} px")
    return "\n".join([*lines, "Press to go there. Right button: more like this, not like this."])


def found_line(hits: Sequence[Hit], left_out: str) -> str:
    """Return what was found."""
    if not hits:
        return "No other tile was found" + (f"; not looked at: {left_out}." if left_out else ".")
    slides = len({hit.page.content_id for hit in hits})
    found = f"The {len(hits)} nearest tiles, on {slides} slide{'s' * (slides != 1)}."
    return found + (f" Not looked at: {left_out}." if left_out else "")


def stopped_line(progress: Progress | None) -> str:
    """Return what a cancelled search leaves behind."""
    if progress is None or progress.done == 0:
        return "Stopped."
    return f"Stopped. {words.count(progress.done)} tiles are kept; the next search continues from there."


def shares_line(shares: Any) -> str:
    """Return what the colours of the components tell: how much of the differences between tiles each of them shows."""
    named = zip(("red", "green", "blue"), shares, strict=True)
    told = ", ".join(f"{name} {share:.0%}" for name, share in named)
    return f"{told} of the variance: {sum(shares):.0%} together."


def range_line(low: float, high: float, top: float) -> str:
    """Return the range of the similarity's colours."""
    more = f", highest {words.three(top)}" if top > high + 5e-3 else ""
    return f"cosine {low:.2f} (the slide's median) to {high:.2f}{more}"


def lost_line(hit: Hit, said: Path | None) -> str:
    """Return what is asked when a slide is not where its index says."""
    folder = f" in {said.parent.name or said.parent}" if said is not None else ""
    return f"The slide {hit.page.slide_id} is not{folder} any more. Where is it now?"


def command(
    slide: Path,
    index: Path | None,
    encoder: str,
    examples: Sequence[Example],
    left_out: str,
    paths: Mapping[str, Path],
) -> str:
    """Return the commands that do what the dock does; on the slide alone an index of it is made first."""
    lines = []
    if index is None:
        index = Path(f"{slide.stem}-index")
        lines.append(shlex.join(["slnpredict", "index", str(slide), "--encoder", encoder, "--out", str(index)]))
    asked = [example for example in examples if example.asked is not None]
    if not asked:
        return "\n".join(lines)
    # A command asks with places of one slide: that of the first tile.
    first = asked[0].content_id
    parts = ["slnpredict", "search", str(index), "--slide", str(paths.get(first, slide))]
    for example in asked:
        if example.content_id == first and example.asked is not None:
            x, y = (place + example.asked.size_level0 / 2 for place in example.asked.corner)
            parts += ["--at" if example.like else "--unlike", f"{x:.0f},{y:.0f}px"]
    parts += [_OPTIONS[left_out]] if left_out in _OPTIONS else []
    return "\n".join([*lines, shlex.join(parts)])
