"""Windows in tests: strict about what is left behind (widgets, threads, open slides)."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("LIBGL_ALWAYS_SOFTWARE", "1")
os.environ.setdefault("NAPARI_STRICT_QT", "raise")
# Before napari is imported: it keeps its settings' place from then on, and the user's own are not ours to change.
_SETTINGS = tempfile.mkdtemp(prefix="napari-settings-")
atexit.register(shutil.rmtree, _SETTINGS, ignore_errors=True)
os.environ["NAPARI_CONFIG"] = str(Path(_SETTINGS) / "napari.yaml")

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # fakes.py


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in Path(item.path).parents:
            item.add_marker(pytest.mark.gui)


def open_files() -> set[str]:
    """Return the slide files this process holds open."""
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        return set()
    found = set()
    for link in list(folder.iterdir()):
        try:
            target = str(link.readlink())
        except OSError:
            continue
        if Path(target).suffix.lower() in (".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".dcm"):
            found.add(target)
    return found


@pytest.fixture(autouse=True, scope="session")
def spared() -> Iterator[Callable[[], None]]:
    """Yield what takes the libraries' own objects out of the garbage collector's sight, once they are loaded.

    Looking through a million objects of napari, vispy and torch again at every collection, several times a test, was a
    quarter of all the time. What a test makes is collected, and missed when it stays, as before.
    """
    import napari.qt  # noqa: F401

    loaded = [0]

    def spare() -> None:
        if len(sys.modules) > loaded[0] + 100:
            loaded[0] = len(sys.modules)
            gc.collect()
            gc.freeze()

    yield spare
    gc.unfreeze()


@pytest.fixture(autouse=True)
def nothing_left(spared: Callable[[], None]) -> Iterator[None]:
    """Each test ends with the threads and the open slide files it began with."""
    from napari_slnpredict.plugin.worker import running_threads

    spared()
    threads, files = set(running_threads()), open_files()
    python_threads = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 30  # a thread that imports torch on a busy machine takes its time
    while time.monotonic() < deadline and set(running_threads()) - threads:
        time.sleep(0.02)
    gc.collect()
    assert not set(running_threads()) - threads, "a job outlived its window"
    assert not open_files() - files, "a slide was left open"
    foreign = [
        thread.name
        for thread in set(threading.enumerate()) - python_threads
        if not thread.daemon and thread.is_alive() and not thread.name.startswith(("asyncio_", "ThreadPoolExecutor"))
    ]
    assert not foreign, f"new threads: {foreign}"


@pytest.fixture(autouse=True)
def no_traceback_in_slots(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An exception inside a Qt slot fails the test instead of ending the process."""
    caught: list[BaseException] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, value, trace: caught.append(value))
    yield
    assert not caught, caught


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody predicts: importing torch beside the window would only take its time."""
    from napari_slnpredict.plugin import runs

    def nothing(*arguments: Any) -> Any:
        yield from ()

    monkeypatch.setattr(runs, "ready_job", nothing)


@pytest.fixture
def own_napari_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Preferences of napari and of the plugin go to a folder of the test."""
    from napari import settings

    monkeypatch.setattr(settings, "_CFG_PATH", str(tmp_path / "napari.yaml"))


@pytest.fixture
def wait(qtbot: Any) -> Callable[..., None]:
    """Run the event loop until a condition holds; long enough for a machine with ten other things to do."""

    def until(condition: Callable[[], Any], seconds: float = 120.0) -> None:
        qtbot.waitUntil(lambda: bool(condition()), timeout=int(seconds * 1000))

    return until


@pytest.fixture
def make_viewer(make_napari_viewer: Any, own_napari_settings: None) -> Callable[..., Any]:
    """Make a viewer whose end is checked strictly."""

    def make(show: bool = True, size: tuple[int, int] = (1366, 768)) -> Any:
        viewer = make_napari_viewer(strict_qt="raise", show=show)
        viewer.window._qt_window.resize(*size)
        return viewer

    return make


@pytest.fixture
def fake_world(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A viewer whose slides, models, device and runs are stand-ins; returns them for tuning."""
    from types import SimpleNamespace

    from fakes import FakeRun, FakeSlide

    from napari_slnpredict.events import Partial, Stage
    from napari_slnpredict.plugin import jobs, model_jobs, runs, slides

    world = SimpleNamespace(run=FakeRun(), opened=[], mpp=0.5, fail_open=None, side=2048, make=None)

    def open_job(path: Path, mpp: float | None, options: Any) -> Any:
        yield Stage("open", f"Opening {path.name}")
        if world.fail_open is not None:
            raise world.fail_open
        slide = FakeSlide(path, side=world.side, mpp=mpp or world.mpp) if world.make is None else world.make(path, mpp)
        world.opened.append(slide)
        return jobs.opened(slide, options)

    def models_job(options: Any) -> Any:
        yield Stage("models", "Looking for models")
        return [
            model_jobs.ModelChoice(
                "demo-sln",
                "demo-sln (demonstration)",
                "---\nlicense: x\n---\n# Card",
                "Not for use.",
                terms="Licence of the model: BSD-3-Clause.",
            )
        ]

    def ready_job(model: str, options: Any, warm: Any) -> Any:
        yield Partial("device", SimpleNamespace(name="cpu", why="no CUDA device found"))

    monkeypatch.setattr(slides, "open_job", open_job)
    monkeypatch.setattr(runs, "models_job", models_job)
    monkeypatch.setattr(runs, "ready_job", ready_job)
    monkeypatch.setattr(runs, "predict_job", lambda *args: world.run(*args))
    monkeypatch.setattr(runs, "first_click_job", lambda *args: world.run.first_click(*args))
    return world


@pytest.fixture
def opened(make_viewer: Callable[..., Any], fake_world: Any, wait: Callable[..., None]) -> Any:
    """A viewer with the stand-in slide open: `.viewer`, `.controller`, `.dock`, `.world`."""
    from types import SimpleNamespace

    from napari_slnpredict.plugin import launch
    from napari_slnpredict.plugin.controller import controller_for

    viewer = make_viewer()
    launch.open_viewer(["fake.svs"], viewer=viewer)
    controller = controller_for(viewer)
    wait(lambda: controller.slides.current is not None or controller.problem is not None)
    assert controller.problem is None, f"{controller.problem.text}\n{controller.problem.details}"
    return SimpleNamespace(viewer=viewer, controller=controller, dock=launch.add_dock(viewer), world=fake_world)
