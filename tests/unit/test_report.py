"""report.html: stands alone, says the doubt beside the number, and runs nothing it was given."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from tell_fakes import Predicted, predicted

from napari_slnpredict.export import Sheet, prediction_record
from napari_slnpredict.report import report_html, significant, thin


def report(found: Predicted, **changes: Any) -> str:
    record = prediction_record(found.slide, found.prediction, Sheet("one"))
    return report_html(found.slide, found.prediction, {**record, **changes})


class Reader(HTMLParser):
    """Collects tags and links."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "action", "data")]


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    return reader


def test_the_report_stands_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report that calls home, or is blank on a machine without network."""
    for found in predicted(tmp_path, monkeypatch):
        html = report(found)
        reader = read(html)
        assert all(link.startswith("data:image/jpeg;base64,") for link in reader.links)
        assert "script" not in reader.tags
        assert "link" not in reader.tags
        assert not re.search(r"url\(|@import|https?:", html)
        assert len(html) < 4_000_000


def test_the_report_says_it_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A number without its evidence, its doubt, or what made it."""
    for found in predicted(tmp_path, monkeypatch):
        html = report(found)
        prediction = found.prediction
        assert prediction.answer in html
        assert prediction.bundle.notice in html
        assert prediction.bundle.digest in html
        assert "this model was not calibrated" in html
        assert "Speak for “positive” most" in html
        assert "Speak against “positive” most" in html
        assert html.count("<img ") == 3 + 16
        assert "not for diagnosis" in html


def test_intervals_and_sets_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A calibrated model whose interval nobody sees."""
    for found in predicted(tmp_path, monkeypatch):
        html = report(
            found,
            interval={"negative": [0.1, 0.3], "positive": [0.71, 0.91]},
            set=["positive"],
            out_of_domain={"score": 1.0, "percentile": 41, "inside": True},
        )
        assert "(0.71 to 0.91)" in html
        assert "{positive}" in html
        assert "41.0th percentile" in html or "41th percentile" in html


def test_hostile_text_is_only_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slide or a model named like a script would run in the reader's browser."""
    hostile = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    for found in predicted(tmp_path, monkeypatch):
        html = report(found, slide_id=hostile, answer=hostile, warnings=[hostile])
        reader = read(html)
        assert "script" not in reader.tags
        assert "x" not in reader.links
        assert "&lt;script&gt;" in html


@pytest.mark.parametrize("kind", ["mean", "max", "self-attention"])
def test_models_without_a_map_still_have_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """A head without attention or without evidence would end the run at its last step."""
    for found in predicted(tmp_path, monkeypatch, kind=kind):
        html = report(found)
        assert found.prediction.answer in html
        assert ("Looked at most" in html) == (kind == "self-attention")


def test_damage_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slide that could not be read would look like one that was."""
    for found in predicted(tmp_path, monkeypatch, damaged=(0, 1, 2, 3)):
        html = report(found)
        assert "too much of the tissue could not be read" in html
        assert "No verdict" in html
        assert "The slide" in html


def test_four_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ordered scores would be shown out of order or cut."""
    for found in predicted(tmp_path, monkeypatch):
        probabilities = {"0": 0.1, "1+": 0.2, "2+": 0.6, "3+": 0.1}
        html = report(found, classes=list(probabilities), probabilities=probabilities)
        places = [html.index(f"<td>{name}</td>") for name in probabilities]
        assert places == sorted(places)


def test_a_slide_without_scale_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report would divide by a scale that is not there."""
    for found in predicted(tmp_path, monkeypatch):
        found.slide.mpp = None
        assert "mm, " not in report(found)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.83472, "0.835"), (1234.5, "1\u2009234"), (-0.000512, "−0.000512"), (0, "0"), (None, "–"), (float("nan"), "–"),
     (12.0, "12.0")],
)  # fmt: skip
def test_numbers_read_well(value: float | None, text: str) -> None:
    """Twelve digits, or a hyphen for a minus."""
    assert significant(value) == text


def test_thin_thousands() -> None:
    """30721 and 3072 look alike."""
    assert thin(30721) == "30\u2009721"
