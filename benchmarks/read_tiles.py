"""Figure 1: random tiles of a slide, by our tile source, by the bare decoder, and by the usual readers.

    .venv/bin/python benchmarks/read_tiles.py BIG.svs [--tiles 400] [--rounds 7]

BIG.svs is a tiled slide with complete JPEG streams of 256 px, large enough that its tiles differ. Every reader gets the
same random tiles of level 0, in the page cache, on one thread and on two; readers take turns within a round and must
first return the same pixels. The bound is the same strict decoder on the same bytes, completed and in memory: what no
file reader can beat. Prints one JSON object (tiles/s, medians of the rounds; ratios are medians of the ratios within
each round) and the lines for RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from napari_slnpredict.slide.inspect import inspect
from napari_slnpredict.slide.jpeg import complete_stream, table_segments
from napari_slnpredict.slide.slide import open_slide

TILE = 256
Pixels = NDArray[np.uint8]
#: (column, row) -> pixels (256, 256, 3)
Read = Callable[[int, int], Pixels]
Place = tuple[int, int]


def bound(path: Path, places: list[Place]) -> Read:
    """The decoder alone: streams completed beforehand."""
    directory = inspect(path).directories[0]
    tables, transform = table_segments(directory.jpeg_tables), 0 if directory.photometric == 2 else 1
    streams = {}
    with path.open("rb") as file:
        for column, row in places:
            index = row * directory.across + column
            data = os.pread(file.fileno(), int(directory.byte_counts[index]), int(directory.offsets[index]))
            streams[column, row] = complete_stream(data, tables, transform)[0]
    return lambda column, row: simplejpeg.decode_jpeg(streams[column, row], "RGB", strict=True)


def ours(path: Path, _: list[Place]) -> Read:
    """One tile as the display asks for it; nothing is kept, so that every tile is decoded."""
    tiles = open_slide(path, memory_mb=0).tiles
    return lambda column, row: tiles.tile(0, column, row).pixels


def ours_region(path: Path, _: list[Place]) -> Read:
    slide = open_slide(path, memory_mb=0)
    return lambda column, row: slide.read_region((column * TILE, row * TILE), 0, (TILE, TILE))


def ours_cached(path: Path, places: list[Place]) -> Read:
    """The same tiles when they lie in the cache."""
    tiles = open_slide(path, memory_mb=1 + len(places) // 4).tiles
    return lambda column, row: tiles.tile(0, column, row).pixels


def tiffslide_zarr(path: Path, _: list[Place]) -> Read:
    import tiffslide

    array = tiffslide.TiffSlide(path).zarr_group["0"]
    return lambda column, row: np.asarray(array[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE])


def openslide_region(path: Path, _: list[Place]) -> Read:
    import openslide

    slide = openslide.OpenSlide(str(path))
    slide.set_cache(openslide.OpenSlideCache(0))

    def read(column: int, row: int) -> Pixels:
        return np.asarray(slide.read_region((column * TILE, row * TILE), 0, (TILE, TILE)))[..., :3]

    return read


READERS: dict[str, Callable[[Path, list[Place]], Read]] = {
    "decoder alone": bound,
    "ours": ours,
    "ours, read_region": ours_region,
    "ours, cached": ours_cached,
    "tiffslide's zarr": tiffslide_zarr,
    "OpenSlide": openslide_region,
}
#: Ours over each of these, and what is asked for.
BARS = {"decoder alone": 0.95, "tiffslide's zarr": 2.5, "OpenSlide": 4.0}


def bench_reader(path: str) -> Callable[[int, int, int], Pixels]:
    """Our reader for a judge from outside: (x, y, size) -> pixels."""
    tiles = open_slide(path, memory_mb=0).tiles
    return lambda x, y, size: tiles.tile(0, x // size, y // size).pixels


def seconds(read: Read, places: list[Place], threads: int) -> float:
    """Time of reading all places; as whoever reads for a screen or a network, nobody keeps the pixels."""

    def work(part: list[Place]) -> None:
        for place in part:
            read(*place)

    start = time.perf_counter()
    if threads == 1:
        work(places)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, [places[i::threads] for i in range(threads)]))
    return time.perf_counter() - start


def some_places(path: Path, count: int) -> list[Place]:
    directory = inspect(path).directories[0]
    across, down = directory.width // TILE, directory.height // TILE
    rng = np.random.default_rng(5)
    columns, rows = rng.integers(across // 4, across * 3 // 4, count), rng.integers(down // 4, down * 3 // 4, count)
    return [(int(column), int(row)) for column, row in zip(columns, rows, strict=True)]


def measure(path: Path, tiles: int, rounds: int) -> dict[str, Any]:
    places = some_places(path, tiles)
    readers = {name: make(path, places) for name, make in READERS.items()}
    truth = [readers["decoder alone"](*place) for place in places[:40]]
    for name, read in readers.items():
        worst = max(
            int(np.abs(read(*place).astype(int) - pixels).max()) for place, pixels in zip(places, truth, strict=False)
        )
        assert worst <= (2 if name == "OpenSlide" else 0), f"{name} differs by {worst} grey levels"
    times: dict[tuple[str, int], list[float]] = {(name, n): [] for name in readers for n in (1, 2)}
    for read in readers.values():
        seconds(read, places, 1)
    for _ in range(rounds):
        for name, threads in times:
            times[name, threads].append(seconds(readers[name], places, threads))
    return {
        "tiles": tiles,
        "rounds": rounds,
        "tiles_per_s": {
            f"{name}, {n} thread{'s' * (n > 1)}": round(tiles / statistics.median(spent))
            for (name, n), spent in times.items()
        },
        "ours_over": {
            f"{name}, {n}": round(
                statistics.median(b / a for a, b in zip(times["ours", n], times[name, n], strict=True)), 2
            )
            for name in readers
            if name != "ours"
            for n in (1, 2)
        },
    }


def lines(result: dict[str, Any]) -> str:
    """The result as rows of RESULTS.md."""
    over = result["ours_over"]
    return "\n".join(
        f"| random 256 px tiles over {name}, one thread / two | {over[f'{name}, 1']} / {over[f'{name}, 2']} "
        f"| {bar} | `read_tiles.py` |"
        for name, bar in BARS.items()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--tiles", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    result = measure(options.slide, options.tiles, options.rounds)
    print(json.dumps(result, indent=1))
    print(lines(result))


if __name__ == "__main__":
    main()
