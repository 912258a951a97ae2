"""The one training loop: the same end whether interrupted or not, alarms, bundles that everything accepts."""

import dataclasses
import multiprocessing
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
from napari_slnpredict.encode.prefetch import prefetch
from napari_slnpredict.encode.pretrain import Pretrained, learning_rate, pretrain
from napari_slnpredict.encode.simclr import SimClr, SimClrSettings, nt_xent
from napari_slnpredict.encode.similarity import Similarity, SimilaritySettings
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


@pytest.mark.parametrize(
    "method",
    [
        lambda: SimClr(SimClrSettings(steps=120, batch=8, rate=1e-3, weight_decay=300)),
        lambda: Similarity(SimilaritySettings(steps=120, batch=8, margin=0, rate=3e-3)),
    ],
)
def test_a_collapse_is_noticed_and_stops_the_training(tmp_path: Path, method: Any) -> None:
    """Hours would be spent on an encoder that gives every tile the same vector."""
    with pytest.raises(DataError, match="collapsed by step"):
        run(pretrain(Tiles(), start(), method(), tmp_path, device="cpu"))
    assert not (tmp_path / "checkpoint.safetensors").exists()


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


def _joint(rank: int, world: int, meeting: str, queue: Any) -> None:
    from napari_slnpredict.encode.method import gather

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    first, second, layer = _views_and_layer()
    model = torch.nn.parallel.DistributedDataParallel(layer)
    share = len(first) // world
    own = slice(rank * share, (rank + 1) * share)
    out = model(torch.cat([first[own], second[own]]))
    loss = nt_xent(*(gather(part) for part in out.chunk(2)))
    loss.backward()
    if rank == 0:
        queue.put((loss.item(), layer.weight.grad.numpy()))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def _views_and_layer() -> tuple[Any, Any, Any]:
    rng = torch.Generator().manual_seed(0)
    first, second = (torch.randn(8, 5, generator=rng, dtype=torch.float64) for _ in range(2))
    layer = torch.nn.Linear(5, 4, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(4, 5, generator=rng, dtype=torch.float64))
        layer.bias.zero_()
    return first, second, layer


def test_two_processes_have_the_loss_and_gradient_of_one(tmp_path: Path) -> None:
    """Each device would contrast its own tiles alone, and more devices would mean a worse encoder."""
    first, second, layer = _views_and_layer()
    loss = nt_xent(layer(first), layer(second))
    loss.backward()
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = [context.Process(target=_joint, args=(rank, 2, str(tmp_path / "meeting"), queue)) for rank in range(2)]
    for worker in workers:
        worker.start()
    joint_loss, gradient = queue.get(timeout=120)
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert joint_loss == pytest.approx(loss.item(), abs=1e-12)
    np.testing.assert_allclose(gradient, layer.weight.grad.numpy(), atol=1e-12)
