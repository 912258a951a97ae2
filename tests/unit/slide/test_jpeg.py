from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_slnpredict.slide.jpeg import (
    KNOWN_HEADS,
    LONGEST_HEAD,
    Completer,
    Frame,
    adobe_marker,
    complete_stream,
    jpeg2000_is_whole,
    segments,
    table_segments,
)
from napari_slnpredict.slide.source import TileFault

from .made_slides import picture


@pytest.fixture(scope="module")
def stream() -> bytes:
    return bytes(simplejpeg.encode_jpeg(picture(64, 48), quality=90, colorsubsampling="420"))


def split(stream: bytes) -> tuple[bytes, bytes]:
    """Return shared tables and the abbreviated stream, as TIFF stores them."""
    tables, rest = [b"\xff\xd8"], [b"\xff\xd8"]
    end = 2
    for marker, start, end in segments(stream):
        if marker == 0xDA:
            rest.append(stream[start:])
        else:
            (tables if marker in (0xDB, 0xC4) else rest).append(stream[start:end])
    return b"".join([*tables, b"\xff\xd9"]), b"".join(rest)


def test_an_abbreviated_stream_is_completed(stream: bytes) -> None:
    """Tables stored apart were lost, so no tile of most Aperio slides decodes."""
    tables, short = split(stream)
    whole, frame = complete_stream(short, table_segments(tables), 1)
    assert (frame.width, frame.height, frame.components, frame.bits) == (64, 48, 3, 8)
    assert np.array_equal(simplejpeg.decode_jpeg(whole), simplejpeg.decode_jpeg(stream))


def test_the_tag_decides_the_colours(stream: bytes) -> None:
    """A marker inside the stream overruled the TIFF's own tag: RGB tiles in false colours."""
    import imagecodecs

    as_rgb, _ = complete_stream(stream, b"", 0)  # the stream itself has a JFIF marker, which means YCbCr
    raw = imagecodecs.jpeg8_decode(stream, colorspace=2, outcolorspace=2)
    assert np.array_equal(simplejpeg.decode_jpeg(as_rgb), raw)
    lying = stream[:2] + adobe_marker(0) + stream[2:]
    assert np.array_equal(simplejpeg.decode_jpeg(complete_stream(lying, b"", 1)[0]), simplejpeg.decode_jpeg(stream))


def test_fill_bytes_between_segments_are_allowed(stream: bytes) -> None:
    """A lawful stream with fill bytes was called damaged."""
    whole, _ = complete_stream(stream[:2] + b"\xff\xff" + stream[2:], b"", 1)
    assert np.array_equal(simplejpeg.decode_jpeg(whole), simplejpeg.decode_jpeg(stream))


@pytest.mark.parametrize(
    "damage",
    [
        lambda s: b"",
        lambda s: bytes(len(s)),
        lambda s: s[:2],
        lambda s: s[:30],
        lambda s: s[:2] + b"\x00" + s[3:],
        lambda s: s[:4] + b"\xff\xff" + s[6:],
        lambda s: s[:4] + b"\x00\x01" + s[6:],
        lambda s: b"\xff\xd8\xff\xd9",
        lambda s: b"\xff\xd8" + b"\xff\xe1\x00\x02" * 300,
        lambda s: b"\xff\xd8\xff\xda\x00\x02",
        lambda s: b"\xff\xd8\xff\xc0\x00\x04\x00\x00\xff\xda\x00\x02",
    ],
)
def test_a_damaged_head_is_a_fault(stream: bytes, damage: object) -> None:
    """A damaged tile raised something that ends the whole read, or looped."""
    with pytest.raises(TileFault):
        complete_stream(damage(stream), b"", 1)  # type: ignore[operator]


def outcome(work: Callable[[], object]) -> object:
    try:
        return work()
    except TileFault as fault:
        return str(fault)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 700), st.integers(0, 255), st.sampled_from(["change", "cut", "insert", "drop"])),
        max_size=3,
    )
)
def test_remembered_heads_let_nothing_through(changes: list[tuple[int, int, str]]) -> None:
    """A tile whose head is damaged was taken for sound because the one before it was."""
    sound = bytes(simplejpeg.encode_jpeg(picture(64, 48), quality=90, colorsubsampling="420"))

    def check(frame: Frame) -> None:
        if frame != Frame(64, 48, 3, 8):
            raise TileFault(f"{frame}")

    def parsed(data: bytes) -> bytes:
        whole, frame = complete_stream(data, b"", 1)
        check(frame)
        return whole

    damaged = bytearray(sound)
    for place, value, kind in changes:
        if kind == "change" and place < len(damaged):
            damaged[place] = value
        elif kind == "cut":
            del damaged[place:]
        elif kind == "insert":
            damaged[place:place] = bytes([value])
        elif place < len(damaged):
            del damaged[place]
    completer = Completer(b"", 1, check)
    for data in (sound, bytes(damaged), sound, bytes(damaged)):
        assert outcome(lambda data=data: completer(data)) == outcome(lambda data=data: parsed(data))


def test_heads_of_strange_streams_do_not_pile_up() -> None:
    """A file in which every tile has a head of its own filled the memory with heads."""
    completer = Completer(b"", 1, lambda frame: None)
    for k in range(20):
        stream = bytes(simplejpeg.encode_jpeg(picture(64, 48), quality=50 + k))
        completer(stream)
    comment = b"\xff\xfe" + (20_000).to_bytes(2, "big") + bytes(19_998)
    completer(stream[:2] + comment + stream[2:])
    assert len(completer._heads) == KNOWN_HEADS
    assert max(len(stored) for stored, _ in completer._heads) <= LONGEST_HEAD


def test_damaged_tables_are_a_fault() -> None:
    """Noise in the shared tables was spliced into every tile."""
    assert table_segments(None) == b""
    for tables in (b"noise", b"\xff\xd8\x12\x34", b"\xff\xd8\xff\xdb\xff\xff"):
        with pytest.raises(TileFault):
            table_segments(tables)


def test_a_jpeg_2000_stream_that_ends_early_is_noticed() -> None:
    """The decoder fills what was cut off with a blurred picture and says nothing."""
    import imagecodecs

    data = bytes(imagecodecs.jpeg2k_encode(picture(64, 64), level=80, codecformat="j2k"))
    assert jpeg2000_is_whole(data)
    assert jpeg2000_is_whole(data + bytes(3))
    half = len(data) // 2
    for damaged in (data[:half], data[:half] + bytes(len(data) - half), data[:-2], data[:10], b"", bytes(100)):
        assert not jpeg2000_is_whole(damaged)
