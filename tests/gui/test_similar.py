"""Similar tiles in the viewer: a click finds them, a press goes there, the maps lie where their tiles lie."""

from __future__ import annotations

import contextlib
import hashlib
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fakes import FakeEngine, FakeSlide, tissue_and_grid

import napari_slnpredict.retrieval as retrieval
from napari_slnpredict.encode.features import Bag
from napari_slnpredict.errors import DataError
from napari_slnpredict.events import Partial, Progress, Stage
from napari_slnpredict.plugin import launch, similar_ready, similar_source
from napari_slnpredict.retrieval import Described, Index, Laid, page_of
from napari_slnpredict.slide.grid import GridSpec, tile_at

MPP, DIM = 0.5, 8


def content_of(path: Path) -> str:
    return hashlib.sha256(path.stem.encode()).hexdigest()


def slide_of(path: Path, mpp: float | None = None) -> FakeSlide:
    return FakeSlide(path, mpp=mpp or MPP, content_id=content_of(path))


def features_of(slide: Any, grid: Any) -> np.ndarray:
    """Features that depend on a tile's row and column alone: the same place of each slide is most alike."""
    rows, columns = grid.cells.T / 8.0
    turns = np.stack([np.sin(rows), np.cos(rows), np.sin(columns), np.cos(columns)], axis=1)
    own = np.full((len(grid), DIM - 4), int(slide.content_id[:2], 16) / 2560)
    return np.concatenate([turns, own], axis=1).astype(np.float32)


class StandIns:
    """An encoder that describes stand-in slides; says what was asked of it."""

    def __init__(self) -> None:
        self.embedded: list[str] = []
        self.seconds, self.encoder = 0.0, "enc"
        self.alive = 0

    def describer(self, name: str) -> Any:
        spec = GridSpec(64, 1.0)
        return SimpleNamespace(
            encoder=SimpleNamespace(name=name), spec=spec, digest=f"digest of {name}", holds=f"8-d features of {name}",
            made_by=(f"digest of {name}", 64, 1.0), projection=None,
        )  # fmt: skip

    def prepared(self, name: str, tile: Any, settings: Any, wanted: Any, models: Any) -> Any:
        return similar_ready.Prepared(wanted, self.describer(name), FakeEngine())

    def lay_tiles(self, slide: Any, spec: Any, tissue: Any = None) -> Any:
        yield Stage("tissue", "Finding tissue")
        laid = Laid(*tissue_and_grid(slide))
        yield Partial("laid", laid)
        return laid

    def describe_slide(self, slide: Any, describer: Any, *, grid: Any, **options: Any) -> Any:
        yield Stage("embed", "Embedding tiles", len(grid), "tiles")
        self.alive += 1
        try:
            for done in range(0, len(grid), 16):
                time.sleep(self.seconds)
                yield Progress(done, len(grid))
            self.embedded.append(slide.slide_id)
            return self.described(slide, grid, describer)
        finally:
            self.alive -= 1

    def described(self, slide: Any, grid: Any, describer: Any) -> Described:
        bag = Bag(grid, features_of(slide, grid), describer.digest, describer.encoder.name, "float32")
        return Described(grid, page_of(bag, slide.content_id), bag.kept)

    def ask_place(self, slide: Any, describer: Any, laid: Any, engine: Any, x: float, y: float) -> Any:
        tile = tile_at(laid.grid, x, y)
        if tile is None:
            raise DataError("no tissue here", file=slide.path, do="choose a place on the tissue")
        page = self.described(slide, laid.grid, describer).page
        return retrieval.asking.asked_of(page, x, y)


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> StandIns:
    made = StandIns()
    monkeypatch.setattr(similar_ready, "_prepared", made.prepared)
    monkeypatch.setattr(similar_source, "encoders_job", lambda options: names_job(["enc", "other"]))
    for name in ("lay_tiles", "describe_slide", "ask_place"):
        monkeypatch.setattr(retrieval, name, getattr(made, name))
    monkeypatch.setattr("napari_slnpredict.slide.slide.open_slide", lambda path: contextlib.closing(slide_of(path)))
    return made


def names_job(value: Any) -> Any:
    yield Stage("encoders", "Looking for encoders")
    return value


@pytest.fixture
def similar(opened: Any, stand_ins: StandIns, wait: Any, tmp_path: Path) -> Any:
    """The viewer with a slide of three that are files (of nothing), and the dock."""
    world = opened.world
    world.make = slide_of
    for name in "abc":
        (tmp_path / f"{name}.svs").touch()
    opened.controller.open(tmp_path / "a.svs")
    wait(lambda: opened.controller.slides.opening is None and current(opened).slide_id == "a")
    dock = launch.add_similar_dock(opened.viewer)
    wait(lambda: dock.similar.source.encoder == "enc")
    return SimpleNamespace(**vars(opened), similar=dock.similar, panel=dock, folder=tmp_path)


def current(opened: Any) -> Any:
    return opened.controller.slides.current.slide


def make_index(folder: Path, slides: Path, names: str = "abc", encoder: str = "enc") -> Path:
    """An index of stand-in slides, as `slnpredict index` would write it."""
    index, made = Index(folder), StandIns()
    for name in names:
        slide = slide_of(slides / f"{name}.svs")
        page = made.described(slide, tissue_and_grid(slide)[1], made.describer(encoder)).page
        index.add(replace(page, slide_path=index.relative(slide.path), patient=f"p-{name}", label="tumour"))
    return folder


def click(similar: Any, wait: Any, x: float, y: float) -> None:
    """Click on a place, level-0 px, and wait for the end."""
    similar.similar.ask_at((x - 0.5) * MPP, (y - 0.5) * MPP)
    wait(lambda: not similar.similar.running)


def value_at(layer: Any, x: float, y: float) -> Any:
    world = (np.array([y, x]) - 0.5) * MPP
    row, column = np.rint((world - layer.translate) / layer.scale).astype(int)
    return layer.data[row, column]


def test_a_click_finds_tiles_and_a_press_opens_their_slide_there(similar: Any, wait: Any) -> None:
    """A tile that was found would lead to another place, another slide, or nowhere; there would be no way back."""
    source, found, panel = similar.similar.source, similar.similar, similar.panel
    source.open_index(make_index(similar.folder / "idx", similar.folder))
    wait(lambda: source.in_index)
    assert "3 slides" in panel.source.facts.said
    source.choose_left_out("own slide")
    found.switch_click(True)
    click(similar, wait, 1100, 900)
    assert found.problem is None, found.problem
    assert len(found.hits) == 20
    assert {hit.page.slide_id for hit in found.hits} == {"b", "c"}
    assert len(found.pictures) == 20
    shown = [card for card in panel.gallery.cards if card.isVisibleTo(panel)]
    assert len(shown) == 20
    assert shown[0].distance.text().startswith("0.0")
    (example,) = found.question.examples
    assert panel.like.buttons[0].isVisibleTo(panel)
    number = next(k for k, hit in enumerate(found.hits) if hit.page.slide_id == "c")
    hit = found.hits[number]
    assert hit.location == example.asked.corner, "the same place of another slide is the most alike"
    stood = similar.controller.camera.stand()
    panel.gallery.cards[number].button.click()
    wait(lambda: similar.controller.slides.opening is None and current(similar).slide_id == "c")
    view = similar.controller.camera.rectangle()
    np.testing.assert_allclose(view.centre, np.asarray(hit.location) + 64, atol=1)
    outline = similar.controller.asks.outline
    np.testing.assert_allclose(outline._tile, [(hit.location[0] - 0.5) * MPP, (hit.location[1] - 0.5) * MPP, 64.0])
    assert len(found.hits) == 20, "the gallery went with the slide"
    panel.work.back.click()
    wait(lambda: similar.controller.slides.opening is None and current(similar).slide_id == "a")
    back = similar.controller.camera.stand()
    assert (back.x, back.y) == pytest.approx((stood.x, stood.y))
    assert back.px_per_screen_px == pytest.approx(stood.px_per_screen_px)
    command = found.command()
    assert "search" in command
    assert "--other-slides" in command
    assert f"--at {example.asked.corner[0] + 64},{example.asked.corner[1] + 64}px" in command


def test_without_an_index_the_slide_is_embedded_and_the_maps_lie_on_its_tiles(
    similar: Any, wait: Any, stand_ins: StandIns
) -> None:
    """A map would be painted beside its tissue, in other values than the search's, or colours on glass."""
    found, panel = similar.similar, similar.panel
    click(similar, wait, 1100, 900)
    assert stand_ins.embedded == ["a"]
    assert {hit.page.slide_id for hit in found.hits} == {"a"}
    assert found.question.examples[0].asked.corner not in {hit.location for hit in found.hits}
    panel.maps.similarity.click()
    wait(lambda: not found.running and found.range is not None)
    layer = found.layers.layer("similarity")
    for hit in found.hits[:3]:
        x, y = hit.location
        assert value_at(layer, x + 2, y + 2) == pytest.approx(hit.cosine, abs=1e-6)
        assert value_at(layer, x + 126, y + 126) == pytest.approx(hit.cosine, abs=1e-6)
    assert value_at(layer, 1100, 900) == pytest.approx(1, abs=1e-6)
    assert np.isnan(value_at(layer, 60, 60)), "a score on glass"
    assert panel.maps.told.said.startswith("cosine ")
    assert tuple(layer.contrast_limits) == (found.range.low, found.range.high)
    panel.maps.components.click()
    wait(lambda: not found.running and found.shares is not None)
    colours = found.layers.layer("components")
    assert found.layers.layer("similarity") is None, "two maps over each other"
    assert not panel.maps.similarity.isChecked()
    assert value_at(colours, 60, 60)[3] == 0
    assert value_at(colours, 1100, 900)[3] == 255
    described = found._known.described
    expected = retrieval.principal_components(described.page)
    x, y = described.page.places[5]
    np.testing.assert_allclose(value_at(colours, x + 64, y + 64)[:3], np.rint(expected.colours[5] * 255))
    assert f"red {expected.shares[0]:.0%}" in panel.maps.told.said
    assert stand_ins.embedded == ["a"], "the slide was embedded once more"
    similar.viewer.layers.remove(colours)
    assert not panel.maps.components.isChecked()


def test_examples_are_added_and_taken_away(similar: Any, wait: Any) -> None:
    """A tile called unlike would be searched for."""
    found = similar.similar
    click(similar, wait, 1100, 900)
    first = [hit.location for hit in found.hits]
    found.choose_next("unlike")
    click(similar, wait, 1100, 1400)
    assert [example.like for example in found.question.examples] == [True, False]
    assert [hit.location for hit in found.hits] != first
    found.use_hit(0, like=True)
    wait(lambda: not found.running)
    assert [example.like for example in found.question.examples] == [True, False, True]
    assert similar.panel.unlike.buttons[0].isVisibleTo(similar.panel)
    similar.panel.unlike.buttons[0].click()
    wait(lambda: not found.running)
    assert [example.like for example in found.question.examples] == [True, True]
    found.choose_next("new")
    click(similar, wait, 60, 60)
    assert "no tissue here" in found.problem.text
    assert found.question.examples == ()


def test_another_encoder_s_index_is_refused_and_a_moved_slide_is_asked_for(similar: Any, wait: Any) -> None:
    """Distances of two encoders would be compared; a moved slide would be an error without a way out."""
    found, source, panel = similar.similar, similar.similar.source, similar.panel
    click(similar, wait, 1100, 900)
    source.open_index(make_index(similar.folder / "other", similar.folder, encoder="other"))
    wait(lambda: found.problem is not None)
    assert "8-d features of other" in found.problem.text
    assert "8-d features of enc" in found.problem.text
    assert panel.problem.isVisibleTo(panel)
    assert found.hits == []
    source.choose_encoder("other")
    wait(lambda: not found.running and found.hits)
    assert found.problem is None
    moved = similar.folder / "elsewhere"
    moved.mkdir()
    for name in "bc":
        (similar.folder / f"{name}.svs").rename(moved / f"{name}.svs")
    source.choose_left_out("own patient")
    wait(lambda: not found.running and found.missing)
    assert set(found.missing) == {content_of(Path("b.svs")), content_of(Path("c.svs"))}
    number = next(k for k, hit in enumerate(found.hits) if hit.page.slide_id == "b")
    found.go_to(number)
    assert panel.lost.isVisibleTo(panel)
    assert "The slide b is not in" in panel.lost.text.said
    found.journey.use_file(moved / "c.svs")
    wait(lambda: similar.controller.slides.opening is None and current(similar).slide_id == "c")
    assert "c.svs is another slide than b" in panel.lost.text.said
    found.journey.use_file(moved / "b.svs")
    wait(lambda: similar.controller.slides.opening is None and current(similar).slide_id == "b")
    assert not panel.lost.isVisibleTo(panel)
    view = similar.controller.camera.rectangle()
    np.testing.assert_allclose(view.centre, np.asarray(found.hits[number].location) + 64, atol=1)
    wait(lambda: not found.running)
    assert len(found.pictures) == len(found.hits), "pictures of the slides that were found again"


def test_cancel_and_a_closed_window_end_everything(similar: Any, wait: Any, stand_ins: StandIns) -> None:
    """A window closed while a slide is embedded would leave its thread and its file behind."""
    found, panel = similar.similar, similar.panel
    stand_ins.seconds = 0.3
    found.ask_at(1100 * MPP, 900 * MPP)
    wait(lambda: panel.work.cancel.isVisibleTo(panel) and found.progress is not None)
    assert "Embedding tiles" in panel.work.line.said
    panel.work.cancel.click()
    wait(lambda: not found.running)
    assert found.line.startswith("Stopped")
    assert stand_ins.alive == 0
    found.ask_at(1100 * MPP, 900 * MPP)
    wait(lambda: stand_ins.alive == 1)
    similar.viewer.close()
    deadline = time.monotonic() + 3
    while stand_ins.alive and time.monotonic() < deadline:
        time.sleep(0.02)
    assert stand_ins.alive == 0
