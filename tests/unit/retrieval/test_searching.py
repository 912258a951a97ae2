"""Many pages, long descriptors, exclusion of slides and patients, pictures of slides that are not there."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from napari_slnpredict.events import run
from napari_slnpredict.retrieval import Hit, principal_components, question, search
from napari_slnpredict.retrieval.leaving_out import own_patients, own_slides
from napari_slnpredict.retrieval.nearest import _ROWS
from napari_slnpredict.retrieval.pictures import ANOTHER, NOT_THERE, read_pictures

from .test_pages_and_search import a_page


@pytest.mark.parametrize(("pages", "n", "k"), [(300, 20, 128), (3, 300, 1280), (2, _ROWS // 2 + 7, 16)])
def test_recall_is_one_over_many_pages_and_long_descriptors(pages: int, n: int, k: int) -> None:
    """Grouping small pages, or the rounding of sums over a thousand numbers, would lose a neighbour."""
    made = [a_page(str(at), n, k, seed=at) for at in range(pages)]
    wanted = question(made[pages // 2].exact[:2])
    hits = search(made, wanted, 20)
    every = np.concatenate([page.exact.astype(np.float64) @ wanted for page in made])
    best = np.sort(every)[::-1][:20]
    np.testing.assert_allclose([hit.cosine for hit in hits], best, atol=1e-6)
    order = np.argsort(-every, kind="stable")[:20]
    found = [int(hit.page.slide_id) * n + hit.row for hit in hits]
    assert set(found) == set(order.tolist())


def test_a_patient_s_slides_and_unknown_ones_are_left_out_and_named() -> None:
    """A slide whose patient nobody knows could be the patient's own."""
    pages = [a_page("a"), a_page("b", patient="patient-a"), a_page("c"), a_page("d", patient=""), a_page("e", n=4)]
    left_out = own_patients(pages, ["content-a"], ["patient-a"])
    assert [page.slide_id for page in pages if not left_out.test(page)] == ["c", "e"]
    assert left_out.words == "patient patient-a, 1 slide of unknown patients"
    here = own_slides(["content-a"], ["a"])
    assert [page.slide_id for page in pages if here.test(page)] == ["a"]


class Opened(SimpleNamespace):
    """A slide that can be read."""

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed.append(self.content_id)

    def best_level(self, downsample: float) -> int:
        return 0

    def read_level(self, level: int, x: int, y: int, w: int, h: int) -> tuple[Any, Any]:
        return np.full((h, w, 3), x % 251, np.uint8), None


def test_pictures_of_a_slide_that_is_not_there_are_missing_and_the_others_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One moved slide would cost the whole gallery, or another slide's tile would stand in its place."""
    pages = [a_page(name, n=3) for name in "abc"]
    closed: list[str] = []
    for name in "ac":
        (tmp_path / f"{name}.svs").touch()
    contents = {"a": "content-a", "c": "content-x"}
    monkeypatch.setattr(
        "napari_slnpredict.slide.slide.open_slide",
        lambda path: Opened(content_id=contents[path.stem], level_downsamples=(1.0,), closed=closed),
    )
    hits = [Hit(page, row, 1.0) for page in pages for row in range(2)]
    pictures = run(read_pictures(hits, lambda page: tmp_path / f"{page.slide_id}.svs", there={1}))
    assert pictures.missing == {"content-b": NOT_THERE, "content-c": ANOTHER}
    assert list(pictures.found) == [0]
    assert (pictures.found[0] == 0).all()
    assert closed == ["content-a", "content-x"]


def test_components_say_how_much_they_show() -> None:
    """Colours that show a tenth of the differences would be read as if they showed them all."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    along = rng.standard_normal((500, 3)) * np.sqrt([6.0, 3.0, 1.0])
    exact = (along @ axes[:3]).astype(np.float32)
    shown = principal_components(a_page(n=500, exact=exact))
    np.testing.assert_allclose(shown.shares, along.var(axis=0) / along.var(axis=0).sum(), atol=0.02)
    assert shown.shares.sum() == pytest.approx(1)
    alike = principal_components(a_page(n=5, exact=np.ones((5, 4), np.float32)))
    assert (alike.colours == 0.5).all()
    assert (alike.shares == 0).all()
