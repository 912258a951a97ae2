"""`slnpredict index`: slides into an index of similar tiles."""

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
    from napari_slnpredict.many.index import IndexPlan
    from napari_slnpredict.many.shards import Shard

    from .batch import Outcome


def index(
    context: typer.Context,
    slides: Slides,
    out: Annotated[Path, typer.Option("--out", help="Folder of the index; it grows with every run.")],
    encoder: Annotated[
        str, typer.Option("--encoder", help="Name of an encoder; see slnpredict encoders.")
    ] = "hne-small",
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
    """Put the descriptors of slides' tissue tiles into an index, for slnpredict search and the viewer's similar tiles.

    Slides that are in it are skipped, changed ones are done again, and what a table says anew of a slide (patient,
    label) is taken over. An index holds one encoder and one size of tile; another one is refused. A slide that fails is
    named on stderr and in failures.csv; the others go on. A stopped run continues where it was.
    """
    from napari_slnpredict.many.index import IndexPlan
    from napari_slnpredict.settings import load_settings

    from .batch import summary
    from .console import print_json

    share, workers = shard_of(shard), cluster_of(cluster)
    settings = load_settings(device=device, engine=engine, cache=str(cache) if cache else None)
    plan = IndexPlan(
        settings, out, mpp, reader, wants_debug(context), encoder=encoder, tile_mpp=tile_mpp, pseudonym=pseudonym
    )
    outcome = _index_slides(slides, plan, share, workers)
    if as_json:
        print_json(summary("index", outcome, share))
    raise typer.Exit(outcome.exit_code)


def _index_slides(named: list[Path], plan: IndexPlan, shard: Shard, cluster: str | None) -> Outcome:
    from dataclasses import replace

    from napari_slnpredict.encode.encoder import load_encoder
    from napari_slnpredict.files import check_writable
    from napari_slnpredict.many.out_folder import Failures
    from napari_slnpredict.many.shards import list_digest
    from napari_slnpredict.many.slides import name_all
    from napari_slnpredict.many.work import tile_spec
    from napari_slnpredict.retrieval import Index, make_describer

    from .batch import cut_shard, run_batch, warn_of_other_lists
    from .inputs import find_inputs

    assert plan.out is not None
    inputs = find_inputs(named)
    for folder in (plan.settings.cache_dir, plan.out):
        check_writable(folder)
    encoder = load_encoder(plan.encoder, plan.settings)
    spec = tile_spec(encoder, plan.tile_mpp)
    describer, index = make_describer(encoder, spec), Index(plan.out)
    index.require(describer.digest, describer.holds, (spec.tile_px, spec.mpp), "these slides would have")
    again = {index.relative(item.path) for item in inputs}  # a file that changed keeps its name
    taken = {page.slide_id: page.content_id for page in index.pages if page.slide_path not in again}
    slides = name_all(inputs, taken, plan.pseudonym)
    failures = Failures(plan.out, shard, list_digest(slides))
    outcome = run_batch(
        replace(plan, digest=encoder.digest),
        cut_shard(slides, shard),
        cluster=cluster,
        on_change=lambda outcome: failures.write(outcome.failures),
        notice=f"The index holds the {describer.holds}, of tiles of {spec.tile_px} px at {spec.mpp:g} µm/px.",
    )
    failures.write(outcome.failures)
    warn_of_other_lists(failures.other_lists())
    typer.echo(_closing_words(outcome, Index(plan.out)), err=True)
    return outcome


def _closing_words(outcome: Outcome, index: object) -> str:
    """Say what the index holds now and, in a long log, once more what failed."""
    from napari_slnpredict.retrieval import Index

    assert isinstance(index, Index)
    slides = len(index.pages)
    said = f"{index.folder}: {len(index):,} tiles of {slides:,} slide{'s' * (slides != 1)}"
    if outcome.failures:
        said += f"\n{len(outcome.failures)} failed; see {index.folder / 'failures.csv'}"
    return said
