"""The values of TIFF tags: typed, bounded, never trusted.

Tags that decide where pixels are and what they mean must have the type and count that the standard gives them; a tag
that is merely informative is left out, with a warning, when it is strange.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import CorruptSlide

from .limits import LIMITS
from .raw_file import COPY_AGAIN, RawFile

#: Bytes of one value by TIFF type; 0 for numbers that are no type.
_TYPE_BYTES: Final = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)
UNSIGNED: Final = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}
_RATIONAL, _FLOATS = 5, {11: "f4", 12: "f8"}
TEXT_OR_BYTES: Final = frozenset({1, 2, 7})

SUBFILE_TYPE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 254, 256, 257, 258, 259, 262
DESCRIPTION, MAKE, MODEL, STRIP_OFFSETS, ORIENTATION, SAMPLES = 270, 271, 272, 273, 274, 277
ROWS_PER_STRIP, STRIP_COUNTS, X_RESOLUTION, Y_RESOLUTION, PLANAR, UNIT = 278, 279, 282, 283, 284, 296
SOFTWARE, PREDICTOR, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS = 305, 317, 322, 323, 324, 325
SUBIFDS, EXTRA_SAMPLES, SAMPLE_FORMAT, JPEG_TABLES, SUBSAMPLING = 330, 338, 339, 347, 530
ICC, NDPI_FORMAT, NDPI_LENS = 34675, 65420, 65421

_NAMES: Final = {
    WIDTH: "ImageWidth", HEIGHT: "ImageLength", BITS: "BitsPerSample", COMPRESSION: "Compression",
    PHOTOMETRIC: "PhotometricInterpretation", DESCRIPTION: "ImageDescription", STRIP_OFFSETS: "StripOffsets",
    SAMPLES: "SamplesPerPixel", ROWS_PER_STRIP: "RowsPerStrip", STRIP_COUNTS: "StripByteCounts",
    PLANAR: "PlanarConfiguration", PREDICTOR: "Predictor", TILE_WIDTH: "TileWidth", TILE_HEIGHT: "TileLength",
    TILE_OFFSETS: "TileOffsets", TILE_COUNTS: "TileByteCounts", SUBIFDS: "SubIFDs", SAMPLE_FORMAT: "SampleFormat",
    JPEG_TABLES: "JPEGTables", SUBSAMPLING: "YCbCrSubSampling", ICC: "ICC profile", SUBFILE_TYPE: "NewSubfileType",
    EXTRA_SAMPLES: "ExtraSamples", ORIENTATION: "Orientation", X_RESOLUTION: "XResolution", Y_RESOLUTION: "YResolution",
    UNIT: "ResolutionUnit",
}  # fmt: skip


def tag_name(tag: int) -> str:
    """Return the standard's name of a tag, or its number."""
    return _NAMES.get(tag, f"tag {tag}")


class Dialect(NamedTuple):
    """How this file counts.

    Attributes
    ----------
    order : str
        "<" or ">".
    big, ndpi : bool
    first : int
        Offset of the first directory.
    """

    order: str
    big: bool
    ndpi: bool
    first: int


class Entry(NamedTuple):
    """One line of a directory: where a tag's value lies, nothing read yet."""

    type: int
    number: int
    offset: int
    above: int = 0  # NDPI: what a number stored in the line itself has above 2^32

    @property
    def length(self) -> int:
        """Bytes of the value; 0 for an unknown type."""
        return _TYPE_BYTES[self.type] * self.number if self.type < len(_TYPE_BYTES) else 0


class Values:
    """Typed, bounded access to the tags of one directory."""

    def __init__(
        self, file: RawFile, entries: dict[int, Entry], dialect: Dialect, index: int, warnings: list[str]
    ) -> None:
        self.file, self.entries, self.dialect, self.index, self.warnings = file, entries, dialect, index, warnings

    def corrupt(self, tag: int, what: str) -> CorruptSlide:
        return CorruptSlide(
            f"{tag_name(tag)} of TIFF directory {self.index} {what}", file=self.file.path, do=COPY_AGAIN
        )

    def unsigned(self, tag: int, *, most: int) -> NDArray[np.uint64]:
        """Return all values of an integer tag, (count,) uint64; at most `most` of them are lawful."""
        entry = self.entries[tag]
        if entry.type not in UNSIGNED:
            raise self.corrupt(tag, "is not a whole number")
        if entry.number > most:
            raise self.corrupt(tag, f"has {entry.number:,} values where at most {most:,} make sense")
        data = self.file.exactly(entry.offset, entry.length, f"{tag_name(tag)} of TIFF directory {self.index}")
        values = np.frombuffer(data, self.dialect.order + UNSIGNED[entry.type]).astype(np.uint64)
        return values + np.uint64(entry.above) if entry.above and entry.number == 1 else values

    def number(self, tag: int, default: int | None = None) -> int:
        """Return a tag that holds one whole number."""
        if tag not in self.entries:
            if default is None:
                raise self.corrupt(tag, "is missing")
            return default
        if self.entries[tag].number != 1:
            raise self.corrupt(tag, f"has {self.entries[tag].number:,} values instead of one")
        return int(self.unsigned(tag, most=1)[0])

    def numbers(self, tag: int, default: tuple[int, ...], most: int) -> tuple[int, ...]:
        """Return a tag that holds a few whole numbers."""
        return tuple(int(v) for v in self.unsigned(tag, most=most)) if tag in self.entries else default

    def raw(self, tag: int, most: int) -> bytes | None:
        """Return a tag's bytes, at most `most` of them; None when it is absent, of a strange type or outside."""
        entry = self.entries.get(tag)
        if entry is None or not entry.number:
            return None
        name = f"{tag_name(tag)} of TIFF directory {self.index}"
        if entry.type not in TEXT_OR_BYTES:
            self.warnings.append(f"{name} is not of its lawful type: it is left out")
            return None
        if entry.length > self.file.size - entry.offset:
            self.warnings.append(f"{name} claims {entry.length:,} bytes and reaches beyond the end of the file")
            return None
        return self.file.read(entry.offset, min(entry.length, most))

    def text(self, tag: int, most: int = LIMITS.short_text_bytes) -> str:
        """Return a text tag up to its first zero byte; bytes that are not UTF-8 are read as Latin-1."""
        data = (self.raw(tag, most) or b"").split(b"\0", 1)[0]
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            return data.decode("latin-1")

    def real(self, tag: int) -> float | None:
        """Return one rational or floating number; None when it is absent or no number."""
        entry = self.entries.get(tag)
        if entry is None or entry.number != 1:
            return None
        data = self.file.read(entry.offset, entry.length)
        if entry.type == _RATIONAL and len(data) == 8:
            above, below = struct.unpack(self.dialect.order + "II", data)
            return above / below if below else None
        if entry.type in _FLOATS and len(data) == entry.length:
            return float(np.frombuffer(data, self.dialect.order + _FLOATS[entry.type])[0])
        return None
