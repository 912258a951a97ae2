"""Tissue masks on made slides (every stain and nuisance apart) and on every real one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_slnpredict.errors import NotBrightfield
from napari_slnpredict.slide.blocks import read_block
from napari_slnpredict.slide.grid import GridSpec, lay_grid
from napari_slnpredict.slide.slide import open_slide
from napari_slnpredict.slide.tissue import find_tissue, segment, tissue_from_mask

from .fakes import ArraySlide, glass, paint

STAINS = {
    "H&E": (190, 120, 180),
    "pale H&E": (232, 215, 230),
    "PAS": (200, 130, 175),
    "DAB": (150, 105, 70),
    "dark DAB": (75, 45, 30),
    "counterstain": (170, 180, 208),
    "fast red": (190, 60, 100),
    "blood": (190, 60, 70),
}


def mask_of(pixels: NDArray[np.uint8], **other: object) -> NDArray[np.bool_]:
    """Tissue of a picture at 8 um/px."""
    return find_tissue(ArraySlide(pixels, 8.0, **other)).mask  # type: ignore[arg-type]


@pytest.mark.parametrize("stain", STAINS)
@pytest.mark.parametrize("white", [(244, 244, 244), (255, 255, 255), (235, 228, 205), (214, 218, 222)], ids=str)
def test_every_stain_on_every_glass(stain: str, white: tuple[int, int, int]) -> None:
    """A stain that is no tissue, or a tinted glass that is, would make a slide useless."""
    pixels = glass(200, 240, white)
    # What the stain lets through, seen through this glass.
    through = tuple(int(c * w / 244) for c, w in zip(STAINS[stain], white, strict=True))
    paint(pixels, slice(60, 140), slice(80, 160), through)  # type: ignore[arg-type]
    mask = mask_of(pixels)
    truth = np.zeros(mask.shape, bool)
    truth[60:140, 80:160] = True
    assert (mask & truth).sum() >= 0.97 * truth.sum()
    truth[57:143, 77:163] = True  # a rim of 24 um is allowed
    assert not (mask & ~truth).any()


@pytest.mark.parametrize("white", [(244, 244, 244), (235, 228, 205), (255, 255, 255)], ids=str)
@pytest.mark.parametrize("noise", [0.0, 1.0, 4.0])
def test_empty_glass_has_no_tissue(white: tuple[int, int, int], noise: float) -> None:
    """Otsu always finds two classes: without a floor an empty slide would be full of noise."""
    assert not mask_of(glass(160, 160, white, noise)).any()


def test_pale_counterstain_beside_strong_stain() -> None:
    """In IHC the nearly grey stroma beside strong DAB must not be lost to a threshold set by the DAB."""
    pixels = glass(200, 200)
    paint(pixels, slice(40, 160), slice(40, 100), (150, 95, 55))
    paint(pixels, slice(40, 160), slice(100, 160), (196, 194, 205), texture=20)
    mask = mask_of(pixels)
    assert mask[40:160, 40:160].mean() > 0.97


INKS = {"blue": (30, 60, 180), "light blue": (70, 120, 215), "green": (30, 130, 80), "black": (40, 38, 42)}


@pytest.mark.parametrize("ink", INKS)
def test_ink_is_no_tissue(ink: str) -> None:
    """A pen mark that counts as tissue would be embedded and painted with attention."""
    pixels = glass(200, 200)
    paint(pixels, slice(60, 140), slice(20, 100), STAINS["H&E"])
    paint(pixels, slice(20, 180), slice(150, 162), INKS[ink], texture=0)
    mask = mask_of(pixels)
    assert not mask[:, 140:].any()
    assert mask[62:138, 22:98].mean() > 0.97


def test_ink_on_tissue_is_cut_out() -> None:
    """Filling holes must not bring back the ink that was drawn over tissue."""
    pixels = glass(200, 200)
    paint(pixels, slice(40, 160), slice(40, 160), STAINS["H&E"])
    paint(pixels, slice(90, 106), slice(60, 140), INKS["blue"], texture=0)
    mask = mask_of(pixels)
    assert not mask[92:104, 62:138].any()
    assert mask[45:80, 45:155].mean() > 0.97


def test_large_red_marker_is_no_tissue_but_blood_is() -> None:
    """Red marker and blood share a hue: a lone large red stroke is ink, red within tissue is blood."""
    pixels = glass(300, 300)
    paint(pixels, slice(20, 30), slice(10, 290), (215, 40, 50), texture=0)
    paint(pixels, slice(100, 280), slice(60, 240), STAINS["H&E"])
    paint(pixels, slice(150, 210), slice(100, 170), STAINS["blood"], texture=4)
    mask = mask_of(pixels)
    assert not mask[10:40].any()
    assert mask[102:278, 62:238].mean() > 0.97


@pytest.mark.parametrize("depth", [3, 12])
def test_black_scan_edge_is_no_tissue(depth: int) -> None:
    """Scanners leave a black rim with a soft grey shadow; neither is tissue, nor does it hide the tissue."""
    pixels = glass(200, 200)
    paint(pixels, slice(80, 150), slice(60, 150), STAINS["H&E"])
    fade = np.clip((np.arange(200) - depth) / 12, 0.04, 1)[:, None, None]
    mask = mask_of((pixels * fade).astype(np.uint8))
    assert not mask[:60].any()
    assert mask[82:148, 62:148].mean() > 0.97


def test_grey_dirt_and_smears_are_no_tissue() -> None:
    """Dust, a shadow or a smear of mounting medium has no colour."""
    pixels = glass(200, 200)
    paint(pixels, slice(20, 60), slice(20, 60), (110, 110, 111), texture=20)
    paint(pixels, slice(100, 180), slice(100, 180), (228, 228, 228), texture=1)
    assert not mask_of(pixels).any()


def test_specks_go_and_holes_are_filled_by_area() -> None:
    """Sizes are um2: the same speck must go at 8 and at 4 um/px."""
    for mpp in (8.0, 4.0):
        k = round(8 / mpp)
        pixels = glass(200 * k, 200 * k)
        paint(pixels, slice(50 * k, 150 * k), slice(50 * k, 150 * k), STAINS["H&E"])
        pixels[70 * k : 85 * k, 70 * k : 85 * k] = 244  # 120 um: a lumen
        pixels[95 * k : 145 * k, 95 * k : 145 * k] = 244  # 400 um: a true hole
        paint(pixels, slice(10 * k, 18 * k), slice(10 * k, 18 * k), STAINS["H&E"])  # 64 um: debris
        mask = find_tissue(ArraySlide(pixels, mpp), mpp_mask=mpp).mask
        assert mask[72 * k : 83 * k, 72 * k : 83 * k].all()
        assert not mask[105 * k : 135 * k, 105 * k : 135 * k].any()
        assert not mask[: 30 * k, : 30 * k].any()


def test_fluorescence_is_refused() -> None:
    """A dark-field slide taken for brightfield would be one large piece of tissue."""
    pixels = np.full((200, 200, 3), (6, 2, 2), np.uint8)
    pixels[40:160, 40:160, 0] = np.random.default_rng(0).integers(10, 90, (120, 120))
    with pytest.raises(NotBrightfield, match="not brightfield: dark background"):
        find_tissue(ArraySlide(pixels, 8.0))


def test_a_slide_that_says_so_is_refused() -> None:
    """What the reader knows (16 bit, grey) must stop the run here too."""
    with pytest.raises(NotBrightfield, match="16 bits a channel"):
        find_tissue(ArraySlide(glass(50, 50), 8.0, not_brightfield="16 bits a channel"))


def test_black_margins_around_a_bright_slide_are_brightfield() -> None:
    """Areas never scanned are black in some files; the slide between them is still H&E."""
    pixels = np.zeros((200, 300, 3), np.uint8)
    pixels[:, 60:200] = glass(200, 140)
    paint(pixels, slice(50, 150), slice(80, 180), STAINS["H&E"])
    mask = mask_of(pixels)
    assert mask[55:145, 85:175].mean() > 0.97
    assert not mask[:, :50].any()
    assert not mask[:, 210:].any()


def test_tissue_up_to_every_edge() -> None:
    """A crop without any glass has no white point to measure; all of it is tissue."""
    pixels = glass(160, 160)
    paint(pixels, slice(None), slice(None), (205, 130, 180), texture=20)
    assert mask_of(pixels).mean() > 0.99


def test_unreadable_is_no_tissue() -> None:
    """A damaged or unscanned place shown as tissue would break promise R1."""
    pixels = glass(160, 160)
    paint(pixels, slice(20, 140), slice(20, 140), STAINS["H&E"])
    slide = ArraySlide(pixels, 8.0, unreadable=((40, 40, 30, 30),), sparse=((90, 90, 30, 30),))
    mask = find_tissue(slide).mask
    assert not mask[40:70, 40:70].any()
    assert not mask[90:120, 90:120].any()
    assert mask[25:35, 25:135].all()


def test_a_slide_coarser_than_the_mask_keeps_its_pixels() -> None:
    """Overviews at 20 um/px exist; they are judged as they are, not enlarged."""
    pixels = glass(100, 100)
    paint(pixels, slice(30, 70), slice(30, 70), STAINS["H&E"])
    tissue = find_tissue(ArraySlide(pixels, 16.0))  # type: ignore[arg-type]
    assert tissue.mpp == 16.0
    assert tissue.mask.shape == (100, 100)
    assert tissue.area_mm2 == pytest.approx(40 * 40 * 256e-6, rel=0.25)


def test_damage_within_tissue_keeps_its_tiles_and_damage_on_glass_has_none() -> None:
    """Tissue nobody could read must be counted as lost tiles, or a verdict would stand on what happened to survive."""
    pixels = glass(256, 256)
    paint(pixels, slice(20, 140), slice(20, 140), STAINS["H&E"])
    slide = ArraySlide(pixels, 8.0, unreadable=((64, 64, 32, 32), (200, 200, 32, 32)))
    tissue = find_tissue(slide)  # type: ignore[arg-type]
    assert tissue.hidden is not None
    assert tissue.hidden[64:96, 64:96].all()
    assert tissue.hidden.sum() == 32 * 32
    assert not tissue.mask[64:96, 64:96].any()
    grid = lay_grid(slide, tissue, GridSpec(16, 8.0))  # type: ignore[arg-type]
    damaged = read_block(slide, grid, range(len(grid))).damaged  # type: ignore[arg-type]
    assert sorted(grid.locations[damaged].tolist()) == [[64, 64], [64, 80], [80, 64], [80, 80]]


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2), (7, 7)])
def test_tiny_slides(size: tuple[int, int]) -> None:
    """A thumbnail of a few pixels must give an answer, not a traceback."""
    assert mask_of(glass(*size)).shape == size


def test_pieces_are_numbered_by_size() -> None:
    """The first piece is the largest, so that numbers mean the same after an edit."""
    mask = np.zeros((30, 30), bool)
    mask[2:5, 2:5] = mask[10:20, 10:20] = mask[25:27, 3:9] = True
    tissue = tissue_from_mask(mask, 8.0)
    assert [int((tissue.components == i).sum()) for i in (1, 2, 3)] == [100, 12, 9]
    assert tissue.components.max() == 3
    assert (tissue.components > 0).tolist() == mask.tolist()
    assert tissue_from_mask(np.zeros((4, 4), bool), 8.0).components.max() == 0


def test_all_unreadable_is_empty() -> None:
    """A slide of which nothing can be read has no tissue and no glass to measure."""
    assert not segment(np.full((20, 20, 3), 255, np.uint8), np.zeros((20, 20), bool), 8.0).any()


@dataclass(frozen=True)
class Real:
    """A real slide as judged by eye: area, and places (x, y in 8 um) that are tissue or are not."""

    file: str
    area_mm2: float
    tissue: tuple[tuple[int, int], ...] = ()
    none: tuple[tuple[int, int], ...] = ()
    mpp: float | None = None


REAL = [
    Real(
        "cohort/slides/eso01.svs", 5.3, ((582, 280),), ((600, 3), (600, 15), (600, 30), (900, 600))
    ),  # black scan edge
    Real("cohort/slides/ln02a.svs", 3.7, ((215, 115), (100, 150)), ((175, 95), (30, 30))),  # a black fold
    Real("cohort/slides/sto02.svs", 14.7, (), ((720, 250), (1500, 250))),  # scan stripes
    Real("cohort/slides/duo01syn.svs", 8.6, ((480, 487), (510, 490)), ((350, 620), (415, 755))),  # DAB, nearly grey
    Real("cohort/slides/pan01ihc.svs", 18.4, ((80, 885), (75, 950)), ((240, 1140), (210, 980))),  # red and pale blue
    Real("cohort/slides/sto04ihc.svs", 10.1, ((270, 590), (262, 518)), ((490, 700), (100, 400))),  # pale; a smear
    Real("cohort/slides/ln01ck.svs", 3.4, ((150, 120), (475, 117)), ((360, 220), (300, 400))),  # blue lymph node
    Real("cohort/slides/pan01.svs", 16.4, (), ((100, 100),)),  # pale H&E
    Real("cohort/slides/liv01.svs", 29.9, ((400, 300),)),  # no glass at all
    Real("cohort/slides/bre01.svs", 13.4, (), ((1050, 270), (1700, 900))),  # scratches
    Real("cohort/slides/duo03.svs", 3.1, ((116, 110),), ((427, 112),)),  # a black grain of dust
    Real("cohort/slides/ln01a.svs", 7.5, ((200, 200),), ((400, 420),)),  # node in fat
    Real("slides/CMU-1-Small-Region.svs", 0.7, ((60, 120),), ((120, 40),)),  # one level only
    Real("slides/duodenum_celiac_HE_level15.svs", 6.3, ((260, 200),), ((30, 400),)),
    Real("slides/TCGA-CR-7395-01A-01-TS1.svs", 0.67, ((70, 70),), ((3, 3),), mpp=0.25),  # pure white around tiles
]


@pytest.mark.parametrize("real", REAL, ids=lambda real: Path(real.file).stem)
def test_real_slides(real: Real, shared: Path) -> None:
    """What a person sees as tissue must be tissue; each slide here is a trap that another method fell into."""
    with open_slide(shared / real.file, real.mpp) as slide:
        found = find_tissue(slide)
        assert found.mask.shape[0] == pytest.approx(slide.dimensions[1] * slide.require_mpp() / 8, abs=1)
    assert found.area_mm2 == pytest.approx(real.area_mm2, rel=0.12)
    assert [place for place in real.tissue if not found.mask[place[1], place[0]]] == []
    assert [place for place in real.none if found.mask[place[1], place[0]]] == []


def test_real_fluorescence_is_refused(shared: Path) -> None:
    """The one fluorescence slide at hand is dark red on black."""
    with open_slide(shared / "slides/test3-TRITC-560.ndpi") as slide, pytest.raises(NotBrightfield, match="dark"):
        find_tissue(slide)
