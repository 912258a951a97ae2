"""Our own reading of a slide held against a library's, on a few tiles, before it is believed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .backends import level_region, open_tiffslide, tile_box
from .handle import SlideFile
from .source import Source

#: Decoders may differ by rounding in lossy formats; anything above is another picture.
LOSSY_TOLERANCE = 2

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
        yield sizes, lambda *box: level_region(handle, *box)
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
            box = tile_box(own, level, column, row)
            other = read(sizes[own.level_dimensions[level]], *box)[..., :3]
        except Exception:  # noqa: BLE001  codecs raise errors of their own kinds
            continue
        compared += 1
        sure = np.s_[:] if mine.valid is None else mine.valid
        difference = np.abs(mine.pixels.astype(np.int16) - other.astype(np.int16))[sure]
        worst = max(worst, int(difference.max(initial=0)))
    return compared, worst
