"""A look at an encoder on the way: right for a perfect one, at chance for a blind one."""

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_slnpredict.encode.probing import joined_looks, labelled_look, near_far_look
from napari_slnpredict.encode.similarity import PairSpec
from napari_slnpredict.errors import DataError

from .training_fakes import Tiles


class Placed(Tiles):
    """Tiles whose pixels say where they lie: place, slide and class can be read off."""

    def __init__(self) -> None:
        super().__init__()
        across = self.table.centre_um / 2200 * 200
        self.pixels[:] = np.concatenate([across, 200 * self.label[:, None]], axis=1)[:, None, None].astype(np.uint8)


def seen(tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
    """An encoder that sees what there is to see."""
    return np.concatenate([tiles[:, 0, 0] / 255.0, np.ones((len(tiles), 1))], axis=1).astype(np.float32)


def blind(tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
    """An encoder that sees nothing."""
    return np.random.default_rng(0).normal(size=(len(tiles), 4)).astype(np.float32)


def test_near_and_far_are_told_by_an_encoder_that_sees_places() -> None:
    """The figure that early stopping waits for would mean nothing."""
    look = near_far_look(Placed(), PairSpec(450, 1500))
    assert look is not None
    assert look(seen)["near/far AUC"] > 0.95
    assert look(seen)["far/near distance ratio"] > 2
    assert look(blind)["near/far AUC"] == pytest.approx(0.5, abs=0.15)


def test_tiles_without_places_have_no_near_and_far() -> None:
    """Tiles of a folder could not be trained on at all."""
    data = Tiles()
    data.table = dataclasses.replace(data.table, centre_um=np.full_like(data.table.centre_um, np.nan))
    assert near_far_look(data) is None
    assert joined_looks([]) is None


def test_labels_are_told_by_neighbours_of_other_patients() -> None:
    """A tile named by its own slide's tiles would praise any encoder."""
    look = labelled_look(Placed())
    assert look(seen)["kNN accuracy"] > 0.95
    assert look(blind)["kNN accuracy"] == pytest.approx(0.5, abs=0.12)
    both = joined_looks([look, look])
    assert both is not None
    assert list(both(seen)) == ["kNN accuracy"]
    alone = Placed()
    alone.table = dataclasses.replace(alone.table, group=np.zeros_like(alone.table.group))
    with pytest.raises(DataError, match="all of one patient"):
        labelled_look(alone)
