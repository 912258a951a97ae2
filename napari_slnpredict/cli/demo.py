"""`slnpredict demo`: offline, on the shipped slide and models."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from napari_slnpredict.errors import ResourceError

from .view import has_display

SLIDE_ENDINGS = (".svs", ".tiff", ".tif")


def demo(
    headless: Annotated[bool, typer.Option("--headless", help="Write a report, open no window.")] = False,
    out: Annotated[Path, typer.Option("--out", help="Folder for the report.")] = Path("demo-report"),
) -> None:
    """Predict from the shipped slide with the shipped models: in the viewer, or as a report folder."""
    slide = shipped_slide()
    if not headless and has_display() and importlib.util.find_spec("napari") is not None:
        from napari_slnpredict.plugin.launch import view

        view([slide], model="demo-sln", run=True)
        return
    from napari_slnpredict.many.work import PredictPlan
    from napari_slnpredict.settings import load_settings

    from .predict import DEFAULT_MODEL, predict_slides

    outcome = predict_slides([slide], PredictPlan(load_settings(), out, model=DEFAULT_MODEL))
    if outcome.exit_code == 0:
        record = outcome.records[0]
        typer.echo(record["answer"])
        typer.echo(f"Report: {out / record['slide_id'] / 'report.html'}")
    raise typer.Exit(outcome.exit_code)


def shipped_slide() -> Path:
    """Return the small slide that comes with the package."""
    folder = Path(__file__).resolve().parents[1] / "sample_data"
    slides = sorted(path for path in folder.glob("*") if path.suffix.lower() in SLIDE_ENDINGS)
    if not slides:
        raise ResourceError("the sample slide is not in this installation", do="install napari-slnpredict again")
    return slides[0]
