"""Fields, textures and points: the material of scenes."""

from __future__ import annotations

import numpy as np
import pytest

from napari_slnpredict.phantom import noise


@pytest.mark.parametrize("spacing", [7.0, 13.4, 60.0])
def test_points_fill_the_rectangle_evenly(spacing: float) -> None:
    """Wrong: the number of nuclei depends on chance or on the slide's shape instead of their spacing."""
    x, y = noise.scatter(np.random.default_rng(0), 900, 500, spacing)
    assert len(x) == pytest.approx(900 * 500 / spacing**2, rel=0.08)
    assert (x > 0).all()
    assert (x < 900).all()
    assert (y > 0).all()
    assert (y < 500).all()
    counts = np.histogram2d(x, y, bins=(3, 2), range=((0, 900), (0, 500)))[0]
    assert counts.min() > 0.75 * counts.mean() - 3


def test_points_keep_apart() -> None:
    """Wrong: nuclei lie on top of each other as in a random scatter."""
    from scipy.spatial import cKDTree

    x, y = noise.scatter(np.random.default_rng(1), 500, 500, 10.0)
    nearest, _ = cKDTree(np.stack([x, y], 1)).query(np.stack([x, y], 1), k=2)
    assert np.quantile(nearest[:, 1], 0.05) > 6.0


def test_bands_join_without_seams() -> None:
    """Wrong: a slide drawn in bands of rows shows lines between them."""
    field = noise.smooth_noise(np.random.default_rng(0), (64, 40), 5)
    whole = noise.upsample(field, (512, 320))
    band = noise.upsample(field, (128, 320), (0, 16, 40, 32))
    assert np.abs(whole[128:256] - band).max() < 1e-4


def test_noise_is_about_standard() -> None:
    """Wrong: thresholds on noise mean different shares on different slides."""
    field = noise.smooth_noise(np.random.default_rng(0), (400, 400), 8)
    assert abs(float(field.mean())) < 0.15
    assert float(field.std()) == pytest.approx(1.0, abs=0.2)


def test_sampling_a_ramp_is_exact() -> None:
    """Wrong: nuclei are placed half a pixel away from the border they belong to."""
    ramp = np.broadcast_to((np.arange(50, dtype=np.float32) + 0.5) * 8, (30, 50))
    x = np.array([20.0, 100.0, 333.3], np.float32)
    assert np.allclose(noise.sample(ramp, x, x / 2, 8), x, atol=1e-2)


def test_textures_are_periodic() -> None:
    """Wrong: a seam shows every 1024 px."""
    for texture in (noise.streaks(), noise.grain(1.6)):
        inside = np.abs(np.diff(texture, axis=0)).mean()
        assert np.abs(texture[0] - texture[-1]).mean() < 1.3 * inside
