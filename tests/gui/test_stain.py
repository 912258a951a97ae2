"""The slide in another one's stain: exact pixels, the toggle, and whatever may go away meanwhile."""

from __future__ import annotations

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
from napari_slnpredict.plugin.layers import SLIDE_KEY
from napari_slnpredict.plugin.stain_jobs import Target

SIDE, MPP = 2048, 0.5
DYES = {
    "one": ((0.65, 0.70, 0.29), (0.20, 0.93, 0.30)),
    "other": ((0.55, 0.77, 0.32), (0.12, 0.90, 0.42)),
    "brown": ((0.65, 0.70, 0.29), (0.27, 0.57, 0.78)),
}
ABOUT = "Aperio Image Library v11\r\n{w}x{w} [0,0 {w}x{w}] (256x256) Q=90|AppMag = 20|MPP = {mpp}"


def picture(dyes: Any, side: int, factor: int) -> NDArray[np.uint8]:
    """Return tissue of two dyes with glass around it, (h, w, 3) uint8."""
    dyes = np.asarray(dyes) / np.linalg.norm(dyes, axis=1, keepdims=True)
    y, x = np.mgrid[0:side:factor, 0:side:factor].astype(np.float32)
    nuclei = np.maximum(np.sin(x / 9) * np.sin(y / 7) - 0.4, 0) * 3
    fibres = np.maximum(np.sin(x / 31 + y / 17) + 0.3, 0.05)
    tissue = (x - side / 2) ** 2 + (y - side / 2) ** 2 < (0.4 * side) ** 2
    amounts = np.stack([nuclei, fibres], axis=-1) * tissue[..., None]
    return np.clip(240 * np.exp(-(amounts @ dyes)) - 1, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def slides(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Slides of three stains, and one of empty glass."""
    import tifffile

    folder, made = tmp_path_factory.mktemp("stains"), {}
    for name, dyes in (*DYES.items(), ("blank", None)):
        made[name] = folder / f"{name}.svs"
        with tifffile.TiffWriter(made[name]) as writer:
            for factor in (1, 4):
                blank = np.full((SIDE // factor, SIDE // factor, 3), 238, np.uint8)
                writer.write(
                    blank if dyes is None else picture(dyes, SIDE, factor),
                    tile=(256, 256),
                    photometric="rgb",
                    subfiletype=int(factor > 1),
                    metadata=None,
                    compression="zlib",
                    description=ABOUT.format(w=SIDE, mpp=MPP) if factor == 1 else None,
                )
    return made


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def napari_async(request: pytest.FixtureRequest, own_napari_settings: None) -> Iterator[bool]:
    """napari's own switch, a choice of its user."""
    from napari.settings import get_settings

    experimental = get_settings().experimental
    before = experimental.async_
    experimental.async_ = request.param
    yield request.param
    experimental.async_ = before


@pytest.fixture
def view(make_viewer: Any, wait: Any, slides: dict[str, Path]) -> Any:
    """A window with a slide open: `.viewer`, `.controller`, `.stain`, `.rows`, `.shown`."""
    viewer = make_viewer()
    launch.open_viewer([slides["one"]], viewer=viewer)
    controller = controller_for(viewer)
    wait(lambda: controller.slides.current is not None)
    rows = launch.add_dock(viewer).stain
    return SimpleNamespace(
        viewer=viewer, controller=controller, stain=controller.stain, rows=rows, shown=controller.slides.current
    )


def choose(view: Any, wait: Any, target: Target | None) -> None:
    view.stain.choose(target)
    wait(lambda: not view.stain.running, seconds=120)


def look(view: Any, x: float, y: float, zoom: float) -> None:
    """Put the camera on a level-0 pixel; `zoom` is canvas pixels per level-0 pixel."""
    view.viewer.scene.camera.zoom = zoom / MPP
    view.viewer.scene.camera.center = (y * MPP, x * MPP)
    QApplication.processEvents()


def is_exact(view: Any) -> bool:
    """Whether napari holds, of the stained layer, exactly what the painted direct read gives."""
    layer, stained = view.stain.layer, view.stain.stained
    if not (layer.loaded and stained.pyramid.idle):
        return False
    (y, x), (y_last, x_last) = layer.corner_pixels[:, -2:]
    plan = stained.pyramid.plan[layer.data_level]
    raw = view.shown.opened.pyramid.levels[layer.data_level].exact(int(y), int(y_last) + 1, int(x), int(x_last) + 1)
    if not plan.halvings:
        direct, _ = view.shown.slide.read_level(plan.stored, int(x), int(y), raw.shape[1], raw.shape[0])
        assert np.array_equal(raw, direct)
    return bool(np.array_equal(np.asarray(layer._data_view), stained.look.paint(raw)))


def test_exact_at_every_level_and_gone_without_a_trace(
    napari_async: bool, view: Any, wait: Any, slides: dict[str, Path]
) -> None:
    """The layer would show other colours than it says, of another place, or keep the slide's file open."""
    choose(view, wait, Target(slides["other"]))
    assert view.controller.problem is None, view.controller.problem
    layer, stained = view.stain.layer, view.stain.stained
    own, wanted = stained.look.paint.source, stained.look.paint.target
    assert max(own.angle_to(wanted)) > 3
    assert np.degrees(np.arccos(np.clip(own.array[1] @ (np.array(DYES["one"][1]) / 0.997), -1, 1))) < 12
    met = set()
    for x, y, zoom in ((1024, 1024, 0.3), (900, 1100, 1.0), (1300, 700, 0.6)):
        look(view, x, y, zoom)
        wait(lambda: is_exact(view), seconds=60)
        met.add(int(layer.data_level))
    assert len(met) >= 2
    assert list(view.viewer.layers)[:2] == [view.shown.layer, layer], "it lies right above the slide"
    assert layer.units[0].dimensionality == view.shown.layer.units[0].dimensionality
    keeper = view.shown.keeper
    view.viewer.layers.remove(view.shown.layer)
    assert layer not in view.viewer.layers
    wait(lambda: keeper.closed)


def test_the_toggle_and_what_lies_below(view: Any, wait: Any, slides: dict[str, Path]) -> None:
    """Both layers would be read and drawn at every step of the camera, or neither be seen."""
    choose(view, wait, Target())
    raw, layer = view.shown.layer, view.stain.layer
    assert (raw.visible, layer.visible) == (False, True)
    assert view.rows.seen.isChecked()
    view.rows.seen.setChecked(False)
    assert (raw.visible, layer.visible) == (True, False)
    layer.visible = True  # the eye in napari's list does the same
    assert (raw.visible, view.rows.seen.isChecked()) == (False, True)
    layer.opacity = 0.5
    assert raw.visible, "half clear, the slide shows through"
    layer.opacity = 1.0
    assert "computed" in view.rows.line.said
    view.rows.choice.activated.emit(0)
    assert layer not in view.viewer.layers
    assert raw.visible
    assert view.stain.target is None


def test_thrown_away_in_napari(napari_async: bool, view: Any, wait: Any) -> None:
    """Deleted in the layer list, nothing would be seen; and a window closed with it would end in an error."""
    choose(view, wait, Target())
    view.viewer.layers.remove(view.stain.layer)
    wait(lambda: view.shown.layer.visible)
    assert view.rows.choice.currentIndex() == 0
    choose(view, wait, Target())  # and the window closes


def test_another_target_another_method_the_same_layer_place(view: Any, wait: Any, slides: dict[str, Path]) -> None:
    """Choosing again would pile up layers, or find every stain anew."""
    choose(view, wait, Target(slides["other"]))
    first = view.stain.layer
    view.stain.choose_method("vahadane")
    wait(lambda: not view.stain.running)
    assert view.stain.stained.method == "vahadane"
    assert first not in view.viewer.layers
    assert len(view.viewer.layers) == 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("napari_slnpredict.slide.stain.slide_stain", None)  # what was found is kept
        view.stain.choose_method("macenko")
        wait(lambda: not view.stain.running)
    assert view.controller.problem is None
    assert view.stain.stained.method == "macenko"
    view.stain.choose_method("reinhard")
    wait(lambda: not view.stain.running)
    assert view.controller.problem is None
    wait(lambda: is_exact(view))
    choose(view, wait, Target())
    assert "pair of dyes" in view.controller.problem.text
    assert view.stain.stained.target == Target(slides["other"]), "what was shown stays"


@pytest.mark.parametrize(
    ("name", "words"),
    [("blank", "two stains"), ("brown", "brown"), ("gone", "gone.svs")],
)
def test_what_cannot_be_a_target(name: str, words: str, view: Any, wait: Any, slides: dict[str, Path]) -> None:
    """A guess would paint the slide; or the window would be silent about why it does not."""
    path = slides.get(name, slides["one"].with_name("gone.svs"))
    choose(view, wait, Target(path))
    assert view.controller.problem is not None
    assert words in view.controller.problem.text
    assert view.stain.layer is None
    assert view.shown.layer.visible
    assert view.rows.choice.currentIndex() == 0


def test_a_target_that_moves_away_later(view: Any, wait: Any, slides: dict[str, Path], tmp_path: Path) -> None:
    """The picture would break when the other slide's file goes, which it no longer needs."""
    moved = tmp_path / "moved.svs"
    moved.write_bytes(slides["other"].read_bytes())
    choose(view, wait, Target(moved))
    moved.unlink()
    look(view, 1000, 1000, 1.0)
    wait(lambda: is_exact(view), seconds=60)
    view.stain.choose_method("vahadane")
    wait(lambda: not view.stain.running)
    assert "moved.svs" in view.controller.problem.text
    assert view.stain.stained.method == view.stain.method == "macenko"
    wait(lambda: is_exact(view))


def test_cancel_and_close_in_the_middle(
    view: Any, wait: Callable[..., None], slides: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long look at a slow slide could not be stopped, or would outlive its slide."""
    from napari_slnpredict.slide.stain import of_slide

    read = of_slide._read

    def slowly(*args: Any) -> Any:
        import time

        for pixels in read(*args):
            for part in np.array_split(pixels, len(pixels)):
                time.sleep(0.1)
                yield part

    monkeypatch.setattr(of_slide, "_read", slowly)
    view.stain.choose(Target())
    wait(lambda: view.stain.progress is not None)
    assert view.rows.cancel.isVisible()
    assert view.rows.bar.isVisible()
    view.rows.cancel.click()
    wait(lambda: not view.stain.running)
    assert view.controller.problem is None
    assert (view.stain.layer, view.rows.choice.currentIndex()) == (None, 0)
    view.stain.choose(Target())
    wait(lambda: view.stain.progress is not None)
    keeper = view.shown.keeper
    view.viewer.layers.remove(view.shown.layer)
    assert not view.stain.running
    wait(lambda: keeper.closed, seconds=2)
    assert not [layer for layer in view.viewer.layers if SLIDE_KEY in layer.metadata]


def test_another_slide_ends_it(view: Any, wait: Any, slides: dict[str, Path]) -> None:
    """The next slide would lie under the stain of the last."""
    choose(view, wait, Target())
    layer = view.stain.layer
    view.controller.open(slides["other"])
    wait(lambda: view.controller.slides.current is not view.shown and view.controller.slides.opening is None)
    assert layer not in view.viewer.layers
    assert view.controller.slides.current.layer.visible
    assert view.rows.choice.findText("as one.svs") >= 0, "the slide shown before can be a target"
