"""A classifier of tiles in the window: the class map, its legend, the answer and what a click tells."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fakes import fake_answer, fake_so_far, tissue_and_grid

from napari_slnpredict.events import Partial, Stage
from napari_slnpredict.plugin.jobs import Answered
from napari_slnpredict.plugin.maps import CLASSES
from napari_slnpredict.tile_classes import TileClasses

NAMES = ("normal", "tumour", "fat")


def looks_of(grid: Any) -> TileClasses:
    """The left of the slide is normal, the right tumour, nothing is fat; the middle is hardly told apart."""
    column = grid.cells[:, 1] / grid.shape[1]
    tumour = np.clip(column, 0.02, 0.98) - 0.01
    p = np.stack([0.99 - tumour, tumour, np.full(len(grid), 0.01)], axis=1).astype(np.float32)
    return TileClasses(grid, NAMES, p, "tiny-tiles", "d" * 64)


class ClassRun:
    """A run of a classifier of tiles; with a slide model beside it when `judged`."""

    def __init__(self, judged: bool = False) -> None:
        self.judged = judged

    def __call__(self, slide: Any, *_: Any) -> Any:
        yield Stage("tissue", "Finding tissue")
        tissue, grid = tissue_and_grid(slide)
        looks = looks_of(grid)
        yield Partial("grid", grid)
        yield Partial("so_far", fake_so_far(slide, grid, tissue))
        half = looks.probabilities.copy()
        half[len(grid) // 2 :] = np.nan
        if not self.judged:
            yield Partial("classes", TileClasses(grid, NAMES, half, "tiny-tiles", "d" * 64))
        answered = fake_answer(slide, grid)
        prediction = SimpleNamespace(**vars(answered.prediction))
        prediction.tile_classes = looks
        if not self.judged:
            prediction.verdict, prediction.answer = None, looks.sentence()
            prediction.bundle = SimpleNamespace(**vars(prediction.bundle))
            prediction.bundle.classes, prediction.bundle.task = NAMES, {"classes": NAMES}
        return Answered(prediction, SimpleNamespace(closed_form=True))  # type: ignore[arg-type]

    def first_click(self, *_: Any) -> Any:
        raise AssertionError


@pytest.fixture
def run(opened: Any, wait: Any) -> Any:
    """Run a classifier, or a slide model with one, to its end."""

    def start(judged: bool) -> Any:
        opened.world.run = ClassRun(judged)
        opened.controller.run()
        wait(lambda: opened.controller.answered is not None)
        wait(lambda: not opened.dock.map._soon.isActive())
        return opened

    return start


def test_a_class_map_with_legend_and_shares(run: Any, wait: Any) -> None:
    """The map would be numbers without names, or attention nobody asked for."""
    opened = run(judged=False)
    dock, viewer, maps = opened.dock, opened.viewer, opened.controller.maps
    layer = maps.layer(CLASSES)
    looks = opened.controller.answered.prediction.tile_classes
    cells = looks.grid.cells
    assert np.array_equal(layer.data[cells[:, 0], cells[:, 1]], looks.best + 1)
    assert "attention" not in [each.name for each in viewer.layers]
    assert layer.features["class"].tolist() == ["", *NAMES]
    told = [(name.said, share.text()) for _, name, share in dock.map.legend._rows]
    assert [name for name, _ in told] == [name for name, _, _ in looks.ranked()]
    assert "%" in told[0][1]
    assert "mm²" in told[0][1]
    assert dock.answer.sentence.said == looks.sentence()
    assert "no interval" in dock.answer.counted.said
    assert not dock.answer.bar.isVisible()
    assert not dock.map.colours.isVisible()
    dock.map.threshold.setValue(120)
    shown = looks.belief >= maps.state.threshold
    assert 0 < shown.sum() < len(shown)
    assert np.array_equal(layer.data[cells[:, 0], cells[:, 1]] > 0, shown)
    wait(lambda: "≥" in dock.map.area.said)
    opened.controller.show_overlays(False)
    assert not layer.visible
    opened.controller.show_overlays(True)
    assert layer.visible


def test_a_click_tells_the_probabilities(run: Any, wait: Any) -> None:
    """Nobody could ask how sure a tile's colour is."""
    opened = run(judged=False)
    looks = opened.controller.answered.prediction.tile_classes
    opened.controller.jump_to(5)
    wait(lambda: getattr(opened.controller.asks.here, "classes", None) is not None)
    name = looks.classes[looks.best[5]]
    said = opened.dock.here.lines.said.split("\n")
    assert said[:2] == ["looks like", f"{name} {looks.belief[5]:.2f}"]
    assert "attention" not in opened.dock.here.lines.said


def test_beside_a_slide_models_answer(run: Any, wait: Any) -> None:
    """The classes of the model's own encoder would be lost, or take the place of its answer."""
    opened = run(judged=True)
    controller, maps = opened.controller, opened.controller.maps
    assert controller.scales()[0] == "share"
    assert controller.scales()[-1] == "classes"
    assert maps.layer("attention").visible
    assert "Tile by tile" in opened.dock.answer.looks.said
    index = opened.dock.map.scale.findText("tile classes")
    opened.dock.map.scale.setCurrentIndex(index)
    opened.dock.map.scale.activated.emit(index)
    assert maps.layer(CLASSES).visible
    assert not maps.layer("attention").visible
    opened.controller.jump_to(5)
    wait(lambda: getattr(opened.controller.asks.here, "classes", None) is not None)
    assert "× mean attention" in opened.dock.here.lines.said
    maps.show_scale("share")
    assert (maps.layer("attention").visible, maps.layer(CLASSES).visible) == (True, False)
