"""A comparison on disk: comparison.csv, comparison.png, comparison.html (one file), run.json."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from napari_slnpredict import __version__, provenance
from napari_slnpredict.files import write_file, write_json
from napari_slnpredict.report import picture_url, significant, thin

from .comparison import ALL_SETS, FIGURES, Comparison, Score
from .forest import AHEAD, BEHIND, forest_png, shown, verdict_colour

FORMAT = "napari-slnpredict comparison 1"
FILES = ("comparison.csv", "comparison.png", "comparison.html", "run.json")


def write_comparison(comparison: Comparison, folder: Path, record: Mapping[str, Any] | None = None) -> tuple[Path, ...]:
    """Write everything into a folder, each file whole or not at all; return the files.

    Parameters
    ----------
    record : mapping, optional
        What was asked for (command, inputs); goes to run.json. No paths, no host, no user.
    """
    folder = Path(folder)
    csv_file, png, html, run = (folder / name for name in FILES)
    write_file(csv_file, comparison_csv(comparison))
    write_file(png, forest_png(comparison))
    write_file(html, comparison_html(comparison))
    write_json(run, run_record(comparison, record or {}))
    return csv_file, png, html, run


def comparison_csv(comparison: Comparison) -> str:
    """Return one line a set, figure and arm; a cell without a number is empty."""
    buffer = io.StringIO()
    names = [field.name for field in dataclasses.fields(Score)]
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*names, "baseline"])
    for score in comparison.scores:
        writer.writerow([*(_cell(getattr(score, name)) for name in names), comparison.baseline])
    return buffer.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else ""
    return value


def run_record(comparison: Comparison, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of run.json: what ran, on what, with what, for how long."""
    return {
        "format": FORMAT,
        "finished": provenance.now(),
        "versions": provenance.versions(),
        "machine": provenance.machine(),
        "baseline": comparison.baseline,
        "arms": [dataclasses.asdict(arm) for arm in comparison.arms],
        "sets": [{**dataclasses.asdict(one), "notes": list(one.notes)} for one in comparison.sets],
        "options": dict(comparison.options),
        "asked": dict(record),
        "failures": [dataclasses.asdict(failure) for failure in comparison.failures],
        "seconds": {name: round(value, 3) for name, value in comparison.seconds.items()},
    }


def comparison_html(comparison: Comparison) -> str:
    """Return the report: one file that stands alone, on screen and on paper."""
    return str(
        _template().render(
            comparison=comparison,
            answer=answer_words(comparison),
            main=_main_set(comparison),
            names=[shown(arm.name) for arm in comparison.arms],
            # The mean of all is what the first sentence is about: it comes first.
            sets=[_set_page(comparison, name) for name in sorted(comparison.set_names, key=lambda n: n != ALL_SETS)],
            figures=FIGURES,
            costs=_costs(comparison),
            overlap=any("OVERLAP" in score.note for score in comparison.scores),
            all_sets=ALL_SETS,
            draws=comparison.options.get("draws"),
            versions=provenance.versions(),
            made=provenance.now(),
            version=__version__,
        )
    )


@cache
def _template() -> Any:
    import jinja2

    text = resources.files("napari_slnpredict").joinpath("templates", "comparison.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["sig"] = significant
    environment.filters["thin"] = thin
    environment.filters["picture"] = picture_url
    return environment.from_string(text)


def _main_set(comparison: Comparison) -> str:
    """Return the set the first sentence is about: the mean of all, where there are several."""
    return comparison.set_names[-1] if comparison.set_names else ""


def answer_words(comparison: Comparison) -> str:
    """Return one sentence: the two highest by the first main figure, and how far the first is from the baseline."""
    name = _main_set(comparison)
    figure = next((one for one in comparison.figures(name) if FIGURES[one].main), "")
    scores = [s for s in comparison.scores if (s.set, s.figure) == (name, figure) and math.isfinite(s.value)]
    if not scores:
        return "Nothing could be compared."
    best, *others = sorted(scores, key=lambda score: -score.value)
    said = f"Highest {figure}: {best.arm} {value_words(best)}"
    if math.isfinite(best.gain):
        sure = "" if best.gain_low > 0 else ", which may be chance"
        said += f", {gain_words(best)} from {comparison.baseline}{sure}"
    return f"{said}; then {others[0].arm} {_number(others[0].value)}." if others else f"{said}."


def value_words(score: Score) -> str:
    """Return a figure with its interval."""
    text = _number(score.value)
    return f"{text} ({_number(score.low)} to {_number(score.high)})" if math.isfinite(score.low) else text


def gain_words(score: Score) -> str:
    """Return the difference from the baseline with its interval, "" for the baseline itself."""
    if not math.isfinite(score.gain):
        return ""
    text = _number(score.gain, signed=True)
    if not math.isfinite(score.gain_low):
        return text
    return f"{text} ({_number(score.gain_low, signed=True)} to {_number(score.gain_high, signed=True)})"


def _number(value: float, *, signed: bool = False) -> str:
    if not math.isfinite(value):
        return "–"
    text = f"{abs(value):.2f}"
    sign = "−" if value < 0 and float(text) else ("+" if signed else "")
    return f"{sign}{text}"


def _set_page(comparison: Comparison, name: str) -> dict[str, Any]:
    """Return what the report shows of a set."""
    rows = []
    for figure in comparison.figures(name):
        if figure in ("ms per tile", "bytes per tile"):
            continue
        scores = [comparison.score(name, figure, arm.name) for arm in comparison.arms]
        held = [score for score in scores if score is not None]
        rows.append(
            {
                "figure": FIGURES[figure],
                "chance": held[0].base_rate,
                "count": held[0].count,
                "cells": [_cell_words(score) for score in scores],
                "notes": sorted({score.note for score in held} - {""}),
            }
        )
    facts = next((one for one in comparison.sets if one.name == name), None)
    return {
        "name": name,
        "facts": facts,
        "rows": rows,
        "picture": ("png", forest_png(comparison, [name], titled=False)) if rows else None,
    }


def _cell_words(score: Score | None) -> dict[str, str]:
    if score is None:
        return {"value": "–", "range": "", "gain": "", "gain_range": "", "kind": ""}
    value, gain = value_words(score), gain_words(score)
    kind = {AHEAD: "ahead", BEHIND: "behind"}.get(verdict_colour(score), "")
    parts = [*value.split(" ", 1), ""][:2], [*gain.split(" ", 1), ""][:2]
    (number, spread), (apart, apart_spread) = parts
    return {
        "value": number,
        "range": spread.strip("()"),
        "gain": apart,
        "gain_range": apart_spread.strip("()"),
        "kind": kind,
    }


def _costs(comparison: Comparison) -> list[dict[str, Any]]:
    """Return, for each arm, what it is and what it costs."""
    found = []
    for arm in comparison.arms:
        ms = [s.value for s in comparison.scores if (s.arm, s.figure) == (arm.name, "ms per tile")]
        found.append({"arm": arm, "ms": ms[0] if ms else None, "bytes": 4 * arm.dim})
    return found
