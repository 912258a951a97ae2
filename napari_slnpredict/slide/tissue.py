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

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import NotBrightfield

from .overview import damaged_places, overview

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
#: White point of a slide without any glass.
COMMON_WHITE = np.full(3, 245, np.float32)
#: Glass is judged on about so many pixels.
GLASS_PX = 1_000_000
#: Gaps closed, and the rim taken off around ink, um.
CLOSE_UM, INK_RIM_UM = 16.0, 24.0


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
    hidden : (h, w) bool, optional
        Damaged places that join on to tissue: no tissue, since nobody knows, but tiles are laid over them too, so that
        they are counted as damaged and not lost in silence (promise R1).
    """

    mask: NDArray[np.bool_]
    components: NDArray[np.int32]
    mpp: float
    hidden: NDArray[np.bool_] | None = None

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
    mask = segment(pixels, valid, mpp)
    unknown = ~valid & damaged_places(slide, mpp, valid.shape)
    beside = _widened(mask, max(1, round(INK_RIM_UM / mpp)))
    return tissue_from_mask(mask, mpp, hidden=_joined(unknown, unknown & beside) if unknown.any() else None)


_DO_INSTEAD = "choose a brightfield slide (H&E, PAS, IHC); models here are made for those"


def tissue_from_mask(mask: NDArray[np.bool_], mpp: float, *, hidden: NDArray[np.bool_] | None = None) -> TissueMask:
    """Return the tissue of a mask drawn or edited by hand; pieces are counted anew, the largest first.

    Parameters
    ----------
    mask : (h, w) bool
    mpp : float
        um per mask pixel.
    hidden : (h, w) bool, optional
        `TissueMask.hidden` of the mask that was edited: an edit does not mend a file.
    """
    from skimage.measure import label

    solid = np.ascontiguousarray(mask, dtype=bool)
    pieces = label(solid, connectivity=2)
    areas = np.bincount(pieces.ravel())
    areas[0] = 0
    rank = np.zeros(len(areas), np.int32)
    rank[np.argsort(-areas, kind="stable")[: len(areas) - 1]] = np.arange(1, len(areas), dtype=np.int32)
    rank[0] = 0
    return TissueMask(solid, rank[pieces], float(mpp), hidden)


def looks_dark(pixels: NDArray[np.uint8], valid: NDArray[np.bool_]) -> bool:
    """Whether the background is dark: much black, little light. Black scan margins around a bright slide are not."""
    if not valid.any():
        return False
    light = _brightness(pixels)[valid]
    dark, bright = float(np.mean(light < 50)), float(np.mean(light >= 120))
    return dark > 0.3 and bright < 0.25 * dark


def _brightness(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mean of the three channels, (h, w) float32."""
    # Plane by plane: numpy's reduction over an axis of three is ten times as slow.
    total = pixels[..., 0].astype(np.float32)
    total += pixels[..., 1]
    total += pixels[..., 2]
    total /= 3
    return total


def glass_colour(pixels: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the colour of empty glass, (3,) float32, known by its smoothness; a common white where there is none."""
    step = max(1, int((valid.size / GLASS_PX) ** 0.5))
    pixels, valid = pixels[::step, ::step], valid[::step, ::step]
    if not valid.any():
        return COMMON_WHITE
    light = _brightness(pixels)
    bright = max(120.0, 0.85 * float(np.percentile(light[valid], 99)))
    glass = (light >= bright) & (_local(light)[1] < 4.0)
    if not valid.all():
        glass &= _local(valid.astype(np.float32))[0] > 0.99
    # Tissue can be smooth too (mucin, necrosis), but not as neutral: a tint of a fifth is still glass.
    colours = pixels[glass].astype(np.float32)
    red, green, blue = colours.T  # numpy's own reduction over an axis of three is ten times as slow
    high: NDArray[np.float32] = np.maximum(np.maximum(red, green), blue)
    low: NDArray[np.float32] = np.minimum(np.minimum(red, green), blue)
    enough = max(4, 1e-3 * np.count_nonzero(valid))
    # Pure white is often fill around what was scanned: glass that was is preferred to it.
    for choice in ((high - low < 0.2 * high) & (low < 255), high - low < 0.2 * high):
        if np.count_nonzero(choice) >= enough:
            return np.asarray(np.median(colours[choice], axis=0), np.float32)
    return COMMON_WHITE


def _local(plane: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and variance over 5 x 5 pixels."""
    from scipy.ndimage import uniform_filter

    mean = uniform_filter(plane, 5)
    variance = uniform_filter(plane * plane, 5)
    variance -= mean * mean
    return mean, variance


def segment(pixels: NDArray[np.uint8], valid: NDArray[np.bool_], mpp: float) -> NDArray[np.bool_]:
    """Return tissue of an overview: (h, w, 3) uint8 and (h, w) bool at `mpp` um per pixel to (h, w) bool."""
    density = optical_density(pixels, glass_colour(pixels, valid))
    saturation = _saturation(density)
    saturation[~valid] = 0
    found = _coloured(saturation, _uneven(density), _threshold(saturation[valid]))
    gap = max(1, round(CLOSE_UM / 2 / mpp))
    found = ~_widened(~_widened(found, gap), gap)
    found = _fill_holes(found, HOLE_UM2 / mpp**2)
    ink = _widened(foreign(density, mpp) & valid, max(1, round(INK_RIM_UM / mpp)))
    return drop_small(found & ~ink & ~fold(density, mpp) & valid, SPECK_UM2 / mpp**2)


def _widened(mask: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """Widen a mask by `by` pixels in all eight directions: shifts, a tenth of the time of scipy's dilation."""
    for _ in range(by):
        for axis in (0, 1):
            before = np.moveaxis(mask, axis, 0)
            mask = mask.copy()
            after = np.moveaxis(mask, axis, 0)
            after[1:] |= before[:-1]
            after[:-1] |= before[1:]
    return mask


def optical_density(pixels: NDArray[np.uint8], glass: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the optical density against glass, (3, h, w) float32, 0 to 3.9 (the end keeps noise in black grey)."""
    levels = np.arange(256, dtype=np.float32)
    density = np.empty((3, *pixels.shape[:2]), np.float32)
    for channel, white in enumerate(glass.tolist()):
        table = -np.log(np.clip(levels / max(white, 1.0), 0.02, 1)).astype(np.float32)
        np.take(table, pixels[..., channel], out=density[channel], mode="clip")
    return density


def _saturation(density: NDArray[np.float32]) -> NDArray[np.float32]:
    """Saturation of the transmitted light, smoothed over about a pixel; none in what is nearly black: (h, w)."""
    from scipy.ndimage import gaussian_filter

    thick, thin = density.max(axis=0), density.min(axis=0)
    saturation = np.where(thin < 2.3, 1 - np.exp(thin - thick), 0).astype(np.float32)
    return np.asarray(gaussian_filter(saturation, 1.0, mode="nearest"), np.float32)


def _uneven(density: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where it is darker than glass and uneven over 5 pixels, (h, w) bool: tissue is, a smear or a shadow is not."""
    mean, variance = _local(density.mean(axis=0))
    return np.asarray((mean > 0.07) & (variance > 0.03**2), bool)


def _coloured(saturation: NDArray[np.float32], uneven: NDArray[np.bool_], threshold: float) -> NDArray[np.bool_]:
    """Pixels over the threshold, and paler uneven ones that join on to them, (h, w) bool."""
    strong = saturation > threshold
    return _joined(strong | (uneven & (saturation > SATURATION_PALE)), strong)


def _threshold(saturation: NDArray[np.float32]) -> float:
    from skimage.filters import threshold_otsu

    # Strong stain is cut off first: it would pull Otsu's two means apart and lose the pale piece beside it.
    common = np.minimum(saturation, 0.15)
    if common.size == 0 or np.ptp(common) < SATURATION_FLOOR:
        return SATURATION_CEILING
    return float(np.clip(threshold_otsu(common), SATURATION_FLOOR, SATURATION_CEILING))


def foreign(density: NDArray[np.float32], mpp: float) -> NDArray[np.bool_]:
    """Return where pen ink or something black (scan edge, dirt) covers the slide, (h, w) bool.

    Parameters
    ----------
    density : (3, h, w) float32
        Optical density, 0 on glass.
    mpp : float
        um per pixel.
    """
    red, green, blue = density
    thick, thin = density.max(axis=0), density.min(axis=0)
    smallest = INK_UM2 / mpp**2
    # Black is neutral: the darkest DAB still lets through twice as much red as blue.
    black = drop_small((thin > 1.05) & (thick - thin < 0.35), smallest)
    # Haematoxylin takes green about as much as red, even as the blue counterstain of IHC: ink takes far more red.
    blue_ink = _grown(red - blue > 0.55, (red > 1.1 * green) & (red - blue > 0.25), smallest)
    green_ink = _grown((red - green > 0.7) & (blue > green), (red - green > 0.25) & (blue > green), smallest)
    return black | blue_ink | green_ink | _red_ink(density, mpp)


def fold(density: NDArray[np.float32], mpp: float) -> NDArray[np.bool_]:
    """Return folds so thick that nothing can be seen in them, (h, w) bool. DAB as dark as this takes more blue."""
    mean = density.mean(axis=0)
    return _grown(mean > 1.5, (mean > 1.05) & (density[2] <= density[1]), INK_UM2 / mpp**2)


def _red_ink(density: NDArray[np.float32], mpp: float) -> NDArray[np.bool_]:
    """Red marker: blood and red chromogens share its hue, so only whole pieces that are nothing but red count."""
    from skimage.measure import label

    red, green, blue = density
    core = (green > 1.45) & (blue > 1.3) & (red < 0.25 * green)
    if np.count_nonzero(core) < RED_INK_UM2 / mpp**2:
        return np.zeros(core.shape, bool)
    pieces = label(density.max(axis=0) > 0.1, connectivity=2)
    areas, cores = np.bincount(pieces.ravel()), np.bincount(pieces.ravel(), weights=core.ravel())
    keep = (cores > 0.6 * areas) & (cores >= RED_INK_UM2 / mpp**2)
    keep[0] = False
    return np.asarray(keep[pieces], bool)


def _grown(core: NDArray[np.bool_], hue: NDArray[np.bool_], smallest: float) -> NDArray[np.bool_]:
    """Areas of one hue that hold a strong core of at least `smallest` pixels, with their faint edges."""
    strong = drop_small(core & hue, smallest)
    return _joined(hue, strong) if strong.any() else strong


def _joined(mask: NDArray[np.bool_], seeds: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pieces of the mask (8-connected) that hold a seed."""
    from skimage.measure import label

    pieces = label(mask, connectivity=2)
    keep = np.zeros(int(pieces.max()) + 1, bool)
    keep[pieces[seeds]] = True
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
