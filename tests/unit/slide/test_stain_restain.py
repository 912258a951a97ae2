"""Tiles and slides in another stain: nothing invented, nothing lost, the same everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_slnpredict.errors import SlideError
from napari_slnpredict.events import Event, Progress, Stage, Warn, run
from napari_slnpredict.phantom.labs import INKS
from napari_slnpredict.slide.slide import open_slide
from napari_slnpredict.slide.stain import (
    NORMALISERS,
    REFERENCE,
    ColourFit,
    JitterSpec,
    Restainer,
    StainMatrix,
    fit_macenko,
    fit_of,
    fit_reinhard,
    jitter,
    painter,
    recolour,
    restain,
    slide_colours,
    slide_stain,
    stained_levels,
)
from napari_slnpredict.slide.stain.density import light
from napari_slnpredict.slide.stain.restain import restain_batch
from napari_slnpredict.slide.tissue import find_tissue, tissue_from_mask

from .fakes import ArraySlide
from .made_slides import halved, write_aperio
from .made_tiles import IHC, LAB_A, LAB_B, angle, tile, unit


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def matrix(stains: Any, strength: tuple[float, float] = (1.5, 1.2), white: float = 240.0) -> StainMatrix:
    first, second = (tuple(row) for row in unit(stains).tolist())
    return StainMatrix((first, second), strength, (white, white, white))  # type: ignore[arg-type]


A, B = matrix(LAB_A), matrix(LAB_B, (1.1, 1.6))


def two_labs(whole: bool = True) -> torch.Tensor:
    return torch.stack([tile(LAB_A, 1, whole=whole), tile(LAB_B, 2, whole=whole, strength=(0.7, 1.2), glass=0.3)])


# --- tiles ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", sorted(NORMALISERS))
def test_own_stain_changes_nothing(method: str) -> None:
    """A round trip that moved colours would make "normalised" visible to a network."""
    tiles, normaliser = two_labs(), NORMALISERS[method]
    fit = normaliser.fit(tiles, None)
    made = normaliser.apply(tiles, fit, fit)
    assert (made.int() - tiles.int()).abs().max() <= (0 if method != "reinhard" else 1)


def test_the_target_is_reached() -> None:
    """The stain found in the picture must be the one it was given, in colour and strength."""
    tiles = two_labs(whole=False).float()
    fit = fit_macenko(tiles)
    again = fit_macenko(restain(tiles, fit, B))
    for k in range(2):
        assert angle(again.stains[k].numpy(), B.array).max() < 3
        np.testing.assert_allclose(again.strength[k], B.strength, rtol=0.15)


def test_there_and_back() -> None:
    """Nothing may be lost on the way but what rounding takes."""
    tiles = two_labs(whole=False)
    back = restain(restain(tiles.float(), A, B), B, A)
    # Amounts of other stains than the tile's own can be negative and are clamped: small differences remain.
    assert float((back - tiles.float()).abs().mean()) * 255 < 1.0


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("options", [{}, {"residual": False}, {"clamp": False}, {"residual": False, "clamp": False}])
def test_batch_and_tile_by_tile_agree(whole: bool, options: dict[str, bool]) -> None:
    """A GPU and a CPU must show and train on the same pixels."""
    tiles = two_labs(whole).to(torch.uint8 if whole else torch.float32)
    fit = fit_macenko(tiles)
    target = replace(B, white=(236.0, 240.0, 244.0))
    offset = torch.tensor([[0.01, 0.02, 0.0], [0.0, -0.02, 0.03]])
    together = restain_batch(tiles, fit, fit_of(target).take([0, 0]), offset=offset, **options)
    one_by_one = restain(tiles, fit, target, offset=offset, **options)
    if whole:
        assert (together.int() - one_by_one.int()).abs().max() <= 1
    else:
        torch.testing.assert_close(together, one_by_one, atol=1e-4, rtol=0)


def test_large_tiles_have_no_seams() -> None:
    """Pixels are painted in blocks: where one ends nobody may see."""
    tiles = tile(side=260)[None]
    whole, parts = restain(tiles, A, B)[0], Restainer(A, B)(tiles[0, 130:].numpy())
    assert np.array_equal(whole[130:].numpy(), parts)


def test_other_pigment_stays() -> None:
    """Melanin that vanished would take the diagnosis with it."""
    tiles = tile()[None].clone()
    brown = (240 * np.exp(-1.2 * np.array([0.42, 0.58, 0.78])) - 1).round()
    tiles[0, 10:20, 10:20] = torch.from_numpy(brown.astype(np.uint8))
    made = restain(tiles, A, A)
    assert torch.equal(made, tiles)
    kept, lost = restain(tiles, A, B), restain(tiles, A, B, residual=False)
    red_to_blue = [float(t[0, 15, 15, 0]) - float(t[0, 15, 15, 2]) for t in (tiles, kept, lost)]
    assert red_to_blue[1] > 0.5 * red_to_blue[0] > 0, "brown is brown still"
    assert red_to_blue[2] < red_to_blue[1]


@pytest.mark.parametrize("value", [232, 240, 250, 255])
def test_glass_stays_glass(value: int) -> None:
    """Glass a little darker or brighter than the white point must not be stained."""
    tiles = torch.full((1, 8, 8, 3), value, dtype=torch.uint8)
    made = restain(tiles, matrix(LAB_A, (0.8, 0.8)), matrix(LAB_B, (2.0, 2.0)))
    assert (made.int() - value).abs().max() <= 1


def test_an_absent_stain_is_not_blown_up() -> None:
    """A stain of strength 0.05 for 2.0 would turn noise into tissue forty times as strong."""
    weak = matrix(LAB_A, (1.0, 0.05))
    tiles = tile(strength=(1.0, 0.02))[None]
    made = restain(tiles, weak, matrix(LAB_A, (1.0, 2.0)))
    assert made.float().mean() > 0.5 * tiles.float().mean()


def test_half_precision_tiles_keep_their_type() -> None:
    """Training in bfloat16 must get bfloat16 back."""
    tiles = two_labs(whole=False).to(torch.bfloat16)
    made = restain(tiles, A, B)
    assert made.dtype == torch.bfloat16
    exact = restain(two_labs(whole=False).float(), A, B)
    assert (made.float() - exact).abs().max() < 0.02


@pytest.mark.parametrize("method", sorted(NORMALISERS))
def test_half_precision_loops_do_not_blur_stains(method: str) -> None:
    """Inside a loop's autocast, products would be taken in bfloat16: colours off by two grey levels in a hundred."""
    tiles, normaliser = two_labs(), NORMALISERS[method]

    def work() -> torch.Tensor:
        fit = normaliser.fit(tiles, None)
        if method == "reinhard":
            return normaliser.apply(tiles, fit, fit.take([0]))
        return restain_batch(tiles, fit, fit.take([0, 0]))

    plain = work()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(work(), plain)


def test_the_callers_tiles_are_not_touched() -> None:
    """Painted in place, the second view of a pair would be made of the first."""
    tiles = two_labs()
    before = tiles.clone()
    restain(tiles, A, B)
    assert torch.equal(tiles, before)


# --- jitter -----------------------------------------------------------------------------------------------------------


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_jitter_is_the_generators() -> None:
    """A resumed training must see the views it would have seen."""
    tiles = two_labs()
    fit = fit_macenko(tiles)
    first, same, other = (jitter(tiles, fit, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert not torch.equal(first, tiles)


def test_no_jitter_is_no_change() -> None:
    """With every range at 0 a view is the tile."""
    tiles = two_labs()
    made = jitter(tiles, fit_macenko(tiles), seeded(0), JitterSpec(0, 0, 0))
    assert (made.int() - tiles.int()).abs().max() <= 1


@pytest.mark.parametrize("stains", [None, A, "fit"])
def test_jitter_moves_colour_and_stays_a_picture(stains: Any) -> None:
    """It works with the tile's, the slide's or no stain known, on tiles where nothing is found too."""
    tiles = torch.stack([*two_labs(), torch.full((96, 96, 3), 250, dtype=torch.uint8)])
    given = fit_macenko(tiles) if stains == "fit" else stains
    made = jitter(tiles, given, seeded(3), JitterSpec(0.3, 0.02, 0.05))
    moved = (made.float() - tiles.float()).abs().mean(dim=(1, 2, 3))
    assert (moved[:2] > 1).all()
    assert moved[2] < 15
    assert light(made).isfinite().all()


# --- slides -----------------------------------------------------------------------------------------------------------


def stained_slide(stains: Any = LAB_A, side: int = 1200) -> ArraySlide:
    """Tissue on three quarters of a slide of 1 um/px, glass of 230 to its left."""
    pixels = tile(stains, 5, side).numpy().copy()
    pixels[:, : side // 4] = 230
    return ArraySlide(pixels)


def all_tissue(slide: ArraySlide) -> Any:
    mask = np.zeros((slide.dimensions[1] // 8, slide.dimensions[0] // 8), bool)
    mask[:, mask.shape[1] // 4 :] = True
    return tissue_from_mask(mask, 8.0)


@pytest.mark.parametrize("method", ["macenko", "vahadane"])
def test_a_slides_stain(method: str) -> None:
    """One matrix a slide, its own glass as white, always the same."""
    slide = stained_slide()
    events: list[Event] = []
    found = run(slide_stain(slide, all_tissue(slide), method=method), events.append)
    assert angle(found.array, unit(LAB_A)).max() < 6
    np.testing.assert_allclose(found.white, 231, atol=1)
    assert (found.method, found.failed) == (method, 0)
    assert found.tiles > 5
    assert isinstance(events[0], Stage)
    assert any(isinstance(event, Progress) for event in events)
    assert found == run(slide_stain(slide, all_tissue(slide), method=method))


def test_pale_tiles_do_not_move_a_slides_stain() -> None:
    """Of a slide half of which shows no stain, the other half decides, and the user is told when it is little."""
    slide = stained_slide()
    slide.levels[0][0][300:, 300:] = 225
    events: list[Event] = []
    found = run(slide_stain(slide, all_tissue(slide)), events.append)
    assert angle(found.array, unit(LAB_A)).max() < 6
    assert found.failed > found.tiles
    assert any(isinstance(event, Warn) for event in events)


@pytest.mark.parametrize("ink", INKS, ids=["blue", "green", "black"])
def test_ink_does_not_move_a_slides_stain(ink: tuple[float, float, float]) -> None:
    """A pen stroke over a fifth of the tissue is dye too, but not the slide's."""
    slide = stained_slide()
    pixels = slide.levels[0][0]
    y, x = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    stroke = np.abs((0.6 * x + y) % 600) < 130
    pixels[stroke] = (pixels[stroke] * np.exp(-0.9 * np.asarray(ink))).astype(np.uint8)
    found = run(slide_stain(slide, find_tissue(slide)))
    assert angle(found.array, unit(LAB_A)).max() < 6


def test_stains_hardly_apart_are_told() -> None:
    """Such a slide looks blotchy in another stain: the user must know that it is not the tissue."""
    near = ((0.55, 0.75, 0.36), (0.48, 0.80, 0.36))
    events: list[Event] = []
    slide = stained_slide(near)
    run(slide_stain(slide, all_tissue(slide)), events.append)
    assert any(isinstance(event, Warn) and "degrees" in event.message for event in events)


def test_a_slide_without_stain_is_refused() -> None:
    """Without two stains there is nothing to convert; a guess would paint it purple."""
    slide = stained_slide()
    slide.levels[0][0][...] = 235
    with pytest.raises(SlideError, match="two stains"):
        run(slide_stain(slide, all_tissue(slide)))
    nothing = tissue_from_mask(np.zeros((150, 150), bool), 8.0)
    with pytest.raises(SlideError, match="two stains"):
        run(slide_stain(stained_slide(), nothing))


def test_brown_and_eosin_do_not_go_together() -> None:
    """Brown, which marks a protein, would be shown as eosin, which marks nothing of the kind; or the other way."""
    brown = matrix(IHC)
    assert (A.is_brown, B.is_brown, REFERENCE.is_brown, brown.is_brown) == (False, False, False, True)
    for source, target in ((brown, A), (A, brown)):
        with pytest.raises(SlideError, match="brown"):
            painter(source, target)
    assert painter(brown, brown) == Restainer(brown, brown)
    rare = stained_slide()
    y, x = np.mgrid[: rare.dimensions[1], : rare.dimensions[0]]
    cells = (y // 12 % 6 == 0) & (x // 12 % 6 == 0) & (x > 320)
    rare.levels[0][0][cells] = (150, 100, 60)
    events: list[Event] = []
    found = run(slide_stain(rare, all_tissue(rare)), events.append)
    assert 0.01 < found.brown < 0.1
    assert not found.is_brown, "few brown cells, or melanin, are no second stain: told, not refused"
    assert any(isinstance(event, Warn) and "brown" in event.message for event in events)
    assert run(slide_stain(stained_slide(), all_tissue(rare))).brown < 0.005
    assert painter(A, B) == Restainer(A, B)


def test_a_slides_colours() -> None:
    """Reinhard's method for a whole slide: as if its tiles were one picture, and the same wherever a tile is cut."""
    slide, other = stained_slide(), stained_slide(LAB_B)
    events: list[Event] = []
    found = run(slide_colours(slide, all_tissue(slide)), events.append)
    assert isinstance(events[0], Stage)
    assert found == run(slide_colours(slide, all_tissue(slide)))
    pixels = slide.levels[0][0]
    whole = fit_reinhard(torch.from_numpy(pixels[None, :, 320:]))
    np.testing.assert_allclose(found.mean, whole.mean[0], atol=1.0)
    np.testing.assert_allclose(found.deviation, whole.deviation[0], rtol=0.1)
    wanted = run(slide_colours(other, all_tissue(other)))
    paint = painter(found, wanted)
    made = paint(pixels[300:556, 300:556])
    assert np.array_equal(made[40:90, 20:60], paint(pixels[340:390, 320:360]))
    fits = [
        ColourFit(torch.tensor([each.mean]), torch.tensor([each.deviation]), torch.zeros(1, dtype=torch.int64))
        for each in (found, wanted)
    ]
    batched = recolour(torch.from_numpy(pixels[None, 300:556, 300:556]), *fits)[0].numpy()
    assert np.abs(made.astype(int) - batched).max() <= 1
    reached = fit_reinhard(torch.from_numpy(paint(pixels)[None, :, 320:]))
    np.testing.assert_allclose(reached.mean[0], wanted.mean, atol=2.5)
    blank = stained_slide()
    blank.levels[0][0][...] = 235
    with pytest.raises(SlideError, match="one colour"):
        run(slide_colours(blank, all_tissue(blank)))
    with pytest.raises(ValueError, match="no colours of a slide"):
        replace(found, deviation=(0.0, 1.0, 1.0))


def test_levels_in_another_stain(tmp_path: Path) -> None:
    """Each level is lazily its own pixels painted, with its own chunks, in every level by the same matrix."""
    pixels = tile(LAB_A, 5, 520).numpy()
    path = write_aperio(tmp_path / "s.svs", [pixels, halved(pixels)], compression=None)
    with open_slide(path) as slide:
        plain, stained = slide.levels(), stained_levels(slide, A, B)
        assert [level.shape for level in stained] == [level.shape for level in plain]
        assert [level.chunks for level in stained] == [level.chunks for level in plain]
        assert all(level.dtype == np.uint8 for level in stained)
        for before, after in zip(plain, stained, strict=True):
            assert np.array_equal(after.compute(), Restainer(A, B)(before.compute()))
        assert np.array_equal(stained_levels(slide, A, A)[0].compute(), plain[0].compute())
        names = {level.name for other in (B, REFERENCE) for level in stained_levels(slide, A, other)}
        assert len(names) == 2 * len(plain), "dask would mix up two targets"


def test_levels_do_not_flicker() -> None:
    """Zooming changes level: painting the mean must be nearly the mean of what is painted."""
    pixels = tile(LAB_A, 3, 256).numpy()
    smooth = halved(pixels)  # neighbours alike, as on a slide
    fine, coarse = Restainer(A, B)(smooth), Restainer(A, B)(halved(smooth))
    gap = np.abs(halved(fine).astype(float) - coarse)
    assert gap.mean() < 2.5


# --- real slides ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ln01a", "pan01", "sto04ihc", "bre01"])
def test_real_slides(shared: Path, name: str) -> None:
    """On strong, pale, immuno- and fatty slides the stain is found, stable, and glass stays glass."""
    with open_slide(shared / f"cohort/slides/{name}.svs") as slide:
        tissue = find_tissue(slide)
        found = run(slide_stain(slide, tissue))
        fewer = run(slide_stain(slide, tissue, tiles=40))
        assert found.failed <= 0.1 * found.tiles
        assert (found.is_brown, found.brown > 0.005) == ((True, True) if name == "sto04ihc" else (False, False))
        assert 9 < found.angle < 45
        assert max(found.angle_to(fewer)) < 3
        np.testing.assert_allclose(found.strength, fewer.strength, rtol=0.15)
        level = stained_levels(slide, found, REFERENCE)[-1]
        before, after = slide.levels()[-1].compute().astype(int), level.compute().astype(int)
        glass = np.abs(before + 1 - np.round(found.white)).max(axis=2) <= 2
        assert glass.mean() > 0.02
        assert np.abs(after[glass] + 1 - 240).max() <= 4
