"""Views of tiles keep what matters and change what does not."""

from __future__ import annotations

import numpy as np
import pytest

from napari_slnpredict.encode import augment
from napari_slnpredict.encode.augment import ViewSpec, blurred, optical_density, restained, turned, views
from napari_slnpredict.torch_door import import_torch

STILL = ViewSpec(crop=(1.0, 1.0), stain=0, offset=0, tilt=0, gamma=0, blur_px=0.5)


def tiles(count: int = 6, side: int = 32) -> object:
    torch = import_torch()
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(3)) * 0.9 + 0.05


def generator(seed: int = 0) -> object:
    return import_torch().Generator().manual_seed(seed)


def test_uncropped_turns_are_the_eight_symmetries() -> None:
    """Wrong: turning smooths or shifts the tile, so that every view is blurred."""
    given = tiles(40)
    got = turned(given, (1.0, 1.0), generator()).numpy()
    seen = set()
    for tile, out in zip(given.numpy(), got, strict=True):
        all_eight = [np.rot90(base, k, (1, 2)) for base in (tile, tile[:, :, ::-1]) for k in range(4)]
        errors = [float(np.abs(candidate - out).max()) for candidate in all_eight]
        assert min(errors) < 1e-4
        seen.add(int(np.argmin(errors)))
    assert len(seen) == 8


def test_restaining_by_nothing_changes_nothing() -> None:
    """Wrong: unmixing and mixing again is not the identity, so that colours drift without being asked to."""
    density = optical_density(tiles())
    assert float((restained(density, STILL, generator()) - density).abs().max()) < 1e-4


def test_amount_of_one_stain_against_numpy() -> None:
    """Wrong: the jitter multiplies channels instead of dyes."""
    torch = import_torch()
    amount = np.random.default_rng(0).uniform(0.2, 1.0, (2, 3, 4, 4))
    stains = np.asarray(augment.STAINS)
    stains /= np.linalg.norm(stains, axis=1, keepdims=True)
    density = torch.from_numpy(np.einsum("bshw,sc->bchw", amount, stains)).float()
    spec = ViewSpec(stain=0.3, offset=0.0, tilt=0.0, gamma=0.0)
    got = restained(density, spec, generator(5)).numpy()
    again = np.einsum("bchw,cs->bshw", got, np.linalg.inv(stains))
    factor = again / np.einsum("bchw,cs->bshw", density.numpy(), np.linalg.inv(stains))
    assert np.ptp(factor, axis=(2, 3)).max() < 1e-3
    assert factor.min() > 0.69
    assert factor.max() < 1.31
    assert np.ptp(factor[:, :, 0, 0]) > 0.05


def test_blur_keeps_the_mean_and_flat_tiles() -> None:
    """Wrong: blurred views are darker at their borders, by which a network could tell them."""
    flat = import_torch().full((8, 3, 16, 16), 0.6)
    assert float((blurred(flat, 1.0, generator()) - 0.6).abs().max()) < 1e-5


@pytest.mark.parametrize("seed", [0, 1])
def test_views_are_repeatable_and_in_range(seed: int) -> None:
    """Wrong: training cannot be repeated, or views leave the range of colours."""
    first = views(tiles(), ViewSpec(), generator(seed))
    assert bool((first == views(tiles(), ViewSpec(), generator(seed))).all())
    assert 0 <= float(first.min()) <= float(first.max()) <= 1
    assert not bool((first == views(tiles(), ViewSpec(), generator(seed + 9))).all())
