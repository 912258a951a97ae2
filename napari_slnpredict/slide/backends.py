"""Slides read by libraries: tiffslide for TIFFs our own source leaves alone, OpenSlide for everything else.

Neither is given a user's string: tiffslide reads names as URLs (``a::b.svs``, ``github://...``), so it gets a file
object over our handle; OpenSlide insists on a path and gets the resolved one. A handle is used by one thread at a
time, and one that failed is thrown away: OpenSlide's errors stick to the handle, so that one bad tile would spoil all
later reads.
"""

from __future__ import annotations

import contextlib
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
#: Decoders may differ by rounding in lossy formats; anything above is another picture.
LOSSY_TOLERANCE = 2

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
            raise UnsupportedSlide(f"tiffslide cannot open it ({_brief(error)})", file=self._path) from error

    def _check_kind(self, pixels: NDArray[Any]) -> None:
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
            raise NotBrightfield(
                f"its pixels are {pixels.dtype} with {pixels.shape[-1]} channel(s), not 8-bit red, green and blue",
                file=self._path,
            )

    def tile(self, level: int, column: int, row: int) -> Tile:
        """Read one tile. Raises `TileFault`."""
        x, y, width, height = _tile_box(self, level, column, row)
        try:
            with self._pool.lend() as handle:
                pixels = _level_region(handle, level, x, y, width, height)
        except ValueError as error:
            if "closed" in str(error):
                raise
            raise TileFault(f"tiffslide cannot decode it ({_brief(error)})") from error
        except Exception as error:  # codecs raise errors of their own kinds
            raise TileFault(f"tiffslide cannot decode it ({_brief(error)})") from error
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


# Silencing a library's warnings swaps a list that all threads share.
_quiet_lock = threading.Lock()


def open_tiffslide(file: SlideFile) -> Any:
    """Return a `tiffslide.TiffSlide` over our handle, with its properties parsed."""
    with _quiet_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tiffslide

        handle = tiffslide.TiffSlide(file.stream())
        try:
            handle.properties  # noqa: B018  parsed now, while its warnings are silenced
        except BaseException:
            handle.close()
            raise
    return handle


def _level_region(handle: Any, level: int, x: int, y: int, width: int, height: int) -> NDArray[Any]:
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
                f"OpenSlide cannot open it ({_brief(error)})", file=self._path, do="copy the slide again"
            ) from error

    def _tile_size(self, level: int) -> tuple[int, int]:
        sides = (self.raw_properties.get(f"openslide.level[{level}].tile-{side}", "") for side in ("width", "height"))
        width, height = (int(side) if side.isdigit() and 0 < int(side) <= 4096 else DEFAULT_TILE for side in sides)
        return _whole_blocks((width, height), self.level_dimensions[level])

    def tile(self, level: int, column: int, row: int) -> Tile:
        """Read one tile. Raises `TileFault`."""
        import openslide

        x, y, width, height = _tile_box(self, level, column, row)
        downsample = self._downsamples[level]
        place = (round(x * downsample), round(y * downsample))
        try:
            with self._pool.lend() as handle:
                picture = np.asarray(handle.read_region(place, level, (width, height)))
        except (openslide.OpenSlideError, CorruptSlide, UnsupportedSlide) as error:
            raise TileFault(f"OpenSlide cannot decode it ({_brief(error)})") from error
        alpha = picture[..., 3]
        colour = np.ascontiguousarray(picture[..., :3])
        if (alpha == WHITE).all():
            return Tile(colour)
        valid = alpha > 0
        return Tile(over_white(colour, alpha, premultiplied=False), None if valid.all() else valid)

    def close(self) -> None:
        """Close all handles."""
        self._pool.close()


def _tile_box(source: Source, level: int, column: int, row: int) -> tuple[int, int, int, int]:
    """Return x, y, width, height of a tile in its level's pixels, cut at the level's edge."""
    (tile_width, tile_height), (width, height) = source.tile_sizes[level], source.level_dimensions[level]
    x, y = column * tile_width, row * tile_height
    return x, y, min(tile_width, width - x), min(tile_height, height - y)


#: (level, x, y, width, height) in the library's own level -> pixels.
_Read = Callable[[int, int, int, int, int], NDArray[Any]]
#: Opens a library for a moment: its level sizes, with their numbers, and how to read from it.
_Witness = Callable[[], contextlib.AbstractContextManager[tuple[dict[tuple[int, int], int], _Read]]]


def compare_with_libraries(
    own: Source, file: SlideFile, path: Path, places: Sequence[tuple[int, int, int]], tolerance: int
) -> tuple[int, str]:
    """Compare tiles of our own source with a library's reading of the same file.

    tiffslide first; where it cannot read the file, OpenSlide, and of it level 0 only: it interpolates below.

    Parameters
    ----------
    own : Source
    file : SlideFile
    path : Path
        The same file, resolved.
    places : sequence of (level, column, row)
        Tiles that our source decodes.
    tolerance : int
        Largest difference of a sample.

    Returns
    -------
    int
        Tiles compared: not those of levels that the library does not list, nor those it cannot decode.
    str
        What differs; empty when all agree.
    """
    witnesses: tuple[tuple[str, _Witness], ...] = (
        ("tiffslide", lambda: _tiffslide_reads(file)),
        ("OpenSlide", lambda: _openslide_reads(path)),
    )
    for name, opener in witnesses:
        try:
            with opener() as (sizes, read):
                compared, worst = _compare(own, places, sizes, read, tolerance)
        except Exception:  # noqa: BLE001  a library that cannot open the file is no witness
            continue
        if worst > tolerance:
            return compared, f"our pixels and {name}'s differ by up to {worst} grey levels"
        if compared:
            return compared, ""
    return 0, ""


@contextlib.contextmanager
def _tiffslide_reads(file: SlideFile) -> Iterator[tuple[dict[tuple[int, int], int], _Read]]:
    handle = open_tiffslide(file)
    try:
        sizes = {(int(w), int(h)): level for level, (w, h) in enumerate(handle.level_dimensions)}
        yield sizes, lambda *box: _level_region(handle, *box)
    finally:
        handle.close()


@contextlib.contextmanager
def _openslide_reads(path: Path) -> Iterator[tuple[dict[tuple[int, int], int], _Read]]:
    import openslide

    handle: Any = openslide.OpenSlide(str(path))
    try:
        sizes = {(int(handle.dimensions[0]), int(handle.dimensions[1])): 0}
        yield sizes, lambda level, x, y, w, h: np.asarray(handle.read_region((x, y), level, (w, h)))
    finally:
        handle.close()


def _compare(
    own: Source,
    places: Sequence[tuple[int, int, int]],
    sizes: Mapping[tuple[int, int], int],
    read: _Read,
    tolerance: int,
) -> tuple[int, int]:
    """Return how many tiles were compared and the worst difference, at most one above the tolerance."""
    compared, worst = 0, 0
    for level, column, row in places:
        if own.level_dimensions[level] not in sizes or worst > tolerance:
            continue
        mine = own.tile(level, column, row)
        try:
            box = _tile_box(own, level, column, row)
            other = read(sizes[own.level_dimensions[level]], *box)[..., :3]
        except Exception:  # noqa: BLE001  codecs raise errors of their own kinds
            continue
        compared += 1
        sure = np.s_[:] if mine.valid is None else mine.valid
        difference = np.abs(mine.pixels.astype(np.int16) - other.astype(np.int16))[sure]
        worst = max(worst, int(difference.max(initial=0)))
    return compared, worst


def _brief(error: BaseException) -> str:
    """Return what kind of error it was, and its words where they are a library's own and short."""
    return one_line(f"{type(error).__name__}: {error}", 120)
