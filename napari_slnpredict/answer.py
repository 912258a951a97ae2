"""The answer as a sentence a colleague would say, with its doubt in it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .bundles.bundle import Bundle
    from .encode.features import Bag
    from .mil.verdict import Verdict
    from .tile_classes import TileClasses

#: Without a calibrated set, a leading class below this share of belief is not named (0.5: a coin).
LEAST_BELIEF = 0.6

NO_TISSUE = "No tissue found on this slide."


def say(
    bundle: Bundle,
    verdict: Verdict | None,
    tiles: int,
    coarser: str = "",
    bag: Bag | None = None,
    classes: TileClasses | None = None,
) -> tuple[str, bool]:
    """Return the answer as a sentence a colleague would say, and whether it is sure."""
    if not tiles:
        return NO_TISSUE, False
    if verdict is None and classes is not None:
        told = classes.sentence()
        return (f"Not sure: the slide is coarser than the model knows. {told}", False) if coarser else (told, True)
    if verdict is None:
        damaged = int(np.sum(bag.damaged)) if bag is not None else 0
        return f"No verdict: {damaged:,} of {tiles:,} tissue tiles could not be read.", False
    domain = verdict.out_of_domain
    if domain is not None and not domain.get("inside", True):
        reason = str(domain.get("reason") or "unlike any training slide")
        return f"Outside what this model knows: {reason}.", False
    first = int(np.argmax(verdict.probabilities))
    name, belief = verdict.classes[first], float(verdict.probabilities[first])
    if coarser:
        leads = f"{name} leads with probability {belief_words(belief)}"
        return f"Not sure: the slide is coarser than the model knows; {leads}.", False
    if verdict.conformal is not None and len(verdict.conformal) != 1:
        return _open_set(verdict, bundle), False
    if verdict.conformal is None and belief < max(LEAST_BELIEF, 1.2 / len(verdict.classes)):
        return f"Not sure: {name} leads with probability {belief_words(belief)} only.", False
    low, high = _interval(verdict, name)
    doubt = f" ({low:.2f} to {high:.2f})" if not math.isnan(low) else ""
    return f"{task_title(bundle)} {name}: probability {belief_words(belief)}{doubt}.", True


def belief_words(probability: float) -> str:
    """Return a probability with two decimals; no model is ever certain, so 1.00 and 0.00 are not said."""
    if probability > 0.994:
        return "above 0.99"
    return "below 0.01" if probability < 0.006 else f"{probability:.2f}"


def task_title(bundle: Bundle) -> str:
    """Return the clinical question in a word or two: "SLN", "HER2", "Metastasis"."""
    title = bundle.task.get("title")
    if title:
        return str(title)
    name = str(bundle.task.get("name", "")).replace("-", " ").replace("_", " ").strip() or "This slide"
    return name.upper() if len(name.split()[0]) <= 4 and " " not in name else name[:1].upper() + name[1:]


def _interval(verdict: Verdict, name: str) -> tuple[float, float]:
    if not verdict.interval or name not in verdict.interval:
        return math.nan, math.nan
    low, high = verdict.interval[name]
    return float(low), float(high)


def _open_set(verdict: Verdict, bundle: Bundle) -> str:
    share = bundle.calibration.get("coverage", 0.9)
    names = ", ".join(str(name) for name in (verdict.conformal or ()))
    if not names:
        return f"Not sure: no class fits this slide at {100 * share:.0f} %."
    both = "both" if len(verdict.conformal or ()) == 2 else "all"
    return f"Not sure: {{{names}}} are {both} possible at {100 * share:.0f} %."
