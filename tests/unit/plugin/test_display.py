"""How a slide's levels are shown: colours, and the refresh when better pixels have come in."""

from __future__ import annotations

import numpy as np

from napari_slnpredict.plugin.display import Look


def test_srgb_by_the_scanners_profile() -> None:
    """The colour switch would do nothing, or change what models see."""
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    look = Look(profile)
    assert look.can_convert
    pixels = np.full((4, 4, 3), (200, 100, 150), np.uint8)
    assert look(pixels) is pixels
    look.srgb = True
    assert look.srgb
    assert np.abs(look(pixels).astype(int) - pixels).max() <= 2  # sRGB to sRGB


def test_a_profile_nobody_understands_changes_nothing() -> None:
    """The colour switch would be offered and show nothing, or fail."""
    for profile in (b"no profile at all", None):
        look = Look(profile)
        look.srgb = True
        assert not look.can_convert
        assert not look.srgb
