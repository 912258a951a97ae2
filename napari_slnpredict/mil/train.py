"""Training of a MIL head on bags of frozen features. Loads torch: import it inside functions.

Several bags a step; a random part of each bag in training, all of it in
validation; the epoch with the lowest validation loss is kept. Everything random comes from one seed.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import DataError
from napari_slnpredict.events import Job, Meter, Partial, Stage
from napari_slnpredict.torch_door import import_torch

from .aggregators import build_aggregator
from .base import Aggregator, Standardise
from .head import Head, make_head
from .positions import centre_on_components

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = import_torch()


@dataclass(frozen=True)
class TrainingBag:
    """One slide (or the union of a patient's slides) to learn from.

    Attributes
    ----------
    features : (n, d) float, n >= 1
    label : int
        Class number.
    places : (n, 2) float64 or None
        Centres, um from the centroid of the tile's piece of tissue (`positions.centre_on_components`).
    """

    features: NDArray[Any] = field(repr=False)
    label: int
    places: NDArray[np.float64] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Recipe:
    """How a head is trained.

    Attributes
    ----------
    epochs, patience : int
        At most so many passes; stop after `patience` of them without a lower validation loss.
    learning_rate, weight_decay : float
        Of AdamW; the rate falls to zero by a cosine over `epochs`.
    batch : int
        Bags a step.
    tiles : int
        Tiles drawn from a bag in training; 0: all.
    spread : float
        Penalty, per nat, on attention that differs from equal. Once attention sits on a few tiles alone the slide's
        logits are those tiles' own, and leaving out a typical one of them changes nothing: evidence then no longer
        tells them from the rest. A little keeps the rest in the sum. Only for heads with closed-form evidence.
    smoothing : float
        Share of each label spread over all classes in training: a head that separates its slides perfectly would
        otherwise grow surer without end.
    class_weights : bool
        Weigh classes by the inverse of their frequency.
    standardise : bool
        Centre and scale features by the training tiles.
    seed : int
    """

    epochs: int = 40
    patience: int = 10
    learning_rate: float = 5e-4
    weight_decay: float = 1e-2
    batch: int = 8
    tiles: int = 512
    spread: float = 0.1
    smoothing: float = 0.0
    class_weights: bool = True
    standardise: bool = True
    seed: int = 0


@dataclass(frozen=True)
class Epoch:
    """One line of the training curve; losses are means over bags, weighted by class.

    The training loss holds the attention's penalty and smoothed labels, the validation loss does not.
    """

    number: int
    training_loss: float
    validation_loss: float


@dataclass(frozen=True)
class Trained:
    """A head and how it came about.

    Attributes
    ----------
    head : Head
    kind : str
        Name of the aggregator.
    history : tuple of Epoch
    best : Epoch
    """

    head: Head
    kind: str
    history: tuple[Epoch, ...]
    best: Epoch


def training_bag(bag: Any, label: int) -> TrainingBag:
    """Return a `TrainingBag` of the undamaged tiles of an embedded slide."""
    kept = ~np.asarray(bag.damaged, bool)
    places = centre_on_components(bag.grid.centres_um[kept], bag.grid.component[kept]) if kept.any() else None
    return TrainingBag(np.asarray(bag.features)[kept], label, places)


def fit(
    training: Sequence[TrainingBag],
    validation: Sequence[TrainingBag],
    classes: Sequence[str],
    kind: str = "gated",
    parameters: Mapping[str, Any] | None = None,
    recipe: Recipe | None = None,
    encoder_digest: str = "",
) -> Job[Trained]:
    """Train a head; yields a `Stage` and after each epoch `Progress` and ``Partial("epoch", Epoch)``.

    Parameters
    ----------
    training, validation : sequences of TrainingBag
        Of different patients; both need every class for the curve to mean anything.
    classes : sequence of str
        In the order of the labels.
    kind, parameters
        Aggregator and its parameters (`aggregators.AGGREGATORS`).
    recipe : Recipe, optional
    encoder_digest : str
        Whose features these are; the head refuses others.
    """
    recipe = recipe or Recipe()
    _check_bags(training, validation, len(classes))
    run = _Run(training, validation, len(classes), kind, dict(parameters or {}), recipe)
    yield Stage("train", f"Training {kind} on {len(training)} slides", recipe.epochs, "epochs")
    meter = Meter(recipe.epochs)
    for number in range(1, recipe.epochs + 1):
        epoch = run.epoch(number)
        meter.done = number
        yield meter.progress()
        yield Partial("epoch", epoch)
        if number - run.best.number >= recipe.patience:
            break
    module = run.best_module()
    head = make_head(module, tuple(classes), encoder_digest=encoder_digest)
    return Trained(head, kind, tuple(run.history), run.best)


def _check_bags(training: Sequence[TrainingBag], validation: Sequence[TrainingBag], classes: int) -> None:
    for name, bags in (("training", training), ("validation", validation)):
        present = {bag.label for bag in bags}
        if present != set(range(classes)):
            raise DataError(
                f"the {name} slides have labels {sorted(present)}, every one of 0 to {classes - 1} is needed",
                do="check the labels and the split",
            )
        if any(not len(bag.features) for bag in bags):
            raise DataError(f"a {name} slide has no tiles", do="leave it out")
    if len({bag.features.shape[1] for bag in (*training, *validation)}) != 1:
        raise DataError("features of different lengths", do="embed all slides with one encoder")


class _Run:
    """The state of one training."""

    def __init__(
        self,
        training: Sequence[TrainingBag],
        validation: Sequence[TrainingBag],
        classes: int,
        kind: str,
        parameters: dict[str, Any],
        recipe: Recipe,
    ) -> None:
        self.training, self.validation, self.recipe = training, validation, recipe
        self.random = np.random.default_rng(recipe.seed)
        # Initial weights and dropout draw from torch's global state: keep the caller's out of it, and theirs as it was.
        self.torch_state = _seeded_state(recipe.seed)
        with _torch_random(self):
            self.module = build_aggregator(kind, parameters, training[0].features.shape[1], classes)
        if recipe.standardise:
            standardise(self.module, training)
        self.optimiser = torch.optim.AdamW(
            self.module.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self.weights = _class_weights([bag.label for bag in training], classes, recipe.class_weights)
        self.history: list[Epoch] = []
        self.best = Epoch(0, math.inf, math.inf)
        self.best_state: dict[str, Any] = {}

    def epoch(self, number: int) -> Epoch:
        """Pass once over the training bags, then judge the validation bags."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (number - 1) / self.recipe.epochs))
        with _torch_random(self):
            training_loss = self._learn()
        done = Epoch(number, training_loss, self._validate())
        if not math.isfinite(done.training_loss + done.validation_loss):
            raise DataError("training diverged: the loss is not a number", do="lower the learning rate")
        self.history.append(done)
        if done.validation_loss < self.best.validation_loss:
            self.best = done
            self.best_state = copy.deepcopy(self.module.state_dict())
        return done

    def best_module(self) -> Aggregator:
        """Return the module of the best epoch, its logits centred over the classes."""
        self.module.load_state_dict(self.best_state)
        self.module.centre_logits()
        return self.module

    def _learn(self) -> float:
        self.module.train()
        order, total = self.random.permutation(len(self.training)), 0.0
        for start in range(0, len(order), self.recipe.batch):
            batch = [self.training[i] for i in order[start : start + self.recipe.batch]]
            weight = sum(float(self.weights[bag.label]) for bag in batch)
            self.optimiser.zero_grad()
            drawn = [_draw(bag, self.recipe.tiles, self.random) for bag in batch]
            loss = self._loss(drawn, self.recipe.spread, self.recipe.smoothing)
            (loss / weight).backward()  # type: ignore[no-untyped-call]
            total += loss.item()
            torch.nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
            self.optimiser.step()
        return total / sum(float(self.weights[bag.label]) for bag in self.training)

    def _validate(self) -> float:
        self.module.eval()
        with torch.inference_mode():
            total = sum(self._loss([bag]).item() for bag in self.validation)
        return total / sum(float(self.weights[bag.label]) for bag in self.validation)

    def _loss(self, bags: Sequence[TrainingBag], spread: float = 0.0, smoothing: float = 0.0) -> Tensor:
        """Return the cross-entropy, weighted by class, and the attention's penalty, summed over bags."""
        found = self.module.look_at_many([(torch.from_numpy(np.array(b.features, np.float32)), b.places) for b in bags])
        labels = torch.tensor([bag.label for bag in bags])
        weights = torch.tensor([float(self.weights[bag.label]) for bag in bags])
        losses: Tensor = torch.nn.functional.cross_entropy(
            torch.stack([output.logits for output in found]), labels, reduction="none", label_smoothing=smoothing
        )
        if spread and self.module.closed_form:
            losses = losses + spread * torch.stack([_concentration(output.attention, losses) for output in found])
        return losses @ weights


class _torch_random:
    """Run with the run's own random state of torch and put the caller's back."""

    def __init__(self, run: _Run) -> None:
        self.run = run

    def __enter__(self) -> None:
        self.outside = torch.get_rng_state()
        torch.set_rng_state(self.run.torch_state)

    def __exit__(self, *error: object) -> None:
        self.run.torch_state = torch.get_rng_state()
        torch.set_rng_state(self.outside)


def _concentration(attention: Tensor | None, like: Tensor) -> Tensor:
    """Return how far attention is from equal, nats: 0 when all tiles count the same, log n when one counts alone."""
    if attention is None:
        return like.new_zeros(())
    return (attention * torch.log(attention * len(attention) + 1e-12)).sum()


def _seeded_state(seed: int) -> Tensor:
    return torch.Generator().manual_seed(seed).get_state()


def _draw(bag: TrainingBag, tiles: int, random: np.random.Generator) -> TrainingBag:
    """Return some tiles of a bag; places are turned and mirrored, as a slide has no up."""
    n = len(bag.features)
    rows = random.choice(n, tiles, replace=False) if 0 < tiles < n else np.arange(n)
    places = bag.places
    if places is not None:
        angle, mirror = random.uniform(0, 2 * np.pi), random.choice([-1.0, 1.0])
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * [mirror, 1.0]
        places = places[rows] @ turn
    return TrainingBag(bag.features[rows], bag.label, places)


def _class_weights(labels: Sequence[int], classes: int, balanced: bool) -> NDArray[np.float64]:
    counts = np.bincount(labels, minlength=classes)
    return len(labels) / (classes * counts) if balanced else np.ones(classes)


def standardise(module: Aggregator, bags: Sequence[TrainingBag]) -> None:
    """Fit the first layer's mean and scale to the training tiles, every slide with equal weight."""
    first = np.mean([np.asarray(bag.features, np.float64).mean(0) for bag in bags], 0)
    second = np.mean([((np.asarray(bag.features, np.float64) - first) ** 2).mean(0) for bag in bags], 0)
    for part in module.modules():
        if isinstance(part, Standardise):
            part.fit(first, np.sqrt(second))
