"""Slides read by libraries: tiffslide for TIFFs our own source leaves alone, OpenSlide for everything else.

Neither is given a user's string: tiffslide reads names as URLs (``a::b.svs``, ``github://...``), so it gets a file
object over our handle; OpenSlide insists on a path and gets the resolved one. A handle is used by one thread at a
time, and one that failed is thrown away: OpenSlide's errors stick to the handle, so that one bad tile would spoil all
later reads.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import CorruptSlide, NotBrightfield, UnsupportedSlide, one_line

from .directory import Directory
from .handle import SlideFile
from .source import WHITE, Source, Tile, TileFault, over_white

#: Tiles handed out are made of whole stored blocks until they have about this side.
WANTED_TILE = 256
#: OpenSlide levels that name no tile size are cut into squares of this side.
DEFAULT_TILE = 512

Handle = TypeVar("Handle")


class HandlePool(Generic[Handle]):
    """Lends each handle to one thread at a time.

    Parameters
    ----------
    make : callable
        Opens another handle.
    shut : callable
        Closes one.
    """

    def __init__(self, make: Callable[[], Handle], shut: Callable[[Handle], object]) -> None:
        self._make, self._shut = make, shut
        self._idle: list[Handle] = []
        self._lock = threading.Lock()
        self._closed = False

    @contextlib.contextmanager
    def lend(self) -> Iterator[Handle]:
        """Lend a handle; it comes back unless the block raised, in which case it is closed."""
        with self._lock:
            if self._closed:
                raise ValueError("the slide is closed")
            handle = self._idle.pop() if self._idle else None
        if handle is None:
            handle = self._make()
        try:
            yield handle
        except BaseException:
            self._shut_quietly(handle)
            raise
        with self._lock:
            keep = not self._closed
            if keep:
                self._idle.append(handle)
        if not keep:
            self._shut_quietly(handle)

    def close(self) -> None:
        """Close the idle handles now and the lent ones when they come back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for handle in idle:
            self._shut_quietly(handle)

    def _shut_quietly(self, handle: Handle) -> None:
        with contextlib.suppress(Exception):
            self._shut(handle)


class TiffSlideSource:
    """A TIFF read by tiffslide.

    Parameters
    ----------
    file : SlideFile
    directories : sequence of Directory
        All of the file's: they tell which stored blocks are empty, which tiffslide shows as black.
    """

    reader = "tiffslide"

    def __init__(self, file: SlideFile, directories: Sequence[Directory] = ()) -> None:
        self._path = file.path
        self._pool: HandlePool[Any] = HandlePool(lambda: open_tiffslide(file), lambda handle: handle.close())
        with self._opening(), self._pool.lend() as handle:
            self.level_dimensions = tuple((int(w), int(h)) for w, h in handle.level_dimensions)
            self.raw_properties: Mapping[str, str] = {
                key: str(value) for key, value in handle.properties.items() if value is not None
            }
            self._check_kind(handle.read_region((0, 0), 0, (1, 1), as_array=True))
            blocks = [_block_size(handle, level) for level in range(len(self.level_dimensions))]
        self.tile_sizes = tuple(
            _whole_blocks(block, size) for block, size in zip(blocks, self.level_dimensions, strict=True)
        )
        self._empty = tuple(_empty_blocks(directories, size) for size in self.level_dimensions)

    @contextlib.contextmanager
    def _opening(self) -> Iterator[None]:
        try:
            yield
        except NotBrightfield:
            raise
        except Exception as error:  # whatever a library raises on a strange file
            raise UnsupportedSlide(f"tiffslide cannot open it ({brief(error)})", file=self._path) from error

    def _check_kind(self, pixels: NDArray[Any]) -> None:
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
            raise NotBrightfield(
                f"its pixels are {pixels.dtype} with {pixels.shape[-1]} channel(s), not 8-bit red, green and blue",
                file=self._path,
            )

    def tile(self, level: int, column: int, row: int) -> Tile:
        """Read one tile. Raises `TileFault`."""
        x, y, width, height = tile_box(self, level, column, row)
        try:
            with self._pool.lend() as handle:
                pixels = level_region(handle, level, x, y, width, height)
        except ValueError as error:
            if "closed" in str(error):
                raise
            raise TileFault(f"tiffslide cannot decode it ({brief(error)})") from error
        except Exception as error:  # codecs raise errors of their own kinds
            raise TileFault(f"tiffslide cannot decode it ({brief(error)})") from error
        if pixels.shape[:2] != (height, width) or pixels.dtype != np.uint8:
            raise TileFault("tiffslide returned another size than asked for")
        alpha = pixels[..., 3] if pixels.shape[2] == 4 else None
        valid = self._written(level, x, y, width, height)
        colour = np.array(pixels[..., :3], copy=True, order="C")
        if alpha is not None and not (alpha == WHITE).all():
            colour = over_white(colour, alpha, premultiplied=False)
            valid = (alpha > 0) if valid is None else valid & (alpha > 0)
        if valid is not None:
            colour[~valid] = WHITE
        return Tile(colour, valid)

    def _written(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.bool_] | None:
        """Return where the file has pixels, None for everywhere."""
        found = self._empty[level]
        if found is None:
            return None
        empty, (block_width, block_height) = found
        rows = (y + np.arange(height)) // block_height
        columns = (x + np.arange(width)) // block_width
        valid = ~empty[np.ix_(rows, columns)]
        return None if valid.all() else valid

    def close(self) -> None:
        """Close all handles."""
        self._pool.close()


# Silencing a library's words changes what all threads share.
_quiet_lock = threading.Lock()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep tifffile's and tiffslide's remarks on a file off the user's terminal; `inspect` has said what matters."""
    log = logging.getLogger("tifffile")
    with _quiet_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = log.level
        log.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            log.setLevel(before)


def open_tiffslide(file: SlideFile) -> Any:
    """Return a `tiffslide.TiffSlide` over our handle, with its properties parsed."""
    with _quiet():
        import tiffslide

        handle = tiffslide.TiffSlide(file.stream())
        try:
            handle.properties  # noqa: B018  parsed now, while its remarks are silenced
        except BaseException:
            handle.close()
            raise
    return handle


def level_region(handle: Any, level: int, x: int, y: int, width: int, height: int) -> NDArray[Any]:
    """Read a rectangle in the level's own pixels, (h, w, 3 or 4)."""
    # tiffslide takes a level-0 place and cuts location / downsample to whole pixels: the middle of the wanted pixel is
    # safe from the division's rounding.
    downsample = handle.level_downsamples[level]
    place = (int((x + 0.5) * downsample), int((y + 0.5) * downsample))
    region: NDArray[Any] = handle.read_region(place, level, (width, height), as_array=True)
    return region


def _block_size(handle: Any, level: int) -> tuple[int, int]:
    """Return width and height of what one read decodes at least."""
    properties = handle.properties
    width = properties.get(f"tiffslide.level[{level}].tile-width")
    height = properties.get(f"tiffslide.level[{level}].tile-height")
    if width and height:
        return int(width), int(height)
    group = handle.zarr_group
    array = group.get(str(level), group)
    rows, columns = [chunk for chunk in array.chunks if chunk > 4][:2] or (DEFAULT_TILE, DEFAULT_TILE)
    return int(columns), int(rows)


def _whole_blocks(block: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    width, height = (min(stored * -(-WANTED_TILE // stored), full) for stored, full in zip(block, size, strict=True))
    return max(width, 1), max(height, 1)


def _empty_blocks(
    directories: Sequence[Directory], size: tuple[int, int]
) -> tuple[NDArray[np.bool_], tuple[int, int]] | None:
    """Return which blocks of the level of this size were never written and how large they are; None if none."""
    every = [d for directory in directories for d in (directory, *directory.subifds)]
    for directory in every:
        if (directory.width, directory.height) == size and directory.planar == 1:
            count = directory.across * directory.down
            if len(directory.byte_counts) == count and (directory.byte_counts == 0).any():
                empty = (directory.byte_counts == 0).reshape(directory.down, directory.across)
                return empty, (directory.tile_width, directory.tile_height)
    return None


class OpenSlideSource:
    """A slide read by OpenSlide.

    Parameters
    ----------
    path : Path
        Resolved and inspected; of a DICOM slide any of its files.
    """

    reader = "openslide"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pool: HandlePool[Any] = HandlePool(self._open, lambda handle: handle.close())
        with self._pool.lend() as handle:
            self.level_dimensions = tuple((int(w), int(h)) for w, h in handle.level_dimensions)
            self._downsamples = tuple(float(d) for d in handle.level_downsamples)
            self.raw_properties: Mapping[str, str] = {str(k): str(v) for k, v in handle.properties.items()}
        self.tile_sizes = tuple(self._tile_size(level) for level in range(len(self.level_dimensions)))

    def _open(self) -> Any:
        import openslide

        try:
            return openslide.OpenSlide(str(self._path))
        except openslide.OpenSlideUnsupportedFormatError as error:
            raise UnsupportedSlide(
                "OpenSlide does not know this format, or files that belong to it are missing",
                file=self._path,
                do="check that all files of the slide were copied together",
            ) from error
        except openslide.OpenSlideError as error:
            raise CorruptSlide(
                f"OpenSlide cannot open it ({brief(error)})", file=self._path, do="copy the slide again"
            ) from error

    def _tile_size(self, level: int) -> tuple[int, int]:
        sides = (self.raw_properties.get(f"openslide.level[{level}].tile-{side}", "") for side in ("width", "height"))
        width, height = (int(side) if side.isdigit() and 0 < int(side) <= 4096 else DEFAULT_TILE for side in sides)
        return _whole_blocks((width, height), self.level_dimensions[level])

    def tile(self, level: int, column: int, row: int) -> Tile:
        """Read one tile. Raises `TileFault`."""
        import openslide

        x, y, width, height = tile_box(self, level, column, row)
        downsample = self._downsamples[level]
        place = (round(x * downsample), round(y * downsample))
        try:
            with self._pool.lend() as handle:
                picture = np.asarray(handle.read_region(place, level, (width, height)))
        except (openslide.OpenSlideError, CorruptSlide, UnsupportedSlide) as error:
            raise TileFault(f"OpenSlide cannot decode it ({brief(error)})") from error
        alpha = picture[..., 3]
        colour = np.ascontiguousarray(picture[..., :3])
        if (alpha == WHITE).all():
            return Tile(colour)
        valid = alpha > 0
        return Tile(over_white(colour, alpha, premultiplied=False), None if valid.all() else valid)

    def close(self) -> None:
        """Close all handles."""
        self._pool.close()


def tile_box(source: Source, level: int, column: int, row: int) -> tuple[int, int, int, int]:
    """Return x, y, width, height of a tile in its level's pixels, cut at the level's edge."""
    (tile_width, tile_height), (width, height) = source.tile_sizes[level], source.level_dimensions[level]
    x, y = column * tile_width, row * tile_height
    return x, y, min(tile_width, width - x), min(tile_height, height - y)


def brief(error: BaseException) -> str:
    """Return what kind of error it was and its words, folders left out: a path tells whose slide it is."""
    return one_line(re.sub(r"[\w.~-]*[/\\][^\s'\":;,]*", "...", f"{type(error).__name__}: {error}"), 120)
