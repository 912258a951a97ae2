"""Descriptors: unit vectors, whatever the feature."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from napari_slnpredict.encode.descriptor import Projection, describe


@given(st.integers(0, 40), st.integers(0, 2**31))
def test_descriptors_have_length_one_and_keep_their_direction(n: int, seed: int) -> None:
    """A descriptor of another length would make distances depend on how strongly a tile is stained."""
    features = np.random.default_rng(seed).standard_normal((n, 5)).astype(np.float16)
    descriptors = describe(features)
    assert descriptors.shape == (n, 5)
    assert descriptors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(descriptors, axis=1), 1, atol=1e-5)
    assert ((descriptors * features).sum(axis=1) > 0).all()


def test_an_encoder_s_projection_is_applied_before_the_length_is_taken() -> None:
    """Descriptors of another space than the one that was trained would be compared."""
    projection = Projection(np.array([[1, 0, 0], [0, 2, 0]], np.float32), np.array([0, 1], np.float32))
    found = describe(np.array([[3, 1, 9]], np.float32), projection)
    np.testing.assert_allclose(found, [[3 / 18**0.5, 3 / 18**0.5]], rtol=1e-6)


def test_a_feature_without_direction_gives_no_nan() -> None:
    """One dead tile would make every sorted list of neighbours meaningless."""
    assert describe(np.zeros((2, 4), np.float32)).tolist() == [[0] * 4] * 2
