"""How `hne-small` learns: its first stages run once over a few views of each tile, the last and a descriptor train.

The product's own loop (`encode.pretrain`) draws new views at every step and trains every layer. Here the stages that
stay as they are, and with them all views, are computed beforehand and kept in half precision, which is what makes the
recipe fit two cores; hence a loop of its own. Losses, views and schedule are the product's.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hne_small_tiles import TileSet
from numpy.typing import NDArray

from napari_slnpredict.encode.augment import ViewSpec, views
from napari_slnpredict.encode.method import Schedule
from napari_slnpredict.encode.pretrain import learning_rate
from napari_slnpredict.encode.simclr import nt_xent, projection_head
from napari_slnpredict.torch_door import import_torch

FEATURES, DESCRIPTOR = 1280, 128
#: Crops keep three quarters of the area: more would enlarge an ordinary nucleus to the size of an atypical one.
VIEWS = ViewSpec(crop=(0.75, 1.0))
_PART = 64
#: Tiles of each source in a step.
SHARES = {
    "phantom": 10, "phantom nodes": 6, "pcam_lymph_node": 14, "oral_tissue": 10, "osteosarcoma": 10, "real slides": 14,
}  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """How the encoder learns.

    Attributes
    ----------
    first_stage : int
        Stages before it stay as they were.
    views : int
        Random views made of each tile, once.
    contrast, labels : float
        Weight of NT-Xent between two views, and of the cross-entropy of labels, both on descriptors.
    feature_labels : float
        Weight of a second cross-entropy, on pooled features.
    scale : float
        Of the cosines that are the logits of a class.
    average : float
        Decay of the running mean of weights, which is what is kept.
    trained : float
        Share of the trained weights in the final mean with the start's.
    descriptor_steps, descriptor_trained
        How the layer to descriptors is then made: `settle_descriptor`.
    """

    steps: int = 200
    shares: Mapping[str, int] = field(default_factory=lambda: dict(SHARES))
    first_stage: int = 5
    views: int = 4
    rate: float = 3e-4
    temperature: float = 0.2
    contrast: float = 0.0
    labels: float = 1.0
    feature_labels: float = 0.5
    scale: float = 12.0
    smoothing: float = 0.05
    average: float = 0.98
    trained: float = 0.6
    descriptor_steps: int = 200
    descriptor_trained: float = 0.5
    seed: int = 8


@dataclass(frozen=True)
class Cached:
    """What the fixed stages make of the tiles of one source.

    Attributes
    ----------
    tiles : TileSet
        Its pixels are not needed any more.
    outputs : (n, 1 + views, c, h, w) float16 tensor
        Of the tile itself, then of its views.
    """

    tiles: TileSet
    outputs: Any = field(repr=False)

    def part(self, rows: NDArray[np.int64]) -> Cached:
        """Return some of the tiles."""
        return Cached(self.tiles.part(rows), self.outputs[import_torch().from_numpy(rows)])


class Parts:
    """A network in three: stages that stay, stages that learn, the layer to descriptors."""

    def __init__(self, network: Any, first_stage: int) -> None:
        torch = import_torch()
        layers = list(network.net.as_sequential())
        at = 2 + first_stage  # after the stem and its normalisation
        self.network = network
        self.fixed = torch.nn.Sequential(*layers[:at]).eval().requires_grad_(False)
        self.learning = torch.nn.Sequential(*layers[at:]).eval()
        self.descriptor = torch.nn.Linear(FEATURES, DESCRIPTOR)
        for name, parameter in self.learning.named_parameters():
            # Folded normalisation: its factor is 1 and says nothing the convolution before it could not.
            parameter.requires_grad_(not ("bn" in name.split(".")[-2] and name.endswith("weight")))

    def modules(self) -> Any:
        """Return what learns as one module."""
        return import_torch().nn.ModuleList([self.learning, self.descriptor])

    def described(self, outputs: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return features (n, 1280) and descriptors (n, 128) of outputs of the fixed stages."""
        torch = import_torch()
        with torch.inference_mode():
            features = torch.cat([self.learning(part.float()) for part in outputs.split(_PART)])
            return features.numpy(), self.descriptor(features).numpy()


def as_tensor(tiles: NDArray[np.uint8]) -> Any:
    """Return tiles as (b, 3, h, w) float32, 0 to 1."""
    return import_torch().from_numpy(np.ascontiguousarray(tiles)).permute(0, 3, 1, 2).float() / 255


def cached(parts: Parts, tiles: TileSet, count: int, seed: int) -> Cached:
    """Run the fixed stages over each tile and `count` random views of it."""
    torch = import_torch()
    rng = torch.Generator().manual_seed(seed)
    rows = []
    with torch.inference_mode():
        for at in range(0, len(tiles.pixels), _PART):
            given = as_tensor(tiles.pixels[at : at + _PART])
            shown = [given, *(views(given, VIEWS, rng) for _ in range(count))]
            outputs = [
                parts.fixed(((one - 0.5) / 0.5).contiguous(memory_format=torch.channels_last)).half() for one in shown
            ]
            rows.append(torch.stack([one.contiguous() for one in outputs], dim=1))
    return Cached(tiles, torch.cat(rows))


def begin_descriptor(parts: Parts, sets: Sequence[Cached]) -> None:
    """Begin the descriptor as the principal components of the start's features, brought to unit variance on average."""
    torch = import_torch()
    rng = np.random.default_rng(0)
    rows = [torch.from_numpy(np.sort(rng.permutation(len(one.outputs))[:300])) for one in sets]
    outputs = torch.cat([one.outputs[chosen, 0] for one, chosen in zip(sets, rows, strict=True)])
    features = torch.from_numpy(parts.described(outputs)[0].copy())
    centre = features.mean(dim=0)
    _, spread, axes = torch.linalg.svd(features - centre, full_matrices=False)
    scale = math.sqrt(len(features)) / spread[:DESCRIPTOR].mean()
    with torch.no_grad():
        parts.descriptor.weight.copy_(axes[:DESCRIPTOR] * scale)
        parts.descriptor.bias.copy_(-(axes[:DESCRIPTOR] @ centre) * scale)


class Heads:
    """What the losses need after the descriptor; thrown away."""

    def __init__(self, sets: Sequence[Cached]) -> None:
        torch = import_torch()
        self.contrast = projection_head(DESCRIPTOR, 64)
        # Both kinds of phantoms share one head: their classes are the same kinds of tissue.
        widths = {head_of(one.tiles): len(one.tiles.classes) for one in sets if head_of(one.tiles)}
        self.names = list(widths)
        self.near = torch.nn.ModuleList(torch.nn.Linear(DESCRIPTOR, widths[name], bias=False) for name in self.names)
        self.linear = torch.nn.ModuleList(torch.nn.Linear(FEATURES, widths[name]) for name in self.names)

    def parameters(self) -> list[Any]:
        """Return all their parameters."""
        return [*self.contrast.parameters(), *self.near.parameters(), *self.linear.parameters()]


def head_of(tiles: TileSet) -> str:
    """Return which head names the tiles of a source, "" where they have no labels."""
    return tiles.name.split()[0] if tiles.classes and tiles.name != "real slides" else ""


def draw(sets: Sequence[Cached], recipe: Recipe, rng: np.random.Generator) -> tuple[Any, Any, dict[str, Any]]:
    """Return two views' outputs (b, c, h, w) of a step's tiles, and for each head the rows' labels, -1 elsewhere."""
    torch = import_torch()
    first, second, labels, place = [], [], {}, 0
    total = sum(recipe.shares[one.tiles.name] for one in sets)
    for one in sets:
        count = recipe.shares[one.tiles.name]
        head = head_of(one.tiles)
        rows = _by_class(one.tiles.labels, count, rng) if head else rng.integers(len(one.outputs), size=count)
        pair = np.array([1 + rng.permutation(recipe.views)[:2] for _ in range(count)])
        first.append(one.outputs[torch.from_numpy(rows), torch.from_numpy(pair[:, 0])])
        second.append(one.outputs[torch.from_numpy(rows), torch.from_numpy(pair[:, 1])])
        if head:
            own = labels.setdefault(head, torch.full((total,), -1))
            own[place : place + count] = torch.from_numpy(one.tiles.labels[rows])
        place += count
    return torch.cat(first).float(), torch.cat(second).float(), labels


def _by_class(labels: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    wanted = rng.choice(np.unique(labels), count)
    return np.array([rng.choice(np.flatnonzero(labels == one)) for one in wanted])


def fit(parts: Parts, sets: Sequence[Cached], recipe: Recipe, say: bool = True) -> list[dict[str, float]]:
    """Train in place and leave the running mean of the weights, mixed with the start's; return the curve."""
    torch = import_torch()
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    heads, module = Heads(sets), parts.modules()
    start = copy.deepcopy(module).requires_grad_(False)
    mean = copy.deepcopy(module).requires_grad_(False)
    groups = [
        {"params": [p for p in module.parameters() if p.requires_grad], "lr": 1.0},
        {"params": heads.parameters(), "lr": 5.0},
    ]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.0)
    schedule = Schedule(steps=recipe.steps, rate=recipe.rate)
    curve = []
    for step in range(recipe.steps):
        rate = learning_rate(schedule, step)
        for group, factor in zip(optimiser.param_groups, (1.0, 5.0), strict=True):
            group["lr"] = rate * factor
        figures, loss = _losses(parts, heads, draw(sets, recipe, rng), recipe)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 5.0)
        optimiser.step()
        with torch.no_grad():
            decay = min(recipe.average, step / (step + 10))
            for own, kept in zip(module.parameters(), mean.parameters(), strict=True):
                kept.lerp_(own, 1 - decay)
        curve.append({"step": step, **figures})
        if say and step % 20 == 0:
            print(curve[-1], f"{time.process_time():.0f} s", flush=True)
    mix(module, start, mean, recipe.trained)
    return curve


def settle_descriptor(parts: Parts, sets: Sequence[Cached], recipe: Recipe) -> None:
    """Make the descriptor for the network as it now is: principal components, half way to where labels draw them.

    It follows the network's weights nowhere in between: those are a mean of two networks, this layer fits either badly.
    """
    torch = import_torch()
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    begin_descriptor(parts, sets)
    start = copy.deepcopy(parts.descriptor).requires_grad_(False)
    labelled = [one for one in sets if head_of(one.tiles)]
    with torch.inference_mode():
        shown = [_features_of_views(parts, one) for one in labelled]
    heads = Heads(labelled)
    optimiser = torch.optim.AdamW([*parts.descriptor.parameters(), *heads.near.parameters()], weight_decay=0.0)
    schedule = Schedule(steps=recipe.descriptor_steps, rate=1e-3)
    for step in range(recipe.descriptor_steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(schedule, step)
        first, second, labels = draw(shown, recipe, rng)
        unit = torch.nn.functional.normalize(parts.descriptor(torch.cat([first, second])), dim=1)
        loss = _near_loss(heads, unit, labels, recipe)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    mix(parts.descriptor, start, copy.deepcopy(parts.descriptor), recipe.descriptor_trained)


def _features_of_views(parts: Parts, one: Cached) -> Cached:
    torch = import_torch()
    flat = one.outputs.flatten(0, 1)
    features = torch.cat([parts.learning(part.float()) for part in flat.split(_PART)])
    return Cached(one.tiles, features.clone().unflatten(0, one.outputs.shape[:2]))


def mix(module: Any, start: Any, trained: Any, share: float) -> None:
    """Set a module's weights to `share` of the trained ones and the rest of the start's (Wortsman and others 2022)."""
    torch = import_torch()
    with torch.no_grad():
        for own, first, last in zip(module.parameters(), start.parameters(), trained.parameters(), strict=True):
            own.copy_(torch.lerp(first, last, share))


def _losses(parts: Parts, heads: Heads, batch: tuple[Any, Any, Any], recipe: Recipe) -> tuple[dict[str, float], Any]:
    torch = import_torch()
    functional = torch.nn.functional
    first, second, labels = batch
    features = parts.learning(torch.cat([first, second]).contiguous(memory_format=torch.channels_last))  # (2 b, 1280)
    descriptors = parts.descriptor(features)
    z = heads.contrast(descriptors)
    far = nt_xent(z[: len(first)], z[len(first) :], recipe.temperature)
    near = _near_loss(heads, functional.normalize(descriptors, dim=1), labels, recipe)
    linear = torch.zeros(())
    for at, name in enumerate(heads.names):
        truth = labels[name].repeat(2)
        said = heads.linear[at](features[truth >= 0])
        linear = linear + functional.cross_entropy(said, truth[truth >= 0], label_smoothing=recipe.smoothing)
    linear = linear / len(heads.names)
    loss = recipe.contrast * far + recipe.labels * near + recipe.feature_labels * linear
    return {name: float(v.detach()) for name, v in (("contrast", far), ("near", near), ("linear", linear))}, loss


def _near_loss(heads: Heads, unit: Any, labels: Mapping[str, Any], recipe: Recipe) -> Any:
    """Return the mean over heads of the cross-entropy of cosines between descriptors (2 b, k) and classes."""
    functional = import_torch().nn.functional
    total = import_torch().zeros(())
    for at, name in enumerate(heads.names):
        truth = labels[name].repeat(2)
        rows = truth >= 0
        cosines = recipe.scale * unit[rows] @ functional.normalize(heads.near[at].weight, dim=1).T
        total = total + functional.cross_entropy(cosines, truth[rows], label_smoothing=recipe.smoothing)
    return total / len(heads.names)
