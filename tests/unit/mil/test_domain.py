"""Slides unlike the training slides: told apart, stored whole, refused when damaged."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_slnpredict.errors import BundleMismatch, DataError
from napari_slnpredict.mil.domain import LEAST_SLIDES, Domain, domain_of, fit_domain

D = 24


def slide(seed: int, n: int = 200, shift: float = 0.0) -> NDArray[np.float32]:
    """Tiles of four kinds on a plane of six axes, mixed differently in each slide; `shift` leaves that plane."""
    world, random = np.random.default_rng(0), np.random.default_rng(seed)
    kinds, plane = world.normal(size=(4, 6)) * 2, world.normal(size=(6, D))
    off = np.linalg.svd(plane)[2][-1]
    kind = random.choice(4, n, p=random.dirichlet(np.ones(4) * 3))
    inner = kinds[kind] + random.normal(size=(n, 6)) * 0.7 + random.normal(size=6) * 0.2
    return (inner @ plane + random.normal(size=(n, D)) * 0.1 + shift * off).astype(np.float32)


@pytest.fixture(scope="module")
def domain() -> Domain:
    return fit_domain([slide(seed) for seed in range(1, 25)], [f"p{seed // 2}" for seed in range(1, 25)])


def test_new_slides_are_inside_and_strange_ones_outside(domain: Domain) -> None:
    """Glass would be given a diagnosis, or every new patient be refused one."""
    inside = [domain.place(slide(seed))["inside"] for seed in range(100, 140)]
    assert np.mean(inside) >= 0.95
    strange = {
        "off the plane": slide(200, shift=4.0),
        "inverted": -slide(201),
        "too far along": slide(202) * 2.5,
        "constant": np.full((50, D), 9.0, np.float32),
    }
    for name, features in strange.items():
        found = domain.place(features)
        assert not found["inside"], name
        assert found["percentile"] == 100.0
        assert "times as far" in found["reason"]


def test_the_score_grows_with_the_distance(domain: Domain) -> None:
    """A percentile would mean nothing."""
    scores = [domain.score(slide(7, shift=shift)) for shift in (0.0, 1.0, 2.0, 4.0, 8.0)]
    assert scores == sorted(scores)
    assert 0.3 < scores[0] < domain.limit


def test_a_slide_is_not_measured_by_its_own_patient() -> None:
    """The limit would be that of slides already seen: every new patient would lie outside."""
    slides = [slide(seed) for seed in range(1, 11)]
    copies = fit_domain([*slides, *slides], [f"p{i}" for i in range(10)] * 2)
    assert copies.scores[0] > 0.1  # else a copy's distance is nearly 0


def test_it_is_stored_and_comes_back(domain: Domain) -> None:
    """The viewer would judge by another limit than training did."""
    again = domain_of(domain.tensors(), D)
    features = slide(300)
    assert again.score(features) == pytest.approx(domain.score(features), rel=1e-2)  # float16 tiles
    assert again.limit == pytest.approx(domain.limit)
    assert sum(array.nbytes for array in domain.tensors().values()) < 300_000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tiles", np.zeros((5, 3))),
        ("scores", np.zeros(0)),
        ("spread", np.zeros(D)),
        ("rest", np.array([np.nan])),
        ("axes", None),
    ],
)
def test_damage_is_refused(domain: Domain, name: str, value: NDArray[np.float64] | None) -> None:
    """A damaged bundle would call everything known."""
    tensors = domain.tensors()
    tensors.pop(name)
    if value is not None:
        tensors[name] = value
    with pytest.raises(BundleMismatch):
        domain_of(tensors, D)
    with pytest.raises(BundleMismatch):
        domain_of(domain.tensors(), D + 1)


def test_a_limit_needs_slides_and_patients() -> None:
    """Three slides would be said to show what is usual."""
    few = [slide(seed) for seed in range(LEAST_SLIDES - 1)]
    with pytest.raises(DataError, match="do not tell what a usual slide is"):
        fit_domain(few, [str(i) for i in range(len(few))])
    with pytest.raises(DataError, match="of 1 patients"):
        fit_domain([slide(seed) for seed in range(LEAST_SLIDES)], ["same"] * LEAST_SLIDES)


def test_one_tile_and_a_hundred_thousand_answer(domain: Domain) -> None:
    """A biopsy of one tile would crash, a large section take minutes."""
    assert np.isfinite(domain.score(slide(5, n=1)))
    big = np.tile(slide(6, n=1000), (100, 1))
    assert domain.score(big) == pytest.approx(domain.score(slide(6, n=1000)), rel=0.1)
