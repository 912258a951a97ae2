"""Several processes train as one: the same loss, gradient and weights, whatever the network normalises by."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_slnpredict.encode.devices import accelerator_for
from napari_slnpredict.encode.method import Batch, gather
from napari_slnpredict.encode.pretrain import pretrain
from napari_slnpredict.encode.simclr import SimClr, SimClrSettings, nt_xent
from napari_slnpredict.errors import ResourceError
from napari_slnpredict.events import run

from .training_fakes import Tiles, start

SETTINGS = SimClrSettings(steps=3, batch=8, seed=3, probe_every=2)
HERE = Path(__file__).resolve()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in another order are other numbers."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Mirrored(SimClr):
    """Its views are the tile and its mirror image, without chance: chance is another one in every process."""

    def views(self, batch: Batch) -> Any:
        """Return both."""
        return torch.cat([batch.tiles, batch.tiles.flip(3)])


def train_mirrored(folder: Path) -> dict[str, Any]:
    """Return losses, looks and weights of a short training of a network with batch normalisation."""
    looks = iter([0.25, 0.75])  # the second process would see other ones if it judged for itself
    trained = run(
        pretrain(Tiles(), start(), Mirrored(SETTINGS), folder, device="cpu", probe=lambda _: {"score": next(looks)})
    )
    state = {**trained.network.state_dict(), **trained.heads.state_dict()}
    return {
        "losses": [step.figures["loss"] for step in trained.curve],
        "looks": [look.figures["score"] for look in trained.probes],
        "weights": {name: value.double().flatten()[:200].tolist() for name, value in state.items()},
    }


def exact(share: slice = slice(None)) -> tuple[Any, Any]:
    """Return NT-Xent of one layer in float64 and the layer, whose gradient is that of the joint batch."""
    rng = torch.Generator().manual_seed(0)
    first, second = (torch.randn(8, 5, generator=rng, dtype=torch.float64) for _ in range(2))
    layer = torch.nn.Linear(5, 4, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(4, 5, generator=rng, dtype=torch.float64))
        layer.bias.zero_()
    model = torch.nn.parallel.DistributedDataParallel(layer) if torch.distributed.is_initialized() else layer
    loss = nt_xent(*(gather(part) for part in model(torch.cat([first[share], second[share]])).chunk(2)))
    loss.backward()
    return loss, layer


def take_part(folder: str) -> None:
    """Do one process's part; the first one writes down what came out."""
    torch.set_num_threads(1)
    trained = train_mirrored(Path(folder))
    rank = int(os.environ["RANK"])
    loss, layer = exact(slice(4 * rank, 4 * rank + 4))
    if rank == 0:
        assert layer.weight.grad is not None
        found = {**trained, "loss": loss.item(), "gradient": layer.weight.grad.tolist()}
        (Path(folder) / "found.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


def test_two_processes_have_loss_gradient_and_weights_of_one(tmp_path: Path) -> None:
    """More devices, worse encoder: each would contrast its own tiles alone, or know them by its own statistics."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = "import sys; from encode.test_devices import take_part; take_part(sys.argv[1])"
    common = {
        **os.environ, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), str(HERE.parents[3])]),
    }  # fmt: skip
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], env={**common, "RANK": str(k), "LOCAL_RANK": str(k)}
        )
        for k in range(2)
    ]
    assert [process.wait(180) for process in both] == [0, 0]
    found = json.loads((tmp_path / "found.json").read_text())
    loss, layer = exact()
    assert layer.weight.grad is not None
    assert found["loss"] == pytest.approx(loss.item(), abs=1e-12)
    np.testing.assert_allclose(found["gradient"], layer.weight.grad.numpy(), atol=1e-12)
    alone = train_mirrored(tmp_path / "alone")
    assert found["losses"] == pytest.approx(alone["losses"], abs=2e-4)
    assert found["looks"] == alone["looks"]
    for name, values in alone["weights"].items():
        np.testing.assert_allclose(found["weights"][name], values, rtol=5e-3, atol=2e-4, err_msg=name)


def test_one_process_may_train_twice_on_other_terms() -> None:
    """The viewer's second training would have to wait for another window."""
    assert accelerator_for("cpu", "no").mixed_precision == "no"
    assert accelerator_for("cpu", "bf16").mixed_precision == "bf16"
    with pytest.raises(ResourceError, match="needs a GPU"):
        accelerator_for("cpu", "fp16")
