"""Reads the directories of a TIFF, and nothing else of it, under the limits of `limits.LIMITS`.

Requirements it satisfies:

- classic TIFF, BigTIFF and Hamamatsu's dialect (64-bit offsets in a classic file), both byte orders;
- no value is trusted: every offset is compared with the file's size before it is read, every count before memory is
  asked for, every directory is visited once;
- tags that decide where pixels are and what they mean must have the type and the count that the standard gives them;
- a tag we do not use cannot make a slide unreadable.

Whether the picture described makes sense is judged in `inspect`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import CorruptSlide, SlideError

from .directory import Directory
from .limits import LIMITS
from .metadata import check_xml, looks_like_xml
from .raw_file import COPY_AGAIN, RawFile
from .tiff_values import (
    BITS,
    COMPRESSION,
    DESCRIPTION,
    EXTRA_SAMPLES,
    HEIGHT,
    ICC,
    JPEG_TABLES,
    MAKE,
    MODEL,
    NDPI_FORMAT,
    NDPI_LENS,
    ORIENTATION,
    PHOTOMETRIC,
    PLANAR,
    PREDICTOR,
    ROWS_PER_STRIP,
    SAMPLE_FORMAT,
    SAMPLES,
    SOFTWARE,
    STRIP_COUNTS,
    STRIP_OFFSETS,
    SUBFILE_TYPE,
    SUBIFDS,
    SUBSAMPLING,
    TEXT_OR_BYTES,
    TILE_COUNTS,
    TILE_HEIGHT,
    TILE_OFFSETS,
    TILE_WIDTH,
    UNIT,
    UNSIGNED,
    WIDTH,
    X_RESOLUTION,
    Y_RESOLUTION,
    Dialect,
    Entry,
    Values,
)


@dataclass
class Chain:
    """The directories of a file and what was odd about them."""

    dialect: Dialect
    directories: tuple[Directory, ...] = ()
    warnings: list[str] = field(default_factory=list)


def read_dialect(file: RawFile) -> Dialect:
    """Read the header of a TIFF (whose magic number the caller has seen)."""
    head = file.exactly(0, 8, "the TIFF header")
    order = "<" if head[:2] == b"II" else ">"
    if struct.unpack_from(order + "H", head, 2)[0] == 43:
        head = file.exactly(0, 16, "the BigTIFF header")
        size, zero, first = struct.unpack_from(order + "HHQ", head, 4)
        if (size, zero) != (8, 0):
            raise CorruptSlide("its BigTIFF header is damaged", file=file.path, do=COPY_AGAIN)
        return Dialect(order, True, False, first)
    (first,) = struct.unpack_from(order + "I", head, 4)
    if order == "<" and _is_ndpi(file):
        (first,) = struct.unpack("<Q", file.exactly(4, 8, "the NDPI header"))
        return Dialect(order, False, True, first)
    return Dialect(order, False, False, first)


def _is_ndpi(file: RawFile) -> bool:
    """Tell whether the first directory, at a 64-bit offset, carries Hamamatsu's own tag."""
    head = file.read(4, 8)
    if len(head) < 8:
        return False
    (first,) = struct.unpack("<Q", head)
    count = int.from_bytes(file.read(first, 2), "little")
    if not 0 < count <= LIMITS.entries:
        return False
    tags = np.frombuffer(file.read(first + 2, 12 * count)[: 12 * count], np.uint8)
    return len(tags) == 12 * count and NDPI_FORMAT in tags.reshape(count, 12)[:, :2].copy().view("<u2")


def scan_tiff(file: RawFile, *, allow_incomplete: bool = False) -> Chain:
    """Read all directories of a TIFF.

    Parameters
    ----------
    file : RawFile
    allow_incomplete : bool
        Keep what was readable of a file that was cut off, with a warning, instead of refusing it.

    Raises
    ------
    CorruptSlide
    """
    chain = Chain(read_dialect(file))
    walker = _Walker(file, chain)
    try:
        for directory in walker.walk(chain.dialect.first):
            chain.directories += (directory,)
    except SlideError as cause:
        if not (allow_incomplete and chain.directories):
            raise
        chain.warnings.append(f"incomplete: {cause.what}")
    if not chain.directories:
        raise CorruptSlide(
            "holds no picture: its table of contents (TIFF directory) is empty", file=file.path, do=COPY_AGAIN
        )
    return chain


class _Walker:
    """Follows the chain; counts what all directories together cost."""

    def __init__(self, file: RawFile, chain: Chain) -> None:
        self.file, self.chain, self.dialect = file, chain, chain.dialect
        self.seen: set[int] = set()
        self.blocks_left = LIMITS.blocks_total
        self.text_left = LIMITS.descriptions_total_bytes

    def corrupt(self, what: str) -> CorruptSlide:
        return CorruptSlide(what, file=self.file.path, do=COPY_AGAIN)

    def walk(self, first: int, depth: int = 0) -> Iterator[Directory]:
        """Yield the directories of one chain."""
        offset, index = first, 0
        while offset:
            directory, offset = self.directory(offset, index, depth)
            yield directory
            index += 1
        if index == 0:
            raise self.corrupt("its first TIFF directory is said to lie at byte 0")

    def directory(self, offset: int, index: int, depth: int) -> tuple[Directory, int]:
        """Read one directory; return it and the offset of the next, 0 at the end."""
        if offset in self.seen:
            raise self.corrupt(f"its TIFF directories form a loop (the one at byte {offset:,} comes twice)")
        if len(self.seen) >= LIMITS.directories:
            raise self.corrupt(f"too many TIFF directories, more than {LIMITS.directories}")
        if offset < 8:
            raise self.corrupt(f"a TIFF directory is said to lie inside the header, at byte {offset}")
        self.seen.add(offset)
        entries, follow = self.entries(offset, index)
        values = Values(self.file, entries, self.dialect, index, self.chain.warnings)
        build = _Builder(self, values, index, offset)
        return build.directory(self.subdirectories(values, depth)), follow

    def entries(self, offset: int, index: int) -> tuple[dict[int, Entry], int]:
        """Read the lines of one directory and the offset of the next."""
        order, big, ndpi = self.dialect.order, self.dialect.big, self.dialect.ndpi
        what = f"TIFF directory {index}"
        width, form = (8, "Q") if big else (2, "H")
        (count,) = struct.unpack(order + form, self.file.exactly(offset, width, what))
        if not count:
            raise self.corrupt(f"{what} at byte {offset:,} is empty (zeros): the copy was probably interrupted")
        if count > LIMITS.entries:
            raise self.corrupt(f"{what} claims {count:,} entries")
        line = 20 if big else 12
        start = offset + width
        tail = 8 if big or ndpi else 4
        block = self.file.exactly(start, count * line + tail, what)
        (follow,) = struct.unpack_from(order + ("Q" if tail == 8 else "I"), block, count * line)
        high = b""
        if ndpi:
            high = self.file.read(start + len(block), 4 * count).ljust(4 * count, b"\0")
        found: dict[int, Entry] = {}
        last = -1
        disordered = False
        for i in range(count):
            tag, kind, number = struct.unpack_from(order + ("HHQ" if big else "HHI"), block, i * line)
            disordered |= tag <= last
            last = tag
            found.setdefault(tag, self.entry(kind, number, block, start, i, high))
        if disordered:
            self.chain.warnings.append(f"{what} is out of order: its table of tags may be damaged")
        return found, follow

    def entry(self, kind: int, number: int, block: bytes, start: int, i: int, high: bytes) -> Entry:
        """Find where the value of the i-th line lies: in the line itself when it fits."""
        order, big = self.dialect.order, self.dialect.big
        line, inline, form = (20, 8, "Q") if big else (12, 4, "I")
        length = Entry(kind, number, 0).length
        at = (i + 1) * line - inline
        above = int.from_bytes(high[4 * i : 4 * i + 4], "little") << 32
        if length <= inline:
            return Entry(kind, number, start + at, above)
        (place,) = struct.unpack_from(order + form, block, at)
        return Entry(kind, number, place | above)

    def subdirectories(self, values: Values, depth: int) -> tuple[Directory, ...]:
        """Read the directories hanging below one (each is a chain of its own, followed for one link only)."""
        if SUBIFDS not in values.entries:
            return ()
        if depth >= LIMITS.subifd_depth:
            raise self.corrupt("its TIFF sub-directories are nested too deeply")
        offsets = values.unsigned(SUBIFDS, most=LIMITS.directories)
        return tuple(self.directory(int(at), k, depth + 1)[0] for k, at in enumerate(offsets))


class _Builder:
    """Turns the values of one directory into a record."""

    def __init__(self, walker: _Walker, values: Values, index: int, offset: int) -> None:
        self.walker, self.values, self.index, self.offset = walker, values, index, offset

    def directory(self, subifds: tuple[Directory, ...]) -> Directory:
        """Read everything we use."""
        v = self.values
        width, height = v.number(WIDTH), v.number(HEIGHT)
        samples = v.number(SAMPLES, 1)
        if not 1 <= samples <= LIMITS.samples:
            raise v.corrupt(SAMPLES, f"is {samples:,}")
        for tag, side in ((WIDTH, width), (HEIGHT, height)):
            if not 1 <= side <= LIMITS.side_px:
                raise v.corrupt(tag, f"is {side:,} px")
        tiled = TILE_OFFSETS in v.entries or TILE_WIDTH in v.entries
        block_width = v.number(TILE_WIDTH) if tiled else width
        block_height = v.number(TILE_HEIGHT) if tiled else min(v.number(ROWS_PER_STRIP, height), height)
        places, lengths = self._blocks(tiled)
        subsampling = v.numbers(SUBSAMPLING, (), 2)
        return Directory(
            self.index, self.offset, width, height, tiled, block_width, block_height, places, lengths,
            compression=v.number(COMPRESSION, 1),
            photometric=v.number(PHOTOMETRIC),
            samples=samples,
            bits=v.numbers(BITS, (1,) * samples, LIMITS.samples),
            sample_format=self._sample_format(),
            planar=v.number(PLANAR, 1),
            predictor=v.number(PREDICTOR, 1),
            extra_samples=v.numbers(EXTRA_SAMPLES, (), LIMITS.samples),
            subsampling=(subsampling[0], subsampling[1]) if len(subsampling) == 2 else None,
            orientation=v.number(ORIENTATION, 1),
            jpeg_tables=self._jpeg_tables(),
            description=self._description(),
            subfile_type=v.number(SUBFILE_TYPE, 0),
            resolution=self._resolution(),
            icc=self._icc(),
            subifds=subifds,
            make=v.text(MAKE),
            model=v.text(MODEL),
            software=v.text(SOFTWARE),
            source_lens=v.real(NDPI_LENS) if self.walker.dialect.ndpi else None,
        )  # fmt: skip

    def _blocks(self, tiled: bool) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Read where the blocks lie and how long they are."""
        v, found = self.values, []
        for tag in (TILE_OFFSETS, TILE_COUNTS) if tiled else (STRIP_OFFSETS, STRIP_COUNTS):
            if tag not in v.entries:
                raise v.corrupt(tag, "is missing")
            count = v.entries[tag].number
            if count > min(LIMITS.blocks, self.walker.blocks_left):
                raise v.corrupt(tag, f"claims {count:,} values")
            found.append(v.unsigned(tag, most=LIMITS.blocks))
        self.walker.blocks_left -= len(found[0])
        return found[0], found[1]

    def _sample_format(self) -> int:
        formats = set(self.values.numbers(SAMPLE_FORMAT, (1,), LIMITS.samples))
        return formats.pop() if len(formats) == 1 else 0

    def _jpeg_tables(self) -> bytes | None:
        v = self.values
        if JPEG_TABLES not in v.entries:
            return None
        entry = v.entries[JPEG_TABLES]
        if entry.type not in TEXT_OR_BYTES or not 4 <= entry.length <= LIMITS.jpeg_tables_bytes:
            raise v.corrupt(JPEG_TABLES, f"cannot be JPEG tables ({entry.length:,} bytes)")
        return self.values.file.exactly(entry.offset, entry.length, f"JPEGTables of TIFF directory {self.index}")

    def _description(self) -> str:
        """Read the description: all of it is looked through when it is XML, only its beginning is kept."""
        v, entry = self.values, self.values.entries.get(DESCRIPTION)
        if entry is None:
            return ""
        if looks_like_xml(v.raw(DESCRIPTION, 64) or b"") and entry.length <= v.file.size - entry.offset:
            v.warnings.extend(
                check_xml(v.file.read(entry.offset, min(entry.length, LIMITS.xml_bytes + 1)), v.file.path)
            )
        most = min(LIMITS.description_bytes, self.walker.text_left)
        text = v.text(DESCRIPTION, most)
        self.walker.text_left -= len(text)
        if entry.length > most and text:
            v.warnings.append(
                f"the description of TIFF directory {self.index} is {entry.length:,} bytes large: "
                "only its beginning is read"
            )
        return text

    def _resolution(self) -> tuple[float, float, int] | None:
        x, y = self.values.real(X_RESOLUTION), self.values.real(Y_RESOLUTION)
        entry = self.values.entries.get(UNIT)
        unit = self.values.number(UNIT) if entry and entry.number == 1 and entry.type in UNSIGNED else 2
        return None if x is None or y is None else (x, y, unit)

    def _icc(self) -> tuple[int, int] | None:
        entry = self.values.entries.get(ICC)
        if entry is None or not entry.length:
            return None
        if entry.length > self.values.file.size - entry.offset:
            self.values.warnings.append(
                f"the colour profile of TIFF directory {self.index} lies beyond the end of the file"
            )
            return None
        return entry.offset, entry.length
