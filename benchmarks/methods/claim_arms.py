"""Arms: an encoder as it starts, or trained further by one method and one seed, and what it makes of tiles.

Everything an arm costs is kept in a folder of its own, named by all that decides it: a script that is run again goes on
where it was stopped, in the middle of a training too.
"""

from __future__ import annotations

import dataclasses
import io
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from claim_data import Tiles, tell
from numpy.typing import NDArray

from napari_slnpredict.encode.augment import ViewSpec, views
from napari_slnpredict.encode.descriptor import Projection, describe
from napari_slnpredict.encode.method import Batch, Method
from napari_slnpredict.encode.pretrain import pretrain
from napari_slnpredict.encode.record import Encoder
from napari_slnpredict.encode.simclr import SimClr
from napari_slnpredict.evaluate.probe import fit_probe
from napari_slnpredict.events import Event, Partial, run
from napari_slnpredict.files import digest_json, write_file, write_json
from napari_slnpredict.torch_door import import_torch

if TYPE_CHECKING:
    from torch import Generator, Tensor

#: SimCLR's colour jitter at the strength usual for H&E: brightness, contrast, saturation, hue (turns), probability.
JITTER = (0.4, 0.4, 0.4, 0.05, 0.8)
_PLAIN = {"stain": 0.0, "offset": 0.0, "tilt": 0.0, "gamma": 0.0}
#: Tiles of a class a probe learns from.
MOST_PROBED = 400
_AT_ONCE = 128


class ColourJitterSimClr(SimClr):
    """SimCLR as it was published: views differ in brightness, contrast, saturation and hue, not in their dyes."""

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        s = self.settings
        self._views = ViewSpec(crop=(s.least_crop, 1.0), blur_px=s.blur_px, **_PLAIN)

    def views(self, batch: Batch) -> Tensor:
        """Return two views of each tile, (2 b, 3, p, p)."""
        torch = import_torch()
        made = [colour_jitter(views(batch.tiles, self._views, batch.rng), batch.rng) for _ in range(2)]
        return torch.cat(made)


def colour_jitter(tiles: Tensor, rng: Generator) -> Tensor:
    """Change brightness, contrast, saturation and hue of each tile at random, (b, 3, h, w) float32, 0 to 1."""
    torch = import_torch()
    b = len(tiles)
    brightness, contrast, saturation, hue, chance = JITTER
    apart = torch.empty(b, 4, 1, 1, 1).uniform_(-1, 1, generator=rng)
    grey_of = torch.tensor([0.299, 0.587, 0.114])[None, :, None, None].to(tiles)
    made = tiles * (1 + brightness * apart[:, 0]).to(tiles)
    middle = (made * grey_of).sum(dim=1, keepdim=True).mean(dim=(2, 3), keepdim=True)
    made = middle + (made - middle) * (1 + contrast * apart[:, 1]).to(tiles)
    grey = (made * grey_of).sum(dim=1, keepdim=True)
    made = grey + (made - grey) * (1 + saturation * apart[:, 2]).to(tiles)
    made = torch.einsum("bcd,bdhw->bchw", _hue_turned(hue * apart[:, 3, 0, 0, 0]).to(tiles), made)
    chosen = (torch.rand(b, 1, 1, 1, generator=rng) < chance).to(tiles.device)
    jittered: Tensor = torch.where(chosen, made, tiles).clamp(0, 1)
    return jittered


def _hue_turned(turns: Tensor) -> Tensor:
    """Return matrices (b, 3, 3) that turn colours about the grey axis, in the space YIQ."""
    torch = import_torch()
    to_yiq = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    cos, sin = torch.cos(2 * torch.pi * turns), torch.sin(2 * torch.pi * turns)
    turn = torch.zeros(len(turns), 3, 3)
    turn[:, 0, 0] = 1
    turn[:, 1, 1], turn[:, 1, 2], turn[:, 2, 1], turn[:, 2, 2] = cos, -sin, sin, cos
    return torch.linalg.inv(to_yiq) @ turn @ to_yiq


@dataclass(frozen=True)
class Arm:
    """One encoder of a comparison.

    Attributes
    ----------
    name : str
    start : Encoder
    method : callable or None
        Of a seed; None: the encoder as it starts.
    """

    name: str
    start: Encoder
    method: Callable[[int], Method] | None = None


def untrained(start: Encoder) -> Encoder:
    """Return the same network with random weights."""
    return dataclasses.replace(start, name="random", digest=f"random {start.digest}", weights=None, sha256="", head=())


class Bench:
    """Trains arms and looks at tiles with them.

    Parameters
    ----------
    out : Path
        Folder for everything.
    device, precision : str
        As `pretrain` takes them.
    """

    def __init__(self, out: Path, device: str = "auto", precision: str = "no") -> None:
        self.out, self.device, self.precision = Path(out), device, precision
        self.seconds: dict[str, float] = {}

    def vectors(
        self, arm: Arm, seed: int, training: Tiles, sets: Mapping[str, Tiles], *, descriptors: bool = False
    ) -> dict[str, NDArray[np.float32]]:
        """Return an arm's features (n, d) of every set, or its descriptors; trains it first where that is needed."""
        method = None if arm.method is None else arm.method(seed)
        facts = {
            "start": arm.start.digest,
            "method": method and [method.name, type(method).__name__, dataclasses.asdict(method.settings)],
            "tiles": method and training.digest,
            "descriptors": descriptors,
        }
        home = self.out / "arms" / f"{arm.name.replace(' ', '-').replace('/', '-')}-{seed}-{digest_json(facts)[:8]}"
        files = {name: home / f"{name}-{tiles.digest[:8]}.npy" for name, tiles in sets.items()}
        if not all(path.is_file() for path in files.values()):
            network, projection = self._network(arm, method, training, home)
            for name, tiles in sets.items():
                made = self._look(network, arm.start, tiles.pixels)
                if descriptors:
                    made = describe(made, projection)
                _save_array(files[name], made)
        return {name: np.load(path) for name, path in files.items()}

    def _network(self, arm: Arm, method: Method | None, training: Tiles, home: Path) -> tuple[Any, Projection | None]:
        if method is None:
            return arm.start.build(), None
        began = time.perf_counter()
        job = pretrain(training, arm.start, method, home, device=self.device, precision=self.precision)
        trained = run(job, _Teller(home.name, method.settings.steps))
        self.seconds[home.name] = time.perf_counter() - began
        write_json(home / "curve.json", [dict(step.figures) | {"step": step.number} for step in trained.curve])
        kept = {name: value.detach().numpy() for name, value in method.kept(trained.heads).items()}
        if "descriptor.weight" not in kept:
            return trained.network, None
        return trained.network, Projection(kept["descriptor.weight"], kept["descriptor.bias"])

    def _look(self, network: Any, encoder: Encoder, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        from napari_slnpredict.encode.engines import choose_device

        torch, device = import_torch(), choose_device(self.device).name
        network = network.to(device=device, memory_format=torch.channels_last).eval()
        mean, std = (torch.tensor(v, device=device).reshape(1, 3, 1, 1) for v in (encoder.mean, encoder.std))
        made = []
        with torch.inference_mode():
            for block in blocks(pixels):
                tiles = torch.from_numpy(np.ascontiguousarray(block)).to(device).permute(0, 3, 1, 2).float() / 255
                made.append(network((tiles - mean) / std).float().cpu().numpy())
        return np.concatenate(made)


def blocks(pixels: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Yield tiles, so many at once."""
    for start in range(0, len(pixels), _AT_ONCE):
        yield pixels[start : start + _AT_ONCE]


class _Teller:
    """Says on stderr how a training goes."""

    def __init__(self, name: str, steps: int) -> None:
        self.name, self.steps, self.last = name, steps, time.perf_counter()

    def __call__(self, event: Event) -> None:
        tell(event)
        if isinstance(event, Partial) and event.kind == "step":
            now = time.perf_counter()
            if now - self.last > 20 or event.data.number == self.steps:
                self.last = now
                figures = ", ".join(f"{key} {value:.3f}" for key, value in event.data.figures.items())
                print(f"{self.name}: step {event.data.number} of {self.steps}, {figures}", file=sys.stderr, flush=True)


def _save_array(path: Path, array: NDArray[Any]) -> None:
    target = io.BytesIO()
    np.save(target, array)
    write_file(path, target.getvalue())


def probe(
    features: NDArray[np.float32], labels: NDArray[np.int64], groups: NDArray[np.int64]
) -> Callable[[NDArray[np.float32]], NDArray[np.float64]]:
    """Fit a linear probe on as many tiles of either class and return what gives its probability of class 1.

    The tiles are the same for every arm; the penalty's strength is chosen by inner folds of the training groups.
    """
    random = np.random.default_rng(0)
    rows = [random.permutation(np.flatnonzero(labels == one)) for one in (0, 1)]
    chosen = np.sort(np.concatenate([part[: min(MOST_PROBED, *map(len, rows))] for part in rows]))
    fitted = fit_probe(features[chosen], labels[chosen], groups[chosen], 2)
    return lambda others: fitted.probabilities(others)[:, 1]
