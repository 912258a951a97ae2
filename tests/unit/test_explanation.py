"""One place of a slide, explained while there is no verdict, or where the verdict leaves it out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tell_fakes import DIM, install, make_bundle, predicted, write_slide

from napari_slnpredict.encode.place import embed_place
from napari_slnpredict.errors import DataError
from napari_slnpredict.events import Partial, run
from napari_slnpredict.explanation import NO_TISSUE, SoFar, answer_so_far
from napari_slnpredict.mil.head import load_head
from napari_slnpredict.pipeline import lay_out
from napari_slnpredict.slide.grid import cell_at, tile_at, tissue_in
from napari_slnpredict.slide.slide import Slide, open_slide
from napari_slnpredict.slide.tissue import tissue_from_mask


class StandInEngine:
    """Mean colours as features; counts its calls and whether each thread was entered and released."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.broken = False

    def enter_thread(self) -> None:
        self.log.append("enter")

    def release(self) -> None:
        self.log.append("release")

    def __call__(self, tiles: NDArray[np.uint8], *, fill: bool = True) -> NDArray[np.float32]:
        self.log.append(f"{len(tiles)} tile, fill={fill}")
        features = np.zeros((len(tiles), DIM), np.float32)
        features[:, :3] = tiles.mean(axis=(1, 2)) / 255
        return features * np.nan if self.broken else features


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A slide with its tiles laid and none looked at: slide, so_far, engine."""
    install(monkeypatch)
    head = load_head(make_bundle(tmp_path / "tiny-sln"))
    with open_slide(write_slide(tmp_path / "one.svs")) as slide:
        yield slide, run(lay_out(slide, head)), StandInEngine()


def middle(so_far: SoFar, tile: int) -> tuple[float, float]:
    x, y = (so_far.grid.locations[tile] + so_far.grid.size_level0 / 2) * so_far.grid.slide_mpp
    return float(x), float(y)


def rim(so_far: SoFar) -> tuple[float, float]:
    """The middle of a lattice cell with some tissue, too little for a tile."""
    grid = so_far.grid
    for row in range(grid.shape[0]):
        for column in range(grid.shape[1]):
            x, y = (np.array([column, row]) + 0.5) * grid.stride_level0
            corner = cell_at(grid, x, y)
            if corner is not None and tile_at(grid, x, y) is None and tissue_in(so_far.tissue, grid, corner) > 0.01:
                return float(x * grid.slide_mpp), float(y * grid.slide_mpp)
    raise AssertionError("the test's slide has no such cell")


def test_the_first_tile_is_told_without_a_share(opened: Any) -> None:
    """A lone tile would be judged as if it were the slide."""
    slide, so_far, engine = opened
    answer = answer_so_far(slide, so_far, engine, middle(so_far, 5))
    assert (answer.tile, answer.location) == (5, tuple(so_far.grid.locations[5]))
    assert answer.picture is not None
    assert answer.picture.shape == (64, 64, 3)
    assert answer.tissue == pytest.approx(float(so_far.grid.tissue[5]))
    assert (answer.share, answer.evidence, answer.probabilities_without, answer.delta) == (None, None, None, None)
    assert (answer.tiles_so_far, answer.reason) == (1, "")
    assert engine.log == ["enter", "1 tile, fill=False", "release"]


def test_tiles_are_set_beside_those_seen(opened: Any) -> None:
    """A share would be relative to tiles nobody has looked at."""
    slide, so_far, engine = opened
    for number, tile in enumerate((5, 9, 2), 1):
        answer = answer_so_far(slide, so_far, engine, middle(so_far, tile))
        assert answer.tiles_so_far == number
    assert answer.share is not None
    share = so_far.running.share()
    assert answer.share == pytest.approx(share[2], rel=1e-5)
    assert np.isfinite(share).sum() == 3
    assert answer.evidence is not None
    assert answer.evidence.shape == (2,)
    again = answer_so_far(slide, so_far, engine, middle(so_far, 2))
    assert (again.tiles_so_far, again.share) == (3, answer.share)


def test_after_the_run_a_place_is_told_as_by_the_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a click says during a run would jump when the run ends, though nothing has changed."""
    for found in predicted(tmp_path, monkeypatch):
        so_far = next(e.data for e in found.events if isinstance(e, Partial) and e.kind == "so_far")
        verdict, bag = found.prediction.verdict, found.prediction.bag
        assert verdict is not None
        assert bag is not None
        assert so_far.running.tiles_seen == len(found.prediction.grid)
        said = so_far.running.explain(bag.features[7], 7)
        share = verdict.share()
        assert share is not None
        assert said.share == pytest.approx(share[7], rel=1e-4)


def test_glass_is_not_embedded(opened: Any) -> None:
    """Glass scored as if it were tissue (slideflow#405)."""
    slide, so_far, engine = opened
    for place in ((3.0, 3.0), (-50.0, 10.0), (1e6, 1e6)):
        assert so_far.corner_at(place) is None
        answer = answer_so_far(slide, so_far, engine, place)
        assert (answer.tile, answer.location, answer.reason) == (None, None, NO_TISSUE)
    assert engine.log == []


def test_too_little_tissue_is_told_as_such(opened: Any) -> None:
    """The rim of the tissue would be called glass, or counted as a tile of the slide."""
    slide, so_far, engine = opened
    for tile in (3, 4):
        answer_so_far(slide, so_far, engine, middle(so_far, tile))
    answer = answer_so_far(slide, so_far, engine, rim(so_far))
    assert answer.tile is None
    assert answer.location is not None
    assert answer.picture is not None
    assert answer.share is not None
    assert answer.tiles_so_far == 3
    assert "the model takes tiles from 25%" in answer.reason
    assert so_far.running.tiles_seen == 2, "a tile that is no part of the slide's answer must not be painted"


def test_tissue_taken_out_by_hand_is_told_as_such(opened: Any) -> None:
    """What a user has taken out would be called glass; glass beside it would be embedded."""
    slide, so_far, engine = opened
    place = middle(so_far, 5)
    mask = so_far.tissue.mask.copy()
    mask[:, : mask.shape[1] // 2] = False
    edited = run(lay_out(slide, so_far.head, tissue=tissue_from_mask(mask, so_far.tissue.mpp)))
    left = so_far.grid.locations[:, 0] < slide.dimensions[0] // 4
    place = middle(so_far, int(np.flatnonzero(left)[len(np.flatnonzero(left)) // 2]))
    answer = answer_so_far(slide, edited, engine, place)
    assert answer.tile is None
    assert "as it was drawn" in answer.reason
    assert answer.picture is not None
    calls = len(engine.log)
    assert answer_so_far(slide, edited, engine, (3.0, 3.0)).reason == NO_TISSUE
    assert len(engine.log) == calls


def test_self_attention_says_why_there_is_no_share(tmp_path: Path, opened: Any) -> None:
    """A share among some of the tiles would be made up for a model that weighs all of them together."""
    slide, _, engine = opened
    head = load_head(make_bundle(tmp_path / "other", "self-attention"))
    so_far = run(lay_out(slide, head))
    for tile in (3, 4):
        answer = answer_so_far(slide, so_far, engine, middle(so_far, tile))
    assert (answer.share, answer.evidence, answer.tiles_so_far) == (None, None, 2)
    assert "when the run has ended" in answer.reason


def test_a_damaged_tile_reaches_no_model(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """White in place of what could not be read would be judged as tissue (promise R1)."""
    slide, so_far, engine = opened

    def torn(slide: Slide, grid: Any, locations: Any) -> Any:
        return np.full((1, 64, 64, 3), 255, np.uint8), np.array([True])

    monkeypatch.setattr("napari_slnpredict.encode.place.read_places", torn)
    answer = answer_so_far(slide, so_far, engine, middle(so_far, 5))
    assert (answer.tile, answer.picture, answer.reason) == (5, None, "this tile could not be read")
    assert engine.log == []
    assert so_far.running.tiles_seen == 0


def test_features_that_are_no_numbers_are_an_error(opened: Any) -> None:
    """NaN would become a share of nan, or hide the tile in silence; the thread would stay entered."""
    slide, so_far, engine = opened
    engine.broken = True
    with pytest.raises(DataError, match="not finite"):
        embed_place(slide, so_far.grid, engine, (0, 0))
    assert engine.log[-1] == "release"


def test_a_place_is_read_as_a_run_reads_it(opened: Any) -> None:
    """The tile shown and embedded on a click would differ from the one in the run."""
    from napari_slnpredict.slide.blocks import read_tile

    slide, so_far, engine = opened
    corner = so_far.corner_at(middle(so_far, 8))
    assert corner is not None
    place = embed_place(slide, so_far.grid, engine, corner)
    np.testing.assert_array_equal(place.pixels, read_tile(slide, so_far.grid, 8))
