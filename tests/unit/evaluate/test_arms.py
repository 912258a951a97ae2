"""Arms: every name means one thing, and what it means is in the digest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_slnpredict.encode.descriptor import Projection, describe
from napari_slnpredict.encode.encoder import load_encoder
from napari_slnpredict.errors import BundleMismatch, DataError, MissingWeights
from napari_slnpredict.evaluate import arms
from napari_slnpredict.evaluate.arms import Arm, colour_histogram, colour_statistics, encoder_arm, load_arm
from napari_slnpredict.evaluate.embedding import input_side, resized

TILES = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3)).astype(np.uint8)


def test_colour_statistics_are_means_and_deviations() -> None:
    """The baseline everything is compared with must be what its name says."""
    found = colour_statistics(TILES)
    assert found[2] == pytest.approx(
        [*(TILES[2].reshape(-1, 3) / 255).mean(0), *(TILES[2].reshape(-1, 3) / 255).std(0)], abs=1e-5
    )


def test_histogram_counts_every_pixel_once() -> None:
    """Square roots of shares have length 1: their cosine is the overlap of the histograms."""
    found = colour_histogram(TILES)
    assert found.shape == (5, 512)
    assert (found**2).sum(axis=1) == pytest.approx(1)
    one = np.full((1, 4, 4, 3), (255, 0, 40), np.uint8)
    assert np.flatnonzero(colour_histogram(one)[0]).tolist() == [7 * 64 + 0 * 8 + 1]


@pytest.mark.parametrize(
    "name", ["colour", "histogram", "colour@pca3", "random:test_resnet", "random:test_resnet@pca16"]
)
def test_arms_embed_tiles(name: str) -> None:
    """A length other than the one promised would be found only after an hour."""
    arm = load_arm(name)
    assert arm.name == name
    assert arm.embed(TILES, None).shape == (5, arm.dim)
    assert arm.width == (3 if name.endswith("pca3") else 16 if name.endswith("pca16") else arm.dim)


def test_digests_differ_where_features_do() -> None:
    """Features of one arm would be taken from another's cache."""
    names = ("colour", "histogram", "random:test_resnet", "random:test_vit", "hne-small")
    assert len({load_arm(name).digest for name in names}) == len(names)
    assert load_arm("colour").digest == load_arm("colour@pca3").digest  # what is embedded is the same


def test_a_random_network_says_so() -> None:
    """Random weights must never pass for a trained encoder."""
    assert "random weights" in load_arm("random:test_resnet@pca4").warning


def test_what_a_shipped_encoder_has_seen_is_known() -> None:
    """Without it the rule against judging on training slides could not hold."""
    assert load_arm("hne-small").training["slides"]
    assert not load_arm("colour").training


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("colour@pcb", DataError),
        ("random:test_resnet@descriptor", BundleMismatch),
        ("local:/nowhere/x.safetensors", MissingWeights),
        ("nothing-here", MissingWeights),
    ],
)
def test_names_that_mean_nothing(name: str, error: type[Exception], tmp_path: Path) -> None:
    """A misspelt arm is an error with its name, never another arm."""
    with pytest.raises(error):
        load_arm(name)


def test_principal_components() -> None:
    """Components keep the distances that matter and follow from the training tiles alone."""
    rng = np.random.default_rng(0)
    known = rng.normal(size=(200, 10)).astype(np.float32) * np.array([9, 5, 1, *[0.01] * 7], np.float32) + 4
    arm = Arm("x", "d", 10, lambda tiles, mpp: known, components=3)
    fit = arm.fitted(known)
    apart = np.linalg.norm(fit(known[:50]) - fit(known[50:100]), axis=1)
    assert apart == pytest.approx(np.linalg.norm(known[:50] - known[50:100], axis=1), abs=0.1)
    assert fit(known).mean(axis=0) == pytest.approx(0, abs=1e-4)
    assert fit(known).std(axis=0)[0] > fit(known).std(axis=0)[1] > fit(known).std(axis=0)[2]


def test_tiles_come_at_the_scale_an_encoder_was_made_for() -> None:
    """An encoder of 1 um/px shown enlarged tiles is judged on pictures it was not made for."""
    shipped, photo = load_encoder("hne-small"), load_encoder("random:test_resnet")
    side = shipped.tile_px
    assert input_side(photo, 96, 0.97) == photo.tile_px
    assert input_side(shipped, 96, 0.972) == 96
    assert input_side(shipped, 256, 0.5) == 128
    assert input_side(shipped, 96, None) == side
    assert input_side(shipped, 1024, 1.0) == side  # too large a picture is shrunk
    assert resized(TILES, 32) is TILES
    assert abs(float(resized(TILES, 16).mean()) - TILES.mean()) < 2


def test_a_tile_does_not_depend_on_its_neighbours() -> None:
    """A chunk from the cache would differ from one computed."""
    arm = encoder_arm(load_encoder("random:test_resnet"))
    assert np.array_equal(arm.embed(TILES, None)[3:], arm.embed(TILES[3:], None))


def test_an_encoders_own_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the viewer searches by is the descriptor: judged by the features, another thing would be judged."""
    whole = load_arm("hne-small")
    rng = np.random.default_rng(0)
    own = Projection(rng.normal(size=(8, whole.dim)).astype(np.float32), np.ones(8, np.float32))
    monkeypatch.setattr(arms, "load_projection", lambda bundle: own)
    arm = load_arm("hne-small@descriptor")
    assert (arm.name, arm.dim) == ("hne-small@descriptor", 8)
    assert arm.digest != whole.digest
    assert arm.training == whole.training
    assert arm.embed(TILES, None) == pytest.approx(describe(whole.embed(TILES, None), own))
