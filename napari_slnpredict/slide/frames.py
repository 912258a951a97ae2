"""Compares what compressed tiles declare about themselves with the table they are listed in; decodes nothing.

Up to `LIMITS.frames_checked` tiles are looked at: all of a small slide, an even sample with the first, the last, the
middle and the longest of a large one. Tiles of one file share their header byte for byte, so that one parse and a
comparison serve for nearly all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import CorruptSlide

from .codestream import BadStream, Frame, JpegHead, NeedMore, j2k_frame, jpeg_head
from .directory import Directory
from .limits import LIMITS
from .raw_file import COPY_AGAIN, RawFile

JPEG = 7
JPEG_2000 = frozenset({33003, 33004, 33005, 34712})
_RGB, _YCBCR = 2, 6


@dataclass
class _Verdict:
    """What the tiles of one directory said."""

    checked: int = 0
    bad: list[int] = field(default_factory=list)
    why: str = ""
    colour: str = ""

    def note(self, index: int, why: str) -> None:
        self.bad.append(index)
        self.why = self.why or why


def check_frames(file: RawFile, levels: Sequence[Directory], ndpi: bool) -> list[str]:
    """Look at tiles of all levels; return warnings.

    Raises
    ------
    CorruptSlide
        More than half of a level's tiles cannot be decoded, or one declares a size that would fill the memory.
    """
    warnings: list[str] = []
    budget = LIMITS.frames_checked - (LIMITS.frames_lower if len(levels) > 1 else 0)
    for place, directory in enumerate(levels):
        if place == 1:
            budget = max(4, LIMITS.frames_lower // (len(levels) - 1))
        if directory.compression == JPEG:
            verdict = _check_jpeg(file, directory, budget, ndpi)
        elif directory.compression in JPEG_2000:
            verdict = _check_jpeg2000(file, directory, budget)
        else:
            continue
        warnings.extend(_judge(file, directory, verdict))
    return warnings


def _judge(file: RawFile, directory: Directory, verdict: _Verdict) -> list[str]:
    bad, checked = len(verdict.bad), verdict.checked
    if bad > LIMITS.share_bad_frames * checked:
        raise CorruptSlide(
            f"{bad} of {checked} tiles looked at cannot be decoded: {verdict.why}", file=file.path, do=COPY_AGAIN
        )
    warnings = [verdict.colour] if verdict.colour else []
    if bad:
        warnings.append(
            f"damaged: {bad} of {checked} tiles looked at ({directory.width} x {directory.height} px level) "
            f"cannot be decoded: {verdict.why}"
        )
    return warnings


def sample_blocks(directory: Directory, file_size: int, most: int) -> NDArray[np.int64]:
    """Return the indices of the blocks to look at, ascending, at most about `most`; only such as lie in the file."""
    usable = np.flatnonzero((directory.byte_counts > 0) & ~directory.outside(file_size))
    if len(usable) <= most:
        return usable
    even = usable[np.linspace(0, len(usable) - 1, most - 1).astype(np.int64)]
    longest = usable[np.argmax(directory.byte_counts[usable])]
    return np.unique(np.append(even, longest))


def _check_jpeg(file: RawFile, directory: Directory, budget: int, ndpi: bool) -> _Verdict:
    tables = _shared_tables(file, directory)
    verdict = _Verdict()
    known = b""  # the header of a tile found good: whoever begins alike is good
    for index in sample_blocks(directory, file.size, budget):
        verdict.checked += 1
        offset, length = int(directory.offsets[index]), int(directory.byte_counts[index])
        data = file.read(offset, min(length, LIMITS.frame_head_bytes))
        if known and data.startswith(known) and not _is_last_strip(directory, int(index)):
            continue
        try:
            head, data = _jpeg_head(file, data, offset, length)
            _compare(file, directory, int(index), _size_of(head), ndpi)
            _require_tables(head, tables)
        except BadStream as cause:
            verdict.note(int(index), str(cause))
            continue
        verdict.colour = verdict.colour or _colour_contradiction(directory, head)
        if not _is_last_strip(directory, int(index)):
            known = data[: head.length]
    return verdict


def _shared_tables(file: RawFile, directory: Directory) -> JpegHead:
    """Read the tables that all tiles share; a directory without them has an empty set."""
    if directory.jpeg_tables is None:
        return JpegHead(None)
    try:
        tables = jpeg_head(directory.jpeg_tables)
    except BadStream as cause:
        raise CorruptSlide(
            f"its shared JPEG tables are damaged ({cause}): no tile can be decoded", file=file.path, do=COPY_AGAIN
        ) from cause
    if tables.frame is not None:
        raise CorruptSlide("its shared JPEG tables hold a picture instead", file=file.path, do=COPY_AGAIN)
    return tables


def _jpeg_head(file: RawFile, data: bytes, offset: int, length: int) -> tuple[JpegHead, bytes]:
    try:
        return jpeg_head(data), data
    except NeedMore:
        if length <= len(data):
            raise
        data = file.read(offset, min(length, LIMITS.frame_head_bytes_long))
        return jpeg_head(data), data


def _size_of(head: JpegHead) -> Frame:
    if head.frame is None:
        raise BadStream("a JPEG without a picture")
    return head.frame


def _require_tables(head: JpegHead, shared: JpegHead) -> None:
    """Every table that the picture asks for is in the tile or in the shared ones."""
    missing = (
        head.needs_quantisers - head.quantisers - shared.quantisers
        or head.needs_huffman_dc - head.huffman_dc - shared.huffman_dc
        or (set() if head.progressive else head.needs_huffman_ac - head.huffman_ac - shared.huffman_ac)
    )
    if missing:
        raise BadStream("its JPEG tables are missing")


def _is_last_strip(directory: Directory, index: int) -> bool:
    return not directory.tiled and (index + 1) % directory.down == 0


def _compare(file: RawFile, directory: Directory, index: int, frame: Frame, ndpi: bool) -> None:
    """Hold the frame against the tile; NDPI keeps the whole image in one stream, of size 0 above 65,500 px."""
    if not ndpi and max(frame.width, frame.height) > max(
        LIMITS.tile_px_max, directory.tile_width, directory.tile_height
    ):
        raise CorruptSlide(
            f"a tile's JPEG header declares {frame.width:,} x {frame.height:,} px: decoding it would fill the memory",
            file=file.path,
            do="the file is damaged or made to do harm, do not use it",
        )
    wide, high = directory.tile_width, directory.tile_height
    heights = {high}
    if _is_last_strip(directory, index):
        heights.add(directory.height - (directory.down - 1) * high)
    sizes_fit = frame.width == wide and frame.height in heights
    if ndpi and not sizes_fit:
        sizes_fit = (frame.width in (0, wide & 0xFFFF)) or (frame.height in (0, high & 0xFFFF))
    if not sizes_fit:
        raise BadStream(f"its JPEG is {frame.width:,} x {frame.height:,} px in a tile of {wide:,} x {high:,}")
    samples = 1 if directory.planar == 2 else directory.samples
    if frame.components != samples:
        raise BadStream(f"its JPEG has {frame.components} components where {samples} belong")
    if frame.precision not in directory.bits:
        raise BadStream(f"its JPEG has {frame.precision} bits a sample where {directory.bits[0]} belong")


def _colour_contradiction(directory: Directory, head: JpegHead) -> str:
    """Return a warning when tag and stream disagree about what the three components are."""
    subsampled = len(set(head.sampling)) > 1
    says_rgb = head.adobe_transform == 0 or head.component_ids == tuple(b"RGB")
    if directory.photometric == _YCBCR and len(head.sampling) == 3:
        tag = directory.subsampling
        if says_rgb or (tag is not None and not subsampled and tag != (1, 1) and head.sampling[0] == (1, 1)):
            return "its colour tag says YCbCr but its JPEG tiles look like RGB: colours may be false"
    if directory.photometric == _RGB and (subsampled or head.adobe_transform == 1):
        return "its colour tag says RGB but its JPEG tiles look like YCbCr: colours may be false"
    return ""


def _check_jpeg2000(file: RawFile, directory: Directory, budget: int) -> _Verdict:
    verdict = _Verdict()
    for index in sample_blocks(directory, file.size, budget):
        verdict.checked += 1
        data = file.read(int(directory.offsets[index]), min(int(directory.byte_counts[index]), 64))
        try:
            frame = j2k_frame(data)
            if frame is not None:
                _compare(file, directory, int(index), frame, False)
        except BadStream as cause:
            verdict.note(int(index), str(cause).replace("its JPEG ", "its JPEG 2000 stream "))
    return verdict
