"""The report of a comparison: complete, the same every time, safe, and one file."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from napari_slnpredict.evaluate.comparison import ArmFacts, Comparison, Failure, Measured, SetFacts, scores_of
from napari_slnpredict.evaluate.comparison_files import (
    answer_words,
    comparison_csv,
    comparison_html,
    gain_words,
    run_record,
    write_comparison,
)
from napari_slnpredict.evaluate.forest import AHEAD, BEHIND, EVEN, forest_png, verdict_colour


@pytest.fixture(scope="module")
def compared() -> Comparison:
    import numpy as np

    rng = np.random.default_rng(0)

    def drawn(middle: float) -> np.ndarray:
        return np.array([middle, *rng.normal(middle, 0.02, 200)])

    measured = {
        "probe AUC": {name: Measured(drawn(v), 0.5, 90, 12, "own") for name, v in
                      (("<b>mine</b>", 0.9), ("colour", 0.7), ("worse", 0.6))},
        "stain: probe AUC lost": {name: Measured(drawn(v), float("nan"), 90, 12) for name, v in
                                  (("<b>mine</b>", 0.05), ("colour", 0.3), ("worse", 0.31))},
        "bytes per tile": {name: Measured(np.array([512.0]), float("nan"), 90) for name in ("<b>mine</b>", "colour")},
    }  # fmt: skip
    scores = scores_of("set <1>", measured, "colour")
    arms = tuple(ArmFacts(name, f"digest-{name}", 128, "MIT") for name in ("<b>mine</b>", "colour", "worse"))
    facts = SetFacts("set <1>", 90, 12, "patients", "own slide", "5 folds", 96, 1.0, {"n": 45, "t": 45}, ("a note",))
    failure = Failure("gone", "set <1>", "MissingWeights", "not on this machine")
    return Comparison(arms, (facts,), "colour", tuple(scores), (failure,), {"draws": 200}, {"all": 1.5})


def test_files_hold_everything(compared: Comparison, tmp_path: Path) -> None:
    """A figure missing from the table is a figure nobody can check."""
    files = write_comparison(compared, tmp_path, {"data": ["x.zip"]})
    assert [path.name for path in files] == ["comparison.csv", "comparison.png", "comparison.html", "run.json"]
    rows = list(csv.DictReader(io.StringIO(files[0].read_text())))
    assert len(rows) == len(compared.scores)
    assert {row["figure"] for row in rows} == {"probe AUC", "stain: probe AUC lost", "bytes per tile"}
    first = rows[0]
    assert (first["arm"], first["value"], first["baseline"]) == ("<b>mine</b>", "0.9", "colour")
    assert 0.1 < float(first["gain_low"]) < 0.2 < float(first["gain_high"])
    assert rows[1]["gain"] == ""
    record = json.loads(files[3].read_text())
    assert record["arms"][0]["digest"] == "digest-<b>mine</b>"
    assert record["failures"][0]["name"] == "gone"
    assert record["asked"] == {"data": ["x.zip"]}


def test_the_page_stands_alone_and_escapes_names(compared: Comparison) -> None:
    """A file's name must not run in whoever opens the report; a report must open without the network."""
    page = comparison_html(compared)
    assert "<b>mine" not in page
    assert "&lt;b&gt;mine" in page
    assert "http" not in page.replace("http-equiv", "")
    assert "data:image/png;base64," in page
    for words in ("gone", "not on this machine", "12 patients", "0.90", "a note", "Not for diagnosis"):
        assert words.lower() in page.lower()


def test_answer_says_who_is_first_and_whether_that_may_be_chance(compared: Comparison) -> None:
    """A lead without its doubt, or without the one just behind, would be quoted."""
    answer = answer_words(compared)
    assert answer.startswith("Highest probe AUC: <b>mine</b> 0.90 (0.8")
    assert answer.endswith("from colour; then colour 0.70.")
    assert "chance" not in answer
    close = [replace(s, gain_low=-0.01) if s.arm == "<b>mine</b>" else s for s in compared.scores]
    assert "which may be chance" in answer_words(replace(compared, scores=tuple(close)))
    alone = tuple(s for s in compared.scores if s.arm == "colour")
    assert answer_words(replace(compared, scores=alone)).startswith("Highest probe AUC: colour 0.70 (0.")
    assert answer_words(replace(compared, scores=())) == "Nothing could be compared."


def test_colours_follow_what_is_better(compared: Comparison) -> None:
    """Losing less is better: a lead there must not be painted as a defeat."""
    colours = {(s.figure, s.arm): verdict_colour(s) for s in compared.scores}
    assert colours["probe AUC", "<b>mine</b>"] == AHEAD
    assert colours["probe AUC", "worse"] == BEHIND
    assert colours["stain: probe AUC lost", "<b>mine</b>"] == AHEAD
    assert colours["stain: probe AUC lost", "worse"] == EVEN
    assert gain_words(compared.scores[0]).startswith("+0.20 (+0.1")


def test_picture_is_the_same_every_time(compared: Comparison) -> None:
    """Equal comparisons with unequal files make every run look like a change."""
    png = forest_png(compared)
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert png == forest_png(compared)


def test_numbers_without_value_are_empty_not_nan(compared: Comparison) -> None:
    """NaN is no JSON, and no number to a spreadsheet."""
    assert "nan" not in comparison_csv(compared).lower()
    json.dumps(run_record(compared, {}), allow_nan=False)
