"""napari's reader: looks at the name only; the heavy libraries come in when a slide is really opened.

Ordinary TIFF and DICOM files are not claimed: napari would ask about each of them, and a reader that refuses afterwards
is an error there. Such slides open from the dock or by ``slnpredict view``.

napari calls readers on the window's thread. From a script (``viewer.open(...)``) that is what one wants: the layer is
there when the call returns. From File > Open or a drop on the canvas the window would stand still (0.1 to 0.3 s for
slides of a few hundred MB in the file's cache, seconds from a share): then the slide opens in the background, as from
the dock, and napari is told that there is no layer yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SUFFIXES = (".svs", ".ndpi", ".scn", ".mrxs", ".bif", ".svslide", ".vms", ".vmu")

LayerTuple = tuple[Any, dict[str, Any], str]
#: What tells napari that a file was read and has no layers.
NO_LAYER: list[Any] = [(None,)]


def get_reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[LayerTuple]] | None:
    """Return the reader for slides, None for anything else. Imports nothing heavy, opens nothing."""
    paths = [path] if isinstance(path, str) else list(path)
    if paths and all(str(each).lower().endswith(SUFFIXES) for each in paths):
        return read_or_open
    return None


def read_or_open(path: str | Sequence[str]) -> list[Any]:
    """Open slides in the background where a user waits in front of a window, else read them at once."""
    from napari import current_viewer

    viewer = current_viewer()
    if viewer is None or not _in_event_loop():
        return list(read_slides(path))
    from .controller import controller_for
    from .launch import add_dock

    add_dock(viewer)  # it says what is being opened, and why it cannot
    controller = controller_for(viewer)
    for each in [path] if isinstance(path, str) else list(path):
        controller.open_soon(Path(each))
    return NO_LAYER


def _in_event_loop() -> bool:
    """Whether this call comes from an event of the window (File > Open, a drop) and not from a script's own line."""
    from qtpy.QtCore import QThread

    return int(QThread.currentThread().loopLevel()) > 0


def read_slides(path: str | Sequence[str]) -> list[LayerTuple]:
    """Open slides as multiscale image layers in um.

    The layers carry the open `Slide` in their metadata; the viewer's controller closes it when the layer goes.
    """
    from napari_slnpredict.slide.slide import open_slide

    from . import jobs
    from .layers import slide_layer
    from .preferences import viewer_options
    from .slides import OPENED_KEY

    found: list[LayerTuple] = []
    for each in [path] if isinstance(path, str) else list(path):
        slide = open_slide(Path(each))
        try:
            opened = jobs.opened(slide, viewer_options())
        except BaseException:
            slide.close()
            raise
        data, arguments = slide_layer(slide, list(opened.levels))
        arguments["metadata"][OPENED_KEY] = opened
        found.append((data, arguments, "image"))
    _meet_controller()
    return found


def _meet_controller() -> None:
    """Make sure that somebody closes these slides: the controller of the viewer that is asking."""
    from napari import current_viewer

    from .controller import controller_for

    viewer = current_viewer()
    if viewer is not None:
        controller_for(viewer)
