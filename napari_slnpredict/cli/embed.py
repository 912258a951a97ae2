"""`slnpredict embed`: features only."""

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
    from napari_slnpredict.many.work import EmbedPlan

    from .batch import Outcome


def embed(
    context: typer.Context,
    slides: Slides,
    encoder: Annotated[
        str, typer.Option("--encoder", help="Name of an encoder; see slnpredict encoders.")
    ] = "hne-small",
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Also write <slide>.h5 here.", show_default="the cache only"),
    ] = None,
    tile_mpp: Annotated[
        float | None,
        typer.Option("--tile-mpp", help="µm per pixel of the tiles.", min=0.05, max=20.0, show_default="the encoder's"),
    ] = None,
    mpp: Mpp = None,
    device: Device = None,
    engine: Engine = None,
    reader: Reader = None,
    cache: Cache = None,
    shard: ShardOption = "",
    cluster: Cluster = None,
    pseudonym: Pseudonym = False,
    as_json: AsJson = False,
) -> None:
    """Compute the features of slides' tissue tiles into the cache, and as HDF5 files for other programs.

    A slide that fails is named on stderr and, with --out, in failures.csv; the others go on. A stopped run continues
    where it was.
    """
    from napari_slnpredict.many.work import EmbedPlan
    from napari_slnpredict.settings import load_settings

    from .batch import summary
    from .console import print_json

    share, workers = shard_of(shard), cluster_of(cluster)
    settings = load_settings(device=device, engine=engine, cache=str(cache) if cache else None)
    plan = EmbedPlan(settings, out, mpp, reader, wants_debug(context), encoder=encoder, tile_mpp=tile_mpp)
    outcome = _embed_slides(slides, plan, share, workers, pseudonym)
    if as_json:
        print_json(summary("embed", outcome, share))
    raise typer.Exit(outcome.exit_code)


def _embed_slides(named: list[Path], plan: EmbedPlan, shard: Shard, cluster: str | None, pseudonym: bool) -> Outcome:
    from dataclasses import replace

    from napari_slnpredict.bundles.terms import terms_of
    from napari_slnpredict.encode.encoder import load_encoder
    from napari_slnpredict.files import check_writable
    from napari_slnpredict.many.out_folder import Failures
    from napari_slnpredict.many.shards import list_digest
    from napari_slnpredict.many.slides import name_all
    from napari_slnpredict.many.work import tile_spec

    from .batch import cut_shard, run_batch, warn_of_other_lists
    from .inputs import find_inputs

    inputs = find_inputs(named)
    for folder in (plan.settings.cache_dir, *([plan.out] if plan.out else [])):
        check_writable(folder)
    encoder = load_encoder(plan.encoder, plan.settings)
    tile_spec(encoder, plan.tile_mpp)
    slides = name_all(inputs, {}, pseudonym)
    failures = Failures(plan.out, shard, list_digest(slides)) if plan.out is not None else None
    outcome = run_batch(
        replace(plan, digest=encoder.digest),
        cut_shard(slides, shard),
        cluster=cluster,
        notice=terms_of(encoder.name, encoder.licence, encoder.notice),
        on_change=lambda outcome: failures.write(outcome.failures) if failures else None,
    )
    if failures is not None:
        failures.write(outcome.failures)
        warn_of_other_lists(failures.other_lists())
    return outcome
