"""napari's own File > Open: the window goes on while a slide is being opened; scripts get their layer at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_cycles import write_slide

from napari_slnpredict.plugin.controller import controller_for

pytestmark = pytest.mark.usefixtures("no_model")

PLUGIN = "napari-slnpredict"


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    return write_slide(tmp_path / "one.svs")


def in_an_event(act: Callable[[], Any], wait: Any) -> list[Any]:
    """Do something as a menu entry does: inside an event of the window."""
    from qtpy.QtCore import QTimer

    done: list[Any] = []
    QTimer.singleShot(0, lambda: done.append(act()))
    wait(lambda: done)
    return done


def test_the_window_does_not_wait_for_file_open(make_viewer: Any, wait: Any, slide: Path, monkeypatch: Any) -> None:
    """File > Open on a slow share would freeze napari until the slide is there."""
    from napari_slnpredict.slide import slide as module

    real = module.open_slide

    def slow(*arguments: Any, **options: Any) -> Any:
        time.sleep(1.0)
        return real(*arguments, **options)

    monkeypatch.setattr(module, "open_slide", slow)
    viewer = make_viewer()
    controller = controller_for(viewer)
    (layers,) = in_an_event(lambda: viewer.open(str(slide), plugin=PLUGIN), wait)
    assert layers == []
    wait(lambda: controller.slides.opening == slide)
    assert len(viewer.layers) == 0
    wait(lambda: controller.slides.current is not None)
    assert viewer.layers[0].name == "slide"


def test_several_files_of_one_open_wait_in_the_list(make_viewer: Any, wait: Any, slide: Path, tmp_path: Path) -> None:
    """Each slide would throw out the one before, and the window would flicker through all of them."""
    other = write_slide(tmp_path / "two.svs")
    viewer = make_viewer()
    controller = controller_for(viewer)
    in_an_event(lambda: viewer.open([str(slide), str(other)], plugin=PLUGIN), wait)
    wait(lambda: controller.slides.current is not None)
    assert controller.slides.current.slide.path == slide
    assert controller.slides.choices == [slide, other]
    assert [layer.name for layer in viewer.layers] == ["slide"]


def test_an_error_is_told_in_the_dock(make_viewer: Any, wait: Any, tmp_path: Path) -> None:
    """A damaged file would be opened in silence: nothing, and no reason."""
    (tmp_path / "bad.svs").write_bytes(b"no slide")
    viewer = make_viewer()
    controller = controller_for(viewer)
    in_an_event(lambda: viewer.open(str(tmp_path / "bad.svs"), plugin=PLUGIN), wait)
    wait(lambda: controller.problem is not None)
    assert "bad.svs" in controller.problem.text
    assert any("SLN Predict" in name for name in viewer.window.dock_widgets)


def test_a_script_gets_its_layer(make_viewer: Any, slide: Path) -> None:
    """viewer.open in a notebook would return nothing."""
    viewer = make_viewer()
    (layer,) = viewer.open(str(slide), plugin=PLUGIN)
    assert layer.multiscale
    assert controller_for(viewer).slides.current.layer is layer
