"""JPEG and JPEG 2000 headers: what they declare, and that no broken one is believed."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_slnpredict.slide.codestream import BadStream, Frame, NeedMore, j2k_frame, jpeg_frame, jpeg_head

from .tiny_tiff import jpeg


def edited(data: bytes, marker: int, at: int, new: bytes) -> bytes:
    """Replace bytes inside the first segment with this marker, counted from its body."""
    start = data.index(bytes([0xFF, marker])) + 4 + at
    return data[:start] + new + data[start + len(new) :]


def segment(data: bytes, marker: int) -> bytes:
    start = data.index(bytes([0xFF, marker]))
    return data[start : start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")]


def test_a_jpeg_tells_its_size() -> None:
    """A tile that declares another size than it has would be decoded into the wrong place or fill the memory."""
    assert jpeg_frame(jpeg(48, 32)) == Frame(height=32, width=48, components=3, precision=8)
    assert jpeg_frame(jpeg(16, 16, colour="GRAY")).components == 1


def test_the_head_lists_tables_and_sampling() -> None:
    """A tile whose tables are missing would be decoded with whatever tables the decoder had before."""
    head = jpeg_head(jpeg(subsampling="420"))
    assert head.sampling == ((2, 2), (1, 1), (1, 1))
    assert head.needs_quantisers <= head.quantisers
    assert head.needs_huffman_dc <= head.huffman_dc
    assert head.needs_huffman_ac <= head.huffman_ac
    assert jpeg(subsampling="420")[head.length - 3 : head.length] == b"\x00\x3f\x00"


def test_tables_alone_are_a_stream_without_a_frame() -> None:
    """The shared tables of an Aperio slide would be taken for damage."""
    whole = jpeg()
    tables = jpeg_head(b"\xff\xd8" + segment(whole, 0xDB) + segment(whole, 0xC4) + b"\xff\xd9")
    assert tables.frame is None
    assert tables.quantisers
    with pytest.raises(BadStream, match="without a picture"):
        jpeg_frame(b"\xff\xd8\xff\xd9")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no JPEG begins"),
        (bytes(100), "no JPEG begins"),
        (b"\xff\xd8garbage", "belong to none"),
        (b"\xff\xd8\xff\xd8\xff\xd8", "inside a JPEG header"),
        (b"\xff\xd8\xff\xdb\0\1\0\0", "without a length"),
        (edited(jpeg(), 0xC0, 5, b"\x04"), "wrong length"),
        (edited(jpeg(), 0xC0, 7, b"\x00"), "sampling"),
        (edited(jpeg(), 0xC0, 9, b"\x01"), "one name"),
        (edited(jpeg(), 0xDB, 5, b"\x00"), "divides by zero"),
        (edited(jpeg(), 0xDB, 0, b"\x05"), "quantisation table of the wrong shape"),
        (edited(jpeg(), 0xC4, 1, b"\xff"), "Huffman table"),
        (edited(jpeg(), 0xC4, 0, b"\x30"), "Huffman table"),
        (edited(jpeg(), 0xDA, 1, b"\x77"), "component that is not there"),
        (edited(jpeg(), 0xDA, 7, b"\x09"), "contradicts"),
        (jpeg().replace(b"\xff\xc0", b"\xff\xc9", 1), "no reader here decodes"),
        (jpeg().replace(segment(jpeg(), 0xC0), b"", 1), "without a frame"),
    ],
)
def test_broken_headers_are_named(data: bytes, says: str) -> None:
    """A contradiction in a header would be handed to a lax decoder, which shows something."""
    with pytest.raises(BadStream, match=says):
        jpeg_head(data)


def test_a_cut_header_asks_for_more() -> None:
    """A header longer than the first read (a colour profile inside) would be called damaged."""
    whole = jpeg()
    end = jpeg_head(whole).length
    for size in range(2, end):
        with pytest.raises(NeedMore):
            jpeg_head(whole[:size])


@given(st.binary(max_size=200), st.integers(0, 600), st.binary(min_size=1, max_size=8))
def test_no_header_crashes_the_parser(noise: bytes, at: int, patch: bytes) -> None:
    """Some bytes would raise an error other than the parser's own."""
    whole = bytearray(jpeg())
    whole[at : at + len(patch)] = patch
    for data in (b"\xff\xd8" + noise, bytes(whole), noise):
        for read in (jpeg_frame, j2k_frame):
            try:
                read(data)
            except BadStream:
                continue


def test_jpeg_2000_tells_its_size() -> None:
    """A JPEG 2000 tile that declares gigapixels would be decoded."""
    size = struct.pack(">HHHIIIIIIIIH", 0xFF51, 47, 0, 256, 128, 0, 0, 256, 128, 0, 0, 3)
    stream = b"\xff\x4f" + size + bytes([7, 1, 1]) * 3
    assert j2k_frame(stream) == Frame(128, 256, 3, 8)
    assert j2k_frame(b"\0\0\0\x0cjP  \r\n\x87\n" + stream) is None
    with pytest.raises(NeedMore):
        j2k_frame(stream[:30])
    with pytest.raises(BadStream, match="without size"):
        j2k_frame(stream.replace(struct.pack(">II", 256, 128), struct.pack(">II", 0, 0), 1))
    with pytest.raises(BadStream, match="no JPEG 2000"):
        j2k_frame(bytes(64))
