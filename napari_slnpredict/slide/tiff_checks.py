"""Whether the picture that a TIFF describes can exist: sizes, counts and places against each other and the file.

The slide itself (tiled images, or the first where none is tiled) must be sound: a fault is an error. Images beside it
(label, macro, thumbnail) only lose themselves: their `fault` is set and they are never decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import CorruptSlide, NotBrightfield, SlideError, UnsupportedSlide

from .directory import Directory
from .frames import check_frames
from .limits import LIMITS
from .raw_file import COPY_AGAIN, RawFile
from .tiff_scan import Chain

_UNCOMPRESSED = 1
#: Compression tags that some reader here decodes.
_READABLE: Final = frozenset(
    {1, 5, 7, 8, 22610, 32773, 32946, 33003, 33004, 33005, 34712, 34892, 34927, 34933, 34934, 50000, 50001, 50002}
)
_UNREADABLE_NAMES: Final = {
    2: "CCITT fax", 3: "CCITT fax", 4: "CCITT fax", 6: "old-style JPEG", 9: "JBIG", 10: "JBIG", 34661: "JBIG",
    34887: "LERC", 34925: "LZMA",
}  # fmt: skip
_PHOTOMETRIC: Final = frozenset({0, 1, 2, 3, 4, 5, 6, 8, 9, 10})
_CONVERT = "convert it, for example with: vips tiffsave IN OUT.tif --tile --pyramid --compression jpeg"


def check_tiff(file: RawFile, chain: Chain, *, allow_incomplete: bool = False) -> tuple[Directory, ...]:
    """Judge all directories; return them with faults noted, and add to the chain's warnings.

    Raises
    ------
    CorruptSlide, UnsupportedSlide, NotBrightfield
    """
    ndpi = chain.dialect.ndpi
    slide = {id(d) for d in slide_images(chain.directories, ndpi)}
    checker = _Checker(file, chain.warnings, allow_incomplete)
    judged = tuple(_judge(d, slide, checker) for d in chain.directories)
    levels = [d for d in _flat(judged) if not d.fault and (d.tiled or d.index == 0)]
    main = slide_images(judged, ndpi)
    first = main[0]
    if why := why_not_brightfield(first):
        raise NotBrightfield(why, file=file.path, do="choose a slide stained with dyes, scanned in 8-bit colour")
    _refuse_huge_strips(file, first, ndpi)
    chain.warnings.extend(check_frames(file, levels if not ndpi else [first], ndpi))
    chain.warnings.extend(_comfort(first, main))
    return judged


def slide_images(directories: Sequence[Directory], ndpi: bool) -> list[Directory]:
    """Return the images that make up the slide, the finest first as far as file order tells."""
    if ndpi:  # Hamamatsu gives the macro and the focus map a negative lens
        return [d for d in directories if d.index == 0 or (d.source_lens or 0) > 0]
    return [d for d in _flat(directories) if d.tiled] or list(directories[:1])


def _flat(directories: Sequence[Directory]) -> list[Directory]:
    """List directories with those below them, parents first."""
    flat = []
    for directory in directories:
        flat += [directory, *_flat(directory.subifds)]
    return flat


def _judge(directory: Directory, slide: set[int], checker: _Checker) -> Directory:
    """Check one directory and those below it."""
    below = tuple(_judge(d, slide, checker) for d in directory.subifds)
    checked = replace(directory, subifds=below)
    if id(directory) in slide:
        checker.check(checked)
        return checked
    try:
        checker.check(checked, beside=True)
    except UnsupportedSlide as cause:
        return replace(checked, fault=cause.what)
    except SlideError as cause:
        checker.warnings.append(f"an image beside the slide (label, macro or thumbnail) is damaged: {cause.what}")
        return replace(checked, fault=cause.what)
    return checked


class _Checker:
    """Checks of one directory; refuses, or adds to the warnings."""

    def __init__(self, file: RawFile, warnings: list[str], allow_incomplete: bool) -> None:
        self.file, self.warnings, self.allow_incomplete = file, warnings, allow_incomplete

    def corrupt(self, d: Directory, what: str) -> CorruptSlide:
        return CorruptSlide(f"{_place(d)} {what}", file=self.file.path, do=COPY_AGAIN)

    def unsupported(self, d: Directory, what: str, do: str = _CONVERT) -> UnsupportedSlide:
        return UnsupportedSlide(f"{_place(d)} {what}", file=self.file.path, do=do)

    def check(self, d: Directory, beside: bool = False) -> None:
        """Run all checks; `beside` relaxes what only matters for the slide itself."""
        self.kind(d)
        if d.tiled:
            self.tile_size(d)
        self.block_count(d)
        self.blocks(d, beside)

    def kind(self, d: Directory) -> None:
        """Compression, colours and samples are of known kinds and agree with each other."""
        if d.compression not in _READABLE:
            name = _UNREADABLE_NAMES.get(d.compression, "an unknown one")
            raise self.unsupported(d, f"has compression {d.compression} ({name}), which no reader here decodes")
        if d.photometric not in _PHOTOMETRIC:
            raise self.unsupported(d, f"has an unknown colour space (photometric interpretation {d.photometric})")
        if d.planar not in (1, 2):
            raise self.corrupt(d, f"has the impossible planar configuration {d.planar}")
        if not d.bits or len(d.bits) not in (1, d.samples):
            raise self.corrupt(d, f"gives bits for {len(d.bits)} of {d.samples} samples")
        if any(bits not in (1, 2, 4, 8, 10, 12, 14, 16, 24, 32, 64) for bits in d.bits):
            raise self.corrupt(d, f"has {max(d.bits):,} bits a sample")
        least = {2: 3, 6: 3, 5: 4, 8: 3}.get(d.photometric, 1)
        if d.samples < least:
            raise self.corrupt(d, f"has {d.samples} samples a pixel where its colour space needs {least}")
        if d.predictor not in (1, 2, 3):
            raise self.corrupt(d, f"has the unknown predictor {d.predictor}")

    def tile_size(self, d: Directory) -> None:
        """Tiles have a lawful size that fits into memory."""
        sides = (d.tile_width, d.tile_height)
        if any(side % LIMITS.tile_px_step or side < LIMITS.tile_px_min for side in sides):
            raise self.corrupt(d, f"has tiles of {sides[0]:,} x {sides[1]:,} px, which are no multiple of 16")
        if max(sides) > LIMITS.tile_px_max:
            raise self.unsupported(
                d,
                f"has tiles of {sides[0]:,} x {sides[1]:,} px: too large, a single one would fill the memory "
                f"(the limit is {LIMITS.tile_px_max:,})",
            )

    def block_count(self, d: Directory) -> None:
        """There is a place and a length for every block, no more and no fewer."""
        if d.tile_height < 1:
            raise self.corrupt(d, "has strips of 0 rows")
        expected = d.across * d.down * (d.samples if d.planar == 2 else 1)
        word = "tile" if d.tiled else "strip"
        for found, of in ((len(d.offsets), "offsets"), (len(d.byte_counts), "byte counts")):
            if found != expected:
                raise self.corrupt(d, f"lists {found:,} {word} {of} where its size needs {expected:,}")

    def blocks(self, d: Directory, beside: bool) -> None:
        """Every block lies in the file, is no longer than it can be, and is its own."""
        used = d.byte_counts > 0
        total, stored = len(used), int(used.sum())
        word = "tiles" if d.tiled else "strips"
        if not stored:
            raise self.corrupt(d, f"is empty: none of its {total:,} {word} has any bytes, no pixel was stored")
        if stored < total:
            self.warn(
                d, f"has {total - stored:,} of {total:,} {word} without bytes (empty: not scanned), shown as white"
            )
        self._lengths(d, word)
        self._inside(d, word, beside)
        self._own(d, word)

    def warn(self, d: Directory, what: str) -> None:
        self.warnings.append(f"{_place(d)} {what}")

    def _lengths(self, d: Directory, word: str) -> None:
        raw = np.uint64(d.raw_block_bytes)
        wrong = d.byte_counts > np.uint64(2) * raw + np.uint64(LIMITS.block_bytes_extra)
        if d.compression == _UNCOMPRESSED and d.tiled:
            # Exactly the pixels, but for some bytes of padding.
            wrong |= ((d.byte_counts < raw) | (d.byte_counts > raw + np.uint64(64))) & (d.byte_counts > 0)
        count = int(wrong.sum())
        if not count:
            return
        longest = int(d.byte_counts[wrong].max())
        what = f"has {count:,} {word} whose length ({longest:,} bytes) cannot be right: decoded they have {int(raw):,}"
        if self._many(count, d):
            raise self.corrupt(d, what)
        self.warn(d, f"{what}: damaged")

    def _inside(self, d: Directory, word: str, beside: bool) -> None:
        size = self.file.size
        outside = d.outside(size)
        count = int(outside.sum())
        if not count:
            return
        with np.errstate(over="ignore"):
            ends = d.offsets[outside] + d.byte_counts[outside]
        needed = int(ends[ends >= d.offsets[outside]].max(initial=0))
        cut = bool((outside & (d.offsets < size) & (d.offsets >= 8)).any())
        what = f"has {count:,} of {len(outside):,} {word} that lie outside the file, beyond its end"
        if (cut or self._many(count, d)) and not (self.allow_incomplete or beside):
            raise CorruptSlide(
                f"ends after {size:,} of at least {needed:,} bytes: {_place(d)} {what}",
                file=self.file.path,
                do=f"the copy is incomplete, {COPY_AGAIN}",
            )
        if beside:
            raise self.corrupt(d, what)
        self.warn(d, f"{what}: damaged, or the file is incomplete")

    def _own(self, d: Directory, word: str) -> None:
        """Blocks that are stored once and listed many times, or that overlap."""
        alike, overlapping = shared_blocks(d)
        if alike > LIMITS.share_alike * len(d.offsets) and len(d.offsets) > 1:
            self.warn(d, f"has {alike:,} of {len(d.offsets):,} {word} that are the same stored block as another")
        if overlapping:
            self.warn(d, f"has {overlapping:,} {word} that overlap others in the file: damaged")

    def _many(self, count: int, d: Directory) -> bool:
        return count > LIMITS.share_outside * len(d.offsets) and not self.allow_incomplete


def shared_blocks(d: Directory) -> tuple[int, int]:
    """Return how many blocks lie at a place that another one has too, and how many reach into the next one."""
    used = d.byte_counts > 0
    offsets, counts = (d.offsets, d.byte_counts) if used.all() else (d.offsets[used], d.byte_counts[used])
    if len(offsets) < 2:
        return 0, 0
    if not _rises(offsets):
        order = np.argsort(offsets, kind="stable")
        offsets, counts = offsets[order], counts[order]
    gaps = np.diff(offsets)
    same = gaps == 0
    if not same.any():
        return 0, int((counts[:-1] > gaps).sum())
    alike = int((np.append(same, False) | np.insert(same, 0, False)).sum())
    return alike, int(((counts[:-1] > gaps) & ~same).sum())


def _rises(values: NDArray[np.uint64]) -> bool:
    return bool((values[1:] > values[:-1]).all())


def _place(d: Directory) -> str:
    return f"the {d.width:,} x {d.height:,} px image"


def why_not_brightfield(d: Directory) -> str:
    """Return why pixels of this kind cannot be a stained section in bright light; empty when they can."""
    if d.sample_format != 1:
        kind = "floating point" if d.sample_format == 3 else "signed, complex or mixed"
        return f"its samples are {kind} numbers, not 8-bit colours"
    if d.samples not in (1, 3, 4):
        return f"it has {d.samples} channels of {max(d.bits)} bit (fluorescence?), not red, green and blue"
    if set(d.bits) != {8}:
        return f"it has {max(d.bits)} bits a sample, not 8"
    if d.photometric == 5:
        return "its colours are CMYK inks, not red, green and blue"
    if d.samples == 1 or d.photometric not in (2, 6):
        return "it has one grey channel or a colour space of its own, not red, green and blue"
    return ""


def _refuse_huge_strips(file: RawFile, first: Directory, ndpi: bool) -> None:
    if first.tiled or ndpi or first.width * first.height <= LIMITS.strips_px:
        return
    raise UnsupportedSlide(
        f"its {first.width:,} x {first.height:,} px are stored in strips, not tiles: every view would decode all of it",
        file=file.path,
        do=_CONVERT,
    )


def _comfort(first: Directory, main: Sequence[Directory]) -> list[str]:
    """Warn of slides that open but will be slow."""
    warnings = []
    if max(first.width, first.height) > LIMITS.no_pyramid_px and all(2 * d.width > first.width for d in main[1:]):
        warnings.append("it has no pyramid (no coarser level): the first overview takes long")
    if len(first.offsets) > LIMITS.slow_blocks and first.tile_width < LIMITS.slow_tile_px and first.tiled:
        warnings.append(
            f"it is cut into {len(first.offsets):,} small tiles of {first.tile_width} x {first.tile_height} px: "
            "reading is slow"
        )
    return warnings
