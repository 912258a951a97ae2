"""The one training loop: the same end whether interrupted or not, alarms, bundles that everything accepts."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_slnpredict.bundles.bundle import load_bundle
from napari_slnpredict.encode.collapse import Alarm, health
from napari_slnpredict.encode.encoder import load_encoder
from napari_slnpredict.encode.method import Loss, draw_rows
from napari_slnpredict.encode.methods import METHODS
from napari_slnpredict.encode.prefetch import prefetch
from napari_slnpredict.encode.pretrain import Pretrained, learning_rate, pretrain
from napari_slnpredict.encode.simclr import SimClr, SimClrSettings
from napari_slnpredict.encode.similarity import Similarity, SimilaritySettings
from napari_slnpredict.encode.stain_invariant import StainInvariant, StainInvariantSettings
from napari_slnpredict.encode.supervised import Supervised, SupervisedSettings
from napari_slnpredict.encode.trained import load_projection, save_pretrained
from napari_slnpredict.errors import DataError
from napari_slnpredict.events import Partial, run

from .training_fakes import PX, Tiles, start

SIMCLR = SimClrSettings(steps=6, batch=8, probe_every=3)
PAIRS = SimilaritySettings(steps=6, batch=8, probe_every=3)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in another order are other numbers."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def weights(trained: Pretrained) -> dict[str, Any]:
    """Return all tensors."""
    return {**trained.network.state_dict(), **trained.heads.state_dict()}


@pytest.mark.parametrize("method", [lambda: SimClr(SIMCLR), lambda: Similarity(PAIRS)])
def test_an_interrupted_training_ends_with_the_same_weights(tmp_path: Path, method: Any) -> None:
    """A night's training that was killed once would give another encoder than its settings say."""
    whole = run(pretrain(Tiles(), start(), method(), tmp_path / "whole", device="cpu"))
    job = pretrain(Tiles(), start(), method(), tmp_path / "cut", device="cpu")
    for event in job:
        if isinstance(event, Partial) and event.data.number >= 2:
            break
    job.close()
    messages: list[Any] = []
    again = run(pretrain(Tiles(), start(), method(), tmp_path / "cut", device="cpu"), messages.append)
    assert any("goes on from step" in str(message) for message in messages)
    assert len(again.curve) == 6
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(again)[name]), name


def test_a_folder_of_another_training_is_refused_and_both_are_named(tmp_path: Path) -> None:
    """Weights of one recipe would be sold as those of another."""
    run(pretrain(Tiles(), start(), SimClr(SIMCLR), tmp_path, device="cpu"))
    other = dataclasses.replace(SIMCLR, temperature=0.5)
    with pytest.raises(DataError, match=r"temperature 0.2.*0.5"):
        run(pretrain(Tiles(), start(), SimClr(other), tmp_path, device="cpu"))
    with pytest.raises(DataError, match="tiles"):
        run(pretrain(Tiles(side=11), start(), SimClr(SIMCLR), tmp_path, device="cpu"))


class Broken(SimClr):
    """Its loss is NaN from some step on."""

    def loss(self, features: Any, out: Any, batch: Any) -> Loss:
        """Return a loss that breaks."""
        good = super().loss(features, out, batch)
        return dataclasses.replace(good, total=good.total * (float("nan") if batch.step == 4 else 1))


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    """NaN weights would overwrite a night's work."""
    settings = dataclasses.replace(SIMCLR, checkpoint_minutes=0)
    with pytest.raises(DataError, match=r"step 4 is not a number.*checkpoint of step 4"):
        run(pretrain(Tiles(), start(), Broken(settings), tmp_path, device="cpu"))
    trained = run(pretrain(Tiles(), start(), SimClr(settings), tmp_path, device="cpu"))
    assert all(torch.isfinite(value).all() for value in weights(trained).values())


@dataclasses.dataclass(frozen=True)
class Collapse:
    """What ruins a training of a method."""

    id: str
    method: Any


COLLAPSES = (
    Collapse("decay", lambda: SimClr(SimClrSettings(steps=120, batch=8, rate=1e-3, weight_decay=300))),
    Collapse("no-margin", lambda: Similarity(SimilaritySettings(steps=120, batch=8, margin=0, rate=3e-3))),
    Collapse("decay", lambda: StainInvariant(
        StainInvariantSettings(steps=120, batch=8, rate=1e-3, weight_decay=300))),
    Collapse("rate", lambda: Supervised(SupervisedSettings(steps=120, batch=8, rate=30.0))),
)  # fmt: skip


@pytest.mark.parametrize("case", COLLAPSES, ids=lambda case: f"{case.method().name}-{case.id}")
def test_a_collapse_is_noticed_and_stops_the_training(case: Collapse, tmp_path: Path) -> None:
    """Hours would be spent on an encoder that gives every tile the same vector."""
    with pytest.raises(DataError, match=r"collapsed by step .* Lower the learning rate"):
        run(pretrain(Tiles(), start(), case.method(), tmp_path, device="cpu"))
    assert not (tmp_path / "checkpoint.safetensors").exists()


@pytest.mark.parametrize("name", METHODS)
def test_a_young_training_is_not_called_collapsed(name: str, tmp_path: Path) -> None:
    """Untrained networks give tiles much the same vector: nobody could train one."""
    row = METHODS[name]
    trained = run(pretrain(Tiles(), start(), row.make(row.settings(steps=45, batch=16)), tmp_path, device="cpu"))
    assert len(trained.curve) == 45


def test_health_tells_spread_vectors_from_a_point_and_a_line() -> None:
    """A dimensional collapse has variance and still no use."""
    many = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    assert health(many).rank > 6
    assert health(many).complaint == ""
    assert "same vector" in health(torch.ones(9, 4) + 1e-3 * torch.randn(9, 4)).complaint
    line = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).repeat(10, 1)
    assert "one direction" in health(line).complaint
    assert "far apart" in health(many, torch.full((5,), 0.1)).complaint
    alarm = Alarm()
    for step in range(4):
        alarm.look(health(line), step)
    alarm.look(health(many), 4)  # one good look: not a collapse
    alarm.look(health(line), 5)


def test_patience_ends_a_training_that_gains_nothing(tmp_path: Path) -> None:
    """An early stop that never comes costs a night, one that always comes costs the encoder."""
    settings = SimClrSettings(steps=20, batch=8, probe_every=2, patience=2)
    scores = iter([0.5, 0.6, 0.6, 0.55, 0.9, 0.9])
    trained = run(
        pretrain(Tiles(), start(), SimClr(settings), tmp_path, device="cpu", probe=lambda _: {"score": next(scores)})
    )
    assert trained.early
    assert len(trained.curve) == 8
    assert [look.number for look in trained.probes] == [2, 4, 6, 8]


def test_a_trained_encoder_is_a_bundle_that_says_what_it_has_seen(tmp_path: Path) -> None:
    """`evaluate` could not tell that a test slide was trained on."""
    data, method = Tiles(), Similarity(PAIRS)
    trained = run(pretrain(data, start(), method, tmp_path / "work", device="cpu"))
    bundle = save_pretrained(tmp_path / "mine", "mine", start(), trained, method, data.table, tile_px=PX, mpp=1.0)
    assert bundle.training["slides"] == ["c0", "c1"]
    assert bundle.training["patients"] == ["p0", "p1"]
    encoder = load_encoder(f"local:{tmp_path / 'mine'}")
    tiles = torch.rand(3, 3, PX, PX)
    with torch.inference_mode():
        torch.testing.assert_close(encoder.build()(tiles), trained.network(tiles))
    projection = load_projection(load_bundle(tmp_path / "mine"))
    assert projection is not None
    np.testing.assert_array_equal(projection.weight, trained.heads.weight.detach().numpy())
    assert projection.weight.shape == (128, encoder.dim)


def test_the_rate_rises_then_falls_to_nothing() -> None:
    """A schedule that ends high leaves noise in the weights."""
    settings = SimClrSettings(steps=100, rate=1.0)
    rates = [learning_rate(settings, step) for step in range(100)]
    assert rates[0] < 0.3
    assert max(rates) == pytest.approx(1, abs=0.02)
    assert rates[-1] < 0.001


def test_patients_are_drawn_equally_and_no_tile_twice_while_there_are_enough() -> None:
    """A batch of one patient's tiles is full of false negatives."""
    table = Tiles().table
    rows = draw_rows(table, 40, 3, 7)
    assert np.bincount(table.group[rows]).tolist() == [20, 20]
    assert len(np.unique(rows)) == 40
    np.testing.assert_array_equal(rows, draw_rows(table, 40, 3, 7))
    assert len(draw_rows(table, 1000, 0, 0)) == 1000


def test_tiles_come_in_the_order_of_the_steps_and_threads_end() -> None:
    """A faster thread would decide which tiles a step sees."""
    data = Tiles()
    plan = lambda step: np.array([[step, step + 1]])  # noqa: E731
    seen = [(step, rows.tolist(), pixels) for step, rows, pixels in prefetch(data.read, plan, 2, 9, threads=3)]
    assert [step for step, _, _ in seen] == list(range(2, 9))
    for step, _, pixels in seen:
        np.testing.assert_array_equal(pixels, data.pixels[[step, step + 1]])
    cut = prefetch(data.read, plan, 0, 100)
    next(cut)
    cut.close()  # type: ignore[attr-defined]


def test_the_guide_s_own_loss_trains(tmp_path: Path) -> None:
    """Whoever adds a loss begins with the guide's example: it must run as it stands."""
    guide = Path(__file__).parents[3] / "docs" / "extend.md"
    text = guide.read_text(encoding="utf-8").partition("### Another loss")[2]
    there: dict[str, Any] = {}
    exec(text.partition("```python\n")[2].partition("```")[0], there)
    trained = run(pretrain(Tiles(), start(), there["BarlowTwins"](SIMCLR), tmp_path, device="cpu"))
    assert [set(step.figures) for step in trained.curve] == [{"loss", "twins"}] * 6
