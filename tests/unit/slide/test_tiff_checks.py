"""Sizes, counts and places against each other: what cannot be right is refused, what is merely odd is mentioned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_slnpredict.errors import CorruptSlide, SlideError, UnsupportedSlide
from napari_slnpredict.slide import tiff_checks
from napari_slnpredict.slide.directory import Directory, Inspection
from napari_slnpredict.slide.inspect import inspect
from napari_slnpredict.slide.limits import LIMITS
from napari_slnpredict.slide.tiff_checks import shared_blocks

from .tiny_tiff import Image, jpeg, tiff

RGB8 = {262: (3, (2,)), 530: None}


def scan(folder: Path, *images: Image) -> Inspection:
    path = folder / "slide.tif"
    path.write_bytes(tiff(*images))
    return inspect(path)


@pytest.mark.parametrize(
    ("tags", "kind", "says"),
    [
        ({259: (3, (65000,))}, UnsupportedSlide, "compression 65000"),
        ({259: (3, (6,))}, UnsupportedSlide, "old-style JPEG"),
        ({262: (3, (99,))}, UnsupportedSlide, "unknown colour space"),
        ({284: (3, (7,))}, CorruptSlide, "planar configuration 7"),
        ({258: (3, (0, 0, 0))}, CorruptSlide, "0 bits"),
        ({258: (3, (8, 8))}, CorruptSlide, "bits for 2 of 3"),
        ({277: (3, (1,)), 258: (3, (8,))}, CorruptSlide, "1 samples"),
        ({317: (3, (9,))}, CorruptSlide, "predictor"),
        ({322: (4, (0,))}, CorruptSlide, "multiple of 16"),
        ({322: (4, (24,))}, CorruptSlide, "multiple of 16"),
        ({322: (4, (8192,))}, UnsupportedSlide, "too large"),
        ({322: (4, (32,))}, CorruptSlide, "lists 6 tile offsets where its size needs 4"),
        ({256: (4, (80,))}, CorruptSlide, "lists 6 tile offsets where its size needs 10"),
        ({325: (4, (100,) * 5)}, CorruptSlide, "lists 5 tile byte counts"),
        ({325: (4, (0,) * 6)}, CorruptSlide, "none of its 6 tiles"),
        ({325: (4, (1 << 20,) * 6)}, CorruptSlide, "cannot be right"),
        ({324: (4, (0xF0000000,) * 6)}, CorruptSlide, "outside the file"),
        ({324: (4, (4,) * 6)}, CorruptSlide, "outside the file"),
        ({259: (3, (1,)), **RGB8}, CorruptSlide, "cannot be right"),
    ],
)
def test_impossible_pictures_are_refused(tmp_path: Path, tags: dict, kind: type[SlideError], says: str) -> None:
    """A library would show black, other pixels or fill the memory instead of an error."""
    with pytest.raises(kind, match=says) as error:
        scan(tmp_path, Image(tags=tags))
    assert error.value.do


def test_strips_are_counted_too(tmp_path: Path) -> None:
    """A slide in strips would escape the checks of tiles."""
    with pytest.raises(CorruptSlide, match="strip offsets"):
        scan(tmp_path, Image(40, 24, None, tags={278: (4, (8,))}))
    with pytest.raises(CorruptSlide, match="0 rows"):
        scan(tmp_path, Image(40, 24, None, tags={278: (4, (0,))}))


def test_a_huge_image_in_strips_is_refused_with_the_remedy(tmp_path: Path) -> None:
    """Every look at a strip of such an image would decode hundreds of megapixels."""
    side = int(LIMITS.strips_px**0.5) + 1
    image = Image(side, side, None, [bytes(900)], 8, {**RGB8})
    with pytest.raises(UnsupportedSlide, match=r"in strips, not tiles.*vips tiffsave"):
        scan(tmp_path, image)


def many(count: int) -> tuple[Image, list[int]]:
    """Return a picture of `count` x 16 px with one tile each, and the lengths of its tiles."""
    image = Image(16 * count, 16)
    return image, [len(block) for block in image.stored()]


def test_single_damaged_places_are_mentioned(tmp_path: Path) -> None:
    """One lost tile of thousands would cost the slide, or be shown without a word."""
    image, lengths = many(120)
    sound = scan(tmp_path, image)
    assert sound.warnings == ()
    offsets = [int(at) for at in sound.directories[0].offsets]
    for tag, values, says in (
        (324, (*offsets[:7], 0xF0000000, *offsets[8:]), "1 of 120 tiles that lie outside"),
        (325, (*lengths[:7], 0, *lengths[8:]), "1 of 120 tiles without bytes"),
        (324, (*offsets[:7], offsets[8] + 4, *offsets[8:]), "overlap"),
        (324, (offsets[3],) * 70 + tuple(offsets[70:]), "same stored block"),
    ):
        image.tags = {tag: (4, values)}
        found = scan(tmp_path, image)
        assert any(says in warning for warning in found.warnings), (says, found.warnings)
    image.tags = {324: (4, (*offsets[:7], 0xF0000000, *offsets[8:]))}
    found = scan(tmp_path, image)
    assert np.flatnonzero(found.directories[0].outside(found.size)).tolist() == [7]


def test_offsets_that_wrap_around_are_outside() -> None:
    """An offset near 2^64 plus a length would come out small and pass for lawful."""
    wrapping = Directory(
        0, 8, 48, 16, True, 16, 16,
        np.array([2**64 - 10, 100, 990], np.uint64), np.array([20, 20, 20], np.uint64), 7, 6, 3, (8, 8, 8),
    )  # fmt: skip
    assert wrapping.outside(1000).tolist() == [True, False, True]


def test_shared_blocks_are_counted() -> None:
    """Background tiles stored once would be called overlapping, overlapping ones background."""

    def directory(offsets: list[int], counts: list[int]) -> Directory:
        return Directory(
            0, 8, 16 * len(offsets), 16, True, 16, 16, np.array(offsets, np.uint64), np.array(counts, np.uint64),
            7, 6, 3, (8, 8, 8),
        )  # fmt: skip

    assert shared_blocks(directory([100, 200, 300], [50, 50, 50])) == (0, 0)
    assert shared_blocks(directory([300, 200, 100], [50, 50, 50])) == (0, 0)
    assert shared_blocks(directory([100, 100, 300], [50, 50, 50])) == (2, 0)
    assert shared_blocks(directory([100, 120, 300], [50, 50, 50])) == (0, 1)
    assert shared_blocks(directory([0, 100, 0], [0, 50, 0])) == (0, 0)


def test_slow_slides_are_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slide without a pyramid or of a million tiles would seem to hang."""
    blocks = [bytes(40)]
    side = LIMITS.no_pyramid_px + 4096
    image = Image(side, 4096, (4096, 4096), blocks * 9, 8, dict(RGB8))
    assert any("pyramid" in warning for warning in scan(tmp_path, image).warnings)
    lower = Image(side // 4, 1024, (4096, 4096), blocks * 3, 8, dict(RGB8))
    assert not any("pyramid" in warning for warning in scan(tmp_path, image, lower).warnings)
    few = type(LIMITS)(slow_blocks=5)
    monkeypatch.setattr(tiff_checks, "LIMITS", few)
    assert any("small tiles" in warning for warning in scan(tmp_path, Image()).warnings)


def test_limits_leave_memory_for_the_worst_lawful_file() -> None:
    """The limits together would allow a scan of more than 400 MB (promise R2)."""
    tables = LIMITS.blocks_total * 2 * 8
    while_reading = LIMITS.blocks * 8 * 2
    words = LIMITS.descriptions_total_bytes * 4 + LIMITS.xml_bytes
    assert tables + while_reading + words + LIMITS.directories * LIMITS.jpeg_tables_bytes < 400 << 20


def test_a_slide_of_grey_jpeg_tiles_is_not_brightfield(tmp_path: Path) -> None:
    """Grey tiles would be stretched to three equal colours and judged."""
    image = Image(
        16, 16, blocks=[jpeg(colour="GRAY")], tags={258: (3, (8,)), 262: (3, (1,)), 277: (3, (1,)), 530: None}
    )
    with pytest.raises(SlideError, match="grey"):
        scan(tmp_path, image)
