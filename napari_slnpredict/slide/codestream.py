"""What a JPEG or JPEG 2000 stream says about itself, read from its head without decoding anything.

A decoder believes the head: one that declares 65,500 x 65,500 pixels costs 13 GB. So the head is compared with the
tile it stands in before any decoder sees it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, NamedTuple

SOI, EOI, SOS, DQT, DHT, DNL, APP14 = 0xD8, 0xD9, 0xDA, 0xDB, 0xC4, 0xDC, 0xEE
_FRAMES: Final = {0xC0: "baseline", 0xC1: "extended", 0xC2: "progressive"}
_STRANGE_FRAMES: Final = frozenset({0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
#: Markers without a length field: restart markers, SOI, TEM.
_BARE: Final = frozenset({0x01, 0xD8, *range(0xD0, 0xD8)})


class Frame(NamedTuple):
    """Size as a codestream declares it."""

    height: int
    width: int
    components: int
    precision: int


class BadStream(ValueError):
    """The head of a stream contradicts its own format; the text says how."""


class NeedMore(BadStream):
    """The head goes on beyond the bytes given."""


@dataclass(frozen=True)
class JpegHead:
    """Everything before a JPEG's pixel data.

    Attributes
    ----------
    frame : Frame or None
        None for an abbreviated stream that only carries tables.
    sampling : tuple of (int, int)
        Horizontal and vertical sampling factor of each component.
    component_ids : tuple of int
    quantisers, huffman_dc, huffman_ac : frozenset of int
        Numbers of the tables defined in this stream.
    needs_quantisers : frozenset of int
        Numbers of the tables that the components ask for.
    needs_huffman_dc, needs_huffman_ac : frozenset of int
    adobe_transform : int or None
        0: as stored (RGB), 1: YCbCr.
    length : int
        Bytes up to the pixel data.
    """

    frame: Frame | None
    sampling: tuple[tuple[int, int], ...] = ()
    component_ids: tuple[int, ...] = ()
    quantisers: frozenset[int] = frozenset()
    huffman_dc: frozenset[int] = frozenset()
    huffman_ac: frozenset[int] = frozenset()
    needs_quantisers: frozenset[int] = frozenset()
    needs_huffman_dc: frozenset[int] = frozenset()
    needs_huffman_ac: frozenset[int] = frozenset()
    adobe_transform: int | None = None
    progressive: bool = False
    length: int = 0


class _Reader:
    """Collects the segments of one stream."""

    def __init__(self) -> None:
        self.frame: Frame | None = None
        self.sampling: list[tuple[int, int]] = []
        self.ids: list[int] = []
        self.asked: list[int] = []
        self.quantisers: set[int] = set()
        self.huffman: tuple[set[int], set[int]] = (set(), set())
        self.scan: tuple[set[int], set[int]] = (set(), set())
        self.adobe: int | None = None
        self.progressive = False

    def take(self, marker: int, body: bytes) -> None:
        if marker in _FRAMES:
            self._frame(marker, body)
        elif marker in _STRANGE_FRAMES:
            raise BadStream(f"a kind of JPEG that no reader here decodes (marker FF{marker:02X})")
        elif marker == DQT:
            self._quantisers(body)
        elif marker == DHT:
            self._huffman(body)
        elif marker == SOS:
            self._scan(body)
        elif marker == APP14 and body[:5] == b"Adobe" and len(body) >= 12:
            self.adobe = body[11]

    def _frame(self, marker: int, body: bytes) -> None:
        if self.frame is not None:
            raise BadStream("two frames in one JPEG")
        if len(body) < 6 or len(body) != 6 + 3 * body[5] or not body[5]:
            raise BadStream("a frame header of the wrong length")
        precision, height, width, components = struct.unpack_from(">BHHB", body)
        for at in range(6, len(body), 3):
            self.ids.append(body[at])
            self.sampling.append((body[at + 1] >> 4, body[at + 1] & 15))
            self.asked.append(body[at + 2])
        if any(not (1 <= h <= 4 and 1 <= v <= 4) for h, v in self.sampling) or max(self.asked) > 3:
            raise BadStream("impossible sampling factors")
        if len(set(self.ids)) != components:
            raise BadStream("two components with one name")
        self.frame, self.progressive = Frame(height, width, components, precision), marker == 0xC2

    def _quantisers(self, body: bytes) -> None:
        at = 0
        while at < len(body):
            wide, number = body[at] >> 4, body[at] & 15
            length = 64 * (1 + wide)
            values = body[at + 1 : at + 1 + length]
            if wide > 1 or number > 3 or len(values) != length:
                raise BadStream("a quantisation table of the wrong shape")
            if (not wide and 0 in values) or (wide and 0 in struct.unpack(">64H", values)):
                raise BadStream("a quantisation table that divides by zero")
            self.quantisers.add(number)
            at += 1 + length

    def _huffman(self, body: bytes) -> None:
        at = 0
        while at < len(body):
            if len(body) < at + 17:
                raise BadStream("a Huffman table that is cut off")
            kind, number = body[at] >> 4, body[at] & 15
            lengths = body[at + 1 : at + 17]
            values = body[at + 17 : at + 17 + sum(lengths)]
            if kind > 1 or number > 3 or len(values) != sum(lengths) or sum(lengths) > 256:
                raise BadStream("a Huffman table of the wrong shape")
            if sum(n << (16 - bits) for bits, n in enumerate(lengths, 1)) > 1 << 16:
                raise BadStream("a Huffman table with more codes than fit")
            if (kind == 0 and values and max(values) > 15) or len(set(values)) != len(values):
                raise BadStream("a Huffman table with impossible values")
            self.huffman[kind].add(number)
            at += 17 + len(values)

    def _scan(self, body: bytes) -> None:
        if self.frame is None or not body or len(body) != 4 + 2 * body[0]:
            raise BadStream("pixel data without a frame")
        for at in range(1, 1 + 2 * body[0], 2):
            if body[at] not in self.ids:
                raise BadStream("pixel data for a component that is not there")
            self.scan[0].add(body[at + 1] >> 4)
            self.scan[1].add(body[at + 1] & 15)
        if not self.progressive and body[-3:] != b"\x00\x3f\x00":
            raise BadStream("a scan header that contradicts its frame")

    def result(self, length: int) -> JpegHead:
        return JpegHead(
            self.frame,
            tuple(self.sampling),
            tuple(self.ids),
            frozenset(self.quantisers),
            frozenset(self.huffman[0]),
            frozenset(self.huffman[1]),
            frozenset(self.asked),
            frozenset(self.scan[0]),
            frozenset(self.scan[1]),
            self.adobe,
            self.progressive,
            length,
        )


def jpeg_head(data: bytes) -> JpegHead:
    """Read the segments of a JPEG up to its pixel data (or to its end, for a stream of tables alone).

    Raises
    ------
    NeedMore
        `data` stops before that place.
    BadStream
        Anything else that is wrong.
    """
    if len(data) < 2 or data[0] != 0xFF or data[1] != SOI:
        raise BadStream("no JPEG begins here")
    reader, at = _Reader(), 2
    while True:
        if at + 4 > len(data):
            if data[at : at + 2] == b"\xff\xd9":
                return reader.result(at + 2)
            raise NeedMore("the JPEG header is cut off")
        if data[at] != 0xFF:
            raise BadStream("bytes between JPEG segments that belong to none")
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        if marker == EOI:
            return reader.result(at + 2)
        if marker in _BARE or marker < 0xC0:
            raise BadStream(f"marker FF{marker:02X} inside a JPEG header")
        length = data[at + 2] << 8 | data[at + 3]
        if length < 2:
            raise BadStream("a JPEG segment without a length")
        if at + 2 + length > len(data):
            raise NeedMore("the JPEG header is cut off")
        reader.take(marker, data[at + 4 : at + 2 + length])
        at += 2 + length
        if marker == SOS:
            return reader.result(at)


def jpeg_frame(data: bytes) -> Frame:
    """Return (height, width, components, precision) of a JPEG; raises `BadStream` where there is none."""
    head = jpeg_head(data)
    if head.frame is None:
        raise BadStream("a JPEG without a picture")
    return head.frame


def j2k_frame(data: bytes) -> Frame | None:
    """Return the size a JPEG 2000 codestream declares; None when it is wrapped in a JP2 file (not looked into)."""
    if data[:12] == b"\0\0\0\x0cjP  \r\n\x87\n":
        return None
    if data[:4] != b"\xff\x4f\xff\x51":
        raise BadStream("no JPEG 2000 begins here")
    if len(data) < 43:
        raise NeedMore("the JPEG 2000 header is cut off")
    right, bottom, left, top = struct.unpack_from(">4I", data, 8)
    (components,) = struct.unpack_from(">H", data, 40)
    if right <= left or bottom <= top or not components:
        raise BadStream("a JPEG 2000 picture without size")
    return Frame(bottom - top, right - left, components, (data[42] & 127) + 1)
