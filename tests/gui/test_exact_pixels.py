"""What the window shows of a slide is what the file holds: kinds of file, levels, napari's async on and off."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from qtpy.QtWidgets import QApplication

from napari_slnpredict.plugin import launch
from napari_slnpredict.plugin.controller import controller_for
from napari_slnpredict.slide.loading import THREAD_PREFIX
from napari_slnpredict.slide.tiles import TileSource

pytestmark = pytest.mark.usefixtures("no_model")

WIDTH, HEIGHT = 3600, 3000
ABOUT = "Aperio Image Library v11\r\n{w}x{h} [0,0 {w}x{h}] (256x256) Q=90|AppMag = 20|MPP = 0.5"
#: Kind of file -> stored factors, compression.
KINDS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "jpeg": ((1, 4), {"compression": "jpeg"}),
    "jpeg2000": ((1, 4), {"compression": 33005}),
    "uncompressed": ((1, 4), {}),
    "single-level": ((1,), {"compression": "jpeg"}),
}


def picture(factor: int) -> NDArray[np.uint8]:
    """Return something smooth, coloured and different everywhere, (h, w, 3) uint8."""
    y, x = np.mgrid[0 : HEIGHT // factor, 0 : WIDTH // factor].astype(np.float32) * factor
    waves = np.sin(x / 170) * np.cos(y / 130), np.sin(x / 90 + y / 400), np.cos(x / 300) * np.sin(y / 70)
    return np.stack([170 + 70 * wave for wave in waves], axis=-1).astype(np.uint8)


def write(path: Path, factors: tuple[int, ...], options: dict[str, Any]) -> Path:
    """Write an Aperio-like slide."""
    import tifffile

    with tifffile.TiffWriter(path) as writer:
        for factor in factors:
            writer.write(
                picture(factor),
                tile=(256, 256),
                photometric="rgb",
                subfiletype=int(factor > 1),
                metadata=None,
                description=ABOUT.format(w=WIDTH, h=HEIGHT) if factor == 1 else None,
                **options,
            )
    return path


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a slide of a kind, written at first use."""
    folder = tmp_path_factory.mktemp("kinds")

    def slide(kind: str) -> Path:
        path = folder / f"{kind}.svs"
        return path if path.is_file() else write(path, *KINDS[kind])

    return slide


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def napari_async(request: pytest.FixtureRequest, own_napari_settings: None) -> Iterator[bool]:
    """napari's own switch, a choice of its user."""
    from napari.settings import get_settings

    experimental = get_settings().experimental
    before = experimental.async_
    experimental.async_ = request.param
    yield request.param
    experimental.async_ = before


def loading_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(THREAD_PREFIX)]


def show(make_viewer: Callable[..., Any], wait: Any, path: Path) -> Any:
    viewer = make_viewer()
    launch.open_viewer([path], viewer=viewer)
    controller = controller_for(viewer)
    wait(lambda: controller.slides.current is not None or controller.problem is not None, seconds=60)
    assert controller.problem is None, controller.problem
    shown, frames = controller.slides.current, [0]

    def drawn(event: Any) -> None:
        frames[0] += 1

    viewer.window._qt_viewer.canvas._scene_canvas.events.draw.connect(drawn, position="last")
    return SimpleNamespace(
        viewer=viewer, controller=controller, shown=shown, layer=shown.layer, slide=shown.slide, frames=frames
    )


def look(view: Any, x: float, y: float, zoom: float) -> None:
    """Put the camera on a level-0 pixel; `zoom` is canvas pixels per level-0 pixel."""
    scale, view.frames[0] = view.layer.scale[-1], 0
    view.viewer.scene.camera.zoom = zoom / scale
    view.viewer.scene.camera.center = (y * scale, x * scale)


def shows_the_file(view: Any) -> bool:
    """Whether napari holds, for the level and rectangle it chose, exactly what a direct read gives."""
    layer, pyramid = view.layer, view.shown.opened.pyramid
    if not (view.frames[0] and layer.loaded and pyramid.idle):
        return False
    (y, x), (y_last, x_last) = layer.corner_pixels[:, -2:]
    held = np.asarray(layer._data_view)
    wanted = direct(view.slide, pyramid.plan[layer.data_level], int(x), int(y), int(x_last) + 1, int(y_last) + 1)
    return held.shape == wanted.shape and bool(np.array_equal(held, wanted))


def direct(slide: Any, level: Any, x: int, y: int, x_end: int, y_end: int) -> NDArray[np.uint8]:
    """Read past the display: the stored level, halved as often as the shown one is."""
    times = 2**level.halvings
    pixels, _ = slide.read_level(level.stored, x * times, y * times, (x_end - x) * times, (y_end - y) * times)
    for _ in range(level.halvings):
        cells = pixels.reshape(pixels.shape[0] // 2, 2, pixels.shape[1] // 2, 2, 3).astype(np.uint16)
        pixels = ((cells.sum(axis=(1, 3)) + 2) // 4).astype(np.uint8)
    return np.asarray(pixels)


def canvas_is_exact(view: Any) -> bool:
    """Whether the drawn pixels, at one canvas pixel per level-0 pixel, are the file's."""
    if not view.shown.opened.pyramid.idle:
        return False
    drawn = view.viewer.screenshot(canvas_only=True, flash=False)[..., :3].astype(int)
    height, width = drawn.shape[:2]
    camera, layer = view.viewer.scene.camera, view.layer
    y = (camera.center[-2] - layer.translate[-2]) / layer.scale[-1] + np.arange(height) + 0.5 - height / 2
    x = (camera.center[-1] - layer.translate[-1]) / layer.scale[-1] + np.arange(width) + 0.5 - width / 2
    top, left = round(float(y[0])), round(float(x[0]))
    pixels, _ = view.slide.read_level(0, left, top, width, height)
    # The rim, the scale bar, the inset and the magnification lie over the picture.
    middle = np.s_[height // 3 : 2 * height // 3, width // 4 : 2 * width // 3]
    return bool((np.abs(drawn[middle] - pixels[middle]).max(axis=-1) <= 1).mean() > 0.999)


def walk(view: Any, wait: Any) -> set[int]:
    """Pan, zoom and jump; at every halt the picture must come true. Returns the levels met."""
    width, height = view.slide.dimensions
    met = set()
    for x, y, zoom in (
        (0.5, 0.5, 0.14),
        (0.5, 0.5, 0.3),
        (0.45, 0.5, 0.6),
        (0.4, 0.45, 1.0),
        (0.8, 0.7, 1.0),
        (0.2, 0.3, 0.45),
    ):
        for step in range(3):  # what is asked for on the way is overtaken
            look(view, width * x + 40 * step, height * y + 30 * step, zoom)
            QApplication.processEvents()
        look(view, width * x, height * y, zoom)
        wait(lambda: shows_the_file(view), seconds=20)
        met.add(int(view.layer.data_level))
    return met


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file(
    kind: str, napari_async: bool, made: Callable[[str], Path], make_viewer: Any, wait: Any
) -> None:
    """A pathologist would look at another picture than the file's: blurred for good, shifted, or of another place."""
    view = show(make_viewer, wait, made(kind))
    met = walk(view, wait)
    assert len(met) >= 2, f"only levels {met} were looked at"
    for half in (0.0, 0.5):  # in one of them the screen's pixels would lie just between the slide's
        look(view, 1600 + half, 1400 + half, 1.0)
        wait(lambda: canvas_is_exact(view), seconds=20)
    view.viewer.layers.remove(view.layer)
    wait(lambda: not loading_threads(), seconds=10)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["dicom-CMU-1-Small-Region", "CMU-1-Small-Region.svs"])
def test_real_files(name: str, napari_async: bool, shared: Path, make_viewer: Any, wait: Any) -> None:
    """DICOM and scanners' own files take other ways through the reader than files made by the test."""
    path = shared / "slides" / name
    if not path.exists():
        pytest.skip(f"{name} is not here")
    view = show(make_viewer, wait, path)
    assert walk(view, wait)
    look(view, view.slide.dimensions[0] // 2 + 0.3, view.slide.dimensions[1] // 2 + 0.3, 1.0)
    wait(lambda: canvas_is_exact(view), seconds=20)


def test_closing_while_tiles_load(made: Callable[[str], Path], make_viewer: Any, wait: Any) -> None:
    """Threads would read from a closed file, or keep it open."""
    view = show(make_viewer, wait, made("single-level"))
    slow = view.slide.tiles.source.tile
    view.slide.tiles.source.tile = lambda *place: (time.sleep(0.02), slow(*place))[1]
    keeper = view.shown.keeper
    look(view, 2500, 2100, 1.0)
    QApplication.processEvents()
    start = time.monotonic()
    view.viewer.layers.remove(view.layer)
    wait(lambda: keeper.closed and not loading_threads(), seconds=5)
    assert time.monotonic() - start < 2
    assert all((level[0:9, 0:9] == 255).all() for level in view.shown.opened.levels)


def test_a_drive_that_does_not_answer(
    made: Callable[[str], Path], make_viewer: Any, wait: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A share that went away would freeze the window, and nobody would say why tiles stay blurred."""
    from napari_slnpredict.slide import loading

    monkeypatch.setattr(loading, "PATIENCE", 0.2)
    monkeypatch.setattr(loading, "RETRY", 0.3)
    back = threading.Event()
    read = TileSource.tile

    def hang(self: TileSource, level: int, column: int, row: int) -> Any:
        loads = threading.current_thread().name.startswith(THREAD_PREFIX)  # the scan at opening reads it too
        if loads and (level, column, row) == (0, 8, 8):
            back.wait(20)
        return read(self, level, column, row)

    monkeypatch.setattr(TileSource, "tile", hang)
    view = show(make_viewer, wait, made("jpeg"))
    dock = launch.add_dock(view.viewer)
    start = time.monotonic()
    look(view, 8.5 * 256, 8.5 * 256, 1.0)
    QApplication.processEvents()
    assert time.monotonic() - start < 1
    wait(lambda: view.controller.slides.silent is not None, seconds=10)
    wait(lambda: "does not answer: jpeg.svs" in dock.problem.note.said)
    back.set()
    wait(lambda: shows_the_file(view), seconds=10)
    wait(lambda: not dock.problem.note.said)
