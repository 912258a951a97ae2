"""`slnpredict view`: the viewer, our reader, the dock."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from napari_slnpredict.errors import ResourceError

from .options import Mpp

#: Qt platforms that draw where nobody looks: for tests and pictures, asked for by name.
UNSEEN = ("offscreen", "minimal")


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
    beside: Annotated[
        bool,
        typer.Option("--beside", help="Show the second slide beside the first (one slide: twice), cameras linked."),
    ] = False,
    scores: Annotated[
        list[Path] | None,
        typer.Option(
            "--scores",
            help="Scores to show as a map on the first slide: a CSV or h5 of CLAM, TRIDENT, STAMP, WSInfer or ours. "
            "May be given several times.",
            show_default=False,
        ),
    ] = None,
    scores_size: Annotated[
        float | None,
        typer.Option(
            "--scores-size",
            help="Side of the scores' tiles, in the unit of their places, where the file does not say.",
            min=0.0,
            show_default=False,
        ),
    ] = None,
    scores_unit: Annotated[
        str,
        typer.Option(
            "--scores-unit",
            metavar="px|um|NUMBER",
            help="Unit of the scores' places where the file does not say: pixels of the full image, µm, or the µm of "
            "one unit.",
            callback=lambda value: _unit(value),
            show_default=False,
        ),
    ] = "",
) -> None:
    """Open slides in the viewer, with the model beside them."""
    need_viewer()
    from napari_slnpredict.plugin.launch import view as show

    show(
        slides or [],
        model=model,
        mpp=mpp,
        beside=beside,
        scores=scores or [],
        scores_size=scores_size,
        scores_unit=scores_unit,
    )


def _unit(value: str) -> str:
    """Return a unit of places that can be understood."""
    if value in ("", "px", "um"):
        return value
    try:
        known = float(value) > 0
    except ValueError:
        known = False
    if not known:
        raise typer.BadParameter(f"{value!r} is neither px nor um nor a number of µm")
    return value


def need_viewer() -> None:
    """Raise `ResourceError` with the command that helps when the viewer cannot be started here."""
    if importlib.util.find_spec("napari") is None or importlib.util.find_spec("qtpy") is None:
        raise ResourceError(
            "the viewer needs napari and Qt, which are not installed",
            do='run: pip install "napari-slnpredict[all]"; predict works without them',
        )
    if not has_display() and not os.environ.get("QT_QPA_PLATFORM", "").startswith(UNSEEN):
        raise ResourceError(
            "there is no display for the viewer", do="use slnpredict predict, which writes a report, or set DISPLAY"
        )


def has_display() -> bool:
    """Whether somebody could see a window here; Qt ends the process where it cannot, so it is asked before."""
    if not sys.platform.startswith("linux"):
        return True
    if os.environ.get("QT_QPA_PLATFORM", "").startswith(UNSEEN):
        return False
    return bool(os.environ.get("WAYLAND_DISPLAY")) or _is_served(os.environ.get("DISPLAY", ""))


def _is_served(display: str) -> bool:
    """Whether an X server of this name listens; one on another machine is believed."""
    host, colon, number = display.removeprefix("unix").partition(":")
    if not colon or host:
        return bool(colon and host)
    path = f"/tmp/.X11-unix/X{number.split('.')[0]}"
    if Path(path).exists():
        return True
    try:
        return path in Path("/proc/net/unix").read_text(errors="replace")  # abstract sockets are listed here only
    except OSError:
        return False
