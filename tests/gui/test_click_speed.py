"""How long an answer takes."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import numpy as np
from fakes import FakeSlide, fake_answer, fake_grid

from napari_slnpredict.plugin import launch
from napari_slnpredict.plugin.controller import controller_for


def test_click_at_twenty_thousand_tiles(make_viewer: Any, fake_world: Any, wait: Any) -> None:
    """A question would take longer than a glance (reason 1 of five)."""
    from napari_slnpredict.encode.features import Bag
    from napari_slnpredict.events import run
    from napari_slnpredict.mil.aggregators import build_aggregator
    from napari_slnpredict.mil.head import make_head
    from napari_slnpredict.mil.verdict import judge
    from napari_slnpredict.plugin.jobs import Answered

    viewer = make_viewer()
    launch.open_viewer(["fake.svs"], viewer=viewer)
    controller = controller_for(viewer)
    wait(lambda: controller.slides.current is not None)
    slide: FakeSlide = fake_world.opened[0]
    grid = fake_grid(slide, tiles=20_000)
    assert len(grid) >= 20_000
    features = np.random.default_rng(0).normal(size=(len(grid), 512)).astype(np.float32)
    head = make_head(build_aggregator("gated", {}, 512, 2), ("negative", "positive"))
    bag = Bag(grid, features, "d", "fake", "float32")
    verdict = run(judge(head, bag))
    template = fake_answer(slide, fake_grid(slide)).prediction
    facts = {**vars(template), "grid": grid, "bag": bag, "verdict": verdict}
    controller._answered(Answered(SimpleNamespace(**facts), head))
    spent = []
    for tile in (300, 9_000, 15_000, 70, 19_000):
        controller.asks.here = None
        start = time.perf_counter()
        x, y = (grid.locations[tile] + grid.size_level0 / 2 - 0.5) * grid.slide_mpp
        controller.ask_at(float(x), float(y))
        wait(lambda: controller.asks.here is not None)
        spent.append(time.perf_counter() - start)
        assert controller.asks.here.tile == tile
        assert controller.asks.here.probabilities_without is not None
    assert float(np.median(spent)) < 0.3, spent
