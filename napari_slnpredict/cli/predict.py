"""`slnpredict predict`: slides in, a folder of results each out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import (
    AsJson,
    Cache,
    Cluster,
    Device,
    Engine,
    Mpp,
    Pseudonym,
    Reader,
    ShardOption,
    Slides,
    cluster_of,
    shard_of,
    wants_debug,
)

if TYPE_CHECKING:
    from napari_slnpredict.many.shards import Shard
    from napari_slnpredict.many.work import PredictPlan

    from .batch import Outcome

DEFAULT_MODEL = "demo-sln"


def predict(
    context: typer.Context,
    slides: Slides,
    model: Annotated[
        str, typer.Option("--model", help="Name or folder of a model, or of an encoder that keeps tile classes.")
    ] = DEFAULT_MODEL,
    out: Annotated[Path, typer.Option("--out", help="Folder for the results.")] = Path("out"),
    mpp: Mpp = None,
    device: Device = None,
    engine: Engine = None,
    reader: Reader = None,
    cache: Cache = None,
    origin: Annotated[
        str, typer.Option("--origin", help="Where (0, 0) is in GeoJSON and OME-TIFF: qupath or level0.")
    ] = "qupath",
    shard: ShardOption = "",
    cluster: Cluster = None,
    pseudonym: Pseudonym = False,
    as_json: AsJson = False,
) -> None:
    """Predict from slides and show where the model looked.

    Writes one folder a slide under --out (report.html, overlay.png, tables, places for QuPath) and predictions.csv. A
    slide that fails is named on stderr and in failures.csv; the others go on. A stopped run continues where it was.
    """
    from napari_slnpredict.export_qupath import ORIGINS
    from napari_slnpredict.many.work import PredictPlan
    from napari_slnpredict.settings import load_settings

    from .batch import closing_words, summary

    if origin not in ORIGINS:
        raise typer.BadParameter(f"{origin!r} is not one of {', '.join(ORIGINS)}", param_hint="--origin")
    share, workers = shard_of(shard), cluster_of(cluster)
    settings = load_settings(device=device, engine=engine, cache=str(cache) if cache else None)
    plan = PredictPlan(
        settings, out, mpp, reader, wants_debug(context), model=model, origin=origin, pseudonym=pseudonym
    )
    outcome = predict_slides(slides, plan, share, workers)
    typer.echo(closing_words(outcome, out), err=True)
    if as_json:
        from .console import print_json

        print_json(summary("predict", outcome, share))
    raise typer.Exit(outcome.exit_code)


def predict_slides(
    named: list[Path], plan: PredictPlan, shard: Shard | None = None, cluster: str | None = None
) -> Outcome:
    """Run the whole batch; `demo` uses it too.

    Raises
    ------
    SlnPredictError
        What stops the whole run before it starts: output folder, model, device, table of inputs, cluster.
    """
    from dataclasses import replace

    from napari_slnpredict.bundles.bundle import find_bundle
    from napari_slnpredict.files import check_writable
    from napari_slnpredict.many.out_folder import Failures, Predictions
    from napari_slnpredict.many.shards import WHOLE, list_digest
    from napari_slnpredict.many.slides import name_all

    from .batch import cut_shard, run_batch, warn_of_other_lists
    from .inputs import find_inputs

    assert plan.out is not None
    inputs, shard = find_inputs(named), shard or WHOLE
    check_writable(plan.out)
    check_writable(plan.settings.cache_dir)
    bundle = find_bundle(plan.model, plan.settings)
    table = Predictions(plan.out)
    slides = name_all(inputs, table.contents(), plan.pseudonym)
    failures = Failures(plan.out, shard, list_digest(slides))

    def changed(outcome: Outcome) -> None:
        table.write(now=False)
        failures.write(outcome.failures)

    outcome = run_batch(
        replace(plan, digest=bundle.digest),
        cut_shard(slides, shard),
        cluster=cluster,
        on_change=changed,
        notice=f"{bundle.name}: {bundle.notice}" if bundle.notice else "",
    )
    table.write()
    failures.write(outcome.failures)
    warn_of_other_lists(failures.other_lists())
    return outcome
