from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from napari_slnpredict.errors import BundleMismatch, Cancelled, DataError
from napari_slnpredict.events import Partial, run
from napari_slnpredict.metrics.scores import auc
from napari_slnpredict.mil.train import Recipe, TrainingBag, fit, training_bag
from napari_slnpredict.mil.verdict import judge

from .conftest import EVERY, SMALL, make_bag

QUICK = Recipe(epochs=20, patience=20, learning_rate=1e-2, tiles=30, batch=4)


def cohort(slides: int, seed: int = 0, offset: float = 0.0) -> list[Any]:
    """Slides of 40 tiles; in positive ones six tiles carry a sign in feature 3."""
    bags = []
    for i in range(slides):
        bag = make_bag(40, seed=1000 * seed + i)
        if i % 2:
            bag.features[:6, 3] += 4
        bag.features += offset
        bags.append(bag)
    return bags


def learn(kind: str = "gated", recipe: Recipe = QUICK, offset: float = 0.0, **changes: Any) -> Any:
    training = [training_bag(bag, i % 2) for i, bag in enumerate(cohort(24, 1, offset))]
    validation = [training_bag(bag, i % 2) for i, bag in enumerate(cohort(12, 2, offset))]
    return run(fit(training, validation, ("no", "yes"), kind, SMALL[kind], recipe, **changes))


def held_out_auc(trained: Any, offset: float = 0.0) -> float:
    bags = cohort(20, 3, offset)
    return auc([i % 2 for i in range(20)], [run(judge(trained.head, bag)).probabilities[1] for bag in bags])


@pytest.mark.parametrize("kind", EVERY)
def test_every_head_learns(kind: str) -> None:
    """A head that cannot find six marked tiles of forty is broken somewhere between loss and weights."""
    trained = learn(kind)
    assert held_out_auc(trained) > 0.9
    assert trained.best.validation_loss == min(epoch.validation_loss for epoch in trained.history)
    assert not trained.head.module.training


def evidence_auc(trained: Any) -> float:
    slides = [cohort(2, seed)[1] for seed in range(9, 19)]
    found = [run(judge(trained.head, bag)).evidence for bag in slides]
    return float(np.mean([auc(np.arange(40) < 6, evidence[:, 1]) for evidence in found]))


def test_evidence_finds_the_marked_tiles() -> None:
    """What the head learnt from must speak for the class; attention on it alone would leave evidence no contrast."""
    spread, concentrated = (evidence_auc(learn("gated", replace(QUICK, spread=s))) for s in (0.3, 0.0))
    assert spread > 0.95
    assert concentrated < spread


def test_smoothed_labels_keep_a_head_from_certainty() -> None:
    """On slides it separates perfectly a head would grow surer without end."""
    plain, smoothed = (learn("gated", replace(QUICK, smoothing=s, spread=0.0)) for s in (0.0, 0.3))
    belief = [run(judge(trained.head, cohort(2, 9)[1])).probabilities.max() for trained in (plain, smoothed)]
    assert belief[1] < belief[0]
    assert belief[1] < 0.95


def test_evidence_for_one_class_is_evidence_against_the_other() -> None:
    """What both logits share is invisible to the softmax; left in, a tile could speak for both classes."""
    evidence = run(judge(learn("gated").head, cohort(2, 9)[1])).evidence
    np.testing.assert_allclose(evidence[:, 0], -evidence[:, 1], atol=1e-6)


def test_standardising_is_part_of_the_head() -> None:
    """Features far from zero must not stop training, nor need the user to subtract anything."""
    assert held_out_auc(learn("gated", offset=50.0), offset=50.0) > 0.9


def test_the_seed_decides_everything() -> None:
    """A figure nobody can reproduce is none; and a training must not disturb the caller's random numbers."""
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    short = replace(QUICK, epochs=2)
    one, two, other = (learn(recipe=recipe) for recipe in (short, short, replace(short, seed=1)))
    assert torch.equal(torch.rand(3), expected)
    assert one.history == two.history
    assert one.history != other.history


def test_it_stops_early_and_keeps_the_best() -> None:
    """Without signal the best epoch comes early; the last one is the one that overfitted."""
    random = np.random.default_rng(0)
    bags = [TrainingBag(random.normal(size=(20, 12)).astype(np.float32), i % 2) for i in range(16)]
    recipe = replace(QUICK, epochs=60, patience=3, learning_rate=0.03)
    trained = run(fit(bags[:8], bags[8:], ("no", "yes"), "gated", SMALL["gated"], recipe))
    assert len(trained.history) == trained.best.number + 3 < 60


def test_damaged_tiles_do_not_train() -> None:
    """A tile no one could read must not teach (promise R1)."""
    bag = make_bag(10)
    bag.damaged[4] = True
    bag.features[4] = np.nan
    assert training_bag(bag, 0).features.shape == (9, 12)
    assert np.isfinite(training_bag(bag, 0).features).all()


def test_places_reach_the_head_in_training() -> None:
    """A relation between places cannot be learnt when training drops them."""
    trained = learn("self-attention", replace(QUICK, epochs=3))
    assert trained.head.module.positions.scale.abs().item() > 0


def test_the_encoder_digest_reaches_the_head() -> None:
    """A head that takes any features will be given wrong ones."""
    trained = learn(recipe=replace(QUICK, epochs=1), encoder_digest="f" * 64)
    with pytest.raises(BundleMismatch):
        run(judge(trained.head, make_bag(4)))


def test_class_weights() -> None:
    """With one positive in eight an unweighted head answers no to everybody."""
    bags = cohort(32, 4)
    rare = [training_bag(bag, i % 2) for i, bag in enumerate(bags) if not i % 2 or i < 6]
    validation = [training_bag(bag, i % 2) for i, bag in enumerate(cohort(12, 2))]
    trained = run(fit(rare, validation, ("no", "yes"), "gated", SMALL["gated"], QUICK))
    said = [run(judge(trained.head, bag)).probabilities[1] > 0.5 for bag in cohort(20, 3)]
    assert sum(said[1::2]) >= 7


def test_curves_are_told_and_training_can_be_stopped() -> None:
    """Live curves and Cancel both live on the events."""
    events: list[Any] = []
    bags = [training_bag(bag, i % 2) for i, bag in enumerate(cohort(8, 1))]
    run(fit(bags, bags, ("no", "yes"), "mean", SMALL["mean"], replace(QUICK, epochs=3)), events.append)
    assert [e.data.number for e in events if isinstance(e, Partial)] == [1, 2, 3]
    with pytest.raises(Cancelled):
        run(fit(bags, bags, ("no", "yes"), "mean", SMALL["mean"], QUICK), cancelled=lambda: True)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda bags: [replace(bag, label=0) for bag in bags],
        lambda bags: [replace(bag, label=bag.label * 2) for bag in bags],
        lambda bags: [*bags, replace(bags[0], features=bags[0].features[:0])],
        lambda bags: [*bags, replace(bags[0], features=bags[0].features[:, :5])],
        lambda bags: [],
    ],
)
def test_cohorts_that_cannot_teach_are_refused(spoil: Any) -> None:
    """A curve over one class, or half the features, looks like training and is none."""
    bags = [training_bag(bag, i % 2) for i, bag in enumerate(cohort(8, 1))]
    with pytest.raises(DataError):
        run(fit(spoil(bags), bags, ("no", "yes"), "mean", SMALL["mean"], QUICK))


def test_divergence_is_an_error() -> None:
    """A head of NaN must never be saved."""
    bags = [training_bag(bag, i % 2) for i, bag in enumerate(cohort(8, 1))]
    broken = [replace(bag, features=bag.features * np.float32(np.nan)) for bag in bags]
    with pytest.raises(DataError, match="not a number"):
        run(fit(broken, bags, ("no", "yes"), "mean", SMALL["mean"], QUICK))
