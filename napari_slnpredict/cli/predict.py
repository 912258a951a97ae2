"""`slnpredict predict`: slides in, a folder of results each out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_slnpredict.events import Event

from .options import AsJson, Cache, Device, Mpp, Pseudonym, Reader, Slides, wants_debug

if TYPE_CHECKING:
    from napari_slnpredict.encode.encoder import Encoder
    from napari_slnpredict.encode.engines import Device as ChosenDevice
    from napari_slnpredict.encode.engines import Engine
    from napari_slnpredict.mil.verdict import Head
    from napari_slnpredict.settings import Settings
    from napari_slnpredict.slide.slide import Slide

    from .batch import Outcome
    from .inputs import Input, Names

DEFAULT_MODEL = "demo-sln"


def predict(
    context: typer.Context,
    slides: Slides,
    model: Annotated[str, typer.Option("--model", help="Name or folder of a model.")] = DEFAULT_MODEL,
    out: Annotated[Path, typer.Option("--out", help="Folder for the results.")] = Path("out"),
    mpp: Mpp = None,
    device: Device = None,
    reader: Reader = None,
    cache: Cache = None,
    origin: Annotated[
        str, typer.Option("--origin", help="Where (0, 0) is in GeoJSON and OME-TIFF: qupath or level0.")
    ] = "qupath",
    pseudonym: Pseudonym = False,
    as_json: AsJson = False,
) -> None:
    """Predict from slides and show where the model looked.

    Writes one folder a slide under --out (report.html, overlay.png, tables, places for QuPath) and predictions.csv. A
    slide that fails is named on stderr and in failures.csv; the others go on. A stopped run continues where it was.
    """
    from napari_slnpredict.export_qupath import ORIGINS

    if origin not in ORIGINS:
        raise typer.BadParameter(f"{origin!r} is not one of {', '.join(ORIGINS)}", param_hint="--origin")
    request = Request(out, origin, pseudonym, mpp, reader, wants_debug(context))
    outcome = predict_slides(slides, model, request, device=device, cache=cache)
    typer.echo(_closing_words(outcome, out), err=True)
    if as_json:
        from .console import print_json

        print_json(summary("predict", outcome))
    raise typer.Exit(outcome.exit_code)


def _closing_words(outcome: Outcome, out: Path) -> str:
    """Say where the results are and, in a long log, once more what failed."""
    done = f"{len(outcome.records)} done: {out / 'predictions.csv'}"
    if not outcome.failures:
        return done
    shown = ", ".join(name for name, _, _ in outcome.failures[:5])
    more = f" and {len(outcome.failures) - 5} more" if len(outcome.failures) > 5 else ""
    return f"{done}\n{len(outcome.failures)} failed: {shown}{more}; see {out / 'failures.csv'}"


class Request:
    """What is asked of a prediction run beside slides and model."""

    def __init__(
        self,
        out: Path,
        origin: str = "qupath",
        pseudonym: bool = False,
        mpp: float | None = None,
        reader: str | None = None,
        debug: bool = False,
    ) -> None:
        self.out, self.origin, self.pseudonym, self.mpp, self.reader = out, origin, pseudonym, mpp, reader
        self.debug = debug


def predict_slides(
    named: list[Path], model: str, request: Request, *, device: str | None = None, cache: Path | None = None
) -> Outcome:
    """Run the whole batch; `demo` uses it too.

    Raises
    ------
    SlnPredictError
        What stops the whole run before it starts: output folder, model, device, table of inputs.
    """
    from napari_slnpredict.files import check_writable
    from napari_slnpredict.settings import load_settings

    from .batch import run_batch, write_failures
    from .inputs import Names, find_inputs

    settings = load_settings(device=device, cache=str(cache) if cache else None)
    inputs = find_inputs(named)
    check_writable(request.out)
    check_writable(settings.cache_dir)
    tools = ready(model, settings)
    if tools.notice:
        typer.echo(tools.notice, err=True)
    table = Table(request.out)
    names = Names(inputs, table.contents(), request.pseudonym)

    def changed(outcome: Outcome) -> None:
        table.write()
        write_failures(request.out, outcome)

    work = _Work(tools, settings, request, names, table)
    outcome = run_batch(
        inputs, names, work, mpp=request.mpp, reader=request.reader, on_change=changed, debug=request.debug
    )
    table.write(again=True)
    write_failures(request.out, outcome)
    return outcome


@dataclass(frozen=True)
class Tools:
    """What every slide of a batch is judged with."""

    head: Head
    encoder: Encoder
    device: ChosenDevice
    engine: Engine

    @property
    def notice(self) -> str:
        """What must be read beside every answer of this model."""
        from napari_slnpredict.pipeline import bundle_of

        bundle = bundle_of(self.head)
        return f"{bundle.name}: {bundle.notice}" if bundle.notice else ""


def ready(model: str, settings: Settings) -> Tools:
    """Load the model and its encoder's record, choose the device: what must work before the first slide is opened."""
    from napari_slnpredict.bundles.bundle import find_bundle
    from napari_slnpredict.encode.engines import choose_device, make_engine
    from napari_slnpredict.encode.late import late_engine
    from napari_slnpredict.mil.verdict import load_head
    from napari_slnpredict.pipeline import bundle_of, encoder_of, grid_spec

    device = choose_device(settings.device)
    head = load_head(find_bundle(model, settings), device.name)
    bundle = bundle_of(head)
    encoder, tile_px = encoder_of(bundle, settings), grid_spec(bundle).tile_px
    engine = late_engine(lambda: make_engine(encoder, device, batch=settings.batch, tile_px=tile_px))
    return Tools(head, encoder, device, engine)


class Table:
    """predictions.csv of an output folder: always the sum of the folder's prediction.json files."""

    def __init__(self, out: Path) -> None:
        from napari_slnpredict.export import read_records

        self._out = out
        self._records = read_records(out)

    def contents(self) -> dict[str, str]:
        """Return the content ids of the slides that are here already, by folder name."""
        return {name: str(record["content_id"]) for name, record in self._records.items()}

    def add(self, name: str, record: dict[str, Any]) -> None:
        """Take in a slide's record."""
        self._records[name] = record

    def write(self, again: bool = False) -> None:
        """Rewrite predictions.csv; `again` reads the folders first, for what other processes put there."""
        from napari_slnpredict.export import predictions_csv, read_records
        from napari_slnpredict.files import write_file

        if again:
            self._records = read_records(self._out)
        write_file(self._out / "predictions.csv", predictions_csv(self._records.values()))


class _Work:
    """What the batch does with each slide."""

    def __init__(self, tools: Tools, settings: Settings, request: Request, names: Names, table: Table) -> None:
        self.tools, self.settings = tools, settings
        self.request, self.names, self.table = request, names, table

    def __call__(
        self, slide: Slide, item: Input, on_event: Callable[[Event], None], stop: Callable[[], bool]
    ) -> tuple[dict[str, Any], str]:
        from napari_slnpredict.events import run
        from napari_slnpredict.export import Sheet, write_prediction
        from napari_slnpredict.pipeline import predict_slide

        tools = self.tools
        job = predict_slide(
            slide, tools.head, settings=self.settings, device=tools.device, encoder=tools.encoder, engine=tools.engine
        )
        prediction = run(job, on_event, stop)
        name = self.names.name(item, slide)
        sheet = Sheet(name, self.request.origin, self._facts(item))
        record = write_prediction(slide, prediction, self.request.out / name, sheet)
        self.table.add(name, record)
        return record, prediction.answer

    def _facts(self, item: Input) -> dict[str, Any]:
        """Return the settings that could change a result; no folder among them."""
        settings = self.settings
        return {
            "device": settings.device,
            "batch": settings.batch,
            "memory_mb": settings.memory_mb,
            "mpp": item.mpp if item.mpp is not None else self.request.mpp,
            "reader": self.request.reader,
            "pseudonym": self.request.pseudonym,
        }


def summary(command: str, outcome: Outcome) -> dict[str, Any]:
    """Return what ``--json`` prints."""
    return {
        "format": 1,
        "command": command,
        "results": outcome.records,
        "failures": [{"slide": name, "error": kind, "message": text} for name, kind, text in outcome.failures],
        "interrupted": outcome.interrupted,
    }
