"""The pipeline on small slides with a stand-in encoder: what it says, what it refuses, what it paints."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tell_fakes import StandInEmbed, install, make_bundle, predicted, write_slide

from napari_slnpredict.answer import NO_TISSUE, say, task_title
from napari_slnpredict.errors import BundleMismatch, CorruptSlide, MissingScale, NotBrightfield
from napari_slnpredict.events import Event, Partial, Stage, Warn, run
from napari_slnpredict.mil.head import load_head
from napari_slnpredict.pipeline import Prediction, answer_click, check_scale, grid_spec, predict_slide, scale_values
from napari_slnpredict.settings import Settings
from napari_slnpredict.slide.slide import open_slide


def predict(folder: Path, path: Path, mpp: float | None = None, head: Any = None) -> Prediction:
    head = head or load_head(make_bundle(folder / "tiny-sln"))
    with open_slide(path, mpp) as slide:
        return run(predict_slide(slide, head, settings=Settings(cache=str(folder / "cache"))))


def test_a_slide_becomes_a_prediction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The method would be incomplete: stages out of order, no map while embedding, a sum of attention that is not 1."""
    for found in predicted(tmp_path, monkeypatch):
        prediction, events = found.prediction, found.events
        stages = [event.name for event in events if isinstance(event, Stage)]
        assert stages == ["model", "tissue", "grid", "embed", "judge"]
        kinds = [event.kind for event in events if isinstance(event, Partial)]
        assert kinds[:4] == ["tissue", "grid", "so_far", "attention"]
        assert "features" not in kinds
        assert prediction.verdict is not None
        assert prediction.verdict.attention is not None
        assert prediction.verdict.attention.sum() == pytest.approx(1)
        assert len(prediction.grid) > 20
        assert set(prediction.seconds) >= {"model", "tissue", "grid", "embed", "judge", "read", "decode", "resize"}
        assert prediction.bundle_digest == found.head.bundle.digest  # type: ignore[union-attr]
        assert prediction.device == "cpu (asked for)"


def test_maps_are_painted_four_times_a_second_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than that and the window stutters; the grid of the test has many chunks."""
    for found in predicted(tmp_path, monkeypatch, size=(1600, 1400)):
        painted = [e for e in found.events if isinstance(e, Partial) and e.kind == "attention"]
        seconds = found.prediction.seconds["embed"]
        assert 1 <= len(painted) <= 2 + 4 * seconds
        assert np.isnan(painted[0].data.values).any(), "the first map shows only what has been looked at"


def test_the_job_of_embedding_is_closed_when_the_caller_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancelled prediction would leave the embedding's chunks unsealed until the garbage collector comes by."""
    embed = install(monkeypatch)
    head = load_head(make_bundle(tmp_path / "tiny-sln"))
    with open_slide(write_slide(tmp_path / "one.svs")) as slide:
        job = predict_slide(slide, head, settings=Settings(cache=str(tmp_path)))
        while not (isinstance(event := next(job), Stage) and event.name == "embed"):
            pass
        job.close()
    assert embed.closed == 1


def test_no_tissue_is_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty slide would crash the run or, worse, get a probability."""
    embed = install(monkeypatch)
    prediction = predict(tmp_path, write_slide(tmp_path / "glass.svs", tissue=False))
    assert (prediction.answer, prediction.sure, prediction.verdict, prediction.bag) == (NO_TISSUE, False, None, None)
    assert embed.calls == 0
    assert np.isnan(scale_values(prediction, "share").values).all()


def test_many_damaged_tiles_give_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A verdict over a slide of which more than 1 % could not be read would hide the damage (promise R1)."""
    install(monkeypatch, StandInEmbed(damaged=(0, 1, 2)))
    prediction = predict(tmp_path, write_slide(tmp_path / "torn.svs"))
    assert prediction.verdict is None
    assert not prediction.sure
    assert prediction.answer.startswith("No verdict: 3 of ")
    assert any("damaged parts" in text for text in prediction.warnings)


def test_a_single_damaged_tile_is_left_out_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One bad tile of hundreds must not cost the slide, nor reach the model."""
    for found in predicted(tmp_path, monkeypatch, damaged=(4,), size=(1600, 1400)):
        verdict = found.prediction.verdict
        assert verdict is not None
        assert verdict.attention is not None
        assert verdict.attention[4] == 0
        assert np.isnan(scale_values(found.prediction, "share").values[4])
        assert any(text.startswith("1 of ") for text in found.prediction.warnings)
        x, y = (found.prediction.grid.locations[4] + 5) * found.prediction.grid.slide_mpp
        assert answer_click(found.slide, found.head, found.prediction, (x, y)).reason == "this tile could not be read"


@pytest.mark.parametrize(
    ("mpp", "kind"),
    [(1.0, "fine"), (0.5, "fine"), (1.01, "fine"), (1.5, "coarse"), (2.0, "coarse"), (2.2, "refused"), (4, "refused")],
)
def test_resolution_is_part_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mpp: float, kind: str
) -> None:
    """A model of 1 um/px would give confident answers about slides it cannot see well enough."""
    install(monkeypatch)
    path = write_slide(tmp_path / "one.svs", size=(320, 256), mpp=mpp)
    if kind == "refused":
        with pytest.raises(BundleMismatch, match="times coarser"):
            predict(tmp_path, path)
        return
    prediction = predict(tmp_path, path)
    assert any("coarser" in text for text in prediction.warnings) == (kind == "coarse")
    if kind == "coarse":
        assert not prediction.sure
        assert prediction.answer.startswith("Not sure")


def test_a_slide_without_scale_says_how_to_give_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guessed pixel size would be a wrong answer without a sign."""
    install(monkeypatch)
    path = write_slide(tmp_path / "bare.svs", mpp=None)
    with pytest.raises(MissingScale, match="--mpp"):
        predict(tmp_path, path)
    assert predict(tmp_path, path, mpp=1.0).verdict is not None


def test_fluorescence_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model for stained slides would answer about a dark one."""
    install(monkeypatch)
    head = load_head(make_bundle(tmp_path / "tiny-sln"))
    dark: Any = SimpleNamespace(
        brightfield=False, not_brightfield="its background is dark", path=Path("dark.ndpi"), warnings=()
    )
    with pytest.raises(NotBrightfield, match=r"dark\.ndpi.*background is dark"):
        run(predict_slide(dark, head, settings=Settings()))


def test_another_encoder_under_the_same_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features of a re-trained encoder would be judged by a head that never saw such."""
    install(monkeypatch, digest="f" * 64)
    with pytest.raises(BundleMismatch, match="trained on features of stand-in"):
        predict(tmp_path, write_slide(tmp_path / "one.svs"))


def test_a_slide_replaced_while_it_was_read_gets_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of one slide and half of another would be judged as one."""
    install(monkeypatch)
    path = write_slide(tmp_path / "one.svs")
    head = load_head(make_bundle(tmp_path / "tiny-sln"))

    def meddle(event: Event) -> None:
        if isinstance(event, Stage) and event.name == "embed":
            os.utime(path, (1, 1))

    with open_slide(path) as slide, pytest.raises(CorruptSlide):
        run(predict_slide(slide, head, settings=Settings(cache=str(tmp_path))), meddle)


def test_the_encoder_warning_reaches_the_prediction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder with random weights would be taken for a trained one."""
    for found in predicted(tmp_path, monkeypatch, encoder={"warning": "random weights: for comparison only"}):
        assert "random weights: for comparison only" in found.prediction.warnings
        assert Warn("random weights: for comparison only") in found.events


@pytest.mark.parametrize("kind", ["gated", "mean", "max", "self-attention"])
def test_a_click_answers_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """The click panel would show another tile, a made-up number, or make the user wait."""
    for found in predicted(tmp_path, monkeypatch, kind=kind):
        prediction, grid = found.prediction, found.prediction.grid
        verdict = prediction.verdict
        assert verdict is not None
        tile = 7
        point = (grid.locations[tile] + grid.size_level0 / 2) * grid.slide_mpp
        answer_click(found.slide, found.head, prediction, tuple(point))
        start = time.perf_counter()
        answer = answer_click(found.slide, found.head, prediction, tuple(point))
        assert time.perf_counter() - start < 0.1
        assert answer.tile == tile
        assert answer.location == tuple(grid.locations[tile])
        assert answer.picture is not None
        assert answer.picture.shape == (64, 64, 3)
        assert answer.rank == verdict.rank()[tile]
        assert (answer.share is None) == (kind == "max")
        if kind == "self-attention":
            assert answer.probabilities_without is None
        else:
            assert answer.delta is not None
            assert answer.probabilities_without is not None
            np.testing.assert_allclose(answer.probabilities_without + answer.delta, verdict.probabilities)


def test_background_has_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Glass scored as if it were tissue (slideflow#405)."""
    for found in predicted(tmp_path, monkeypatch):
        for place in ((3.0, 3.0), (-50.0, 10.0), (1e6, 1e6)):
            answer = answer_click(found.slide, found.head, found.prediction, place)
            assert (answer.tile, answer.reason) == (None, "no tissue here")


def test_scales(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scale with the wrong numbers or unit would mislabel the map."""
    for found in predicted(tmp_path, monkeypatch):
        prediction, verdict = found.prediction, found.prediction.verdict
        assert verdict is not None
        assert verdict.evidence is not None
        share = scale_values(prediction, "share")
        assert share.values.mean() == pytest.approx(1, abs=1e-5)
        assert share.unit == "× mean"
        rank = scale_values(prediction, "rank").values
        assert (rank.min(), rank.max()) == (0, 1)
        assert np.argmax(rank) == np.argmax(share.values)
        evidence = scale_values(prediction, "evidence:positive")
        np.testing.assert_allclose(evidence.values, verdict.evidence[:, 1], rtol=1e-6)
        for wrong in ("heat", "evidence:unknown", "evidence:", ""):
            with pytest.raises(ValueError, match="no scale"):
                scale_values(prediction, wrong)


def verdict_of(*probabilities: float, **more: Any) -> Any:
    names = ("negative", "positive", "third")[: len(probabilities)]
    blank: dict[str, Any] = {"interval": None, "conformal": None, "out_of_domain": None}
    return SimpleNamespace(probabilities=np.array(probabilities), classes=names, **{**blank, **more})


@pytest.mark.parametrize(
    ("verdict", "sentence", "sure"),
    [
        (verdict_of(0.17, 0.83), "SLN positive: probability 0.83.", True),
        (verdict_of(0.001, 0.999), "SLN positive: probability above 0.99.", True),
        (verdict_of(0.9, 0.1), "SLN negative: probability 0.90.", True),
        (
            verdict_of(0.17, 0.83, interval={"positive": [0.71, 0.91]}),
            "SLN positive: probability 0.83 (0.71 to 0.91).",
            True,
        ),
        (verdict_of(0.45, 0.55), "Not sure: positive leads with probability 0.55 only.", False),
        (
            verdict_of(0.4, 0.6, conformal=["negative", "positive"]),
            "Not sure: {negative, positive} are both possible at 90 %.",
            False,
        ),
        (verdict_of(0.4, 0.6, conformal=["positive"]), "SLN positive: probability 0.60.", True),
        (verdict_of(0.4, 0.6, conformal=[]), "Not sure: no class fits this slide at 90 %.", False),
        (
            verdict_of(0.01, 0.99, out_of_domain={"inside": False, "reason": "stain unlike any training slide"}),
            "Outside what this model knows: stain unlike any training slide.",
            False,
        ),
    ],
)
def test_answers_are_sentences(verdict: Any, sentence: str, sure: bool) -> None:
    """A bare number, or a confident sentence about a slide the model does not know."""
    bundle: Any = SimpleNamespace(task={"name": "sln"}, calibration={"coverage": 0.9})
    assert say(bundle, verdict, 100) == (sentence, sure)


@pytest.mark.parametrize(
    ("task", "title"),
    [({"name": "sln"}, "SLN"), ({"name": "her2"}, "HER2"), ({"name": "metastasis"}, "Metastasis"),
     ({"name": "lymph_node status"}, "Lymph node status"), ({"title": "ER"}, "ER"), ({}, "This slide")],
)  # fmt: skip
def test_the_question_has_a_readable_name(task: dict[str, str], title: str) -> None:
    """'sln' or 'lymph_node' in the middle of a sentence for people."""
    assert task_title(SimpleNamespace(task=task)) == title  # type: ignore[arg-type]


def test_grid_of_a_bundle(tmp_path: Path) -> None:
    """Tiles of another size than the model was trained on."""
    spec = grid_spec(make_bundle(tmp_path / "tiny-sln"))
    assert (spec.tile_px, spec.mpp, spec.overlap_px, spec.min_tissue) == (64, 1.0, 0, 0.25)
    fine: Any = SimpleNamespace(require_mpp=lambda: 0.25, path=Path("x"))
    assert check_scale(fine, spec, "tiny") == ""
