"""What the screen gets of a slide."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_slnpredict.plugin.display import DisplayLevel, Look, display_levels
from napari_slnpredict.plugin.keeper import Keeper


class Slide:
    """Two levels, a factor of four apart; one damaged tile."""

    level_dimensions = ((401, 300), (100, 75))
    level_downsamples = (1.0, 4.01)
    level_tile_sizes = ((64, 64), (64, 64))
    damaged: tuple[tuple[int, int, int, int, int], ...] = ()

    def __init__(self) -> None:
        self.closed = False
        y, x = np.mgrid[0:300, 0:401]
        self.pixels = np.stack([x % 256, y % 256, (x + y) % 256], axis=-1).astype(np.uint8)
        self.valid = np.ones((300, 401), bool)

    def read_level(self, level: int, x: int, y: int, w: int, h: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        assert not self.closed
        picture = self.pixels if level == 0 else self.pixels[:300:4, :400:4]
        whole = np.full((h, w, 3), 255, np.uint8)
        part = picture[y : y + h, x : x + w]
        whole[: part.shape[0], : part.shape[1]] = part
        valid = np.ones((h, w), bool)
        if level == 0:
            inside = self.valid[y : y + h, x : x + w]
            valid[: inside.shape[0], : inside.shape[1]] = inside
        return whole, valid

    def close(self) -> None:
        self.closed = True


def made(**changes: Any) -> tuple[Slide, Keeper, list[DisplayLevel]]:
    slide = Slide()
    for name, value in changes.items():
        setattr(slide, name, value)
    keeper = Keeper(slide)
    return slide, keeper, display_levels(keeper, Look(None))


def test_levels_give_the_slides_pixels() -> None:
    """The screen would show another picture than the file."""
    slide, _, levels = made()
    assert np.array_equal(levels[0][10:50, 20:90, :], slide.pixels[10:50, 20:90])
    assert np.array_equal(levels[0][10:50:2, 20:90:3], slide.pixels[10:50:2, 20:90:3])
    assert np.array_equal(np.asarray(levels[-1]), slide.pixels[:300:4, :400:4])


def test_large_steps_are_filled_by_means() -> None:
    """A slide seen from afar would glitter: sixteen pixels fight for one on the screen."""
    slide, _, levels = made()
    assert [level.shape for level in levels] == [(300, 401, 3), (150, 201, 3), (75, 100, 3)]
    expected = slide.pixels[20:40, 40:80].reshape(10, 2, 20, 2, 3).mean(axis=(1, 3))
    assert np.abs(levels[1][10:20, 20:40].astype(float) - expected).max() <= 1
    assert levels[1][140:150, 190:201].shape == (10, 11, 3)  # the odd rim too


def test_chunks_cover_each_level() -> None:
    """napari would read again at every move of the camera."""
    for level in made()[2]:
        assert tuple(sum(axis) for axis in level.chunks) == level.shape


def test_damage_is_hatched() -> None:
    """A tile that cannot be read would pass for empty glass (promise R1)."""
    valid = np.ones((300, 401), bool)
    valid[64:128, 64:128] = False
    slide, _, levels = made(valid=valid, damaged=((0, 64, 64, 64, 64),))
    slide.pixels[64:128, 64:128] = 255
    seen = levels[0][60:132, 60:132]
    assert not (seen[4:-4, 4:-4] == 255).all(axis=-1).any()
    assert len(np.unique(seen[4:-4, 4:-4].reshape(-1, 3), axis=0)) == 2  # stripes, for eyes that see no colour
    assert np.array_equal(seen[:4], slide.pixels[60:64, 60:132])


def test_unscanned_parts_stay_white() -> None:
    """Sparse scans would look damaged."""
    valid = np.zeros((300, 401), bool)
    slide, _, levels = made(valid=valid)
    assert np.array_equal(levels[0][0:10, 0:10], slide.pixels[:10, :10])


def test_reads_after_the_slide_left_are_white() -> None:
    """napari's slicing thread would read from a closed file."""
    slide, keeper, levels = made()
    keeper.retire()
    assert slide.closed
    assert (levels[0][0:5, 0:5] == 255).all()


def test_srgb_by_the_scanners_profile() -> None:
    """The colour switch would do nothing, or change what models see."""
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    look = Look(profile)
    assert look.can_convert
    pixels = np.full((4, 4, 3), (200, 100, 150), np.uint8)
    assert look(pixels) is pixels
    look.srgb = True
    assert np.abs(look(pixels).astype(int) - pixels).max() <= 2  # sRGB to sRGB
    assert not Look(b"no profile at all").can_convert
    assert not Look(None).can_convert


@pytest.mark.parametrize("key", [(0, slice(None)), (slice(None, None, -1), slice(None))])
def test_only_ranges_are_read(key: Any) -> None:
    """A wrong index would give wrong pixels in silence."""
    with pytest.raises(TypeError):
        made()[2][0][key]
