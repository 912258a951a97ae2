"""Nuclei have the size, place and darkness they are said to have."""

from __future__ import annotations

import numpy as np
import pytest

from napari_slnpredict.phantom.nuclei import FULL, KIND_NAMES, KINDS, VARIANTS, Nuclei, sprites, stamp


@pytest.mark.parametrize("name", KIND_NAMES)
def test_sprites_have_their_size(name: str) -> None:
    """Wrong: a nucleus of 12 um is not 12 pixels wide, or is cut off by its sprite."""
    library = sprites(name)
    kind = KINDS[name]
    assert library.shape == (VARIANTS, kind.side_px, kind.side_px)
    assert max(library[:, 0].max(), library[:, -1].max(), library[:, :, 0].max(), library[:, :, -1].max()) < 0.5 * FULL
    area = (library > 0.5 * kind.density * FULL).sum(axis=(1, 2)).mean()
    assert 2 * np.sqrt(area / np.pi) == pytest.approx(kind.diameter_um[0], rel=0.15)


def test_aggressive_nuclei_are_larger_and_darker() -> None:
    """Wrong: the sign of aggression is not drawn."""
    ordinary, atypical = (sprites(name).astype(float) for name in ("tumour", "atypical"))
    assert (atypical > 60).sum() / (ordinary > 60).sum() > 1.6
    assert atypical[atypical > 60].mean() > 1.15 * ordinary[ordinary > 60].mean()


def test_stamping_keeps_the_darker_value_and_the_place() -> None:
    """Wrong: overlapping nuclei erase each other, or lie a few pixels off."""
    one = np.float32([50.4])
    zero = np.zeros(1, np.float32)

    def picture(x: np.ndarray) -> np.ndarray:
        return stamp(Nuclei(x, one, np.uint8([1]), zero + 1, zero), 100, 100, np.random.default_rng(0))

    alone = picture(one)
    rows, columns = np.nonzero(alone > 60)
    assert abs(rows.mean() + 0.5 - 50.4) < 1
    assert abs(columns.mean() + 0.5 - 50.4) < 1
    both = Nuclei(*(np.concatenate([a, a]) for a in (one, one, np.uint8([1]), zero + 1, zero)))
    assert (stamp(both, 100, 100, np.random.default_rng(0)) >= alone).mean() > 0.99
    assert picture(one + 60).max() == 0  # would stick out


def test_fibroblasts_follow_their_angle() -> None:
    """Wrong: nuclei lie across the fibres they belong to."""
    library = sprites("fibroblast").astype(float)
    centre = np.arange(library.shape[1]) - library.shape[1] // 2
    for index in (0, 16, 32, 48):
        weight = library[index]
        xx, yy, xy = (
            (weight * a * b).sum() / weight.sum()
            for a, b in (
                (centre[None], centre[None]),
                (centre[:, None], centre[:, None]),
                (centre[None], centre[:, None]),
            )
        )
        found = 0.5 * np.arctan2(2 * xy, xx - yy) % np.pi
        wanted = np.pi * index / VARIANTS
        assert abs((found - wanted + np.pi / 2) % np.pi - np.pi / 2) < 0.25
