"""Where tissue lies on a brightfield slide, at about 8 um a pixel.

How it works, and why so:

- **Glass first.** Glass is bright, nearly neutral and *smooth*; tissue of any stain has texture. The median colour of
  the smooth bright part is the white point, so a yellowish or grey slide is judged as a white one is.
- **Saturation of the transmitted light**, cut by Otsu's threshold between a floor and a ceiling. The floor keeps an
  empty slide empty (noise and JPEG colour stay below it); the ceiling keeps pale tissue beside a strongly stained
  piece. Dust, shadows, bubbles and scan stripes are grey and fall out by themselves.
- **Pale but uneven** pixels that join on to tissue belong to it: the counterstain of IHC is nearly grey.
- **Ink, black and scan edges** are taken out after holes were filled, so that filling does not bring them back.
- Sizes are areas in um2, never pixel counts: the mask means the same on any slide.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import NotBrightfield

if TYPE_CHECKING:
    from .slide import Slide

#: Saturation below which nothing is tissue, and above which everything is (measured on 38 slides of 12 stains and
#: scans: glass stays below 0.03 at its 99.5th percentile, the palest tissue begins at about 0.035).
SATURATION_FLOOR, SATURATION_CEILING = 0.03, 0.06
#: Saturation from which an uneven pixel beside tissue is tissue too.
SATURATION_PALE = 0.02
#: Pieces and holes smaller than these are dropped and filled, um2.
SPECK_UM2, HOLE_UM2 = 8_000.0, 60_000.0
#: Dark or inked areas smaller than this stay part of the tissue they lie in (carbon pigment, dense nuclei), um2.
INK_UM2 = 4_000.0
#: A red piece smaller than this is taken for blood, um2.
RED_INK_UM2 = 150_000.0
#: Gaps closed, and the rim taken off around ink, um.
CLOSE_UM, INK_RIM_UM = 16.0, 24.0
#: Level pixels read at once; bounds the memory of a slide of any size (48 MB a strip).
STRIP_PX = 4_000_000


@dataclass(frozen=True)
class TissueMask:
    """Tissue of one slide.

    Attributes
    ----------
    mask : (h, w) bool
        Pixel (row i, column j) covers level-0 um ``[j, j + 1) * mpp`` by ``[i, i + 1) * mpp`` from the slide's corner.
    components : (h, w) int32
        0 where there is none, else the piece of tissue, 1 to k, the largest first.
    mpp : float
        um per mask pixel.
    """

    mask: NDArray[np.bool_]
    components: NDArray[np.int32]
    mpp: float

    @property
    def area_mm2(self) -> float:
        """Tissue area in mm2."""
        return float(np.count_nonzero(self.mask)) * self.mpp**2 * 1e-6


def find_tissue(slide: Slide, *, mpp_mask: float = 8.0) -> TissueMask:
    """Return the tissue of a slide.

    Parameters
    ----------
    slide : Slide
        With a known scale.
    mpp_mask : float
        um per mask pixel; a slide coarser than this is judged at its own resolution.

    Raises
    ------
    NotBrightfield
        The slide says so itself, or its background is dark.
    MissingScale
        The slide has no um/px.
    """
    if slide.not_brightfield:
        raise NotBrightfield(f"not brightfield: {slide.not_brightfield}", file=slide.path, do=_DO_INSTEAD)
    mpp = max(mpp_mask, slide.require_mpp())
    pixels, valid = overview(slide, mpp)
    if looks_dark(pixels, valid):
        raise NotBrightfield("not brightfield: dark background, as in fluorescence", file=slide.path, do=_DO_INSTEAD)
    return tissue_from_mask(segment(pixels, valid, mpp), mpp)


_DO_INSTEAD = "choose a brightfield slide (H&E, PAS, IHC); models here are made for those"


def tissue_from_mask(mask: NDArray[np.bool_], mpp: float) -> TissueMask:
    """Return the tissue of a mask drawn or edited by hand; pieces are counted anew, the largest first."""
    from skimage.measure import label

    solid = np.ascontiguousarray(mask, dtype=bool)
    pieces = label(solid, connectivity=2)
    areas = np.bincount(pieces.ravel())
    areas[0] = 0
    rank = np.zeros(len(areas), np.int32)
    rank[np.argsort(-areas, kind="stable")[: len(areas) - 1]] = np.arange(1, len(areas), dtype=np.int32)
    rank[0] = 0
    return TissueMask(solid, rank[pieces], float(mpp))


def overview(slide: Slide, mpp: float) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return the whole slide at a resolution, read strip by strip.

    Each pixel is the mean of the readable level pixels it covers, edges weighted by the part covered.

    Parameters
    ----------
    slide : Slide
    mpp : float
        um per returned pixel, not finer than the slide.

    Returns
    -------
    pixels : (h, w, 3) uint8
    valid : (h, w) bool
        At least half of the pixel's area inside the slide could be read.
    """
    scale = mpp / slide.require_mpp()
    level = slide.best_level(scale)
    step = scale / slide.level_downsamples[level]  # level pixels per mask pixel
    width, height = slide.level_dimensions[level]
    shape = int(np.ceil(slide.dimensions[1] / scale - 1e-6)), int(np.ceil(slide.dimensions[0] / scale - 1e-6))
    shape = max(1, shape[0]), max(1, shape[1])
    pixels, valid = np.full((*shape, 3), 255, np.uint8), np.zeros(shape, bool)
    for rows, columns in _parts(shape, step):
        top, bottom = int(rows[0] * step), min(int(np.ceil((rows[1]) * step)), height)
        left, right = int(columns[0] * step), min(int(np.ceil(columns[1] * step)), width)
        if bottom <= top or right <= left:
            continue
        read, readable = slide.read_level(level, left, top, right - left, bottom - top)
        here = slice(*rows), slice(*columns)
        pixels[here], valid[here] = _shrink(
            read,
            readable,
            np.arange(rows[0], rows[1] + 1) * step - top,
            np.arange(columns[0], columns[1] + 1) * step - left,
        )
    return pixels, valid


def _parts(shape: tuple[int, int], step: float) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Yield (row range, column range) of mask pixels whose level pixels fit one read."""
    wide = max(1, min(shape[1], int(STRIP_PX / (step * step * 8))))
    high = max(1, int(STRIP_PX / (step * step * wide)))
    for row in range(0, shape[0], high):
        for column in range(0, shape[1], wide):
            yield (row, min(row + high, shape[0])), (column, min(column + wide, shape[1]))


def _shrink(
    pixels: NDArray[np.uint8], valid: NDArray[np.bool_], rows: NDArray[np.floating], columns: NDArray[np.floating]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Mean of the valid pixels between row and column edges (fractional): (len(rows) - 1, len(columns) - 1, 3)."""
    weight = valid.astype(np.float32)
    total = np.empty((len(rows) - 1, len(columns) - 1, 4), np.float32)
    for channel in range(4):
        plane = weight if channel == 3 else pixels[..., channel] * weight
        total[..., channel] = _between(_between(plane, rows).T, columns).T
    inside = np.outer(_clipped_lengths(rows, valid.shape[0]), _clipped_lengths(columns, valid.shape[1]))
    readable = (total[..., 3] >= 0.5 * inside) & (inside > 1e-3)
    mean = total[..., :3] / np.maximum(total[..., 3:], 1e-6)
    return np.where(readable[..., None], np.clip(np.rint(mean), 0, 255), 255).astype(np.uint8), readable


def _clipped_lengths(edges: NDArray[np.floating], size: int) -> NDArray[np.float64]:
    return np.asarray(np.diff(np.clip(edges, 0, size)), np.float64)


def _between(plane: NDArray[np.float32], edges: NDArray[np.floating]) -> NDArray[np.float32]:
    """Sum rows of (h, w) between fractional edges: (len(edges) - 1, w)."""
    sums = np.zeros((plane.shape[0] + 1, plane.shape[1]), np.float64)
    np.cumsum(plane, axis=0, dtype=np.float64, out=sums[1:])
    place = np.clip(edges, 0, plane.shape[0])
    low = np.minimum(place.astype(np.int64), plane.shape[0] - 1)
    part = (place - low)[:, None]
    at_edges = sums[low] * (1 - part) + sums[low + 1] * part
    return np.asarray(np.diff(at_edges, axis=0), np.float32)


def looks_dark(pixels: NDArray[np.uint8], valid: NDArray[np.bool_]) -> bool:
    """Whether the background is dark: much black, little light. Black scan margins around a bright slide are not."""
    light = pixels[valid].mean(axis=-1, dtype=np.float32)
    if light.size == 0:
        return False
    dark, bright = float(np.mean(light < 50)), float(np.mean(light >= 120))
    return dark > 0.3 and bright < 0.25 * dark


def glass_colour(pixels: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the colour of empty glass, (3,) float32, known by its smoothness; a common white where there is none."""
    from scipy.ndimage import uniform_filter

    light = pixels.mean(axis=-1, dtype=np.float32)
    if not valid.any():
        return np.full(3, 245, np.float32)
    mean = uniform_filter(light, 5)
    spread = uniform_filter(light * light, 5) - mean * mean
    known = uniform_filter(valid.astype(np.float32), 5) > 0.99
    bright = max(120.0, 0.85 * float(np.percentile(light[valid], 99)))
    glass = known & (spread < 4.0) & (light >= bright)
    # Tissue can be smooth too (mucin, necrosis), never as neutral: within a fifth of grey counts as a tinted glass.
    colours = pixels[glass].astype(np.float32)
    neutral = colours[np.ptp(colours, axis=1) < 0.2 * colours.max(axis=1, initial=1)] if len(colours) else colours
    if len(neutral) < max(4, 1e-3 * np.count_nonzero(valid)):
        return np.full(3, 245, np.float32)
    return np.asarray(np.median(neutral, axis=0), np.float32)


def segment(pixels: NDArray[np.uint8], valid: NDArray[np.bool_], mpp: float) -> NDArray[np.bool_]:
    """Return tissue of an overview: (h, w, 3) uint8 and (h, w) bool at `mpp` um per pixel to (h, w) bool."""
    from scipy.ndimage import binary_closing, binary_dilation

    light = _transmitted(pixels, glass_colour(pixels, valid))
    saturation = _saturation(light)
    saturation[~valid] = 0
    found = _coloured(saturation, _texture(light), _threshold(saturation[valid]))
    gap = max(1, round(CLOSE_UM / 2 / mpp))
    found = binary_closing(np.pad(found, gap), np.ones((3, 3)), iterations=gap)[gap:-gap, gap:-gap]
    found = _fill_holes(found, HOLE_UM2 / mpp**2)
    ink = foreign(light, mpp) & valid
    if ink.any():
        ink = binary_dilation(ink, np.ones((3, 3)), iterations=max(1, round(INK_RIM_UM / mpp)))
    return drop_small(found & ~ink & valid, SPECK_UM2 / mpp**2)


def _transmitted(pixels: NDArray[np.uint8], glass: NDArray[np.float32]) -> NDArray[np.float32]:
    """Share of the light let through, (h, w, 3) float32, 0.02 to 1; the floor keeps sensor noise in black grey."""
    return np.clip(pixels / np.maximum(glass, 1), 0.02, 1).astype(np.float32)


def _saturation(light: NDArray[np.float32]) -> NDArray[np.float32]:
    """Saturation of transmitted light, smoothed over about a pixel; nothing for what is nearly black."""
    from scipy.ndimage import gaussian_filter

    high, low = light.max(axis=-1), light.min(axis=-1)
    saturation = np.where(high > 0.1, 1 - low / high, 0).astype(np.float32)
    return np.asarray(gaussian_filter(saturation, 1.0, mode="nearest"), np.float32)


def _texture(light: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where it is darker than glass and uneven over 5 pixels, (h, w) bool: tissue is, a smear or a shadow is not."""
    from scipy.ndimage import uniform_filter

    density = -np.log(light).mean(axis=-1)
    mean = uniform_filter(density, 5)
    spread = uniform_filter(density * density, 5) - mean * mean
    return np.asarray((mean > 0.07) & (spread > 0.03**2), bool)


def _coloured(saturation: NDArray[np.float32], texture: NDArray[np.bool_], threshold: float) -> NDArray[np.bool_]:
    """Pixels over the threshold, and paler uneven ones that join on to them, (h, w) bool."""
    from skimage.measure import label

    strong = saturation > threshold
    pieces = label(strong | (texture & (saturation > SATURATION_PALE)), connectivity=2)
    keep = np.zeros(int(pieces.max()) + 1, bool)
    keep[np.unique(pieces[strong])] = True
    keep[0] = False
    return np.asarray(keep[pieces], bool)


def _threshold(saturation: NDArray[np.float32]) -> float:
    from skimage.filters import threshold_otsu

    # Strong stain is cut off first: it would pull Otsu's two means apart and lose the pale piece beside it.
    common = np.minimum(saturation, 0.15)
    if common.size == 0 or np.ptp(common) < SATURATION_FLOOR:
        return SATURATION_CEILING
    return float(np.clip(threshold_otsu(common), SATURATION_FLOOR, SATURATION_CEILING))


def foreign(light: NDArray[np.float32], mpp: float) -> NDArray[np.bool_]:
    """Return where pen ink, black (scan edge, dirt) or a fold as dark as black covers the slide, (h, w) bool.

    Parameters
    ----------
    light : (h, w, 3) float32
        Transmitted light, 1 on glass.
    mpp : float
        um per pixel.
    """
    density = -np.log(light)
    red, green, blue = density[..., 0], density[..., 1], density[..., 2]
    high, low = light.max(axis=-1), light.min(axis=-1)
    smallest = INK_UM2 / mpp**2
    # Black is neutral; the darkest DAB still lets through twice as much red as blue.
    black = drop_small((high < 0.35) & (high - low < 0.3 * high), smallest)
    fold = _grown(density.mean(axis=-1) > 1.5, (density.mean(axis=-1) > 1.05) & (blue <= green), smallest)
    # Haematoxylin takes green about as much as red, even as the blue counterstain of IHC: ink takes far more red.
    blue_ink = _grown(red - blue > 0.55, (red > 1.1 * green) & (red - blue > 0.25), smallest)
    green_ink = _grown((red - green > 0.7) & (blue > green), (red - green > 0.25) & (blue > green), smallest)
    return black | fold | blue_ink | green_ink | _red_ink(density, mpp)


def _grown(core: NDArray[np.bool_], hue: NDArray[np.bool_], smallest: float) -> NDArray[np.bool_]:
    """Areas of one hue that hold a strong core of at least `smallest` pixels, with their faint edges."""
    from skimage.measure import label

    strong = drop_small(core & hue, smallest)
    if not strong.any():
        return strong
    pieces = label(hue, connectivity=2)
    keep = np.zeros(int(pieces.max()) + 1, bool)
    keep[np.unique(pieces[strong])] = True
    keep[0] = False
    return np.asarray(keep[pieces], bool)


def _red_ink(density: NDArray[np.float32], mpp: float) -> NDArray[np.bool_]:
    """Red marker: blood and red chromogens share its hue, so only whole pieces that are nothing but red count."""
    from skimage.measure import label

    red, green, blue = density[..., 0], density[..., 1], density[..., 2]
    core = (green > 1.45) & (blue > 1.3) & (red < 0.25 * green)
    if np.count_nonzero(core) < RED_INK_UM2 / mpp**2:
        return np.zeros(core.shape, bool)
    pieces = label(density.max(axis=-1) > 0.1, connectivity=2)
    areas, cores = np.bincount(pieces.ravel()), np.bincount(pieces.ravel(), weights=core.ravel())
    keep = (cores > 0.6 * areas) & (cores >= RED_INK_UM2 / mpp**2)
    keep[0] = False
    return np.asarray(keep[pieces], bool)


def drop_small(mask: NDArray[np.bool_], smallest: float) -> NDArray[np.bool_]:
    """Return the mask without pieces of fewer than `smallest` pixels (8-connected)."""
    from skimage.measure import label

    if not mask.any():
        return mask
    pieces = label(mask, connectivity=2)
    keep = np.bincount(pieces.ravel()) >= smallest
    keep[0] = False
    return np.asarray(keep[pieces], bool)


def _fill_holes(mask: NDArray[np.bool_], largest: float) -> NDArray[np.bool_]:
    """Fill background areas of fewer than `largest` pixels that do not touch the border."""
    from skimage.measure import label

    outside = label(np.pad(~mask, 1, constant_values=True), connectivity=1)
    fill = np.bincount(outside.ravel()) < largest
    fill[[0, outside[0, 0]]] = False
    return np.asarray(mask | fill[outside][1:-1, 1:-1], bool)
