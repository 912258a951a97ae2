"""Learning from labels: balanced, and refused where there is nothing to learn."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_slnpredict.encode.pretrain import pretrain
from napari_slnpredict.encode.supervised import Supervised, SupervisedSettings, draw_by_class
from napari_slnpredict.errors import DataError
from napari_slnpredict.events import run

from .training_fakes import Tiles, start


def test_classes_are_drawn_equally_however_rare() -> None:
    """A class of one in a hundred would never be learned."""
    table = Tiles().table
    label = np.where(np.arange(len(table)) < 5, 1, 0)
    rare = dataclasses.replace(table, label=label)
    rows = draw_by_class(rare, 40, 0, 3)
    assert np.bincount(label[rows]).tolist() == [20, 20]
    np.testing.assert_array_equal(rows, draw_by_class(rare, 40, 0, 3))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other cost more than they bring to so small a network."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_labels_are_learned_from_what_is_in_the_tiles(tmp_path: Path) -> None:
    """The loss would fall while nothing is learned."""
    shuffled = Tiles()
    mixed = dataclasses.replace(shuffled.table, label=np.random.default_rng(0).permutation(shuffled.label))
    shuffled.table = mixed
    reached = []
    for name, data in (("true", Tiles()), ("shuffled", shuffled)):
        method = Supervised(SupervisedSettings(steps=40, batch=16, rate=3e-3))
        trained = run(pretrain(data, start(), method, tmp_path / name, device="cpu"))
        reached.append(np.mean([step.figures["right"] for step in trained.curve][-10:]))
    assert reached[0] > 0.68 > reached[1]
    assert set(method.kept(trained.heads)) == {"classes.weight", "classes.bias"}
    assert torch.isfinite(trained.heads.weight).all()


def test_a_class_without_tiles_is_named() -> None:
    """A classifier would offer a class it has never seen."""
    table = dataclasses.replace(Tiles().table, classes=("a", "b", "c"))
    with pytest.raises(DataError, match="labelled c"):
        Supervised().prepare(table, 32.0)
    with pytest.raises(DataError, match="fewer than two"):
        Supervised().prepare(dataclasses.replace(table, classes=()), 32.0)
