"""Tiles for a network: blocks of neighbours against lone tiles, and against the usual OpenSlide and Pillow.

    .venv/bin/python benchmarks/read_blocks.py [SOURCE] [--rounds 5] [--tiles 256]

SOURCE is any H&E slide; a mosaic of its pixels is written as an Aperio-like SVS of 0.25 um/px (JPEG tiles of 256 px,
quality 80, levels 1, 4, 16), of which tiles of 224 px are read at 0.5 um/px. Every subject gets the same tiles and
opens the slide anew; subjects alternate within a round. Prints one JSON object: ms a tile (wall clock, and of CPU: the
steadier figure on a busy machine), medians of the rounds, and ratios of the CPU times.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from napari_slnpredict.slide.blocks import plan_blocks, read_block, read_tile
from napari_slnpredict.slide.grid import GridSpec, TileGrid, lay_grid
from napari_slnpredict.slide.slide import Slide, open_slide
from napari_slnpredict.slide.tissue import tissue_from_mask

SPEC = GridSpec(224, 0.5)
SIDE = 8192
DEFAULT_SOURCE = Path(__file__).resolve().parents[2] / "shared/data/slides/CMU-1-Small-Region.svs"


def write_mosaic(source: Path, target: Path) -> None:
    """Cover SIDE x SIDE px with crops, turned and mirrored, of the source."""
    import tifffile

    with open_slide(source, 0.5) as slide:
        pixels, _ = slide.read_level(0, 0, 0, *slide.dimensions)
    rng, piece = np.random.default_rng(0), 1024
    level = np.empty((SIDE, SIDE, 3), np.uint8)
    for y in range(0, SIDE, piece):
        for x in range(0, SIDE, piece):
            top, left = rng.integers(0, pixels.shape[0] - piece), rng.integers(0, pixels.shape[1] - piece)
            crop = np.rot90(pixels[top : top + piece, left : left + piece], rng.integers(4))
            level[y : y + piece, x : x + piece] = crop[:: rng.choice([-1, 1])]
    description = (
        f"Aperio Image Library\n{SIDE}x{SIDE} [0,0 {SIDE}x{SIDE}] (256x256) JPEG/RGB Q=80|AppMag = 40|MPP = 0.25"
    )
    options = {"tile": (256, 256), "compression": "jpeg", "compressionargs": {"level": 80}, "photometric": "rgb"}
    with tifffile.TiffWriter(target) as file:
        for _ in range(3):
            file.write(level, description=description, metadata=None, **options)
            side = level.shape[0] // 4
            level = level.reshape(side, 4, side, 4, 3).mean((1, 3)).astype(np.uint8)


def some_grid(slide: Slide, tiles: int) -> TileGrid:
    """The first tiles of the slide that make a square, as tissue would lie."""
    side = int(tiles**0.5)
    mask = np.zeros((SIDE // 32, SIDE // 32), bool)
    mask[: round(side * 14), : round(side * 14)] = True
    return lay_grid(slide, tissue_from_mask(mask, 8.0), SPEC)


def blocks(path: Path, tiles: int) -> int:
    with open_slide(path) as slide:
        grid = some_grid(slide, tiles)
        return sum(len(read_block(slide, grid, block).pixels) for block in plan_blocks(grid))


def two_threads(path: Path, tiles: int) -> int:
    with open_slide(path) as slide, ThreadPoolExecutor(2) as pool:
        grid = some_grid(slide, tiles)
        return sum(pool.map(lambda block: len(read_block(slide, grid, block).pixels), plan_blocks(grid)))


def lone(path: Path, tiles: int) -> int:
    with open_slide(path) as slide:
        grid = some_grid(slide, tiles)
        return sum(len(read_tile(slide, grid, i)) > 0 for i in range(len(grid)))


def lone_in_any_order(path: Path, tiles: int) -> int:
    """Shuffled and with a tile cache too small to help: what a shuffling loader pays."""
    with open_slide(path, memory_mb=1) as slide:
        grid = some_grid(slide, tiles)
        return sum(len(read_tile(slide, grid, int(i))) > 0 for i in np.random.default_rng(0).permutation(len(grid)))


def openslide_and_pillow(path: Path, tiles: int) -> int:
    import openslide
    from PIL import Image

    with open_slide(path) as slide:
        grid = some_grid(slide, tiles)
    with openslide.OpenSlide(str(path)) as slide:
        for x, y in grid.locations.tolist():
            region = slide.read_region((x, y), 0, (448, 448)).convert("RGB")
            np.asarray(region.resize((224, 224), Image.Resampling.BICUBIC))
    return len(grid)


SUBJECTS: dict[str, Callable[[Path, int], int]] = {
    "blocks": blocks,
    "blocks, two threads": two_threads,
    "lone tiles, file order": lone,
    "lone tiles, shuffled, no cache": lone_in_any_order,
    "OpenSlide + Pillow bicubic": openslide_and_pillow,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", nargs="?", type=Path, default=DEFAULT_SOURCE)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tiles", type=int, default=256)
    options = parser.parse_args()
    wall: dict[str, list[float]] = {name: [] for name in SUBJECTS}
    cpu: dict[str, list[float]] = {name: [] for name in SUBJECTS}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mosaic.svs"
        write_mosaic(options.source, path)
        for subject in SUBJECTS.values():
            subject(path, 16)
        for _ in range(options.rounds):
            for name, subject in SUBJECTS.items():
                start, start_cpu = time.perf_counter(), time.process_time()
                count = subject(path, options.tiles)
                wall[name].append((time.perf_counter() - start) / count * 1e3)
                cpu[name].append((time.process_time() - start_cpu) / count * 1e3)
    median = {name: statistics.median(values) for name, values in cpu.items()}
    result = {
        "tiles": options.tiles,
        "rounds": options.rounds,
        "wall_ms_per_tile": {name: round(statistics.median(values), 3) for name, values in wall.items()},
        "cpu_ms_per_tile": {name: round(value, 3) for name, value in median.items()},
        "cpu_times_blocks": {name: round(value / median["blocks"], 2) for name, value in median.items()},
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
