"""The scripts that test published claims: each runs, and its verdicts say what their intervals say."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[3] / "benchmarks" / "methods"


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The scripts import each other by name, and take one thread for themselves."""
    import torch
    from threadpoolctl import threadpool_limits

    monkeypatch.syspath_prepend(str(FOLDER))
    before = torch.get_num_threads()
    with threadpool_limits(1):
        torch.set_num_threads(1)
        yield
    torch.set_num_threads(before)


def smoke(name: str, out: Path, capsys: pytest.CaptureFixture[str]) -> dict:
    """Run a script's short form; return its JSON after checking what it printed."""
    module = __import__(name)
    module.main(["--smoke", "--out", str(out)])
    printed = capsys.readouterr().out
    result = json.loads((out / "result.json").read_text())
    assert result["paper"] in printed
    assert "On public data" in printed
    for finding in result["findings"]:
        assert f"**{finding['verdict']}**" in printed
        assert finding["low"] <= finding["high"]
    return result


@pytest.mark.parametrize(
    ("script", "ours", "others"),
    [
        ("contrastive_pretraining", "SimCLR from the start", {"random weights"}),
        ("stain_invariance", "stain-invariant", {"SimCLR", "SimCLR + stain augmentation"}),
        ("spatial_similarity", "similarity, 128", {"start, full", "start, PCA to 128"}),
    ],
)
def test_each_claim_runs_and_compares_what_it_says(
    script: str, ours: str, others: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A claim would go untested, or be tested against a weaker baseline than the issue asks for."""
    result = smoke(script, tmp_path, capsys)
    assert {finding["baseline"] for finding in result["findings"] if finding["ours"] == ours} == others
    arms = {figure["arm"]: figure for figure in result["figures"]}
    assert len(arms[ours]["seeds"]) == 2
    trained = sorted(tmp_path.glob("arms/*/checkpoint*"))
    assert trained


def test_a_killed_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hours of training would be lost with a window that was closed."""
    from claim_arms import Arm, Bench
    from claim_data import Tiles

    from napari_slnpredict.encode.encoder import load_encoder
    from napari_slnpredict.encode.simclr import SimClr, SimClrSettings

    pixels = np.random.default_rng(0).integers(0, 255, (12, 32, 32, 3), np.uint8)
    tiles = Tiles(table(12), pixels, 1.0)
    start = load_encoder("random:mobilenetv3_small_050")
    arm = Arm("a", start, lambda seed: SimClr(SimClrSettings(steps=2, batch=4, seed=seed)))
    first = Bench(tmp_path).vectors(arm, 0, tiles, {"test": tiles})["test"]
    monkeypatch.setattr("claim_arms.pretrain", None)  # would fail if it were asked again
    again = Bench(tmp_path).vectors(arm, 0, tiles, {"test": tiles})["test"]
    assert np.array_equal(first, again)


def table(count: int):
    """Return a table of tiles without a place, each its own patient."""
    from napari_slnpredict.encode.tile_table import SlideFacts, TileTable

    rows = np.arange(count)
    return TileTable(
        rows, rows, np.zeros(count, np.int64), np.full((count, 2), np.nan), np.zeros(count, np.int32), rows % 2,
        tuple(SlideFacts(f"s{k}", f"c{k}") for k in rows), ("a", "b"),
    )  # fmt: skip


def test_a_verdict_is_what_its_interval_says() -> None:
    """ "Supported" would be said where chance explains the gain, or of four patients."""
    from claim_verdict import NOT_SUPPORTED, SUPPORTED, UNDECIDED, verdict

    assert verdict(0.01, 0.2, 0.0, 30) == SUPPORTED
    assert verdict(-0.2, -0.01, 0.0, 30) == NOT_SUPPORTED
    assert verdict(-0.1, 0.1, 0.0, 30) == UNDECIDED
    assert verdict(0.01, 0.2, 0.0, 9) == UNDECIDED
    assert verdict(-0.015, 0.1, -0.02, 30) == SUPPORTED
    assert verdict(float("nan"), float("nan"), 0.0, 30) == UNDECIDED


def test_arms_are_compared_on_the_same_draw() -> None:
    """An unpaired interval would be too wide to see a gain that every patient shows."""
    from claim_verdict import SUPPORTED, Measured, mean

    base = np.random.default_rng(0).normal(0, 1, 40)
    measured = Measured("m", mean, np.ones(40, int), np.arange(40), {"one": [base, base], "two": [base + 0.1] * 2})
    finding = measured.finding("p", "two", "one")
    assert finding.verdict == SUPPORTED
    assert finding.low == pytest.approx(0.1)
    assert measured.figure("one").high - measured.figure("one").low > 0.4


def test_the_spread_of_seeds_widens_an_interval() -> None:
    """One lucky training would decide a claim."""
    from claim_verdict import UNDECIDED, Measured, mean

    flat = np.zeros(40)
    measured = Measured(
        "m", mean, np.ones(40, int), np.arange(40), {"one": [flat], "two": [flat - 0.1, flat - 0.1, flat + 1.0]}
    )
    assert measured.finding("p", "two", "one").verdict == UNDECIDED


def test_colour_jitter_keeps_grey_grey_under_hue() -> None:
    """A wrong matrix would tint glass, and the baseline would be made weaker than it is."""
    import torch
    from claim_arms import _hue_turned

    turned = _hue_turned(torch.tensor([0.05, -0.2])) @ torch.ones(3)
    assert torch.allclose(turned, torch.ones(2, 3), atol=1e-5)


def test_simulated_stains_change_colour_and_leave_glass() -> None:
    """Tiles "in another stain" that are the same tiles would make every encoder robust."""
    from claim_data import in_stain_of

    from napari_slnpredict.phantom.tasks import make_slide

    pixels = make_slide("sln", "positive", 1, "A", size=0.5).pixels
    y, x = pixels.shape[0] // 2 - 48, pixels.shape[1] // 2 - 48
    tiles = np.stack([pixels[y : y + 96, x : x + 96], np.full((96, 96, 3), 244, np.uint8)])
    made, usable = in_stain_of(tiles, "D")
    assert usable.tolist() == [True, False]
    assert np.abs(made[0].astype(int) - tiles[0]).mean() > 5
    assert np.array_equal(made[1], tiles[1])
