"""Deciding by trial which reader gets a slide, and proving our own against a library before it is believed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from napari_slnpredict.errors import CorruptSlide, NotBrightfield, SlideError, UnsupportedSlide

from .backends import OpenSlideSource, TiffSlideSource
from .directory import Directory, Inspection
from .handle import SlideFile
from .inspect import inspect
from .levels import levels_of, stated_size_differs, vendor_of
from .scale import Scale, given_scale, property_scale, tiff_scale
from .source import Source, TileFault
from .tiles import BYTE_CODECS, JPEG, TileSource, own_source_reads
from .witness import LOSSY_TOLERANCE, compare_with_libraries

READERS = ("tiles", "tiffslide", "openslide")
#: Who reads which vendor's TIFF, best first. OpenSlide alone knows Ventana's and Trestle's overlapping tiles and the
#: padding of Philips; Hamamatsu and Leica hide their levels in ways our own source does not follow.
_ORDER: Mapping[str, tuple[str, ...]] = {
    "hamamatsu": ("tiffslide", "openslide"),
    "leica": ("tiffslide", "openslide"),
    "philips": ("openslide", "tiffslide"),
    "ventana": ("openslide",),
    "trestle": ("openslide",),
}
#: Aperio's JPEG 2000 in YCbCr: tiffslide shows it in false colours.
_APERIO_JP2K_YCBCR = 33003
#: How many more tiles are tried before a slide is given up because none of the first ones decodes.
_MORE_TILES = 64


@dataclass(frozen=True)
class Opened:
    """A slide's source and what opening it has shown.

    Attributes
    ----------
    source : Source
    vendor : str
    main : Directory or None
        The image of level 0, of a TIFF whose levels we chose.
    warnings : tuple of str
    faults : dict
        Tiles of the sample that do not decode: (level, column, row) -> why.
    """

    source: Source
    vendor: str
    main: Directory | None
    warnings: tuple[str, ...] = ()
    faults: dict[tuple[int, int, int], str] = field(default_factory=dict)


def open_source(inspection: Inspection, file: SlideFile, reader: str | None) -> Opened:
    """Open a slide with the best reader that proves able.

    Parameters
    ----------
    inspection : Inspection
    file : SlideFile
        Over the inspected file.
    reader : str, optional
        One of `READERS`: this one or none.

    Raises
    ------
    SlideError
        Why no reader opens it.
    """
    vendor = vendor_of(inspection)
    levels, notes = levels_of(inspection.directories, vendor)
    main = levels[0] if levels and _is_ours(vendor) else None
    if main is not None and vendor == "aperio" and (note := stated_size_differs(main)):
        notes = (*notes, note)
    failures: list[SlideError] = []
    for name in _candidates(vendor, levels, reader):
        try:
            opened = _try(name, inspection, file, vendor, levels)
        except SlideError as error:
            if name == "tiles" and isinstance(error, CorruptSlide) and levels[0].compression == JPEG:
                raise  # what a strict decoder calls damaged, the libraries' lax ones show as grey
            failures.append(error)
            continue
        if opened.disagreement and reader is None:
            notes = (*notes, f"{opened.disagreement}; read by a library instead of our own reader")
            opened.source.close()
            continue
        extra = (opened.disagreement,) if opened.disagreement else ()
        return Opened(opened.source, vendor, main, (*notes, *opened.notes, *extra), opened.faults)
    raise _best_reason(failures, inspection)


def _is_ours(vendor: str) -> bool:
    """Whether the first directory of such a TIFF is the slide's own image."""
    return vendor in ("aperio", "ome", "generic-tiff")


def _candidates(vendor: str, levels: Sequence[Directory], reader: str | None) -> Iterable[str]:
    if reader is not None:
        if reader not in READERS:
            raise ValueError(f"reader must be one of {', '.join(READERS)}, not {reader!r}")
        return (reader,)
    if not levels:
        return ("openslide",)
    if vendor in _ORDER:
        return _ORDER[vendor]
    if all(own_source_reads(level) for level in levels):
        return READERS
    if levels[0].compression == _APERIO_JP2K_YCBCR:
        return ("openslide", "tiffslide")
    return ("tiffslide", "openslide")


@dataclass(frozen=True)
class _Trial:
    source: Source
    notes: tuple[str, ...] = ()
    faults: dict[tuple[int, int, int], str] = field(default_factory=dict)
    disagreement: str = ""


def _try(name: str, inspection: Inspection, file: SlideFile, vendor: str, levels: Sequence[Directory]) -> _Trial:
    """Open with one reader and decode a sample; raises `SlideError`."""
    source: Source
    if name == "tiles":
        if vendor in _ORDER or not levels or not all(own_source_reads(level) for level in levels):
            raise UnsupportedSlide("our own reader reads tiled 8-bit TIFFs of known compressions", file=inspection.path)
        source = TileSource(file, levels)
    elif name == "tiffslide":
        if not inspection.directories:
            raise UnsupportedSlide("tiffslide reads TIFFs only", file=inspection.path)
        source = TiffSlideSource(file, inspection.directories)
    else:
        source = OpenSlideSource(inspection.real if inspection.real.is_file() else inspection.members[0])
    try:
        good, faults = _sample(source, levels if name == "tiles" else ())
        if not good:
            raise CorruptSlide(
                f"none of its tiles can be decoded: {next(iter(faults.values()), 'it has none')}",
                file=inspection.path,
                do="copy the slide again",
            )
        notes, disagreement = _compared(source, file, inspection.real, good, levels) if name == "tiles" else ((), "")
    except BaseException:
        source.close()
        raise
    return _Trial(source, notes, faults, disagreement)


def _compared(
    source: Source, file: SlideFile, path: Path, places: Sequence[tuple[int, int, int]], levels: Sequence[Directory]
) -> tuple[tuple[str, ...], str]:
    """Return a note where nothing could be compared, and what differs from the library."""
    lossless = all(level.compression in BYTE_CODECS for level in levels)
    compared, disagreement = compare_with_libraries(source, file, path, places, 0 if lossless else LOSSY_TOLERANCE)
    if not compared and not disagreement:
        return ("our own reader could not be compared with a library on this file",), ""
    return (), disagreement


def _sample(
    source: Source, levels: Sequence[Directory]
) -> tuple[list[tuple[int, int, int]], dict[tuple[int, int, int], str]]:
    """Decode a few tiles; return those that decode and, of the others, why not.

    Level 0 gives its first, middle, last and longest tile (the longest shows tissue), every other level its longest.
    """
    places = []
    for level in range(len(source.level_dimensions)):
        candidates = _written_tiles(source, level, levels[level] if levels else None)
        if level == 0:
            more = candidates.spread
        places += candidates.first if level == 0 else candidates.first[:1]
    good, faults = _decode(source, places)
    if not any(level == 0 for level, _, _ in good):
        others = [place for place in more if place not in faults]
        later, more_faults = _decode(source, others, enough=1)
        good, faults = [*later, *good] if later else [], {**faults, **more_faults}
    return good, faults


@dataclass(frozen=True)
class _Places:
    first: list[tuple[int, int, int]]
    spread: list[tuple[int, int, int]]


def _written_tiles(source: Source, level: int, directory: Directory | None) -> _Places:
    (width, height), (tile_width, tile_height) = source.level_dimensions[level], source.tile_sizes[level]
    across, down = -(-width // tile_width), -(-height // tile_height)
    if directory is None:
        written = np.arange(across * down)
        wanted = [written[len(written) // 2], written[0], written[-1]]
    else:
        counts = directory.byte_counts[: across * down]
        written = np.flatnonzero(counts)
        if not len(written):
            return _Places([], [])
        wanted = [int(np.argmax(counts)), written[len(written) // 2], written[0], written[-1]]
    spread = written[np.linspace(0, len(written) - 1, min(_MORE_TILES, len(written))).astype(int)]

    def places(indices: Iterable[int]) -> list[tuple[int, int, int]]:
        return list(dict.fromkeys((level, int(i) % across, int(i) // across) for i in indices))

    return _Places(places(wanted), places(spread))


def _decode(
    source: Source, places: Iterable[tuple[int, int, int]], enough: int | None = None
) -> tuple[list[tuple[int, int, int]], dict[tuple[int, int, int], str]]:
    good, faults = [], {}
    for place in places:
        try:
            source.tile(*place)
        except TileFault as fault:
            faults[place] = str(fault)
        else:
            good.append(place)
            if enough is not None and len(good) >= enough:
                break
    return good, faults


def _best_reason(failures: Sequence[SlideError], inspection: Inspection) -> SlideError:
    """Return the error that says most: damage before kind, the last reader's words where all are alike."""
    if not failures:
        return UnsupportedSlide("no reader here agrees with another on its pixels", file=inspection.path)
    for kind in (NotBrightfield, CorruptSlide):
        for failure in failures:
            if isinstance(failure, kind):
                return failure
    if len(failures) == 1:
        return failures[0]
    words = "; ".join(failure.what for failure in failures)
    return UnsupportedSlide(words, file=inspection.path, do="convert it to a pyramidal TIFF, or open the original")


def scanned(path: Path, allow_incomplete: bool) -> tuple[SlideFile, Inspection]:
    """Return the one handle that all readers share, and the scan of what is behind it."""
    if path.is_dir():
        inspection = inspect(path, allow_incomplete=allow_incomplete)
        return SlideFile(inspection.members[0]), inspection
    file = SlideFile(path)
    try:
        return file, inspect(path, fd=file.descriptor, allow_incomplete=allow_incomplete)
    except BaseException:
        file.close()
        raise


def find_scale(opened: Opened, mpp: float | None) -> Scale:
    """Return the pixel size: the given one, or what the file says."""
    if opened.main is not None:
        found = tiff_scale(opened.main, opened.vendor)
    else:
        found = property_scale(opened.source.raw_properties, opened.source.reader)
    if mpp is not None:
        return given_scale(mpp, found)
    if found.mpp is None:
        note = f"no pixel size (mpp): {found.source}; give it with --mpp or in the viewer"
        return Scale(None, f"missing: {found.source}", (*found.warnings, note))
    return found
