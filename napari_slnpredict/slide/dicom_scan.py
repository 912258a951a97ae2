"""The safety scan of a DICOM whole-slide file.

Why it must be one of our own: OpenSlide believes a DICOM file's table of frame offsets. One wrong byte in it ends the
process with a segmentation fault, viewer and all (9 of 120 random mutants of a good file did). So the elements are
walked, the table is compared with the fragments it points at, and the sizes with each other; nothing is decoded.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import CorruptSlide, NotBrightfield, UnsupportedSlide

from .codestream import BadStream, Frame, NeedMore, j2k_frame, jpeg_frame
from .limits import LIMITS
from .raw_file import COPY_AGAIN, RawFile

WHOLE_SLIDE: Final = "1.2.840.10008.5.1.4.1.1.77.1.6"
_IMPLICIT, _EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
_JPEG: Final = frozenset({"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"})
_JPEG_2000: Final = frozenset({"1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"})
_LONG_FORMS: Final = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_SHORT_FORMS: Final = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED: Final = 0xFFFFFFFF
_SYNTAX, _SOP_CLASS, _SERIES, _IMAGE_TYPE, _ORGANISATION = 0x00020010, 0x00020002, 0x0020000E, 0x00080008, 0x00209311
_SAMPLES, _PHOTOMETRIC, _FRAMES, _ROWS, _COLUMNS, _BITS = (
    0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011, 0x00280100,
)  # fmt: skip
_TOTAL_COLUMNS, _TOTAL_ROWS, _EXTENDED, _PIXELS = 0x00480006, 0x00480007, 0x7FE00001, 0x7FE00010
_WANTED: Final = frozenset({
    _SYNTAX, _SOP_CLASS, _SERIES, _IMAGE_TYPE, _ORGANISATION, _SAMPLES, _PHOTOMETRIC, _FRAMES, _ROWS, _COLUMNS, _BITS,
    _TOTAL_COLUMNS, _TOTAL_ROWS,
})  # fmt: skip


@dataclass(frozen=True)
class DicomImage:
    """What one file of a DICOM slide holds.

    Attributes
    ----------
    series : str
        Files of one slide share it.
    role : str
        "VOLUME" (a level), "LABEL", "OVERVIEW", "THUMBNAIL", or as the file says.
    width, height : int
        Pixels of the whole image.
    warnings : tuple of str
    """

    series: str
    role: str
    width: int
    height: int
    warnings: tuple[str, ...] = ()


class _Element(NamedTuple):
    tag: int
    form: bytes
    length: int
    start: int  # of the value


class _Walk:
    """Reads elements one after the other through a window on the file."""

    def __init__(self, file: RawFile) -> None:
        self.file, self.explicit = file, True
        self.at_window, self.window = 0, b""
        self.elements = 0

    def bytes(self, at: int, length: int) -> bytes:
        """Return bytes of the header; raises when the file ends before."""
        start = at - self.at_window
        if start < 0 or start + length > len(self.window):
            self.at_window, start = at, 0
            self.window = self.file.read(at, max(length, 1 << 18))
            if len(self.window) < length:
                raise self.file.ends_early("a DICOM element", at + length)
        return self.window[start : start + length]

    def corrupt(self, what: str) -> CorruptSlide:
        return CorruptSlide(f"is a damaged DICOM file: {what}", file=self.file.path, do=COPY_AGAIN)

    def element(self, at: int) -> _Element:
        """Read the head of the element at this byte."""
        self.elements += 1
        if self.elements > LIMITS.dicom_elements:
            raise self.corrupt(f"more than {LIMITS.dicom_elements:,} elements")
        group, number, form, short = struct.unpack("<HH2sH", self.bytes(at, 8))
        tag = group << 16 | number
        if group == 0xFFFE or not (self.explicit or group == 2):
            (length,) = struct.unpack("<I", self.bytes(at + 4, 4))
            return _Element(tag, b"", length, at + 8)
        if form in _LONG_FORMS:
            (length,) = struct.unpack("<I", self.bytes(at + 8, 4))
            return _Element(tag, form, length, at + 12)
        if form not in _SHORT_FORMS:
            raise self.corrupt(f"an element of an unknown kind at byte {at:,}")
        return _Element(tag, form, short, at + 8)

    def end(self, element: _Element, depth: int = 0) -> int:
        """Return where an element ends, having walked through the sequences in it."""
        defined = element.length != _UNDEFINED
        end = element.start + element.length if defined else self.file.size
        if end > self.file.size:
            raise self.file.ends_early("a DICOM element", end)
        if element.form == b"SQ" or not defined:
            if defined and self.elements > LIMITS.dicom_elements_looked_at:
                return end  # descriptions of a hundred thousand frames: enough of them have been looked at
            return self._items(element.start, end, defined, depth)
        return end

    def _items(self, at: int, end: int, defined: bool, depth: int) -> int:
        """Walk the items of a sequence; return the byte after it."""
        if depth > LIMITS.dicom_depth:
            raise self.corrupt("sequences nested too deeply")
        while at < end:
            item = self.element(at)
            if item.tag == _SEQUENCE_END and not defined:
                return item.start
            if item.tag != _ITEM:
                raise self.corrupt(f"a sequence without items at byte {at:,}")
            at = self._inside(item, end, depth)
        if at != end or not defined:
            raise self.corrupt("a sequence that does not end")
        return end

    def _inside(self, item: _Element, end: int, depth: int) -> int:
        """Walk the elements of one item; return the byte after it."""
        defined = item.length != _UNDEFINED
        stop = item.start + item.length if defined else end
        if stop > end:
            raise self.corrupt("an item longer than its sequence")
        at = item.start
        while at < stop:
            element = self.element(at)
            if element.tag == _ITEM_END and not defined:
                return element.start
            at = self.end(element, depth + 1)
        if at != stop or not defined:
            raise self.corrupt("an item that does not end")
        return stop


def scan_dicom(file: RawFile) -> DicomImage:
    """Scan one DICOM file that begins with its preamble.

    Raises
    ------
    CorruptSlide, UnsupportedSlide, NotBrightfield
    """
    walk = _Walk(file)
    if file.size < 160 or file.read(132, 4) != b"\x02\x00\x00\x00":
        raise CorruptSlide("is an incomplete DICOM file: nothing follows its preamble", file=file.path, do=COPY_AGAIN)
    values, pixels, extended = _header(walk)
    image = _Image(walk, values)
    image.check()
    warnings = image.check_pixels(pixels, extended)
    return DicomImage(values.get(_SERIES, ""), image.role, image.width, image.height, tuple(warnings))


def _header(walk: _Walk) -> tuple[dict[int, str], _Element, NDArray[np.uint64] | None]:
    """Walk to the pixels; return the few values we use as text, the pixel element and the extended offset table."""
    values: dict[int, str] = {}
    extended: NDArray[np.uint64] | None = None
    at, last = 132, 0
    while True:
        if at >= walk.file.size:
            raise walk.corrupt("it ends before its pixels")
        element = walk.element(at)
        if element.tag <= last:
            raise walk.corrupt(f"elements out of order at byte {at:,}")
        last = element.tag
        if element.tag == _PIXELS:
            return values, element, extended
        at = walk.end(element)
        if element.tag in _WANTED:
            values[element.tag] = _text(walk, element)
            if element.tag == _SYNTAX:
                walk.explicit = values[_SYNTAX] != _IMPLICIT
        elif element.tag == _EXTENDED:
            if element.length > 8 * LIMITS.blocks or element.length % 8:
                raise walk.corrupt("a table of frames of an impossible length")
            extended = np.frombuffer(walk.file.exactly(element.start, element.length, "the table of frames"), "<u8")


def _text(walk: _Walk, element: _Element) -> str:
    """Return a short value as text; numbers are written out."""
    data = walk.bytes(element.start, min(element.length, LIMITS.short_text_bytes))
    binary = {2: "<H", 4: "<I"}.get(element.length)
    if binary and (element.form in (b"US", b"UL") or (not element.form and element.tag in _BINARY)):
        return str(struct.unpack(binary, data)[0])
    return data.decode("latin-1").strip(" \0")


_BINARY: Final = frozenset({_SAMPLES, _ROWS, _COLUMNS, _BITS, _TOTAL_COLUMNS, _TOTAL_ROWS})


class _Image:
    """The sizes of one file, checked against each other and against its pixels."""

    def __init__(self, walk: _Walk, values: dict[int, str]) -> None:
        self.walk, self.file, self.values = walk, walk.file, values
        self.syntax = values.get(_SYNTAX, "")
        kinds = values.get(_IMAGE_TYPE, "").split("\\")
        self.role = kinds[2].strip() if len(kinds) > 2 else ""

    def number(self, tag: int, most: int, default: int | None = None) -> int:
        text = self.values.get(tag, "" if default is None else str(default))
        number = int(text) if text.isascii() and text.isdigit() else 0
        if not 0 < number <= most:
            raise self.walk.corrupt(f"element {tag >> 16:04x},{tag & 0xFFFF:04x} is {text[:20] or 'missing'}")
        return number

    def check(self) -> None:
        """Check kind and sizes."""
        if self.values.get(_SOP_CLASS, "") != WHOLE_SLIDE:
            raise UnsupportedSlide(
                "this is a DICOM file of another kind, not a whole-slide image",
                file=self.file.path,
                do="choose the slide file itself",
            )
        if self.syntax not in (_IMPLICIT, _EXPLICIT) and self.syntax not in _JPEG | _JPEG_2000:
            raise UnsupportedSlide(
                f"its DICOM pixels are stored in a way that no reader here decodes ({self.syntax[:64]})",
                file=self.file.path,
                do="convert it to JPEG",
            )
        self.tile_height = self.number(_ROWS, 65535)
        self.tile_width = self.number(_COLUMNS, 65535)
        self.frames = self.number(_FRAMES, LIMITS.blocks, default=1)
        self.width = self.number(_TOTAL_COLUMNS, LIMITS.side_px, default=self.tile_width)
        self.height = self.number(_TOTAL_ROWS, LIMITS.side_px, default=self.tile_height)
        self.samples = self.number(_SAMPLES, LIMITS.samples)
        bits = self.number(_BITS, 64)
        if self.role == "VOLUME":
            if bits != 8 or self.samples != 3:
                raise NotBrightfield(
                    f"it has {self.samples} channel(s) of {bits} bit, not 8-bit red, green and blue",
                    file=self.file.path,
                    do="choose a slide stained with dyes, scanned in 8-bit colour",
                )
            if max(self.tile_width, self.tile_height) > LIMITS.tile_px_max:
                raise UnsupportedSlide(
                    f"has tiles of {self.tile_width:,} x {self.tile_height:,} px: too large for the memory",
                    file=self.file.path,
                    do="export it again with smaller tiles",
                )
        self._frames_fit()

    def _frames_fit(self) -> None:
        lattice = -(-self.width // self.tile_width) * -(-self.height // self.tile_height)
        full = self.values.get(_ORGANISATION, "") == "TILED_FULL"
        if full and self.frames % lattice:
            raise self.walk.corrupt(f"it has {self.frames:,} frames where its size needs {lattice:,} or a multiple")

    def check_pixels(self, pixels: _Element, extended: NDArray[np.uint64] | None) -> list[str]:
        """Check where the frames lie."""
        if pixels.length != _UNDEFINED:
            raw = self.tile_width * self.tile_height * self.samples * self.frames
            if self.syntax in (_IMPLICIT, _EXPLICIT) and pixels.length not in (raw, raw + 1):
                raise self.walk.corrupt(f"{pixels.length:,} bytes of pixels where its size needs {raw:,}")
            if pixels.start + pixels.length > self.file.size:
                raise self.file.ends_early("a DICOM frame", pixels.start + pixels.length)
            return []
        table = self.walk.element(pixels.start)
        if table.tag != _ITEM or table.length == _UNDEFINED or table.length % 4 or table.length > 4 * LIMITS.blocks:
            raise self.walk.corrupt("its frames are not listed")
        data = self.file.exactly(table.start, table.length, "the table of frames")
        first = table.start + table.length
        offsets = np.frombuffer(data, "<u4").astype(np.uint64) if table.length else extended
        if offsets is None or not len(offsets):
            offsets = self._follow(first)
        return self._check_offsets(first, offsets)

    def _follow(self, first: int) -> NDArray[np.uint64]:
        """Find the first frames of a file without a table by going from one to the next."""
        found: list[int] = []
        at = first
        while len(found) < min(self.frames, LIMITS.dicom_frames_checked):
            found.append(at - first)
            at += 8 + self._fragment(at)
        return np.array(found, np.uint64)

    def _fragment(self, at: int) -> int:
        """Return the length of the fragment at this byte."""
        head = self.file.exactly(at, 8, "a DICOM frame")
        tag, length = struct.unpack("<II", head)
        if tag != 0xE000FFFE:  # group and element are two numbers of 16 bits
            raise self.walk.corrupt(f"no frame begins at byte {at:,}, where one is listed")
        if at + 8 + length > self.file.size:
            raise self.file.ends_early("a DICOM frame", at + 8 + length)
        return int(length)

    def _check_offsets(self, first: int, offsets: NDArray[np.uint64]) -> list[str]:
        if len(offsets) != self.frames and len(offsets) < min(self.frames, LIMITS.dicom_frames_checked):
            raise self.walk.corrupt(f"it lists {len(offsets):,} of {self.frames:,} frames")
        if len(offsets) > self.frames or offsets[0] != 0 or (offsets[1:] <= offsets[:-1]).any():
            raise self.walk.corrupt("its table of frames is out of order")
        if int(offsets[-1]) > self.file.size:
            raise self.file.ends_early("a DICOM frame", first + int(offsets[-1]))
        looked_at = np.unique(np.linspace(0, len(offsets) - 1, LIMITS.dicom_frames_checked).astype(np.int64))
        heads = looked_at[:: max(1, len(looked_at) // LIMITS.frames_checked)]
        wanted, bad = set(heads.tolist()), []
        for k in looked_at.tolist():
            at = first + int(offsets[k])
            length = self._fragment(at)
            if k + 1 < len(offsets) and at + 8 + length > first + int(offsets[k + 1]):
                raise self.walk.corrupt("frames that overlap")
            if k in wanted and (why := self._lies(at + 8, length)):
                bad.append(why)
        if len(bad) > LIMITS.share_bad_frames * len(heads):
            raise self.walk.corrupt(f"{len(bad)} of {len(heads)} frames looked at cannot be decoded: {bad[0]}")
        if bad:
            return [f"damaged: {len(bad)} of {len(heads)} DICOM frames looked at cannot be decoded: {bad[0]}"]
        return []

    def _lies(self, at: int, length: int) -> str:
        """Return why a frame's own header contradicts the file; empty when it does not."""
        read = jpeg_frame if self.syntax in _JPEG else j2k_frame if self.syntax in _JPEG_2000 else None
        if read is None:
            return ""
        frame: Frame | None = None
        for head in (LIMITS.frame_head_bytes, LIMITS.frame_head_bytes_long):
            try:
                frame = read(self.file.read(at, min(length, head)))
                break
            except BadStream as cause:
                if not isinstance(cause, NeedMore) or length <= head or head == LIMITS.frame_head_bytes_long:
                    return str(cause)
        if frame is not None and (frame.width, frame.height) != (self.tile_width, self.tile_height):
            return (
                f"it is {frame.width:,} x {frame.height:,} px in a tile of {self.tile_width:,} x {self.tile_height:,}"
            )
        return ""
