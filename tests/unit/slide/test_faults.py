"""Faults a user meets, through `open_slide`: each named, none silent, and one bad tile costs itself."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from napari_slnpredict.errors import CorruptSlide, SlideError, UnsupportedSlide
from napari_slnpredict.slide.slide import open_slide

from .tiny_tiff import Image, jpeg, tiff

SIDE, ACROSS, DOWN = 64, 5, 4
MIDDLE = 7  # column 2, row 1


def blocks() -> list[bytes]:
    return [jpeg(SIDE, SIDE, seed=k) for k in range(ACROSS * DOWN)]


def slide_of(folder: Path, stored: list[bytes], name: str = "slide.svs") -> Path:
    path = folder / name
    path.write_bytes(tiff(Image(SIDE * ACROSS, SIDE * DOWN, (SIDE, SIDE), stored)))
    return path


@pytest.mark.parametrize(
    ("data", "kind", "says"),
    [
        (None, SlideError, "not found"),
        (b"", CorruptSlide, "empty"),
        (b"slide,label\na,1\n" * 20, UnsupportedSlide, "a text file, not a slide"),
        (jpeg(SIDE, SIDE), UnsupportedSlide, "a JPEG picture, not a slide"),
        (tiff()[:-40], CorruptSlide, "ends after"),
    ],
    ids=["missing", "empty", "text", "jpeg", "truncated"],
)
def test_what_is_no_slide_is_named(tmp_path: Path, data: bytes | None, kind: type[SlideError], says: str) -> None:
    """The user would see a library's complaint about headers instead of what is wrong and what to do."""
    path = tmp_path / "slide.svs"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(kind, match=says) as error:
        open_slide(path)
    assert str(error.value).startswith("slide.svs: ")
    assert error.value.do
    assert str(tmp_path) not in str(error.value)


@pytest.mark.parametrize("cut", ["half zeros", "sector of zeros", "all zeros", "noise"])
def test_a_damaged_tile_costs_itself(tmp_path: Path, cut: str) -> None:
    """Half a tile would be filled with grey and judged as tissue, or the whole slide be given up for one tile."""
    stored = blocks()
    tile = stored[MIDDLE]
    stored[MIDDLE] = {
        "half zeros": tile[: len(tile) // 2] + bytes(len(tile) - len(tile) // 2),
        "sector of zeros": tile[:1000] + bytes(512) + tile[1512:],
        "all zeros": bytes(len(tile)),
        "noise": np.random.default_rng(0).bytes(len(tile)),
    }[cut]
    with open_slide(slide_of(tmp_path, blocks(), "good.svs")) as good, open_slide(slide_of(tmp_path, stored)) as slide:
        truth = good.read_region((0, 0), 0, good.dimensions)
        pixels, valid = slide.read_region_mask((0, 0), 0, slide.dimensions)
        bad = np.zeros(valid.shape, bool)
        bad[SIDE : 2 * SIDE, 2 * SIDE : 3 * SIDE] = True
        np.testing.assert_array_equal(valid, ~bad)
        np.testing.assert_array_equal(pixels[~bad], truth[~bad])
        assert (pixels[bad] == 255).all()
        assert [place[1:] for place in slide.damaged if place[0] == 0] == [(2 * SIDE, SIDE, SIDE, SIDE)]
        assert any("damaged" in warning for warning in slide.warnings)
        with pytest.raises(CorruptSlide, match="column 2, row 1"):
            slide.read_region((2 * SIDE, SIDE), 0, (8, 8))
        np.testing.assert_array_equal(slide.read_region((0, 0), 0, (SIDE, SIDE)), truth[:SIDE, :SIDE])


def test_a_tile_that_was_never_scanned_is_white_and_no_damage(tmp_path: Path) -> None:
    """A sparse slide would show black holes, or be called damaged."""
    stored = blocks()
    stored[MIDDLE] = b""
    with open_slide(slide_of(tmp_path, stored)) as slide:
        pixels, valid = slide.read_region_mask((2 * SIDE, SIDE), 0, (SIDE, SIDE))
        assert (pixels == 255).all()
        assert not valid.any()
        assert slide.damaged == ()
        assert any("not scanned" in warning for warning in slide.warnings)


@pytest.mark.parametrize("name", ["a::b.svs", "50%25 #1?.svs", "[x]*.svs", "github:x.svs", "line\nbreak.svs"])
def test_names_are_names(tmp_path: Path, name: str) -> None:
    """A file's name would be read as an address, a pattern or two lines."""
    with open_slide(slide_of(tmp_path, blocks(), name)) as slide:
        assert slide.read_region((0, 0), 0, (4, 4)).shape == (4, 4, 3)
        assert slide.dimensions == (SIDE * ACROSS, SIDE * DOWN)
        assert slide.reader == "tiles"


def test_a_slide_that_changes_while_open_is_noticed(tmp_path: Path) -> None:
    """The pixels of one slide would be read through the table of another, and the verdict be about neither."""
    path = slide_of(tmp_path, blocks())
    with open_slide(path) as slide:
        before = slide.read_region((0, 0), 0, (SIDE, SIDE))
        slide.unchanged()
        other = slide_of(tmp_path, [jpeg(SIDE, SIDE, seed=99)] * (ACROSS * DOWN), "other.svs")
        other.replace(path)
        # The open handle still reads the slide that was opened.
        np.testing.assert_array_equal(slide.read_region((0, 0), 0, (SIDE, SIDE)), before)
        with pytest.raises(CorruptSlide, match=r"changed|replaced"):
            slide.unchanged()


def test_a_slide_cut_while_open_does_not_crash(tmp_path: Path) -> None:
    """A copy that is restarted under an open slide would end the program or give old rubbish."""
    path = slide_of(tmp_path, blocks())
    with open_slide(path) as slide:
        os.truncate(path, 3000)
        _, valid = slide.read_region_mask((0, 0), 0, slide.dimensions)
        assert not valid[-1, -1]
        with pytest.raises(CorruptSlide, match=r"changed|replaced"):
            slide.unchanged()
