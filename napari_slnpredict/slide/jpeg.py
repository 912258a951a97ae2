"""Joining a TIFF's JPEG tiles into streams a strict decoder accepts, with the colour space the TIFF tag gives.

In a TIFF the photometric tag decides what the three components are, not the JPEG's own markers: Aperio writes RGB
without any marker (a decoder alone would take it for YCbCr), and tables shared by all tiles stand apart.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .source import TileFault

SOI, EOI, SOS, APP0, APP14 = 0xD8, 0xD9, 0xDA, 0xE0, 0xEE
# Start-of-frame markers; 0xC4, 0xC8 and 0xCC are tables and extensions.
FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
MAX_SEGMENTS = 200
MAX_PARTS = 65536
#: Heads of tiles remembered, and up to how many bytes each.
KNOWN_HEADS, LONGEST_HEAD = 4, 4096


def adobe_marker(transform: int) -> bytes:
    """Return an APP14 segment; `transform` 0 says RGB, 1 says YCbCr."""
    return b"\xff\xee" + struct.pack(">H", 14) + b"Adobe" + struct.pack(">HHHB", 100, 0, 0, transform)


@dataclass(frozen=True, slots=True)
class Frame:
    """What a JPEG stream says of itself before its pixels."""

    width: int
    height: int
    components: int
    bits: int


def segments(data: bytes, start: int = 2) -> Iterator[tuple[int, int, int]]:
    """Yield (marker, start, end) of each segment up to the start of scan (included) or the end of `data`.

    Raises `TileFault` where the stream is no JPEG.
    """
    position = start
    for _ in range(MAX_SEGMENTS):
        while position + 1 < len(data) and data[position] == 0xFF and data[position + 1] == 0xFF:
            position += 1  # fill bytes
        if position + 2 > len(data) or data[position] != 0xFF:
            raise TileFault("its JPEG header is damaged")
        marker = data[position + 1]
        if marker == EOI:
            return
        if position + 4 > len(data):
            raise TileFault("its JPEG header ends early")
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        end = position + 2 + length
        if length < 2 or end > len(data):
            raise TileFault("its JPEG header ends early")
        yield marker, position, end
        if marker == SOS:
            return
        position = end
    raise TileFault("its JPEG header is damaged")


def table_segments(tables: bytes | None) -> bytes:
    """Return a JPEGTables tag without the markers around it; raises `TileFault` when it is no JPEG."""
    if not tables:
        return b""
    if tables[:2] != b"\xff\xd8":
        raise TileFault("the JPEG tables are damaged")
    return b"".join(tables[start:end] for marker, start, end in segments(tables) if marker not in (APP0, APP14, SOS))


def complete_stream(data: bytes, tables: bytes, transform: int) -> tuple[bytes, Frame]:
    """Return a whole JPEG stream of one TIFF tile, and its frame.

    Parameters
    ----------
    data : bytes
        The stored tile.
    tables : bytes
        Shared tables as `table_segments` returns them.
    transform : int
        0 when the components are RGB, 1 when YCbCr: from the TIFF tag, replacing what the stream says.
    """
    head, frame, end = _complete_head(data, tables, transform)
    return head + data[end:], frame


def _complete_head(data: bytes, tables: bytes, transform: int) -> tuple[bytes, Frame, int]:
    """Return everything before the pixel data as it shall be, the frame, and where the pixel data begin."""
    if data[:2] != b"\xff\xd8":
        raise TileFault("it is no JPEG stream")
    kept = [b"\xff\xd8", adobe_marker(transform), tables]
    frame: Frame | None = None
    for marker, start, end in segments(data):
        if marker in (APP0, APP14):
            continue
        if marker in FRAMES:
            frame = read_frame(data, start, end)
        kept.append(data[start:end])
        if marker == SOS:
            break
    else:
        raise TileFault("its JPEG stream holds no pixels")
    if frame is None:
        raise TileFault("its JPEG stream holds no frame")
    return b"".join(kept), frame, end


class Completer:
    """`complete_stream` for the tiles of one image: what was checked once is not parsed again.

    Every tile of a scanner begins with the same bytes. All that is refused here depends on those bytes alone, so a
    tile that begins with bytes found good is good so far; comparing them takes a fiftieth of parsing them.

    Parameters
    ----------
    tables, transform
        As `complete_stream` takes them.
    check : callable
        Raises `TileFault` for a frame that is not that of a tile.
    """

    def __init__(self, tables: bytes, transform: int, check: Callable[[Frame], None]) -> None:
        self._tables, self._transform, self._check = tables, transform, check
        #: (as stored, as it shall be); replaced as a whole, so that threads need no lock.
        self._heads: tuple[tuple[bytes, bytes], ...] = ()

    def __call__(self, data: bytes) -> bytes:
        """Return the whole stream of a stored tile. Raises `TileFault`."""
        for stored, whole in self._heads:
            if data.startswith(stored):
                return b"".join((whole, memoryview(data)[len(stored) :]))
        whole, frame, end = _complete_head(data, self._tables, self._transform)
        self._check(frame)
        if end <= LONGEST_HEAD:
            self._heads = ((data[:end], whole), *self._heads[: KNOWN_HEADS - 1])
        return whole + data[end:]


def read_frame(data: bytes, start: int, end: int) -> Frame:
    """Return the frame of the segment from `start` to `end`."""
    if end - start < 10:
        raise TileFault("its JPEG header ends early")
    bits, height, width, components = struct.unpack_from(">BHHB", data, start + 4)
    return Frame(width, height, components, bits)


def jpeg2000_is_whole(data: bytes) -> bool:
    """Whether a JPEG 2000 codestream's parts follow each other up to its end marker.

    The decoder fills what is missing with a blurred picture and says nothing; a tile that was cut or whose end is
    zeros is found by its table of parts.
    """
    position = 2
    while data[position : position + 2] != b"\xff\x90":  # the main header, up to the first part
        if position + 4 > len(data) or data[position] != 0xFF:
            return False
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    for _ in range(MAX_PARTS):
        if data[position : position + 2] == b"\xff\xd9":
            return True
        if data[position : position + 2] != b"\xff\x90":
            return False
        length = int.from_bytes(data[position + 6 : position + 10], "big")
        if length == 0:  # the last part may leave its length open; then the end marker is all there is to check
            return data.rstrip(b"\0").endswith(b"\xff\xd9")
        position += max(length, 12)
    return False
