"""The directories of a TIFF: read once each, within limits, every value checked before it is believed."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from napari_slnpredict.errors import CorruptSlide
from napari_slnpredict.slide.limits import LIMITS
from napari_slnpredict.slide.raw_file import RawFile, open_regular
from napari_slnpredict.slide.tiff_scan import Chain, scan_tiff

from .tiny_tiff import Image, Writer, tiff


@contextmanager
def opened(folder: Path, data: bytes) -> Iterator[RawFile]:
    path = folder / "slide.tif"
    path.write_bytes(data)
    descriptor = open_regular(path)
    try:
        yield RawFile(descriptor, path)
    finally:
        os.close(descriptor)


def scanned(folder: Path, data: bytes) -> Chain:
    with opened(folder, data) as file:
        return scan_tiff(file)


def refused(folder: Path, data: bytes) -> str:
    with pytest.raises(CorruptSlide) as error:
        scanned(folder, data)
    return str(error.value)


def test_tags_arrive_as_written(tmp_path: Path) -> None:
    """A reader would be given a scale, a profile or a name that is not the file's."""
    tags = {
        270: (2, "Aperio µ\0".encode()), 271: (2, b"Maker\0"), 272: (2, b"Model\0"), 305: (2, b"Soft\0"),
        282: (5, (20000, 1)), 283: (5, (40000, 2)), 296: (3, (3,)), 317: (3, (2,)), 254: (4, (1,)), 338: (3, (2,)),
        34675: (7, b"profile bytes"), 347: (7, b"\xff\xd8\xff\xd9"),
    }  # fmt: skip
    data = tiff(Image(tags=tags))  # type: ignore[arg-type]
    d = scanned(tmp_path, data).directories[0]
    assert (d.description, d.make, d.model, d.software) == ("Aperio µ", "Maker", "Model", "Soft")
    assert (d.resolution, d.predictor, d.subfile_type, d.extra_samples) == ((20000.0, 20000.0, 3), 2, 1, (2,))
    assert d.icc is not None
    assert data[d.icc[0] : d.icc[0] + d.icc[1]] == b"profile bytes"
    assert d.jpeg_tables == b"\xff\xd8\xff\xd9"
    assert d.subsampling == (1, 1)


def test_latin1_and_broken_text_is_read_somehow(tmp_path: Path) -> None:
    """A description with one foreign letter would make a slide unreadable."""
    d = scanned(tmp_path, tiff(Image(tags={270: (2, "Mäuse µm\0".encode("latin-1"))}))).directories[0]
    assert d.description == "Mäuse µm"


def test_loops_are_refused(tmp_path: Path) -> None:
    """A directory that leads back to an earlier one would be read for ever."""
    data = bytearray(tiff(Image(), Image(20, 12)))
    first = struct.unpack_from("<I", data, 4)[0]
    struct.pack_into("<I", data, len(data) - 4, first)
    assert "loop" in refused(tmp_path, bytes(data))
    writer = Writer()
    writer.add(Image(tags={330: (4, (len(tiff(Image(tags={330: (4, (8,))}))) - 4 - 12 * 13 - 2,))}))
    own = struct.unpack_from("<I", writer.out, 4)[0]
    at = writer.out.index(struct.pack("<HHI", 330, 4, 1), own)
    struct.pack_into("<I", writer.out, at + 8, own)
    assert "loop" in refused(tmp_path, bytes(writer.out))


def test_endless_chains_are_refused(tmp_path: Path) -> None:
    """Thousands of directories would cost seconds and hundreds of megabytes."""
    writer = Writer()
    for _ in range(LIMITS.directories + 1):
        writer.add(Image(16, 16))
    assert "too many" in refused(tmp_path, bytes(writer.out))


def test_subdirectories_do_not_nest_for_ever(tmp_path: Path) -> None:
    """A deep tree of sub-directories would exhaust the interpreter's stack."""
    image = Image(16, 16)
    for _ in range(LIMITS.subifd_depth + 1):
        image = Image(16, 16, below=[image])
    assert "nested" in refused(tmp_path, tiff(image))


@pytest.mark.parametrize(
    ("tags", "says"),
    [
        ({256: None}, "ImageWidth .* is missing"),
        ({256: (4, (0,))}, "ImageWidth .* is 0 px"),
        ({257: (4, (1 << 31,))}, "ImageLength"),
        ({256: (4, (40, 40))}, "2 values instead of one"),
        ({256: (12, (40.0,))}, "not a whole number"),
        ({277: (3, (0,))}, "SamplesPerPixel"),
        ({277: (3, (65535,))}, "SamplesPerPixel"),
        ({324: None}, "TileOffsets .* is missing"),
        ({325: None}, "TileByteCounts .* is missing"),
        ({262: None}, "PhotometricInterpretation .* is missing"),
        ({347: (7, b"")}, "JPEGTables"),
        ({347: (7, bytes(LIMITS.jpeg_tables_bytes + 1))}, "JPEGTables"),
    ],
)
def test_tags_that_decide_are_checked(tmp_path: Path, tags: dict, says: str) -> None:
    """A damaged size, type or count would reach a library, which shows black or asks for gigabytes."""
    with pytest.raises(CorruptSlide, match=says):
        scanned(tmp_path, tiff(Image(tags=tags)))


def test_huge_counts_cost_nothing(tmp_path: Path) -> None:
    """A tag that claims 2^31 values would be given the memory for them."""
    data = bytearray(tiff())
    at = data.index(struct.pack("<HHI", 324, 4, 6))
    struct.pack_into("<I", data, at + 4, 0x7FFFFFFF)
    assert "2,147,483,647" in refused(tmp_path, bytes(data))
    struct.pack_into("<I", data, at + 4, LIMITS.blocks)
    assert "ends after" in refused(tmp_path, bytes(data))


def test_long_descriptions_are_cut(tmp_path: Path) -> None:
    """A description of 32 MB would be held, split and searched at every opening."""
    text = b"Aperio |x = " + b"A" * (LIMITS.description_bytes + 1000) + b"\0"
    chain = scanned(tmp_path, tiff(Image(tags={270: (2, text)})))
    assert len(chain.directories[0].description) == LIMITS.description_bytes
    assert any("only its beginning" in warning for warning in chain.warnings)


def test_informative_tags_cannot_make_a_slide_unreadable(tmp_path: Path) -> None:
    """A scanner's odd private or informative tag would cost the whole slide."""
    tags = {
        270: (12, (1.0,)),
        271: (2, b""),
        282: (3, (1,)),
        296: (2, b"x"),
        65000: (255, b"1234567"),
        700: (4, (1, 2, 3)),
    }
    chain = scanned(tmp_path, tiff(Image(tags=tags)))  # type: ignore[arg-type]
    assert (chain.directories[0].description, chain.directories[0].resolution) == ("", None)


def test_disorder_is_mentioned(tmp_path: Path) -> None:
    """A tag whose number was damaged would go unnoticed."""
    data = bytearray(tiff())
    at = data.index(struct.pack("<HHI", 284, 3, 1))
    struct.pack_into("<H", data, at, 9)
    assert any("out of order" in warning for warning in scanned(tmp_path, bytes(data)).warnings)


def ndpi(high: int = 0) -> bytes:
    """Return a slide in Hamamatsu's dialect: 64-bit links, and the upper halves of all values after the directory."""
    strip = Image(24, 16, None, blocks=[b"\xff\xd8" + bytes(40)])
    values = {**strip.lawful([0], [42]), 65420: (4, (1,)), 65421: (11, (20.0,))}
    out = bytearray(struct.pack("<HHQ", 0x4949, 42, 0))
    place = len(out)
    out += strip.stored()[0]
    values[273] = (4, (place,))
    raw = {
        tag: struct.pack(f"<{len(v)}{'H' if k == 3 else 'f' if k == 11 else 'I'}", *v) for tag, (k, v) in values.items()
    }
    places = {}
    for tag, data in raw.items():
        if len(data) > 4:
            places[tag] = len(out)
            out += data
    start = len(out)
    out += struct.pack("<H", len(values))
    for tag in sorted(values):
        kind, numbers = values[tag]
        kind = 4 if kind == 16 else kind
        out += struct.pack("<HHI", tag, kind, len(numbers))
        out += struct.pack("<I", places[tag]) if tag in places else raw[tag].ljust(4, b"\0")
    out += struct.pack("<Q", 0)
    out += b"".join(struct.pack("<I", high if tag == 273 else 0) for tag in sorted(values))
    struct.pack_into("<Q", out, 4, start)
    return bytes(out)


def test_hamamatsu_counts_in_64_bits(tmp_path: Path) -> None:
    """An NDPI file above 4 GB would be read at the wrong place."""
    chain = scanned(tmp_path, ndpi())
    assert chain.dialect.ndpi
    assert chain.directories[0].source_lens == 20.0
    plain = int(chain.directories[0].offsets[0])
    above = scanned(tmp_path, ndpi(high=3)).directories[0].offsets
    np.testing.assert_array_equal(above, np.array([plain + (3 << 32)], np.uint64))
