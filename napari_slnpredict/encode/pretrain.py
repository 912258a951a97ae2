"""The one loop that trains encoders, whatever the method: resumable, watched for collapse, on one device or many."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import DataError
from napari_slnpredict.events import Job, Meter, Partial, Stage, Throttle, Warn
from napari_slnpredict.files import digest_bytes
from napari_slnpredict.torch_door import import_torch

from .checkpoint import load_checkpoint, save_checkpoint
from .collapse import Alarm, health
from .devices import accelerator_for, agreed, with_joint_statistics
from .method import Batch, Loss, Method, Schedule, gather
from .prefetch import prefetch
from .record import Encoder

if TYPE_CHECKING:
    from torch import Tensor

    from .tile_table import TileData, TileTable

#: Steps between looks at how vectors are spread; a look costs less than a step by far.
_LOOK_EVERY = 10
_LONGEST_GRADIENT = 5.0
_WARM = 20  # the rate rises over the first 1/20 of the steps

#: Held-out tiles judged: given a function tiles (k, p, p, 3) uint8 -> features (k, d), returns figures by name. The
#: first is what patience waits for; higher is better.
Probe = Callable[[Callable[[NDArray[np.uint8]], NDArray[np.float32]]], Mapping[str, float]]


@dataclass(frozen=True)
class Step:
    """One line of a training's curve."""

    number: int
    figures: Mapping[str, float]


@dataclass(frozen=True)
class Pretrained:
    """A trained encoder, not yet a bundle.

    Attributes
    ----------
    network, heads : nn.Module
        In evaluation mode, on the CPU.
    curve, probes : tuple of Step
    early : bool
        Whether patience ended it.
    notes : tuple of str
        What the method left out.
    identity : dict
        What two trainings share that end with the same encoder.
    """

    network: Any
    heads: Any
    curve: tuple[Step, ...] = field(repr=False)
    probes: tuple[Step, ...] = ()
    early: bool = False
    notes: tuple[str, ...] = ()
    identity: Mapping[str, Any] = field(default_factory=dict, repr=False)


def pretrain(
    data: TileData,
    start: Encoder,
    method: Method,
    folder: Path,
    *,
    probe: Probe | None = None,
    device: str = "auto",
    precision: str = "no",
    readers: int = 1,
) -> Job[Pretrained]:
    """Train an encoder from its start; yields a `Stage`, `Progress` and ``Partial("step", Step)``.

    Closing the job, or killing the process, costs at most `checkpoint_minutes` of work: the next call with the same
    arguments goes on and, on a CPU with the same number of threads, ends with the same weights.

    Parameters
    ----------
    data : TileData
    start : Encoder
        Whose network and weights are trained further.
    method : Method
    folder : Path
        For the checkpoint.
    probe : callable, optional
        Judges held-out tiles every `probe_every` steps.
    device : str
        As `engines.choose_device` takes it.
    precision : str
        ``no``, ``bf16`` or ``fp16``: accelerate's mixed precision.
    readers : int
        Threads that read tiles ahead.

    Raises
    ------
    DataError
        Tiles that do not do for the method, a loss that is not a number, a collapse, a folder of another training.
    ResourceError
        No such device or precision.
    """
    tile_um = data.tile_px * (data.mpp or 1.0)
    method.prepare(data.table, tile_um)
    run = _Run(data, start, method, folder, device, precision)
    found = run.resume()
    settings = method.settings
    yield Stage("pretrain", f"Training an encoder by {method.name}", settings.steps, "steps")
    if found:
        yield Partial("curve", (tuple(run.curve), tuple(run.probes)))
        yield Partial("note", f"goes on from step {found} of an earlier run")
    meter, tell = Meter(settings.steps, found, found), Throttle(0.5)
    tiles = prefetch(data.read, run.own_rows, found, settings.steps, threads=readers)
    try:
        for step, rows, pixels in tiles:
            if run.early:
                break
            done = run.step(step, rows, pixels)
            meter.done = step + 1
            if tell() or meter.done == settings.steps:
                yield meter.progress()
                yield Partial("step", done)
            if probe is not None and meter.done % settings.probe_every == 0:
                yield Partial("probe", run.look(probe, meter.done))
            run.save_now_and_then()
    finally:
        tiles.close()  # type: ignore[attr-defined]
        run.save()
    for notice in method.notices():
        yield Warn(notice)
    return run.result()


def learning_rate(settings: Schedule, step: int) -> float:
    """Return the rate of a step: a short rise, then half a cosine down to zero."""
    warm = max(1, settings.steps // _WARM)
    return settings.rate * min(1.0, (step + 1) / warm) * 0.5 * (1 + math.cos(math.pi * step / settings.steps))


def identity_of(method: Method, start: Encoder, data: TileData) -> dict[str, Any]:
    """Return what two runs must share for one to go on from the other, as JSON knows it."""
    settings = dataclasses.asdict(method.settings)
    return {
        "method": method.name,
        **{name: value for name, value in settings.items() if name not in ("checkpoint_minutes", "probe_every")},
        "start": start.digest,
        "tiles": _table_digest(data.table),
        "tile_px": data.tile_px,
    }


class _Run:
    """The state of one training on one process."""

    def __init__(
        self, data: TileData, start: Encoder, method: Method, folder: Path, device: str, precision: str
    ) -> None:
        torch = import_torch()
        self.data, self.start, self.method, self.folder = data, start, method, folder
        self.settings, self.identity = method.settings, identity_of(method, start, data)
        self.accelerator = accelerator_for(device, precision)
        self.world, self.rank = self.accelerator.num_processes, self.accelerator.process_index
        if self.settings.batch % self.world:
            raise DataError(f"a batch of {self.settings.batch} cannot be shared by {self.world} devices")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            network = start.build().requires_grad_(True)
            learner = _learner(network, method.heads(start.dim))
        optimiser = torch.optim.AdamW(
            learner.parameters(), lr=self.settings.rate, weight_decay=self.settings.weight_decay
        )
        if self.world > 1 and not network.frozen:
            learner = with_joint_statistics(learner, self.accelerator.device.type)
        self.learner, self.optimiser = self.accelerator.prepare(learner, optimiser)
        self.mean = torch.tensor(start.mean, device=self.accelerator.device).reshape(1, 3, 1, 1)
        self.std = torch.tensor(start.std, device=self.accelerator.device).reshape(1, 3, 1, 1)
        self.alarm = Alarm()
        self.done, self.saved, self.saved_at = 0, -1, time.monotonic()
        self.curve: list[Step] = []
        self.probes: list[Step] = []
        self.sound = True

    @property
    def module(self) -> Any:
        """The learner without what accelerate wraps around it."""
        return self.accelerator.unwrap_model(self.learner)

    @property
    def early(self) -> bool:
        """Whether the last `patience` looks brought nothing."""
        scores = [next(iter(look.figures.values())) for look in self.probes]
        patience = self.settings.patience
        return 0 < patience < len(scores) and max(scores[-patience:]) <= max(scores[:-patience])

    def resume(self) -> int:
        """Return how many steps an earlier run has done; its state is in place."""
        facts = load_checkpoint(self.folder, self.module, self.optimiser, self.identity)
        if facts is None:
            return 0
        self.done = self.saved = int(facts["done"])
        self.curve = [Step(number, figures) for number, figures in facts["curve"]]
        self.probes = [Step(number, figures) for number, figures in facts["probes"]]
        return self.done

    def own_rows(self, step: int) -> NDArray[np.int64]:
        """Return this device's part of a step's tiles, (r, b): first all tiles of the first role."""
        rows = self.method.rows(step)
        share = len(rows) // self.world
        return np.ascontiguousarray(rows[self.rank * share : (self.rank + 1) * share].T)

    def step(self, step: int, rows: NDArray[np.int64], pixels: NDArray[np.uint8]) -> Step:
        """Learn from one batch."""
        torch = import_torch()
        device = self.accelerator.device
        tiles = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float().div_(255)
        rng = torch.Generator().manual_seed(_seed(self.settings.seed, step, self.rank))
        batch = Batch(tiles, rows.T, step, rng)
        self.learner.train()
        seen = ((self.method.views(batch) - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        with torch.random.fork_rng(devices=[]), self.accelerator.autocast():
            torch.manual_seed(_seed(self.settings.seed, step, self.rank, 1))  # networks may drop features at random
            features, out = self.learner(seen)
        loss = self.method.loss(features, out, batch)
        if not bool(torch.isfinite(loss.total)):
            self.sound = False
            kept = f"; the checkpoint of step {self.saved} is kept" if self.saved > 0 else ""
            raise DataError(
                f"the loss of step {step} is not a number", file=self.folder, do=f"lower the learning rate{kept}"
            )
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.settings, step)
        self.optimiser.zero_grad()
        self.accelerator.backward(loss.total)
        self.accelerator.clip_grad_norm_(self.learner.parameters(), _LONGEST_GRADIENT)
        self.optimiser.step()
        if step % _LOOK_EVERY == 0:
            self._watch(loss, step)
        self.done = step + 1
        done = Step(self.done, {"loss": float(loss.total.detach()), **loss.figures})
        self.curve.append(done)
        return done

    def _watch(self, loss: Loss, step: int) -> None:
        """Look for a collapse, over the tiles of all devices: one that stopped alone would leave the others waiting."""
        far = None if loss.far is None else _joint_mean(loss.far)
        seen = health(gather(loss.vectors.detach()), far)
        self.sound = not seen.complaint
        self.alarm.look(seen, step)

    def look(self, probe: Probe, number: int) -> Step:
        """Judge held-out tiles with the network as it is."""
        self.probes.append(Step(number, agreed(self.accelerator, lambda: dict(probe(self._features)))))
        return self.probes[-1]

    def _features(self, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
        torch = import_torch()
        network = self.module.network
        was_training = network.training
        network.eval()
        parts = [np.empty((0, self.start.dim), np.float32)]
        with torch.inference_mode():
            for start in range(0, len(tiles), 64):
                part = torch.from_numpy(tiles[start : start + 64]).to(self.accelerator.device)
                part = (part.permute(0, 3, 1, 2).float().div_(255) - self.mean) / self.std
                parts.append(network(part).float().cpu().numpy())
        network.train(was_training)
        return np.concatenate(parts)

    def save_now_and_then(self) -> None:
        """Write a checkpoint when the last one is old."""
        if time.monotonic() - self.saved_at > 60 * self.settings.checkpoint_minutes:
            self.save()

    def save(self) -> None:
        """Write a checkpoint, unless the last step left something nobody should go on from."""
        if not self.sound or self.done == self.saved or not self.accelerator.is_main_process:
            return
        facts = {
            "identity": self.identity,
            "done": self.done,
            "curve": [[line.number, dict(line.figures)] for line in self.curve],
            "probes": [[line.number, dict(line.figures)] for line in self.probes],
        }
        save_checkpoint(self.folder, self.module, self.optimiser, facts)
        self.saved, self.saved_at = self.done, time.monotonic()

    def result(self) -> Pretrained:
        """Return what was learned."""
        module = self.module.cpu().eval()
        notes = tuple(self.method.notices())
        return Pretrained(
            module.network, module.heads, tuple(self.curve), tuple(self.probes), self.early, notes, self.identity
        )


def _joint_mean(values: Tensor) -> Tensor:
    """Return the mean over all devices, (1,), or (0,) when there are no values; devices may have different numbers."""
    torch = import_torch()
    sums = gather(torch.stack([values.sum(), torch.full_like(values.sum(), len(values))])[None]).sum(dim=0)
    mean: Tensor = sums[:1] / sums[1:] if float(sums[1]) else sums[:0]
    return mean


def _seed(*parts: int) -> int:
    return int(np.random.default_rng(parts).integers(2**62))


def _learner(network: Any, heads: Any) -> Any:
    torch = import_torch()

    class Learner(torch.nn.Module):  # type: ignore[misc,name-defined]
        """An encoder and what its method puts after it: one module, so that one forward pass is one backward pass."""

        def __init__(self) -> None:
            super().__init__()
            self.network, self.heads = network, heads

        def forward(self, tiles: Any) -> tuple[Any, Any]:
            features = self.network(tiles)
            return features, self.heads(features)

    return Learner().to(memory_format=torch.channels_last)


def _table_digest(table: TileTable) -> str:
    columns = (table.slide, table.group, table.component, table.label, np.nan_to_num(table.centre_um, nan=-1.0))
    return digest_bytes(
        *(np.ascontiguousarray(column).tobytes() for column in columns), *(facts.content_id for facts in table.slides)
    )
