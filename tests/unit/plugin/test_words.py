"""What the dock says."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from napari_slnpredict.errors import CorruptSlide
from napari_slnpredict.events import Progress, Stage
from napari_slnpredict.plugin import words


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"), (6.234, "6.23"), (0.0123, "0.0123"), (0.5, "0.5"), (12.0, "12"), (1234.5, "1,234"), (-0.2, "−0.2"),
        (0.00001234, "1.2e-05"), (float("nan"), "unknown"), (99.96, "100"),
    ],
)  # fmt: skip
def test_three_significant_digits(number: float, text: str) -> None:
    """Numbers would be told with digits that mean nothing, or none at all."""
    assert words.three(number) == text


@pytest.mark.parametrize(("value", "text"), [(1.0, "above 0.99"), (0.0, "below 0.01"), (0.834, "0.83")])
def test_no_probability_is_certain(value: float, text: str) -> None:
    """A model would claim certainty."""
    assert words.probability_line("positive", value, None) == f"positive  {text}"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0.2 s"), (22.4, "22 s"), (200, "3 min"), (4200, "70 min"), (6000, "1 h 40 min")]
)
def test_durations(seconds: float, text: str) -> None:
    """Times would be unreadable."""
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("um", "text"),
    [(0.5, "20x · 0.50 µm/px"), (0.25, "40x · 0.25 µm/px"), (10, "1.0x · 10 µm/px"), (50, "0.20x · 50 µm/px")],
)  # fmt: skip
def test_magnification_follows_the_convention(um: float, text: str) -> None:
    """20x would not be 0.5 um per px."""
    assert words.magnification(um) == text


def test_stage_line_tells_count_rate_and_time_left() -> None:
    """A run would look stuck."""
    stage = Stage("embed", "Looking at tiles", 1240, "tiles")
    line = words.stage_line(stage, Progress(412, 1240, 38.0, 21.8), 11)
    assert line == "Looking at tiles: 412 / 1,240 tiles · 38/s · 22 s left"
    assert words.stage_line(Stage("tissue", "Finding tissue"), None, 3.2) == "Finding tissue · 3 s"
    assert "Stopping" in words.stage_line(stage, None, 1, stopping=True)


def test_stopping_is_not_an_error() -> None:
    """A cancelled run would leave a user in doubt about the work done."""
    assert words.stopped_line(Progress(412, 1240)) == "Stopped. 412 tiles are kept; Run continues from there."
    assert words.stopped_line(None).startswith("Stopped.")


def test_problems_name_file_fault_and_remedy() -> None:
    """An error would be a traceback."""
    problem = words.problem_of(
        CorruptSlide("ends after 38 of 61 MB", file="/secret/a.svs", do="copy it again"), "trace"
    )
    assert problem.title == "This file is damaged"
    assert problem.text == "a.svs: ends after 38 of 61 MB. Copy it again."
    assert "secret" not in problem.text
    assert "memory" in words.problem_of(MemoryError()).text
    assert "ValueError: x" in words.problem_of(ValueError("x")).text


def test_command_can_be_pasted() -> None:
    """A path with a blank would be two arguments."""
    line = words.command_line(Path("/a b/x.svs"), "demo-sln", device="cuda", mpp=0.25, out=Path("/o"))
    assert line == "slnpredict predict '/a b/x.svs' --model demo-sln --mpp 0.25 --device cuda --out /o"
    assert "--device" not in words.command_line(Path("x.svs"), "m", device="auto", mpp=None, out=None)


def test_doubt_says_only_what_the_model_can_tell() -> None:
    """A model without calibration would look calibrated."""
    bare = SimpleNamespace(interval=None, conformal=None, out_of_domain=None)
    assert words.doubt_lines(bare, 0.9) == ["No interval: this model was not calibrated."]
    full = SimpleNamespace(interval={}, conformal=["positive"], out_of_domain={"inside": True, "percentile": 41})
    assert words.doubt_lines(full, 0.9) == [
        "Sure enough to say: {positive} · 90% set",
        "Inside what the model knows: yes (41st percentile)",
    ]


@pytest.mark.parametrize(("number", "text"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (11, "11th"), (42, "42nd")])
def test_ordinals(number: int, text: str) -> None:
    """Percentiles would be misspelt."""
    assert words.ordinal(number) == text


def test_range_tells_unit_and_what_exceeds_it() -> None:
    """A map would be shown without its scale."""
    assert words.range_line(0, 4.19, "× mean", top=5.38) == "0 to 4.19 × mean, highest 5.38"
    assert words.range_line(-0.2, 0.2, "logit") == "−0.2 to 0.2 logit"


def test_score_lines_say_only_what_is_known() -> None:
    """A tile without a value would be given one, a value of unknown unit a unit."""
    from napari_slnpredict.foreign.explain import ScoreAnswer

    answer = ScoreAnswer(
        3, (0, 0), None, "prob_tumor", "probability", 0.8123, 14, 1240, 98.95, None, (("prob_other", 0.2),)
    )
    assert words.score_lines(answer) == [
        "prob_tumor 0.812 probability",
        "rank 14 of 1,240",
        "99 % of the others are below",
        "prob_other 0.2",
    ]
    assert words.score_lines(ScoreAnswer(reason="no tile here")) == ["No tile here."]
    assert words.score_lines(ScoreAnswer(1, (0, 0), name="a", reason="no value here")) == ["a: no value here"]
    share = ScoreAnswer(1, (0, 0), None, "attention", "weight, all tiles sum to 1", 0.01, 1, 500, 99.97, 5.0)
    assert words.score_lines(share)[:2] == ["attention 0.01", "5 × mean"]
    assert words.score_lines(share)[3] == "99.97 % of the others are below"
