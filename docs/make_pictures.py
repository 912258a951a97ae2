"""Make the pictures of the viewer: every state a user meets, at two screen sizes, light and dark.

    xvfb-run -a -s "-screen 0 1920x1080x24" python docs/make_pictures.py [--slide SLIDE] [--model NAME|DIR] [--out DIR]

Without options the shipped sample slide and model are shown and the pictures go to docs/pictures.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("LIBGL_ALWAYS_SOFTWARE", "1")

SIZES = {"small": (1366, 768), "large": (1920, 1080)}
THEMES = ("light", "dark")
STATES = (
    "opened",
    "running",
    "attention",
    "evidence",
    "click",
    "measure",
    "stain-before",
    "stain",
    "classes",
    "train",
    "beside",
    "scores-asked",
    "scores",
    "similar",
    "similarity",
    "components",
    "mpp",
    "error",
)
#: Pictured at the smaller size and in light only: the repository keeps every version of every picture.
SMALL_ONLY = ("measure", "beside", "stain-before", "stain", "classes", "train", "similar", "similarity", "components")
#: Where to click on the shipped slide for similar tiles: share of its width and height.
ASKED = (0.495, 0.457)


class Studio:
    """One window that is led through the states.

    Parameters
    ----------
    slide, work : Path
        The slide to show; a folder for what is made on the way.
    model : str
    out : Path
    states : sequence of str
        Which pictures to make.
    classes : str
        An encoder that keeps tile classes; without one there is no picture of them.
    index : Path, optional
        For similar tiles; made of the slide and two phantoms when absent.
    asked : (float, float)
        Where to click for them: share of the slide's width and height.
    """

    def __init__(
        self,
        slide: Path,
        model: str,
        out: Path,
        work: Path,
        states: tuple[str, ...],
        classes: str = "",
        index: Path | None = None,
        asked: tuple[float, float] = ASKED,
    ) -> None:
        self.classes = classes
        self.index, self.asked = index, asked
        self.slide, self.model, self.out, self.work, self.states = slide, model, out, work, states
        self.viewer: Any = None
        self.controller: Any = None
        self.name = ""
        self.size = (0, 0)

    def session(self, size: str, theme: str, font_size: int) -> None:
        """Take all pictures of one size and theme."""
        import napari
        from napari.settings import get_settings

        from napari_slnpredict.plugin import launch
        from napari_slnpredict.plugin.controller import controller_for

        self.name, self.size = f"{size}-{theme}", SIZES[size]
        get_settings().appearance.theme = theme
        if font_size:
            get_settings().appearance.font_size = font_size
        self.viewer = napari.Viewer(show=True, show_welcome_screen=False)
        window = self.viewer.window._qt_window
        window.move(0, 0)
        window.resize(*self.size)
        launch.open_viewer([self.slide], model=self.model, viewer=self.viewer)
        self.controller = controller_for(self.viewer)
        self.wait(lambda: self.controller.slides.current is not None)
        self.wait(lambda: self.controller.runs.device is not None)
        self.pause(800)
        self.take("opened")
        if {"running", "attention", "evidence", "click"} & set(self.states):
            self.run_and_ask()
        if {"scores-asked", "scores"} & set(self.states):
            self.anyones_scores()
        if {"similar", "similarity", "components"} & set(self.states):
            self.similar_tiles()
        if "measure" in self.states:
            self.measured()
        if {"stain-before", "stain"} & set(self.states):
            self.another_stain()
        if "classes" in self.states and self.classes:
            self.tile_classes()
        if "train" in self.states and self.name == "small-light":
            self.training()
        if "beside" in self.states:
            self.two_views()
        if "mpp" in self.states:
            self.without_scale()
        if "error" in self.states:
            self.broken()
        self.viewer.close()
        self.pause(100)

    def run_and_ask(self) -> None:
        """Run, and click on the tile that counts most."""
        controller = self.controller
        self.wait(lambda: controller.runs._warming is None)
        controller.run()
        self.wait(lambda: self.share() > 0.35 or controller.answered is not None)
        self.take("running", pause=0)
        self.wait(lambda: controller.answered is not None)
        self.wait(lambda: bool(controller.asks.pictures) or controller.asks.strip is None)
        self.take("attention")
        evidence = [scale for scale in controller.scales() if scale.startswith("evidence")]
        if evidence:
            controller.maps.show_scale(evidence[-1])
            self.take("evidence")
            controller.maps.show_scale("share")
        controller.switch_click(True)
        controller.step_tile(1)
        controller.camera.magnify(8)
        self.wait(lambda: controller.asks.here is not None)
        self.pause(500)
        self.take("click")
        controller.switch_click(False)

    def anyones_scores(self) -> None:
        """Open a block map, which does not say how large its tiles are, and ask about its highest tile."""
        controller = self.controller
        controller.scores.open([block_map(self.slide, self.work)])
        self.wait(lambda: bool(controller.scores.questions))
        self.take("scores-asked")
        self.viewer.window.dock_widgets["SLN Predict (napari-slnpredict)"].score_question.use.click()
        self.wait(lambda: controller.scores.file is not None)
        controller.switch_click(True)
        controller.step_tile(1)
        controller.camera.fit()
        self.wait(lambda: controller.asks.here is not None)
        self.take("scores", pause=900)
        controller.switch_click(False)
        self.viewer.layers.remove(controller.scores.file.layer)

    def similar_tiles(self) -> None:
        """Click a tile, look at its like on other slides, paint the likeness and the components."""
        from napari_slnpredict.plugin import launch

        controller = self.controller
        controller.camera.fit()
        dock = launch.add_similar_dock(self.viewer)
        similar = dock.similar
        similar.source.open_index(self.index or made_index(self.slide, self.work))
        self.wait(lambda: similar.source.in_index)
        similar.source.choose_left_out("own slide")
        similar.switch_click(True)
        slide = controller.slides.current.slide
        x, y = (share * side * slide.mpp for share, side in zip(self.asked, slide.dimensions, strict=True))
        similar.ask_at(x, y)
        self.wait(lambda: not similar.running)
        controller.camera.magnify(5)
        controller.camera.go_to(x / slide.mpp, y / slide.mpp)
        self.take("similar", pause=900)
        controller.camera.fit()
        similar.show_similarity(True)
        self.wait(lambda: not similar.running)
        self.take("similarity", pause=900)
        similar.show_components(True)
        self.wait(lambda: not similar.running)
        self.take("components", pause=900)
        similar.show_components(False)
        similar.clear()
        similar.switch_click(False)
        self.viewer.window.remove_dock_widget(dock)
        self.pause(200)

    def measured(self) -> None:
        """Draw two lines across the tissue."""
        import numpy as np

        controller = self.controller
        controller.camera.magnify(5)
        controller.measure.switch(True)
        middle = np.asarray(self.viewer.scene.camera.center[-2:])
        for begin, end in (((-300, -420), (-180, 260)), ((150, -200), (330, -160))):
            controller.measure.layer.add_lines(np.asarray([begin, end], float) + middle)
        self.take("measure")
        self.viewer.layers.remove(controller.measure.layer)
        self.viewer.layers.selection.active = self.viewer.layers["slide"]

    def another_stain(self) -> None:
        """Show the same place as it was scanned and in the reference's stain."""
        from napari_slnpredict.plugin.stain_jobs import Target

        controller = self.controller
        controller.camera.magnify(5)
        self.take("stain-before", pause=900)
        controller.stain.choose(Target())
        self.wait(lambda: not controller.stain.running)
        self.take("stain", pause=1200)
        controller.stain.choose(None)
        controller.camera.fit()

    def tile_classes(self) -> None:
        """Run a classifier of tiles and ask about one of them."""
        controller = self.controller
        controller.runs.choose_folder(Path(self.classes))
        self.wait(lambda: controller.runs.model == self.classes)
        self.wait(lambda: controller.runs._warming is None)
        controller.run()
        self.wait(lambda: controller.answered is not None)
        controller.switch_click(True)
        controller.step_tile(1)
        controller.camera.fit()
        self.wait(lambda: controller.asks.here is not None)
        self.take("classes", pause=900)
        controller.switch_click(False)
        controller.runs.choose_model(self.model)

    def training(self) -> None:
        """Train an encoder on the slide for some steps."""
        from napari_slnpredict.plugin.pretrain_dock import PretrainDock

        os.environ["SLNPREDICT_MODELS"] = str(self.work / "models")
        dock = PretrainDock(self.viewer)
        shown = self.viewer.window.add_dock_widget(dock, name="Train encoder", area="right", tabify=True)
        shown.raise_()
        dock.tiles.choose(str(self.slide))
        for name, value in (("steps", 30), ("batch", 8), ("probe_every", 5)):
            dock.method.form.set_value(name, value)
        dock.run.button.click()
        self.wait(lambda: len(dock.trainings.curve) > 0 and dock.trainings.curve[-1].number > 22)
        self.take("train", pause=0)
        dock.run.button.click()
        self.wait(lambda: not dock.trainings.running)
        self.viewer.window.remove_dock_widget(dock)

    def two_views(self) -> None:
        """Show the slide a second time, and point at something."""
        from qtpy.QtCore import QPoint
        from qtpy.QtTest import QTest

        beside = self.controller.beside
        self.controller.camera.magnify(5)
        beside.open()
        self.wait(lambda: beside.controller.slides.current is not None and beside.linked)
        native = self.viewer.window._qt_viewer.canvas.native
        for step in (0, 3):
            QTest.mouseMove(native, QPoint(native.width() // 3 + step, native.height() // 3))
            self.pause(100)
        self.take("beside")
        beside.close()
        self.controller.camera.fit()

    def without_scale(self) -> None:
        """Open a file that does not say how large its pixels are."""
        self.controller.open(plain_tiff(self.slide, self.work))
        self.wait(lambda: self.controller.slides.opening is None)
        self.pause(500)
        self.take("mpp")

    def broken(self) -> None:
        """Open a file that ends early."""
        raw = self.slide.read_bytes()
        cut = self.work / f"{self.slide.stem}-cut{self.slide.suffix}"
        cut.write_bytes(raw[: int(len(raw) * 0.6)])
        self.controller.open(self.slide)
        self.wait(lambda: self.controller.slides.opening is None)
        self.controller.open(cut)
        self.wait(lambda: self.controller.problem is not None)
        self.take("error")

    def share(self) -> float:
        """How much of the run is done."""
        progress = self.controller.runs.progress
        return progress.done / progress.total if progress is not None and progress.total else 0.0

    def take(self, state: str, pause: int = 400) -> None:
        """Grab the screen."""
        from qtpy.QtWidgets import QApplication

        if state not in self.states or (state in SMALL_ONLY and self.name != "small-light"):
            return
        self.pause(pause or 1)
        if pause:  # of a run under way the moment counts
            self.wait(self.sharp)
            self.pause(100)
        screen = QApplication.primaryScreen().grabWindow(0)
        self.out.mkdir(parents=True, exist_ok=True)
        # JPEG: a screen full of tissue is four times as large as PNG, and the repository keeps every version.
        screen.copy(0, 0, *self.size).save(str(self.out / f"{self.name}-{state}.jpg"), "JPG", 88)

    def sharp(self) -> bool:
        """Whether all that is shown of slides has come in."""
        beside = self.controller.beside
        viewers = [self.viewer] if beside.panel is None else [self.viewer, beside.panel.viewer]
        layers = [layer for viewer in viewers for layer in viewer.layers if layer.visible and layer.name[:5] == "slide"]
        return all(layer.data[0]._pyramid.idle for layer in layers)

    def wait(self, condition: Callable[[], bool], seconds: float = 300.0) -> None:
        """Run the event loop until a condition holds."""
        import time

        from qtpy.QtTest import QTest

        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"{self.name}: waited {seconds:.0f} s in vain; {self.controller.problem}")
            QTest.qWait(10)

    def pause(self, ms: int) -> None:
        """Let the window paint."""
        from qtpy.QtTest import QTest

        QTest.qWait(ms)


def block_map(slide: Path, work: Path) -> Path:
    """Write a block map as CLAM does: how dark and violet each tile is stands for its attention."""
    import h5py
    import numpy as np

    from napari_slnpredict.slide.slide import open_slide

    path, side = work / f"{slide.stem}_blockmap.h5", 128
    with open_slide(slide) as opened:
        width, height = opened.dimensions
        pixels = opened.read_region((0, 0), 0, (width // side * side, height // side * side)).astype(float)
    rows, columns = pixels.shape[0] // side, pixels.shape[1] // side
    mean = pixels.reshape(rows, side, columns, side, 3).mean(axis=(1, 3))
    tissue = mean.mean(axis=2) < 225
    y, x = np.nonzero(tissue)
    scores = 6 * (mean[..., 2] - mean[..., 0])[tissue] / 255 - mean.mean(axis=2)[tissue] / 40
    with h5py.File(path, "w") as file:
        file["attention_scores"] = scores[:, None].astype(np.float32)
        file["coords"] = np.stack([x, y], axis=1) * side
    return path


def made_index(slide: Path, work: Path) -> Path:
    """Index the slide and two phantoms."""
    from napari_slnpredict.cli.app import main as slnpredict

    folder = work / "phantoms"
    if not (folder / "phantoms-index").exists():
        for arguments in (
            ["phantom", "--task", "sln", "--count", "2", "--seed", "7", "--out", str(folder)],
            ["index", str(slide), str(folder / "cohort.csv"), "--out", str(folder / "phantoms-index")],
        ):
            try:
                slnpredict(arguments)
            except SystemExit as left:
                if left.code:
                    raise
    return folder / "phantoms-index"


def plain_tiff(slide: Path, work: Path) -> Path:
    """Write the slide's middle as a tiled TIFF without a pixel size."""
    import tifffile

    from napari_slnpredict.slide.slide import open_slide

    path = work / f"{slide.stem}-without-scale.tif"
    if not path.exists():
        with open_slide(slide) as opened:
            width, height = opened.dimensions
            side = min(3072, width, height)
            pixels = opened.read_region(((width - side) // 2, (height - side) // 2), 0, (side, side))
        tifffile.imwrite(path, pixels, photometric="rgb", tile=(256, 256), compression="deflate", metadata=None)
    return path


def main() -> None:
    """Command line."""
    from napari_slnpredict.plugin.sample import sample_path

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slide", type=Path)
    parser.add_argument("--model", default="demo-sln")
    parser.add_argument("--classes", default="", help="folder of an encoder that keeps tile classes")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "pictures")
    parser.add_argument("--sizes", nargs="+", choices=tuple(SIZES), default=list(SIZES))
    parser.add_argument("--themes", nargs="+", choices=THEMES, default=list(THEMES))
    parser.add_argument("--states", nargs="+", choices=STATES, default=list(STATES))
    parser.add_argument("--index", type=Path, help="an index for the pictures of similar tiles")
    parser.add_argument("--asked", type=float, nargs=2, default=ASKED, help="where to click for them: shares of sides")
    parser.add_argument("--font-size", type=int, default=0, help="0: napari's own")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pictures-") as folder:
        work = Path(folder)
        # Nobody's own settings, models' features or window positions are seen or touched.
        os.environ["NAPARI_CONFIG"] = str(work / "napari.yaml")
        for size in chosen.sizes:
            for theme in chosen.themes:
                os.environ["SLNPREDICT_CACHE"] = str(work / f"{size}-{theme}")
                os.environ["SLNPREDICT_SETTINGS"] = str(work / f"{size}-{theme}" / "settings.json")
                studio = Studio(
                    chosen.slide or sample_path(), chosen.model, chosen.out, work, tuple(chosen.states), chosen.classes,
                    chosen.index, tuple(chosen.asked),
                )  # fmt: skip
                studio.session(size, theme, chosen.font_size)
    sys.stdout.write(f"{chosen.out}\n")


if __name__ == "__main__":
    main()
