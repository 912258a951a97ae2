"""Slides and their truth as files: a pyramidal tiled JPEG TIFF, masks, outlines, a table."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.files import write_file, write_json

from .scene import FIELD_UM, Artefact, Instance, PhantomSlide, Tissue

TILE_PX = 256
_SMALLEST_PX = 1024  # no level beyond the first whose longer side is below this

#: Colours of the truth PNG's palette (its values stay the codes) and of the outlines.
COLOURS: dict[Tissue, tuple[int, int, int]] = {
    Tissue.GLASS: (255, 255, 255),
    Tissue.STROMA: (244, 200, 220),
    Tissue.NEST: (150, 90, 170),
    Tissue.ALTERED: (220, 40, 40),
    Tissue.LYMPHOID: (70, 80, 190),
    Tissue.PALE: (130, 170, 240),
    Tissue.SINUS: (190, 225, 240),
    Tissue.DEPOSIT: (200, 30, 60),
    Tissue.FAT: (250, 240, 160),
    Tissue.VESSEL: (210, 120, 60),
}
_OUTLINED = (Tissue.NEST, Tissue.ALTERED, Tissue.LYMPHOID, Tissue.PALE, Tissue.DEPOSIT)


def write_slide(slide: PhantomSlide, path: Path) -> Path:
    """Write a slide as an Aperio-like pyramidal TIFF: JPEG tiles of 256 px, levels 4 times coarser each.

    The description says ``MPP = 1`` and that the slide is synthetic; the resolution tags say 1 um per pixel as well.
    The same slide gives the same bytes.
    """
    import tifffile

    levels = _pyramid(slide.pixels)
    height, width = slide.pixels.shape[:2]
    about = f"AppMag = 10|MPP = {slide.mpp:g}|Synthetic = napari-slnpredict phantom {slide.task} {slide.stain}"
    title = f"Aperio Image Library compatible\r\n{width}x{height} (256x256)"

    def add(target: Any, level: NDArray[np.uint8], what: str, tile: tuple[int, int] | None) -> None:
        per_cm = 1e4 / (slide.mpp * width / level.shape[1])
        target.write(
            level,
            tile=tile,
            photometric="rgb",
            compression="jpeg",
            compressionargs={"level": slide.quality},
            description=f"{title}{what} JPEG/RGB Q={slide.quality}|{about}",
            resolution=(per_cm, per_cm),
            resolutionunit="CENTIMETER",
            software=False,
            metadata=None,
        )

    def write(part: Path) -> None:
        with tifffile.TiffWriter(part) as target:
            for number, level in enumerate(levels):
                what = f" -> {level.shape[1]}x{level.shape[0]}" if number else ""
                add(target, level, what, (TILE_PX, TILE_PX))
                if number == 0:  # Aperio's second page is a thumbnail: readers skip it, whatever it holds
                    small = _thumbnail(levels[-1])
                    add(target, small, f" -> {small.shape[1]}x{small.shape[0]} -", None)

    return write_file(Path(path), write)


def _pyramid(pixels: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Return the picture and its reductions by 4 (means of 4 x 4 pixels)."""
    levels = [pixels]
    while max(levels[-1].shape[:2]) > _SMALLEST_PX:
        rows, columns = (side // 4 for side in levels[-1].shape[:2])
        blocks = levels[-1][: rows * 4, : columns * 4].reshape(rows, 4, columns, 4, 3)
        total = np.zeros((rows, columns, 3), np.uint16)
        for i in range(4):
            for j in range(4):
                total += blocks[:, i, :, j]
        levels.append(((total + 8) // 16).astype(np.uint8))
    return levels


def _thumbnail(level: NDArray[np.uint8]) -> NDArray[np.uint8]:
    step = max(1, round(max(level.shape[:2]) / 400))
    return np.ascontiguousarray(level[::step, ::step])


def write_truth(slide: PhantomSlide, folder: Path, name: str) -> None:
    """Write ``<name>.png`` (tissue codes), ``<name>_artefacts.png``, ``<name>.geojson`` and ``<name>.csv``."""
    write_file(folder / f"{name}.png", _png(slide.truth, [COLOURS[kind] for kind in Tissue]))
    grey = [(255 - 40 * code,) * 3 for code in range(len(Artefact))]
    write_file(folder / f"{name}_artefacts.png", _png(slide.artefacts, grey))
    write_json(folder / f"{name}.geojson", outlines(slide))
    write_file(folder / f"{name}.csv", _table(slide.instances))


def _png(codes: NDArray[np.uint8], colours: list[Any]) -> bytes:
    from PIL import Image

    picture = Image.fromarray(codes).convert("P")
    picture.putpalette([channel for colour in colours for channel in colour])
    picture.putdata(codes.ravel().tolist())
    target = io.BytesIO()
    picture.save(target, "PNG")
    return target.getvalue()


def _table(instances: tuple[Instance, ...]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in fields(Instance))
    for row in instances:
        writer.writerow(round(value, 3) if isinstance(value, float) else value for value in asdict(row).values())
    return text.getvalue()


def outlines(slide: PhantomSlide) -> dict[str, Any]:
    """Return the truth's outlines as GeoJSON in level-0 pixels, with the fields QuPath reads."""
    features: list[dict[str, Any]] = []
    for kind in _OUTLINED:
        for rings in _rings(slide.truth == kind):
            colour = list(COLOURS[kind])
            features.append(
                {
                    "type": "Feature",
                    "geometry": {"type": "Polygon", "coordinates": rings},
                    "properties": {
                        "objectType": "annotation",
                        "classification": {"name": kind.name.capitalize(), "color": colour},
                    },
                }
            )
    return {"type": "FeatureCollection", "features": features}


def _rings(mask: NDArray[np.bool_]) -> list[list[list[list[float]]]]:
    """Return the polygons of a mask: for each piece its outer ring, then its holes."""
    from scipy.ndimage import find_objects, label
    from skimage.measure import find_contours

    pieces, _ = label(mask)
    polygons = []
    for number, box in enumerate(find_objects(pieces), start=1):
        piece = np.pad(pieces[box] == number, 1)
        # A contour at one half runs through the middle between pixel centres: that is the pixels' border.
        contours = sorted(find_contours(piece.astype(np.uint8), 0.5), key=len, reverse=True)
        corner = np.array([box[0].start - 0.5, box[1].start - 0.5])
        rings = [((contour + corner) * FIELD_UM)[:, ::-1].round(1).tolist() for contour in contours if len(contour) > 3]
        if rings:
            polygons.append(rings)
    return polygons
