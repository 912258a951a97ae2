"""`slnpredict view`: the viewer, our reader, the dock."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from napari_slnpredict.errors import ResourceError

from .options import Mpp


def view(
    slides: Annotated[
        list[Path] | None,
        typer.Argument(metavar="SLIDE...", help="Slides to open.", show_default=False),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Name or folder of the model the dock starts with.", show_default=False),
    ] = None,
    mpp: Mpp = None,
) -> None:
    """Open slides in the viewer, with the model beside them."""
    need_viewer()
    from napari_slnpredict.plugin.launch import view as show

    show(slides or [], model=model, mpp=mpp)


def need_viewer() -> None:
    """Raise `ResourceError` with the command that helps when the viewer cannot be started here."""
    if importlib.util.find_spec("napari") is None or importlib.util.find_spec("qtpy") is None:
        raise ResourceError(
            "the viewer needs napari and Qt, which are not installed",
            do='run: pip install "napari-slnpredict[all]"; predict works without them',
        )
    if not has_display():
        raise ResourceError(
            "there is no display for the viewer", do="use slnpredict predict, which writes a report, or set DISPLAY"
        )


def has_display() -> bool:
    """Whether a window could be shown here."""
    import os
    import sys

    if not sys.platform.startswith("linux"):
        return True
    chosen = os.environ.get("QT_QPA_PLATFORM", "")
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or chosen.startswith("offscreen"))
