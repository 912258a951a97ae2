"""A whole-slide image in OpenSlide's words: open it, read any rectangle of any level, know what cannot be trusted.

::

    with open_slide("slide.svs") as slide:
        pixels = slide.read_region((x, y), level, (width, height))       # (h, w, 3) uint8, exact, or it raises
        pixels, valid = slide.read_region_mask((x, y), level, (w, h))    # the same with a mask, never raises for a tile
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import MissingScale, ResourceError, UnsupportedSlide
from napari_slnpredict.settings import load_settings

from .associated import associated_image, associated_names
from .cache import TileCache, shared_cache
from .damage import damage_error, damage_line, level0_box
from .directory import Identity, Inspection
from .display import DisplayPyramid
from .handle import SlideFile, content_id, identity_of, require_same
from .lazy import level_arrays
from .look import why_dark
from .opening import Opened, find_scale, open_source, scanned
from .patience import Patience, is_far, stalled
from .properties import safe_properties, slide_bounds
from .pyramid import Pyramid, Region
from .scale import Scale
from .source import DriveSilent
from .thumbnail import thumbnail

#: Largest rectangle read in one piece, px (0.8 GB); whoever wants more reads it in parts.
MAX_REGION_PX = 1 << 28
#: Opening may take as long as so many reads that only just come back.
OPENING_READS = 6

T = TypeVar("T")


def open_slide(
    path: Path | str,
    mpp: float | None = None,
    *,
    reader: str | None = None,
    allow_incomplete: bool = False,
    memory_mb: int | None = None,
) -> Slide:
    """Open a whole-slide image.

    Parameters
    ----------
    path : path
        A slide file, or the folder of a DICOM slide.
    mpp : float, optional
        um per level-0 pixel, in place of what the file says.
    reader : str, optional
        "tiles", "tiffslide" or "openslide": this reader or none. By default the first that proves able.
    allow_incomplete : bool
        Open a file that ends early, to look at; `predict` never asks for this.
    memory_mb : int, optional
        Bound of a cache of this slide's own; by default it shares that of all open slides (`cache.shared_cache`).

    Raises
    ------
    SlideError
        `CorruptSlide`, `UnsupportedSlide`, `NotBrightfield` (16 bit, grey, ...), `SlideStalled` or, for an absurd
        `mpp`, `MissingScale`. A slide without scale opens; `Slide.require_mpp` raises.
    """
    place = Path(path)
    seconds = load_settings().stall_seconds
    patience = Patience(seconds) if seconds > 0 and is_far(place) else None
    asked = (mpp, reader, allow_incomplete, memory_mb)
    if patience is None:
        return _open(place, asked, None)
    opening = Patience(OPENING_READS * seconds)
    try:
        return opening.run(lambda: _open(place, asked, patience))
    except DriveSilent as error:
        raise stalled(place, error) from error
    finally:
        opening.close()


#: What may be asked of `open_slide` beside the path: mpp, reader, allow_incomplete, memory_mb.
_Asked = tuple[float | None, str | None, bool, int | None]


def _open(path: Path, asked: _Asked, patience: Patience | None) -> Slide:
    mpp, reader, allow_incomplete, memory_mb = asked
    file, inspection = scanned(path, allow_incomplete)
    try:
        opened = open_source(inspection, file, reader)
        try:
            scale = find_scale(opened, mpp)
            cache = shared_cache() if memory_mb is None else TileCache(memory_mb << 20)
            return Slide(inspection, file, opened, scale, Pyramid(opened.source, cache, patience), asked)
        except BaseException:
            opened.source.close()
            raise
    except BaseException:
        file.close()
        raise


class Slide:
    """An open slide; made by `open_slide`. Thread-safe; a context manager; can be sent to another process.

    Attributes
    ----------
    path : Path
        As given.
    slide_id : str
        The file's stem.
    dimensions : (int, int)
        Width and height of level 0, px.
    level_count : int
        Stored and virtual levels.
    stored_level_count : int
        How many are the file's own; the others are means of 2 x 2 pixels of the level above, computed when looked at.
    level_dimensions : tuple of (int, int)
    level_downsamples : tuple of float
    level_tile_sizes : tuple of (int, int)
    mpp : float or None
        um per level-0 px.
    mpp_source : str
        Where it comes from, or "missing: ..." with the reason.
    bounds : (int, int, int, int)
        x, y, width, height of what was scanned, level-0 px.
    reader : str
        "tiles" (our own), "tiffslide" or "openslide".
    vendor : str
        Who wrote the file, in OpenSlide's words; "ome" for OME-TIFF.
    properties : mapping
        An allow-list: nothing here can name a patient.
    """

    def __init__(
        self, inspection: Inspection, file: SlideFile, opened: Opened, scale: Scale, pyramid: Pyramid, asked: _Asked
    ) -> None:
        self._inspection, self._file, self._asked = inspection, file, asked
        self._pyramid, self._leaving = pyramid, contextlib.ExitStack()
        self._pyramid.faults.update(opened.faults)
        self._main = opened.main
        levels = self._pyramid.levels
        self.path = inspection.path
        self.slide_id = inspection.path.name if inspection.path.is_dir() else inspection.path.stem
        self.dimensions: tuple[int, int] = (levels[0].width, levels[0].height)
        self.level_count = len(levels)
        self.stored_level_count = sum(level.depth == 0 for level in levels)
        self.level_dimensions = tuple((level.width, level.height) for level in levels)
        self.level_downsamples = tuple(level.downsample for level in levels)
        self.level_tile_sizes = tuple((level.tile_width, level.tile_height) for level in levels)
        self.mpp, self.mpp_source = scale.mpp, scale.source
        self.reader, self.vendor = opened.source.reader, opened.vendor
        raw = opened.source.raw_properties
        self.bounds = slide_bounds(raw, self.dimensions)
        self.properties: Mapping[str, str] = MappingProxyType(safe_properties(self.vendor, self._main, raw))
        self._warnings = tuple(dict.fromkeys((*inspection.warnings, *opened.warnings, *scale.warnings)))
        self._others = {path: identity_of(path.stat()) for path in inspection.members}

    # --- what it is -------------------------------------------------------------------------------------------------

    @cached_property
    def content_id(self) -> str:
        """The slide's name by content, hex: the same for a renamed or copied slide."""
        own = (self._inspection.real,) if self._inspection.real.is_file() else ()
        return self._answered(lambda: content_id((*own, *self._inspection.members)))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know before trusting this slide, damage met so far included."""
        count = len(self._pyramid.faults)
        return (*self._warnings, damage_line(count)) if count else self._warnings

    @property
    def damaged(self) -> tuple[tuple[int, int, int, int, int], ...]:
        """Rectangles (level, x, y, w, h) of tiles met so far that cannot be decoded; x, y, w, h in level-0 px."""
        return tuple(level0_box(self._pyramid, *key) for key in sorted(self._pyramid.faults.copy()))

    @property
    def tiles(self) -> Pyramid:
        """The tiles of all levels, through the cache: for a display, which asks for them one by one."""
        return self._pyramid

    @property
    def seconds_spent(self) -> dict[str, float]:
        """Seconds spent so far, summed over threads: ``read`` bytes, ``decode`` them into pixels.

        OpenSlide reads the file itself: all its time counts as decoding.
        """
        read = self._file.seconds
        return {"read": read, "decode": max(0.0, self._pyramid.seconds - read)}

    @cached_property
    def not_brightfield(self) -> str | None:
        """Why this is no brightfield slide by its look (a dark background, as in fluorescence); None when it may be.

        Slides that cannot be brightfield by their kind of pixels (16 bit, grey, ...) do not open at all.
        """
        with self._naming_stalls():
            return why_dark(self._pyramid)

    @property
    def brightfield(self) -> bool:
        """Whether nothing speaks against brightfield."""
        return self.not_brightfield is None

    def require_mpp(self) -> float:
        """Return um per level-0 pixel, or raise `MissingScale`."""
        if self.mpp is None:
            raise MissingScale(
                f"it has no believable pixel size ({self.mpp_source.removeprefix('missing: ')})",
                file=self.path,
                do="give um per pixel: --mpp X, the mpp column of the cohort table, or the viewer's field",
            )
        return self.mpp

    def unchanged(self) -> None:
        """Raise `CorruptSlide` when a file of the slide was changed, replaced or removed since it was opened."""
        self._answered(self._require_unchanged)

    def _require_unchanged(self) -> None:
        self._file.require_unchanged()
        require_same(self._others)

    # --- pixels -----------------------------------------------------------------------------------------------------

    def read_region(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Read a rectangle.

        Parameters
        ----------
        location : (int, int)
            x and y of its corner, level-0 px; in the level's pixels this is floor(location / downsample).
        level : int
        size : (int, int)
            Width and height, pixels of the level.

        Returns
        -------
        (h, w, 3) uint8
            White outside the slide and where nothing was scanned.

        Raises
        ------
        CorruptSlide
            A tile in it cannot be decoded; named.
        SlideStalled
            The network share or drive does not answer.
        """
        return self._sound(self._read(level, *self._in_level(location, level), *size))

    def read_region_mask(
        self, location: tuple[int, int], level: int, size: tuple[int, int]
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Read a rectangle as `read_region` does, with a mask in place of an error.

        Returns
        -------
        pixels : (h, w, 3) uint8
            White where not valid.
        valid : (h, w) bool
            False outside the slide, where nothing was scanned, and in damaged tiles, which `damaged` then lists.
        """
        region = self._read(level, *self._in_level(location, level), *size)
        return region.pixels, region.valid

    def read_level(
        self, level: int, x: int, y: int, width: int, height: int, *, passing: bool = False
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Read as `read_region_mask`, with the corner in the level's own pixels: nothing is rounded.

        `passing` is for reading much and each place once: it takes no room in the cache from what is looked at, and
        stays in the caller's thread.
        """
        region = self._read(level, x, y, width, height, passing)
        return region.pixels, region.valid

    def read_exact(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Read as `read_region`, with the corner in the level's own pixels: exact, or raising."""
        return self._sound(self._read(level, x, y, width, height))

    def _in_level(self, location: tuple[int, int], level: int) -> tuple[int, int]:
        downsample = self.level_downsamples[self._checked(level)]
        return math.floor(location[0] / downsample), math.floor(location[1] / downsample)

    def _checked(self, level: int) -> int:
        if not 0 <= level < self.level_count:
            raise ValueError(f"level {level} of a slide with {self.level_count}")
        return level

    def _read(self, level: int, x: int, y: int, width: int, height: int, passing: bool = False) -> Region:
        if width < 0 or height < 0:
            raise ValueError(f"a rectangle of {width} x {height} px")
        if width * height > MAX_REGION_PX:
            raise ResourceError(
                f"{width} x {height} px are more than is read in one piece", file=self.path, do="use a coarser level"
            )
        box = int(x), int(y), int(width), int(height)
        with self._naming_stalls():
            return self._pyramid.region(self._checked(level), *box, passing=passing)

    def _answered(self, work: Callable[[], T]) -> T:
        """Return what a piece of work with the file returns, or raise `SlideStalled`."""
        with self._naming_stalls():
            return self._pyramid.answered(work)

    @contextlib.contextmanager
    def _naming_stalls(self) -> Iterator[None]:
        try:
            yield
        except DriveSilent as error:
            raise stalled(self.path, error) from error

    def _sound(self, region: Region) -> NDArray[np.uint8]:
        if region.faults:
            raise damage_error(self._pyramid, region, self.path)
        return region.pixels

    def levels(self) -> list[Any]:
        """Return one lazy dask array (h, w, 3) uint8 per level, stored or virtual: exact when computed, or raising."""
        return level_arrays(self)

    def pyramid(self) -> DisplayPyramid:
        """Return the levels for one layer on a screen, closed with the slide: they answer at once, at first roughly."""
        shown = DisplayPyramid(self._pyramid, lambda: self.damaged)
        self._leaving.callback(shown.close)
        shown.prepare()
        return shown

    def best_level(self, downsample: float) -> int:
        """Return the coarsest level that is at least as fine as `downsample` level-0 px per pixel."""
        fine = [k for k, value in enumerate(self.level_downsamples) if value <= downsample * (1 + 1e-3)]
        return max(fine, default=0)

    def thumbnail(self, max_px: int) -> NDArray[np.uint8]:
        """Return the whole slide with its longer side at most `max_px`: (h, w, 3) uint8; never upsampled."""
        return thumbnail(self, max_px)

    # --- beside the pixels ------------------------------------------------------------------------------------------

    def associated_names(self) -> tuple[str, ...]:
        """Return which pictures lie beside the slide ("label", "macro", "thumbnail"); nothing is decoded."""
        return associated_names(self._file, self._inspection)

    def associated(self, name: str) -> NDArray[np.uint8]:
        """Decode the label, macro or thumbnail picture, (h, w, 3) uint8. It may name a patient: only on request."""
        if name not in self.associated_names():
            raise UnsupportedSlide(f"it has no {name} picture", file=self.path)
        return self._answered(lambda: associated_image(self._file, self._inspection, name))

    def icc_profile(self) -> bytes | None:
        """Return the scanner's colour profile, None when the file has none."""
        if self._main is not None and self._main.icc is not None:
            offset, length = self._main.icc
            return self._answered(lambda: self._file.read_at(offset, min(length, 16 << 20))) or None
        read = getattr(self._pyramid.source, "icc_profile", None)
        return read() if read else None

    # --- life -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close every handle and forget the decoded tiles; closing twice is harmless."""
        self._leaving.close()
        self._pyramid.close()
        self._file.close()

    def __enter__(self) -> Slide:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        width, height = self.dimensions
        return f"<Slide {self.slide_id!r}: {width} x {height} px, {self.level_count} levels, by {self.reader}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """A slide sent to another process is opened again there, with handles of its own."""
        mpp, reader, part, mb = self._asked
        return partial(
            open_slide, self.path, mpp, reader=reader or self.reader, allow_incomplete=part, memory_mb=mb
        ), ()

    @property
    def identity(self) -> tuple[str, Identity]:
        """What tells this open file from another one."""
        return str(self._inspection.real), self._file.identity
