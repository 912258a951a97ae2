"""What the dock says: numbers with units, sentences, errors. No Qt here."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_slnpredict.answer import belief_words
from napari_slnpredict.errors import SlnPredictError, one_line
from napari_slnpredict.events import Progress, Stage

THIN = "\u2009"  # between groups of three digits
MINUS = "\u2212"


@dataclass(frozen=True)
class Problem:
    """Something that went wrong, as the dock shows it."""

    title: str
    text: str
    details: str = ""


def count(number: float) -> str:
    """Return a whole number with commas: ``1,240``."""
    return f"{round(number):,}"


def three(number: float) -> str:
    """Return a number to three significant digits, without an exponent where people would not use one."""
    if not math.isfinite(number):
        return "unknown"
    if number == 0:
        return "0"
    size = abs(number)
    if size >= 1000:
        text = f"{size:,.0f}"
    elif size >= 1e-4:
        decimals = max(0, 2 - math.floor(math.log10(size)))
        text = f"{size:.{decimals}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    else:
        text = f"{size:.2g}"
    return (MINUS if number < 0 else "") + text


def signed(number: float) -> str:
    """Return a number to three significant digits with its sign: ``+0.012``."""
    return three(number) if number < 0 or number == 0 else f"+{three(number)}"


def duration(seconds: float) -> str:
    """Return a time people can feel: ``22 s``, ``3 min``, ``1 h 10 min``."""
    if seconds < 0.95:
        return f"{max(seconds, 0):.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def area(mm2: float) -> str:
    """Return an area in mm²."""
    return f"{mm2:.1f} mm²" if mm2 >= 0.95 else f"{three(round(mm2, 3))} mm²"


def magnification(um_per_screen_px: float) -> str:
    """Return ``20x · 0.50 µm/px`` for what one screen pixel shows."""
    if not um_per_screen_px > 0:
        return ""
    times = 10.0 / um_per_screen_px
    shown = f"{times:.0f}" if times >= 9.95 else f"{times:.1f}" if times >= 0.995 else f"{times:.2f}"
    fine = f"{um_per_screen_px:.2f}" if um_per_screen_px < 9.995 else f"{um_per_screen_px:.0f}"
    return f"{shown}x · {fine} µm/px"


def slide_facts(slide: Any) -> str:
    """Return size, scale and its source, and the reader."""
    width, height = slide.dimensions
    scale = f"{slide.mpp:.3g} µm/px ({slide.mpp_source})" if slide.mpp else "no pixel size"
    return f"{count(width)} × {count(height)} px · {scale} · {slide.reader}"


def stage_line(stage: Stage | None, progress: Progress | None, elapsed: float, *, stopping: bool = False) -> str:
    """Return the line under the progress bar: what is being done, how far, how fast, how long still."""
    if stopping:
        return "Stopping after the tiles in hand…"
    if stage is None:
        return f"Starting · {duration(elapsed)}"
    if progress is None or progress.total <= 1:
        return f"{stage.text} · {duration(elapsed)}"
    unit = stage.unit or "tiles"
    parts = [f"{count(progress.done)} / {count(progress.total)} {unit}"]
    if progress.per_second:
        parts.append(f"{three(progress.per_second)}/s")
    if progress.seconds_left is not None:
        parts.append(f"{duration(progress.seconds_left)} left")
    return f"{stage.text}: " + " · ".join(parts)


def stopped_line(progress: Progress | None) -> str:
    """Return what a cancelled run leaves behind."""
    if progress is None or progress.done == 0:
        return "Stopped. Run starts again."
    return f"Stopped. {count(progress.done)} tiles are kept; Run continues from there."


def problem_of(error: BaseException, details: str = "") -> Problem:
    """Return an exception as the dock shows it: file, fault, remedy; the traceback only among the details."""
    if isinstance(error, SlnPredictError):
        return Problem(error.title, str(error), details)
    if isinstance(error, MemoryError):
        return Problem("This machine cannot do it", "There is not enough memory. Close other programs.", details)
    text = one_line(f"{type(error).__name__}: {error}", 300)
    return Problem("Something went wrong", f"{text}. Copy the details into a report to the authors.", details)


def probability_line(name: str, value: float, interval: Sequence[float] | None) -> str:
    """Return ``positive 0.83 (0.71 to 0.91)``."""
    doubt = f"  ({interval[0]:.2f} to {interval[1]:.2f})" if interval is not None else ""
    return f"{name}  {belief_words(value)}{doubt}"


def doubt_lines(verdict: Any, coverage: float) -> list[str]:
    """Return how far the answer may be trusted; nothing is said that the model cannot tell."""
    lines = []
    if verdict.conformal is not None:
        names = ", ".join(str(name) for name in verdict.conformal) or "none"
        lines.append(f"Sure enough to say: {{{names}}} · {coverage:.0%} set")
    domain = verdict.out_of_domain
    if domain is not None:
        inside = "yes" if domain.get("inside", True) else "no"
        where = domain.get("percentile")
        rank = f" ({ordinal(round(float(where)))} percentile)" if where is not None else ""
        lines.append(f"Inside what the model knows: {inside}{rank}")
    if verdict.interval is None and verdict.conformal is None:
        lines.append("No interval: this model was not calibrated.")
    return lines


def ordinal(number: int) -> str:
    """Return ``41st``."""
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def range_line(low: float, high: float, unit: str, *, top: float | None = None) -> str:
    """Return the range a map's colours span, with its unit."""
    more = f", highest {three(top)}" if top is not None and top > high * 1.01 else ""
    return f"{three(low)} to {three(high)}{' ' + unit if unit else ''}{more}"


def score_choice(scores: Any, column: str, scale: str) -> str:
    """Return a column of a score file as the user chooses it: ``attention, × mean · slide.h5``."""
    told = {"times": ", × mean", "rank": ", rank", "value": ""}[scale]
    return f"{column}{told} · {scores.source}"


def score_lines(answer: Any) -> list[str]:
    """Return what is known of a tile from somebody's scores, a fact a line."""
    if answer.tile is None or not answer.name:
        return [f"{answer.reason[:1].upper()}{answer.reason[1:]}."]
    lines = []
    if answer.value is None:
        lines.append(f"{answer.name}: {answer.reason}")
    else:
        unit = f" {answer.unit}" if answer.unit in ("logit", "probability") else ""
        lines.append(f"{answer.name} {three(answer.value)}{unit}")
        if answer.times_mean is not None:
            lines.append(f"{three(answer.times_mean)} × mean")
        lines.append(f"rank {count(answer.rank)} of {count(answer.of)}")
        lines.append(f"{below(answer.percentile)} of the others are below")
    return lines + [f"{name} {three(value)}" for name, value in answer.others]


def below(percent: float) -> str:
    """Return a share of tiles in per cent, as exact as it matters."""
    return f"{percent:.0f} %" if percent <= 99 or percent >= 100 else f"{percent:.2f}".rstrip("0") + " %"


def score_facts(scores: Any) -> str:
    """Return what a score file is: ``from CLAM · 1,240 tiles of 1,024 px``."""
    side = three(scores.places.size_level0)
    return f"from {scores.program} · {count(len(scores.places))} tiles of {side} px"


def size_hint(apart: float | None) -> str:
    """Return what is known about the size of tiles whose file does not say it."""
    told = "" if apart is None else f", {apart:g}"
    return f"The side of a tile, in the unit of the places. Without overlap it is their distance{told}."


def view_command(slide: Path, scores: Any, answers: Any, mpp: float | None) -> str:
    """Return the command that shows a slide with somebody's scores."""
    parts = ["slnpredict", "view", str(slide), "--scores", str(scores)]
    parts += ["--scores-size", f"{answers.size:g}"] if answers.size is not None else []
    parts += ["--scores-unit", answers.unit] if answers.unit else []
    return shlex.join(parts + (["--mpp", f"{mpp:g}"] if mpp is not None else []))


def drive_words(slide: Path | None) -> str:
    """Return what is said while a slide's drive does not answer; nothing for None."""
    if slide is None:
        return ""
    return f"The drive does not answer: {slide.name}. Places not loaded yet stay blurred; they are tried again."


def command_line(
    path: Path, model: str, *, device: str, mpp: float | None, out: Path | None, default_device: str = "auto"
) -> str:
    """Return the command that does what the dock did."""
    parts = ["slnpredict", "predict", str(path), "--model", model]
    if mpp is not None:
        parts += ["--mpp", f"{mpp:g}"]
    if device != default_device:
        parts += ["--device", device]
    if out is not None:
        parts += ["--out", str(out)]
    return shlex.join(parts)
