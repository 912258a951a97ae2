"""The viewer from the command line: window, slide, dock."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .worker import wait_for_threads

PLUGIN = "napari-slnpredict"
DOCK = "SLN Predict"


def open_viewer(
    paths: Sequence[Path | str] = (),
    model: str | None = None,
    show: bool = True,
    *,
    mpp: float | None = None,
    run: bool = False,
    viewer: Any = None,
    beside: bool = False,
    scores: Sequence[Path | str] = (),
    scores_size: float | None = None,
    scores_unit: str = "",
) -> Any:
    """Return a napari viewer with the dock open; the first slide opens in the background, the others wait in its list.

    Parameters
    ----------
    paths : sequence of path
        Slides.
    model : str, optional
        Name or folder of the model to choose.
    show : bool
        Whether the window is shown at once.
    mpp : float, optional
        um per level-0 px, for slides that do not say.
    run : bool
        Press Run as soon as the slide is open.
    viewer : napari.Viewer, optional
        A viewer that exists already.
    beside : bool
        Show the second slide beside the first, cameras linked; with one slide, that slide twice.
    scores : sequence of path
        Files of scores to show on the first slide.
    scores_size, scores_unit
        What those files do not say themselves (`foreign.scores.Answers`).
    """
    import napari

    from napari_slnpredict.foreign.scores import Answers

    from .controller import controller_for
    from .view import prepare_canvas

    if viewer is None:
        viewer = napari.Viewer(title=DOCK, show=show, show_welcome_screen=not paths)
    prepare_canvas(viewer)
    controller = controller_for(viewer)
    if model is not None:
        controller.runs.choose_model(model)
    add_dock(viewer)
    slides = [Path(path) for path in paths]
    controller.slides.choices.extend(path for path in slides if path not in controller.slides.choices)
    controller.run_when_open = run
    if slides:
        controller.open(slides[0], mpp)
        if beside:
            controller.beside.open(slides[min(1, len(slides) - 1)], mpp=mpp)
    if scores:
        controller.scores.open([Path(path) for path in scores], Answers(scores_size, scores_unit))
    return viewer


def add_dock(viewer: Any) -> Any:
    """Open the dock at the right, at its design width; returns the widget."""
    from qtpy.QtCore import Qt

    from .predict_dock import WIDTH, PredictDock

    name = f"{DOCK} ({PLUGIN})"  # napari's own key for a dock from the menu: a second one must not open
    there = viewer.window.dock_widgets.get(name)
    if there is not None:
        return there
    widget = PredictDock(viewer)
    dock = viewer.window.add_dock_widget(widget, name=name, area="right")
    dock.setWindowTitle(DOCK)
    dock.title.title.setText(DOCK)  # the key beside it is for napari, not for people
    window = viewer.window._qt_window
    window.resizeDocks([dock], [WIDTH], Qt.Orientation.Horizontal)
    return widget


def add_similar_dock(viewer: Any) -> Any:
    """Open the dock of similar tiles, behind the main one as a tab, and bring it to the front; returns the widget."""
    from .similar_dock import DOCK as SIMILAR
    from .similar_dock import SimilarDock

    name = f"{SIMILAR} ({PLUGIN})"
    window = viewer.window
    widget = window.dock_widgets.get(name)
    if widget is None:
        widget = SimilarDock(viewer)
        tabs = [f"{DOCK} ({PLUGIN})"] if f"{DOCK} ({PLUGIN})" in window.dock_widgets else []
        dock = window.add_dock_widget(widget, name=name, area="right", tabify=bool(tabs))
        dock.setWindowTitle(SIMILAR)
        dock.title.title.setText(SIMILAR)
    parent = widget.parentWidget()
    parent.show()
    parent.raise_()
    return widget


def view(
    paths: Sequence[Path | str] = (),
    model: str | None = None,
    *,
    mpp: float | None = None,
    run: bool = False,
    beside: bool = False,
    scores: Sequence[Path | str] = (),
    scores_size: float | None = None,
    scores_unit: str = "",
) -> None:
    """Open the viewer (`open_viewer`) and stay until its window is closed."""
    import napari

    open_viewer(
        paths, model, mpp=mpp, run=run, beside=beside,
        scores=scores, scores_size=scores_size, scores_unit=scores_unit,
    )  # fmt: skip
    napari.run()
    # What runs is told to stop and keeps what it has; the interpreter must not leave before it has.
    wait_for_threads()
