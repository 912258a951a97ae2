"""Similar tiles: exact search, index folders that guard themselves."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_slnpredict.bundles.bundle import tensor_bytes
from napari_slnpredict.encode.features import Bag
from napari_slnpredict.errors import BundleMismatch, DataError, SlnPredictError, UnsafeFile
from napari_slnpredict.files import write_file
from napari_slnpredict.retrieval import (
    SUFFIX,
    Index,
    Page,
    likeness,
    page_of,
    principal_colours,
    question,
    search,
)
from napari_slnpredict.slide.grid import GridSpec, TileGrid


def a_page(name: str = "a", n: int = 50, k: int = 8, seed: int = 0, **changed: object) -> Page:
    """A page of random descriptors."""
    exact = np.random.default_rng(seed).standard_normal((n, k)).astype(np.float32)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    places = np.stack([np.arange(n), np.zeros(n, int)], axis=1) * 128
    page = Page(
        name, f"content-{name}", f"patient-{name}", "tumour", f"{name}.svs", "enc", "digest", "float32", 128, 1.0,
        128.0, places, exact.astype(np.float16), exact,
    )  # fmt: skip
    return dataclasses.replace(page, **changed)  # type: ignore[arg-type]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(1, 400), min_size=1, max_size=4),
    st.integers(1, 30),
    st.sampled_from([0.0, 1e-4, 1.0]),
    st.integers(0, 99),
)
def test_search_finds_what_a_sort_in_double_precision_finds(
    sizes: list[int], top: int, spread: float, seed: int
) -> None:
    """The rounding of half precision would decide which tile counts as the most similar one."""
    rng = np.random.default_rng(seed)
    # Spread 0 and 1e-4: so many tiles alike that half precision cannot tell them apart.
    middle = rng.standard_normal(16)
    pages = []
    for at, n in enumerate(sizes):
        exact = (middle + spread * rng.standard_normal((n, 16))).astype(np.float32)
        exact /= np.linalg.norm(exact, axis=1, keepdims=True)
        pages.append(a_page(str(at), n, exact=exact, coarse=exact.astype(np.float16)))
    wanted = question(rng.standard_normal((1, 16)).astype(np.float32))
    hits = search(pages, wanted, top)
    every = np.concatenate([page.exact.astype(np.float64) @ wanted for page in pages])
    best = np.sort(every)[::-1][:top]
    assert len(hits) == len(best)
    np.testing.assert_allclose([hit.cosine for hit in hits], best, atol=1e-6)
    np.testing.assert_allclose([hit.page.exact[hit.row] @ wanted for hit in hits], best, atol=1e-6)


def test_a_tile_is_its_own_nearest_and_lies_where_the_slide_has_it() -> None:
    """A click on a result would jump beside it."""
    pages = [a_page("a"), a_page("b", seed=1)]
    (hit,) = search(pages, question(pages[1].exact[7:8]), 1)
    assert (hit.page.slide_id, hit.row, hit.location) == ("b", 7, (7 * 128, 0))
    assert hit.distance == pytest.approx(0, abs=1e-3)


def test_own_slide_own_patient_and_the_asked_tile_can_be_left_out() -> None:
    """Neighbours of a tile are trivially similar: they would hide every other slide."""
    pages = [a_page("a"), a_page("b", exact=a_page("a").exact), a_page("c", patient="patient-a")]
    wanted = question(pages[0].exact[3:4])
    others = search(pages, wanted, 200, leave_out=lambda page: page.patient == "patient-a")
    assert {hit.page.slide_id for hit in others} == {"b"}
    here = search(pages[:1], wanted, 50, without=[("content-a", 3)])
    assert len(here) == 49
    assert 3 not in {hit.row for hit in here}


def test_unlike_tiles_push_their_neighbours_away() -> None:
    """ "Not like this" would do nothing."""
    page = a_page(n=200)
    like, unlike = page.exact[:1], page.exact[1:2]
    without, with_it = (likeness(page, question(like, some))[1] for some in (None, unlike))
    assert with_it < without
    with pytest.raises(DataError, match="cancel"):
        question(np.eye(1, 4, dtype=np.float32), 2 * np.eye(1, 4, dtype=np.float32))
    with pytest.raises(DataError, match="Click"):
        question(np.zeros((0, 4), np.float32))


def test_a_question_of_another_length_is_refused() -> None:
    """Vectors of another encoder would be compared by their first numbers."""
    with pytest.raises(BundleMismatch, match="length 8"):
        search([a_page()], np.ones(4, np.float32))
    assert search([], np.ones(4, np.float32)) == []


def test_an_index_gives_back_what_was_added_and_takes_a_slide_once(tmp_path: Path) -> None:
    """Adding a slide again under another name would show every tile of it twice."""
    index = Index(tmp_path / "index")
    index.add(a_page("a"))
    index.add(a_page("b", seed=1))
    index.add(a_page("a", slide_id="renamed"))
    again = Index(tmp_path / "index")
    assert sorted(page.slide_id for page in again.pages) == ["b", "renamed"]
    assert len(again) == len(index) == 100
    assert again.holds("content-a")
    assert not again.holds("content-c")
    (found,) = [page for page in again.pages if page.slide_id == "b"]
    np.testing.assert_array_equal(found.exact, a_page("b", seed=1).exact)
    assert (found.patient, found.label, found.size_level0) == ("patient-b", "tumour", 128.0)


def test_slides_are_named_from_the_index_s_folder(tmp_path: Path) -> None:
    """A folder moved to another disk would lose its slides, or its index would tell where they once lay."""
    index = Index(tmp_path / "index")
    path = index.relative(tmp_path / "slides" / "a.svs")
    assert path == "../slides/a.svs"
    assert index.slide_of(a_page(slide_path=path)) == tmp_path / "slides" / "a.svs"
    assert index.slide_of(a_page(slide_path="")) is None


@pytest.mark.parametrize(
    ("changed", "words"),
    [({"encoder_digest": "other", "encoder": "enc2"}, "enc2"), ({"mpp": 0.5}, "0.5"), ({"tile_px": 256}, "256")],
)
def test_an_index_refuses_tiles_that_cannot_be_compared(tmp_path: Path, changed: dict[str, object], words: str) -> None:
    """Distances between two encoders' numbers mean nothing."""
    index = Index(tmp_path)
    index.add(a_page("a"))
    with pytest.raises(BundleMismatch, match=words):
        index.add(a_page("b", **changed))
    assert not index.holds("content-b")


def test_a_damaged_or_foreign_page_is_named(tmp_path: Path) -> None:
    """A torn page would be searched as if it were descriptors."""
    index = Index(tmp_path)
    index.add(a_page("a"))
    (path,) = tmp_path.glob(f"*{SUFFIX}")
    good = path.read_bytes()
    write_file(path, good[:-10])
    with pytest.raises(UnsafeFile, match=path.name):
        Index(tmp_path)
    parts = {"places": np.zeros((1, 2), np.int64), "coarse": np.zeros((2, 4), np.float16)}
    facts = {"format": "another"}
    write_file(path, tensor_bytes(parts | {"facts": np.frombuffer(json.dumps(facts).encode(), np.uint8)}))
    with pytest.raises(SlnPredictError, match=path.name):
        Index(tmp_path)
    write_file(path, b"")
    with pytest.raises(SlnPredictError, match=path.name):
        Index(tmp_path)


def test_damaged_tiles_never_reach_a_page() -> None:
    """A tile nobody could read would be the nearest neighbour of every other such tile."""
    n = 4
    cells = np.stack([np.zeros(n, np.int32), np.arange(n, dtype=np.int32)], axis=1)
    grid = TileGrid(
        GridSpec(128, 1.0), "s", 0.5, (2048, 512), 256.0, cells[:, ::-1].astype(np.int64) * 256,
        np.ones(n, np.float32), np.ones(n, np.int32), cells, (1, n),
    )  # fmt: skip
    damaged = np.array([False, True, False, False])
    page = page_of(Bag(grid, np.eye(n, 6, dtype=np.float32), "digest", "enc", "float32", None, damaged), "content")
    assert len(page) == 3
    assert page.places.tolist() == [[0, 0], [512, 0], [768, 0]]
    assert page.exact[1].tolist() == [0, 0, 1, 0, 0, 0]


def test_colours_follow_the_main_components_and_do_not_depend_on_chance() -> None:
    """The same slide would change its colours from one opening to the next."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 2, 300)
    exact = (np.eye(2, 6)[kinds] + 0.05 * rng.standard_normal((300, 6))).astype(np.float32)
    page = a_page(n=300, exact=exact, coarse=exact.astype(np.float16))
    colours = principal_colours(page)
    assert colours.shape == (300, 3)
    assert colours.min() >= 0
    assert colours.max() <= 1
    assert abs(colours[kinds == 0, 0].mean() - colours[kinds == 1, 0].mean()) > 0.6
    np.testing.assert_array_equal(colours, principal_colours(page))
    assert (principal_colours(a_page(n=1)) == 0.5).all()
