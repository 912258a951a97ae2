"""A real napari with its real plugin manager, in a process of its own: menu, reader, sample, preferences, the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ALL = """
import json, sys, threading, time
import napari
from qtpy.QtTest import QTest

def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        QTest.qWait(10)

told = {}
viewer = napari.Viewer(show=True)
viewer.window.add_plugin_dock_widget("napari-slnpredict", "SLN Predict")
viewer.window.add_plugin_dock_widget("napari-slnpredict", "SLN Predict")
from napari_slnpredict.plugin import launch
from napari_slnpredict.plugin.controller import controller_for, find_controller
told["docks"] = [name for name in viewer.window.dock_widgets if "SLN" in name]
launch.add_dock(viewer)
told["docks_after"] = [name for name in viewer.window.dock_widgets if "SLN" in name]
controller = find_controller(viewer)
viewer.open_sample("napari-slnpredict", "phantom_sln")
until(lambda: controller.slides.current is not None)
told["sample"] = controller.slides.current.slide.slide_id
told["layers"] = [layer.name for layer in viewer.layers]
keeper = controller.slides.current.keeper
viewer.layers.clear()
until(lambda: keeper.closed)
(layer,) = viewer.open(sys.argv[1], plugin="napari-slnpredict")
told["units"] = [str(unit) for unit in layer.units]
told["lazy"] = layer.multiscale
from napari.settings import get_plugin_settings
told["device"] = get_plugin_settings("napari-slnpredict").compute.device
get_plugin_settings("napari-slnpredict").compute.device = "cpu"
from napari_slnpredict.plugin.preferences import viewer_options
told["options"] = viewer_options()
keeper = controller.slides.current.keeper
viewer.close()
until(lambda: keeper.closed, 5)
QTest.qWait(50)
launch.wait_for_threads()
told["threads"] = [thread.name for thread in threading.enumerate() if thread.name.startswith("slnpredict")]
print("TOLD " + json.dumps(told))
"""

VIEW = """
import sys
from qtpy.QtCore import QTimer
from napari_slnpredict.plugin import launch
from napari_slnpredict.plugin.controller import find_controller
import napari
opened = launch.open_viewer

def watched(*args, **kwargs):
    viewer = opened(*args, **kwargs)
    timer = QTimer(viewer.window._qt_window)

    def look():
        controller = find_controller(viewer)
        if controller.slides.current is not None and controller.runs._warming is None:
            print("SHOWN", controller.slides.current.slide.slide_id, flush=True)
            timer.stop()
            viewer.close()
    timer.timeout.connect(look)
    timer.start(50)
    return viewer

launch.open_viewer = watched
from napari_slnpredict.cli.app import main
sys.argv = ["slnpredict", "view", sys.argv[1]]
main()
"""


@pytest.fixture
def sample() -> Path:
    from napari_slnpredict.plugin.sample import sample_path

    return sample_path()


def child(code: str, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "NAPARI_CONFIG": str(tmp_path / "settings.yaml"), "PYTHONWARNINGS": "default"}
    env.pop("PYTEST_CURRENT_TEST", None)
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=240, env=env, cwd=tmp_path
    )


def test_plugin_in_a_real_napari(tmp_path: Path, sample: Path) -> None:
    """The manifest would promise what napari cannot do with it."""
    done = child(ALL, tmp_path, str(sample))
    assert done.returncode == 0, done.stderr[-3000:]
    told: dict[str, Any] = json.loads(done.stdout.split("TOLD ")[1])
    assert told["docks"] == told["docks_after"] == ["SLN Predict (napari-slnpredict)"]
    assert told["sample"] == sample.stem
    assert told["layers"] == ["slide"]
    assert told["units"] == ["micrometer", "micrometer"]
    assert told["lazy"] is True
    assert told["device"] == "auto"
    assert told["options"] == {"device": "cpu"}
    assert told["threads"] == []
    assert "ResourceWarning" not in done.stderr


def test_view_command(tmp_path: Path, sample: Path) -> None:
    """`slnpredict view` would return at once, or not at all, or complain on the way out."""
    done = child(VIEW, tmp_path, str(sample))
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"SHOWN {sample.stem}" in done.stdout
    assert "Traceback" not in done.stderr
    assert "ResourceWarning" not in done.stderr
