"""Stain estimates against plain float64 references, against torchstain, and on every kind of bad tile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from napari_slnpredict.errors import DataError
from napari_slnpredict.slide import stain
from napari_slnpredict.slide.stain import (
    NORMALISERS,
    REFERENCE,
    FitSpec,
    Outcome,
    StainMatrix,
    amounts,
    find_normaliser,
    fit_macenko,
    fit_of,
    fit_reinhard,
    fit_vahadane,
    restain,
)
from napari_slnpredict.slide.stain.density import densities, percentiles
from napari_slnpredict.slide.stain.macenko import extremes, plane_of, turned
from napari_slnpredict.slide.stain.vahadane import PENALTY, sparse_amounts

from .made_tiles import IHC, LAB_A, LAB_B, angle, tile, unit

METHODS = sorted(NORMALISERS)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Tiles this small gain nothing from threads, and wait for them on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- against plain references -----------------------------------------------------------------------------------------


def plain_density(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    return -np.log((pixels.reshape(-1, 3).astype(np.float64) + 1) / 240)


def plain_macenko(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Stains (2, 3) and strengths (2,) as in the paper, one tile, numpy float64."""
    density = plain_density(pixels)
    tissue = density[(density >= 0.15).all(axis=1)]
    _, vectors = np.linalg.eigh(np.cov(tissue.T))
    plane = vectors[:, [2, 1]] * np.sign(vectors[:, [2, 1]].sum(axis=0) + 1e-12)
    phi = np.arctan2(tissue @ plane[:, 1], tissue @ plane[:, 0])
    ends = np.percentile(phi, [1, 99])
    stains = np.stack([np.cos(ends), np.sin(ends)], axis=1) @ plane.T
    stains = stains[np.argsort(-stains[:, 0])]
    amount = np.linalg.lstsq(stains.T, tissue.T, rcond=None)[0]
    return stains, np.percentile(np.maximum(amount, 0), 99, axis=1)


@pytest.mark.parametrize("stains", [LAB_A, LAB_B, IHC], ids=["a", "b", "ihc"])
@pytest.mark.parametrize("glass", [0.0, 0.5])
def test_macenko_is_the_papers(stains: Any, glass: float) -> None:
    """A stain off by a thousandth would be another method under Macenko's name."""
    tiles = torch.stack([tile(stains, seed, glass=glass) for seed in range(3)])
    fit = fit_macenko(tiles)
    assert fit.outcome.tolist() == [Outcome.FINE] * 3
    for k in range(3):
        expected, strength = plain_macenko(tiles[k].numpy())
        np.testing.assert_allclose(fit.stains[k], expected, atol=2e-5)
        np.testing.assert_allclose(fit.strength[k], strength, rtol=1e-4)


@pytest.mark.parametrize(("fit", "degrees"), [(fit_macenko, 3.5), (fit_vahadane, 5.0)])
def test_true_stains_are_found(fit: Callable[..., Any], degrees: float) -> None:
    """The point of it all: which dyes were used. (No pixel of these tiles holds one stain alone.)"""
    for stains in (LAB_A, LAB_B, IHC):
        found = fit(tile(stains, side=224)[None]).stains[0]
        assert angle(found.numpy(), unit(stains)).max() < degrees


def test_the_sign_of_eigenvectors_does_not_matter() -> None:
    """LAPACK on one machine and cuSOLVER on another may turn an eigenvector round: the stain must stay."""
    seen = densities(tile()[None], FitSpec())
    plane, mean, _ = plane_of(seen)
    found = []
    for signs in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        both = extremes(seen, turned(plane * torch.tensor(signs), mean), 1.0)[0]
        found.append(both[both[:, 0].argsort(descending=True)])
    for other in found[1:]:
        torch.testing.assert_close(found[0], other, atol=1e-6, rtol=0)


def plain_sparse(density: NDArray[np.float64], stains: NDArray[np.float64], penalty: float) -> NDArray[np.float64]:
    """Amounts (m, 2) without negative parts by coordinate descent until nothing moves."""
    amount = np.zeros((len(density), 2))
    for _ in range(500):
        for k in range(2):
            rest = density - amount[:, [1 - k]] * stains[1 - k]
            amount[:, k] = np.maximum(0, rest @ stains[k] - penalty)
    return amount


def test_sparse_amounts_are_the_best() -> None:
    """The closed form must find what iterating finds, whichever stains are left out."""
    rng = np.random.default_rng(0)
    density = rng.normal(0.4, 0.5, (2000, 3))
    stains = unit(LAB_A)
    found = sparse_amounts(torch.from_numpy(density.T)[None], torch.from_numpy(stains)[None], 0.1)[0]
    np.testing.assert_allclose(found.T, plain_sparse(density, stains, 0.1), atol=1e-9)
    empty = (found == 0).double().mean(dim=1)
    assert (empty > 0.1).all(), "the test saw no pixel that lacks a stain"


def test_vahadane_is_sparse_dictionary_learning() -> None:
    """The same problem solved by scikit-learn from another start must end at the same stains."""
    from sklearn.decomposition import DictionaryLearning

    pixels = tile(LAB_A, side=40)
    density = plain_density(pixels.numpy())
    tissue = density[density.mean(axis=1) >= 0.15]
    start = unit(((0.5, 0.6, 0.5), (0.4, 0.8, 0.4)))
    learnt = DictionaryLearning(
        2,
        alpha=PENALTY,
        fit_algorithm="cd",
        positive_code=True,
        positive_dict=True,
        dict_init=start,
        max_iter=100,
        tol=1e-9,
        random_state=0,
    ).fit(tissue)
    expected = learnt.components_[np.argsort(-learnt.components_[:, 0])]
    found = fit_vahadane(pixels[None], FitSpec(faintest=False), rounds=200).stains[0].numpy()
    assert angle(found, expected).max() < 1.0


def test_reinhard_takes_tissues_mean_and_deviation() -> None:
    """With glass in the mean, a tile half empty would get another colour than its neighbour."""
    from skimage.color import rgb2lab

    pixels = tile(LAB_B, glass=0.4)
    fit = fit_reinhard(pixels[None], FitSpec(faintest=False))
    lab = rgb2lab(pixels.numpy() / 255.0).reshape(-1, 3)
    tissue = lab[plain_density(pixels.numpy()).mean(axis=1) >= 0.15]
    np.testing.assert_allclose(fit.mean[0], tissue.mean(axis=0), atol=2e-2)
    np.testing.assert_allclose(fit.deviation[0], tissue.std(axis=0), atol=2e-2)


def test_percentiles_are_numpys() -> None:
    """A quantile rule of one's own would move every stain a little."""
    values = torch.randn(5, 400)
    mask = torch.rand(5, 400) < 0.3
    found = percentiles(values, mask, (1.0, 50.0, 99.0))
    for k in range(5):
        expected = np.percentile(values[k][mask[k]].numpy(), [1, 50, 99])
        np.testing.assert_allclose(found[:, k], expected, atol=1e-6)


# --- against torchstain -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def normalizers() -> Any:
    torchstain = pytest.importorskip("torchstain", reason="pip install torchstain: a peer to compare with")
    return torchstain.normalizers if hasattr(torchstain, "normalizers") else torchstain


def full_tiles(count: int = 4) -> torch.Tensor:
    """Tiles that are tissue to the last pixel: there torchstain's percentiles over all pixels are ours over tissue."""
    tiles = torch.stack([tile(LAB_A if k % 2 else LAB_B, seed=k, side=128) for k in range(count)])
    # Below: every channel at least 0.15 dense, without changing what colours there are.
    return (tiles.float() * 0.8).to(torch.uint8)


def test_macenko_equals_torchstain(normalizers: Any) -> None:
    """The peer everybody uses: its stains (it takes the nearest pixel as percentile), its picture."""
    tiles = full_tiles()
    fit = fit_macenko(tiles)
    for k in range(len(tiles)):
        peer = normalizers.MacenkoNormalizer("numpy")
        peer.fit(tiles[k].numpy())
        np.testing.assert_allclose(fit.stains[k], peer.HERef.T, atol=1e-3)
        np.testing.assert_allclose(fit.strength[k], peer.maxCRef, rtol=5e-3)


def test_picture_equals_torchstains(normalizers: Any) -> None:
    """Without residual and with negative amounts it is torchstain's product.

    Two differences are left: it does not take away the 1 that density begins with, and it cuts where we round.
    """
    tiles = full_tiles()
    peer = normalizers.MacenkoNormalizer("torch")
    peer.fit(tiles[0].permute(2, 0, 1))
    fit = fit_macenko(tiles)
    ours = restain(tiles.float() / 255, fit, fit.take([0]), residual=False, clamp=False) * 255
    for k in range(1, len(tiles)):
        theirs = peer.normalize(tiles[k].permute(2, 0, 1), stains=False)[0].float()
        same = (ours[k] + 1).clamp(0, 255).floor()
        assert float((same - theirs).abs().mean()) < 0.3
        assert float((ours[k] - theirs).mean().abs()) < 1.0


def test_half_empty_tiles_too(normalizers: Any) -> None:
    """With strength over every pixel, asked for, our stains and strengths are torchstain's on half empty tiles too."""
    tiles = torch.stack([tile(LAB_A, 4, 128, glass=0.5), tile(LAB_B, 5, 128, glass=0.3)])
    fit = fit_macenko(tiles, FitSpec(everywhere=True))
    for k in range(2):
        peer = normalizers.MacenkoNormalizer("numpy")
        peer.fit(tiles[k].numpy())
        np.testing.assert_allclose(fit.stains[k], peer.HERef.T, atol=1e-3)
        np.testing.assert_allclose(fit.strength[k], peer.maxCRef, rtol=5e-3)


def test_reinhard_equals_torchstain(normalizers: Any) -> None:
    """On tissue alone it is torchstain's but for its sample deviation and the last rounding."""
    tiles = full_tiles()
    peer = normalizers.ReinhardNormalizer("torch")
    peer.fit(tiles[0].permute(2, 0, 1))
    method = NORMALISERS["reinhard"]
    fit = method.fit(tiles, FitSpec(faintest=False))
    ours = method.apply(tiles, fit, fit.take([0])).float()
    for k in range(1, len(tiles)):
        theirs = peer.normalize(tiles[k].permute(2, 0, 1)).float()
        assert float((ours[k] - theirs).abs().mean()) < 1.0


# --- bad tiles --------------------------------------------------------------------------------------------------------


def spotted() -> torch.Tensor:
    """36 pixels of tissue on white: what torchstain paints purple all over."""
    made = torch.full((96, 96, 3), 255, dtype=torch.uint8)
    made[40:46, 40:46] = tile()[:6, :6]
    return made


def plain_colour(colour: tuple[int, int, int], side: int = 96) -> torch.Tensor:
    return torch.tensor(colour, dtype=torch.uint8).expand(side, side, 3).clone()


@pytest.mark.parametrize("method", METHODS)
@given(colour=st.tuples(*[st.integers(0, 255)] * 3), side=st.sampled_from([1, 2, 17, 96]))
@settings(max_examples=40, deadline=None)
def test_one_colour_is_flagged_and_unchanged(method: str, colour: tuple[int, int, int], side: int) -> None:
    """Blank, black or any one colour holds no two stains: painting it would invent tissue."""
    tiles = plain_colour(colour, side)[None]
    normaliser = NORMALISERS[method]
    fit = normaliser.fit(tiles, None)
    assert fit.outcome.item() in (Outcome.NO_TISSUE, Outcome.DEGENERATE)
    target = normaliser.fit(tile()[None], None)
    assert torch.equal(normaliser.apply(tiles, fit, target), tiles)


@pytest.mark.parametrize("method", METHODS)
def test_few_pixels_of_tissue_are_flagged(method: str) -> None:
    """36 pixels say nothing of a stain, and the glass around them would turn purple."""
    normaliser = NORMALISERS[method]
    tiles = spotted()[None]
    fit = normaliser.fit(tiles, None)
    assert fit.outcome.item() == Outcome.NO_TISSUE
    assert torch.equal(normaliser.apply(tiles, fit, normaliser.fit(tile()[None], None)), tiles)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_not_finite_is_flagged(method: str, bad: float) -> None:
    """One NaN makes eigh raise for the whole batch."""
    tiles = torch.stack([tile(whole=False), tile(LAB_B, whole=False)]).float()
    tiles[0, 3, 4, 1] = bad
    normaliser = NORMALISERS[method]
    fit = normaliser.fit(tiles, None)
    assert fit.outcome.tolist() == [Outcome.NOT_FINITE, Outcome.FINE]
    made = normaliser.apply(tiles, fit, fit.take([1]))
    assert torch.equal(made[0].nan_to_num(9), tiles[0].nan_to_num(9))
    assert torch.isfinite(made[1]).all()


KINDS = {
    "tissue": lambda seed: tile(LAB_A, seed),
    "other": lambda seed: tile(LAB_B, seed, strength=(0.6, 1.3)),
    "half": lambda seed: tile(IHC, seed, glass=0.5),
    "white": lambda seed: plain_colour((255, 255, 255)),
    "black": lambda seed: plain_colour((0, 0, 0)),
    "pink": lambda seed: plain_colour((230, 120, 180)),
    "spots": lambda seed: spotted(),
}


@pytest.mark.parametrize("method", METHODS)
@given(kinds=st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=5), data=st.data())
@settings(max_examples=15, deadline=None)
def test_a_tile_does_not_depend_on_its_neighbours(method: str, kinds: list[str], data: st.DataObject) -> None:
    """What a tile becomes must not hang on what else was drawn into the batch, or on the order."""
    normaliser = NORMALISERS[method]
    tiles = torch.stack([KINDS[kind](seed) for seed, kind in enumerate(kinds)])
    target = normaliser.fit(tile(LAB_B, 99)[None], None)
    fit = normaliser.fit(tiles, None)
    together = normaliser.apply(tiles, fit, target)
    order = data.draw(st.permutations(range(len(kinds))))
    shuffled_fit = normaliser.fit(tiles[order], None)
    shuffled = normaliser.apply(tiles[order], shuffled_fit, target)
    assert shuffled_fit.outcome.tolist() == fit.outcome[order].tolist()
    for place, k in enumerate(order):
        alone = normaliser.apply(tiles[k : k + 1], normaliser.fit(tiles[k : k + 1], None), target)[0]
        assert (alone.int() - together[k].int()).abs().max() <= 1
        assert (shuffled[place].int() - together[k].int()).abs().max() <= 1


@pytest.mark.parametrize("method", METHODS)
def test_no_tiles_are_no_error(method: str) -> None:
    """The last batch of a filtered stream may be empty."""
    normaliser = NORMALISERS[method]
    none = torch.empty((0, 32, 32, 3), dtype=torch.uint8)
    fit = normaliser.fit(none, None)
    assert len(fit) == 0
    assert normaliser.apply(none, fit, normaliser.fit(tile()[None], None)).shape == none.shape


def test_what_is_no_tile_is_refused() -> None:
    """Channels first would be taken for a tile three pixels high and give nonsense in silence."""
    with pytest.raises(ValueError, match="b, h, w, 3"):
        fit_macenko(torch.zeros(2, 3, 64, 64))
    with pytest.raises(ValueError, match="uint8"):
        fit_macenko(torch.zeros(2, 64, 64, 3, dtype=torch.int64))
    with pytest.raises(DataError, match="Known are"):
        find_normaliser("mackenzie")


def test_a_failed_tile_borrows_the_slides_stain() -> None:
    """A pale tile of a slide is seen in the slide's stain, but is still counted as failed."""
    tiles = torch.stack([tile(), spotted()])
    own = StainMatrix(tuple(map(tuple, unit(LAB_B).tolist())), (1.0, 1.0))  # type: ignore[arg-type]
    fit = fit_macenko(tiles)
    lent = fit.or_else(own)
    assert lent.usable.tolist() == [True, True]
    assert lent.outcome.tolist() == fit.outcome.tolist()
    torch.testing.assert_close(lent.stains[1], fit_of(own).stains[0])
    torch.testing.assert_close(lent.stains[0], fit.stains[0])


# --- conventions ------------------------------------------------------------------------------------------------------


def test_haematoxylin_comes_first() -> None:
    """Swapped stains would turn nuclei pink."""
    for stains in (LAB_A, LAB_B, IHC):
        for made in (stains, stains[::-1]):
            found = fit_macenko(tile(made, side=128)[None]).stains[0].numpy()
            assert angle(found, unit(stains)).max() < 5


def test_stains_are_unit_and_positive() -> None:
    """An amount is an optical density only if its stain has length 1."""
    for fit in (fit_macenko, fit_vahadane):
        found = fit(torch.stack([tile(seed=k) for k in range(3)])).stains
        torch.testing.assert_close(found.norm(dim=2), torch.ones(3, 2))
        assert (found >= 0).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"stains": ((1.0, 1.0, 0.0), (0.0, 1.0, 0.0))},
        {"stains": ((0.6, 0.8, 0.0), (0.6, 0.8, 0.0))},
        {"stains": ((0.6, -0.8, 0.0), (0.0, 1.0, 0.0))},
        {"strength": (0.0, 1.0)},
        {"white": (240.0, float("nan"), 240.0)},
    ],
    ids=["length", "same", "negative", "no strength", "no white"],
)
def test_a_matrix_is_checked(wrong: dict[str, Any]) -> None:
    """A matrix read from a file or drawn by a user may be anything."""
    right = {"stains": REFERENCE.stains, "strength": REFERENCE.strength}
    with pytest.raises(ValueError):
        StainMatrix(**{**right, **wrong})


def test_amounts_and_residual_make_the_tile() -> None:
    """What is unmixed must mix to the same tile, or pigment got lost."""
    tiles = torch.stack([tile(LAB_A), tile(IHC, 3)])
    fit = fit_macenko(tiles)
    stained, residual = amounts(tiles, fit)
    assert (stained >= 0).all()
    density = torch.einsum("bkhw,bkc->bhwc", stained, fit.stains) + residual.permute(0, 2, 3, 1)
    torch.testing.assert_close(240 * torch.exp(-density) - 1, tiles.float(), atol=1e-2, rtol=0)


def test_public_names_are_all_there() -> None:
    """Training and viewer import these from the package; a name that goes breaks them."""
    assert sorted(stain.__all__, key=str.lower) == sorted(set(stain.__all__), key=str.lower)
    assert all(hasattr(stain, name) for name in stain.__all__)
    assert {"slide_stain", "stained_levels", "restain", "jitter", "NORMALISERS", "REFERENCE"} <= set(stain.__all__)
