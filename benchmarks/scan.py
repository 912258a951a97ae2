"""How long the safety scan takes: on the slides given, and on a made 10 GB slide of 300,000 tiles.

    python benchmarks/scan.py [SLIDE ...]

The made slide is a sparse file: tables of full size, tile headers only where the scan looks.
"""

from __future__ import annotations

import os
import struct
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from napari_slnpredict.slide.frames import sample_blocks
from napari_slnpredict.slide.inspect import inspect
from napari_slnpredict.slide.limits import LIMITS
from napari_slnpredict.slide.raw_file import RawFile, open_regular
from napari_slnpredict.slide.tiff_scan import scan_tiff

TILE_PX = 256
GIGABYTES = 10
LEVELS = ((640, 480), (160, 120), (40, 30), (10, 8))  # tiles across and down


def jpeg_tile() -> bytes:
    import simplejpeg

    pixels = np.random.default_rng(0).integers(0, 255, (TILE_PX, TILE_PX, 3), dtype=np.uint8)
    return bytes(simplejpeg.encode_jpeg(pixels, 70, colorsubsampling="420"))


def make_big(path: Path) -> None:
    """Write a BigTIFF pyramid whose tables are whole and whose tiles exist where the scan looks."""
    tile = jpeg_tile()
    total = sum(across * down for across, down in LEVELS)
    stride = (GIGABYTES << 30) // total
    with path.open("wb") as file:
        file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
        link, first_tile, place = 8, 0, 16 + total * stride
        for across, down in LEVELS:
            count = across * down
            offsets = 16 + stride * np.arange(first_tile, first_tile + count, dtype=np.uint64)
            first_tile += count
            lengths = np.full(count, min(len(tile), stride - 8), np.uint32)
            file.seek(place)
            file.write(offsets.tobytes() + lengths.tobytes())
            tags = [
                (256, 4, 1, across * TILE_PX),
                (257, 4, 1, down * TILE_PX),
                (258, 3, 3, 8 | 8 << 16 | 8 << 32),
                (259, 3, 1, 7),
                (262, 3, 1, 6),
                (277, 3, 1, 3),
                (284, 3, 1, 1),
                (322, 3, 1, TILE_PX),
                (323, 3, 1, TILE_PX),
                (324, 16, count, place),
                (325, 4, count, place + 8 * count),
                (530, 3, 2, 2 | 2 << 16),
            ]
            start = file.tell() + file.tell() % 2
            file.seek(link)
            file.write(struct.pack("<Q", start))
            file.seek(start)
            file.write(struct.pack("<Q", len(tags)) + b"".join(struct.pack("<HHQQ", *tag) for tag in tags))
            link = file.tell()
            file.write(bytes(8))
            place = file.tell()
    fill_sampled_tiles(path, tile[: stride - 8])


def fill_sampled_tiles(path: Path, tile: bytes) -> None:
    """Put a tile wherever the scan will look."""
    descriptor = open_regular(path)
    chain = scan_tiff(RawFile(descriptor, path))
    os.close(descriptor)
    size = path.stat().st_size
    with path.open("r+b") as file:
        for directory in chain.directories:
            for index in sample_blocks(directory, size, LIMITS.frames_checked):
                file.seek(int(directory.offsets[index]))
                file.write(tile)
            for budget in (LIMITS.frames_checked - LIMITS.frames_lower, LIMITS.frames_lower // (len(LEVELS) - 1)):
                for index in sample_blocks(directory, size, budget):
                    file.seek(int(directory.offsets[index]))
                    file.write(tile)


def report(path: Path, name: str) -> None:
    seconds = []
    for _ in range(9):
        start = time.perf_counter()
        found = inspect(path)
        seconds.append(time.perf_counter() - start)
    print(f"{name:44} {1e3 * seconds[0]:8.2f} ms first {1e3 * min(seconds):8.2f} ms best   {list(found.warnings)}")


def main() -> None:
    for argument in sys.argv[1:]:
        report(Path(argument), Path(argument).name[:44])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "big.tif"
        make_big(path)
        size = path.stat().st_size
        report(path, f"made: {size / 1e9:.1f} GB, {sum(a * d for a, d in LEVELS):,} tiles")


if __name__ == "__main__":
    main()
