"""Tiles against their own headers: none that lies is decoded, and damage is counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_slnpredict.errors import CorruptSlide
from napari_slnpredict.slide.directory import Inspection
from napari_slnpredict.slide.frames import sample_blocks
from napari_slnpredict.slide.inspect import inspect
from napari_slnpredict.slide.limits import LIMITS

from .test_codestream import segment
from .tiny_tiff import Image, jpeg, tiff


def scan(folder: Path, image: Image) -> Inspection:
    path = folder / "slide.tif"
    path.write_bytes(tiff(image))
    return inspect(path)


def split(whole: bytes) -> tuple[bytes, bytes]:
    """Cut a JPEG into shared tables and an abbreviated stream, as Aperio stores them."""
    kept, tables, at = b"\xff\xd8", b"\xff\xd8", 2
    while whole[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(whole[at + 2 : at + 4], "big")
        if whole[at + 1] in (0xDB, 0xC4):
            tables += whole[at:end]
        else:
            kept += whole[at:end]
        at = end
    return tables + b"\xff\xd9", kept + whole[at:]


def test_shared_tables_are_joined(tmp_path: Path) -> None:
    """Every Aperio slide would be refused for tables that stand elsewhere."""
    tables, tile = split(jpeg())
    good = Image(blocks=[tile] * 6, tags={347: (7, tables)})
    assert not any("damaged" in warning for warning in scan(tmp_path, good).warnings)
    with pytest.raises(CorruptSlide, match="JPEG tables are missing"):
        scan(tmp_path, Image(blocks=[tile] * 6))
    noisy = tables[:8] + b"\x03" * 40 + tables[48:-1]
    with pytest.raises(CorruptSlide, match="JPEG tables are"):
        scan(tmp_path, Image(blocks=[tile] * 6, tags={347: (7, noisy)}))
    with pytest.raises(CorruptSlide, match="hold a picture"):
        scan(tmp_path, Image(blocks=[tile] * 6, tags={347: (7, jpeg())}))


@pytest.mark.parametrize(
    ("block", "says"),
    [
        (jpeg(32, 16), "32 x 16 px in a tile of 16 x 16"),
        (jpeg(16, 16, colour="GRAY"), "1 components where 3"),
        (bytes(500), "no JPEG begins here"),
        (jpeg()[:100], "cut off"),
    ],
)
def test_tiles_that_lie_are_found(tmp_path: Path, block: bytes, says: str) -> None:
    """A tile of another size or kind would be pasted into the slide, or stop the reading half-way."""
    blocks = [jpeg(seed=k) for k in range(6)]
    blocks[4] = block
    found = scan(tmp_path, Image(blocks=blocks))
    assert any("1 of 6 tiles" in warning and says in warning for warning in found.warnings), found.warnings
    with pytest.raises(CorruptSlide, match="6 of 6 tiles"):
        scan(tmp_path, Image(blocks=[block] * 6))


def test_a_tile_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    """One header of 65,500 x 65,500 px costs 13 GB in a decoder."""
    frame = segment(jpeg(), 0xC0)
    bomb = jpeg().replace(frame, frame[:5] + (65500).to_bytes(2, "big") * 2 + frame[9:])
    with pytest.raises(CorruptSlide, match="65,500 x 65,500"):
        scan(tmp_path, Image(blocks=[jpeg()] * 5 + [bomb]))


def test_long_headers_are_read_on(tmp_path: Path) -> None:
    """A tile with a colour profile in front of its frame would be called damaged."""
    comment = b"\xff\xfe" + (3000).to_bytes(2, "big") + bytes(2998)
    long = jpeg()[:2] + comment + jpeg()[2:]
    image = Image(400, 400, (400, 400), [long.replace(segment(jpeg(), 0xC0), segment(jpeg(400, 400), 0xC0))])
    assert scan(tmp_path, image).warnings == ()


@pytest.mark.parametrize(
    ("tags", "block", "says"),
    [
        ({530: (3, (2, 2))}, jpeg(), "look like RGB"),
        ({262: (3, (2,)), 530: None}, jpeg(subsampling="420"), "look like YCbCr"),
        ({530: (3, (2, 2))}, jpeg(subsampling="420"), ""),
        ({262: (3, (2,)), 530: (3, (2, 2))}, jpeg(), ""),  # Aperio's habit
    ],
)
def test_contradictions_about_colour_are_mentioned(tmp_path: Path, tags: dict, block: bytes, says: str) -> None:
    """A damaged colour tag would turn the whole slide green without a word."""
    warnings = scan(tmp_path, Image(16, 16, blocks=[block], tags=tags)).warnings
    assert any(says in warning for warning in warnings) if says else warnings == ()


def test_last_strips_may_be_shorter(tmp_path: Path) -> None:
    """A thumbnail in strips whose last one is low would be called damaged."""
    strips = [jpeg(40, 16), jpeg(40, 8)]
    image = Image(40, 24, None, strips, tags={278: (4, (16,))})
    assert scan(tmp_path, image).warnings == ()


def test_the_sample_is_bounded_and_holds_the_ends(tmp_path: Path) -> None:
    """A slide of a million tiles would be read from end to end, or its last tile, cut by a bad copy, not at all."""
    image = Image(16 * 600, 16, blocks=[jpeg()] * 600, tags={325: (4, (len(jpeg()),) * 599 + (len(jpeg()) - 1,))})
    directory = scan(tmp_path, image).directories[0]
    counts = directory.byte_counts.copy()
    counts[313] = 10_000
    object.__setattr__(directory, "byte_counts", counts)
    sample = sample_blocks(directory, 1 << 30, LIMITS.frames_checked)
    assert len(sample) <= LIMITS.frames_checked
    assert {0, 313, 599} <= set(sample.tolist())
    assert np.all(np.diff(sample) > 0)
