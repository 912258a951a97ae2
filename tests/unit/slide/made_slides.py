"""Slides made by code for the tests of reading: small, every layout, the truth known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

APERIO = "Aperio Image Library v11\r\n{w}x{h} [0,0 {w}x{h}] (64x64) JPEG/RGB Q=90|AppMag = 20|MPP = 0.5"


def picture(width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return something like tissue on glass, (h, w, 3) uint8: smooth, coloured, different everywhere."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / rng.uniform(5, 40) + rng.uniform(0, 6)) * np.cos(y / rng.uniform(5, 40)) for _ in range(3)]
    pixels = np.stack([170 + 60 * wave for wave in waves], axis=-1) + rng.normal(0, 6, (height, width, 3))
    made: NDArray[np.uint8] = np.clip(pixels, 0, 255).astype(np.uint8)
    return made


def halved(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the rounded means of 2 x 2 pixels, a last odd row or column dropped."""
    h, w = pixels.shape[0] // 2 * 2, pixels.shape[1] // 2 * 2
    blocks = pixels[:h, :w].reshape(h // 2, 2, w // 2, 2, 3).astype(np.uint16).sum(axis=(1, 3))
    made: NDArray[np.uint8] = ((blocks + 2) // 4).astype(np.uint8)
    return made


def write_tiff(
    path: Path, levels: list[NDArray[np.uint8]], *, tile: int = 64, description: str | None = None, **options: Any
) -> Path:
    """Write a tiled TIFF whose further levels are reduced images."""
    import tifffile

    options.setdefault("photometric", "rgb")
    with tifffile.TiffWriter(path) as writer:
        for k, pixels in enumerate(levels):
            writer.write(
                pixels,
                tile=(tile, tile) if tile else None,
                description=description if k == 0 else None,
                subfiletype=0 if k == 0 else 1,
                metadata=None,
                **options,
            )
    return path


def write_aperio(path: Path, levels: list[NDArray[np.uint8]], *, mpp: str = "0.5", **options: Any) -> Path:
    """Write an Aperio-like slide, JPEG by default."""
    h, w = levels[0].shape[:2]
    options.setdefault("compression", "jpeg")
    text = APERIO.format(w=w, h=h).replace("MPP = 0.5", f"MPP = {mpp}")
    return write_tiff(path, levels, description=text, **options)


def stored(path: Path, width: int, height: int) -> NDArray[np.uint8]:
    """Return the image of this size as tifffile decodes it."""
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        for page in tiff.pages:
            for image in (page.aspage(), *(sub.aspage() for sub in page.aspage().pages or ())):
                if (image.imagewidth, image.imagelength) == (width, height):
                    pixels: NDArray[np.uint8] = image.asarray()
                    return pixels
        for series in tiff.series:
            for level in series.levels:
                if level.shape[:2] == (height, width):
                    whole: NDArray[np.uint8] = level.asarray()
                    return whole
    raise AssertionError(f"no image of {width} x {height} px")


def spoil_tile(path: Path, index: int, *, page: int = 0, whole: bool = False) -> None:
    """Overwrite the second half of one stored tile (or all of it) with zeros, as a lost sector does."""
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        offset, count = tiff.pages[page].dataoffsets[index], tiff.pages[page].databytecounts[index]
    data = bytearray(path.read_bytes())
    sound = 0 if whole else count // 2
    data[offset + sound : offset + count] = bytes(count - sound)
    path.write_bytes(data)


def empty_tile(path: Path, index: int, *, page: int = 0) -> None:
    """Set offset and byte count of one tile to 0: not scanned."""
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        places = []
        for code in (324, 325):
            tag = tiff.pages[page].tags[code]
            places.append((tag.valueoffset + index * tag.valuebytecount // tag.count, tag.valuebytecount // tag.count))
    data = bytearray(path.read_bytes())
    for start, length in places:
        data[start : start + length] = bytes(length)
    path.write_bytes(data)
