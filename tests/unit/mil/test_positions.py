from __future__ import annotations

import numpy as np
import pytest

from napari_slnpredict.mil.positions import CODE, centre_on_components, sinusoids

PLACES = np.random.default_rng(0).uniform(0, 60_000, (50, 2))


def test_each_piece_has_its_own_centre() -> None:
    """A head that sees how far two sections lie apart on the glass learns the technician."""
    component = np.repeat([1, 2], 25)
    moved = PLACES + np.where(component == 2, 12_345.6, 0)[:, None]
    np.testing.assert_allclose(
        centre_on_components(moved, component), centre_on_components(PLACES, component), atol=1e-9
    )
    assert np.abs(centre_on_components(PLACES, component)[component == 1].mean(0)).max() < 1e-9


def test_without_components_all_tiles_are_one_piece() -> None:
    """A grid without components must still not depend on where the slide's corner is."""
    np.testing.assert_allclose(centre_on_components(PLACES + 777, None), centre_on_components(PLACES, None), atol=1e-9)


@pytest.mark.parametrize("um", [256.0, 65_536.0])
def test_waves_from_two_tiles_to_a_slide(um: float) -> None:
    """The shortest wave must return after 256 um, the longest after 65 mm."""
    codes = sinusoids(np.array([[0.0, 0.0], [um, 0.0], [um / 2, 0.0]]))
    wave = 0 if um == 256.0 else 15
    assert codes.shape == (3, CODE)
    assert codes[0, 16 + wave + 0] == codes[1, 16 + wave] == pytest.approx(1, abs=1e-6)  # cosine of x
    assert codes[2, 16 + wave] == pytest.approx(-1, abs=1e-6)


def test_codes_stay_exact_far_from_the_centre() -> None:
    """In float32 an angle of 1,600 radians is off by 1e-4."""
    far, near = sinusoids(np.array([[256.0 * 200 + 3.0, 0.0]])), sinusoids(np.array([[3.0, 0.0]]))
    np.testing.assert_allclose(far[0, 0], near[0, 0], atol=1e-7)
