"""`slnpredict embed`: features only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_slnpredict.events import Event, Job

from .options import AsJson, Cache, Device, Mpp, Pseudonym, Reader, Slides, wants_debug

if TYPE_CHECKING:
    from napari_slnpredict.encode.encoder import Encoder
    from napari_slnpredict.encode.engines import Device as ChosenDevice
    from napari_slnpredict.encode.features import Bag
    from napari_slnpredict.settings import Settings
    from napari_slnpredict.slide.grid import GridSpec
    from napari_slnpredict.slide.slide import Slide

    from .inputs import Input, Names

#: Resolution of tiles for encoders that take any (20x; methods' default), um/px.
DEFAULT_MPP = 0.5


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
    reader: Reader = None,
    cache: Cache = None,
    pseudonym: Pseudonym = False,
    as_json: AsJson = False,
) -> None:
    """Compute the features of slides' tissue tiles into the cache, and as HDF5 files for other programs."""
    from napari_slnpredict.encode.encoder import load_encoder
    from napari_slnpredict.encode.engines import choose_device
    from napari_slnpredict.files import check_writable
    from napari_slnpredict.settings import load_settings

    from .batch import run_batch, write_failures
    from .console import print_json
    from .inputs import Names, find_inputs
    from .predict import summary

    settings = load_settings(device=device, cache=str(cache) if cache else None)
    inputs = find_inputs(slides)
    for folder in (settings.cache_dir, *([out] if out else [])):
        check_writable(folder)
    chosen = choose_device(settings.device)
    names = Names(inputs, {}, pseudonym)
    work = _Work(load_encoder(encoder, settings), chosen, settings, names, out, tile_mpp)

    outcome = run_batch(inputs, names, work, mpp=mpp, reader=reader, debug=wants_debug(context))
    if out is not None:
        write_failures(out, outcome)
    if as_json:
        print_json(summary("embed", outcome))
    raise typer.Exit(outcome.exit_code)


class _Work:
    """What the batch does with each slide."""

    def __init__(
        self,
        encoder: Encoder,
        device: ChosenDevice,
        settings: Settings,
        names: Names,
        out: Path | None,
        tile_mpp: float | None,
    ) -> None:
        from napari_slnpredict.encode.engines import make_engine
        from napari_slnpredict.encode.late import late_engine

        self.encoder, self.device, self.settings, self.names, self.out = encoder, device, settings, names, out
        self.spec = tile_spec(encoder, tile_mpp)
        self.engine = late_engine(lambda: make_engine(encoder, device, batch=settings.batch, tile_px=self.spec.tile_px))

    def __call__(
        self, slide: Slide, item: Input, on_event: Callable[[Event], None], stop: Callable[[], bool]
    ) -> tuple[dict[str, Any], str]:
        from napari_slnpredict.encode.features import write_features
        from napari_slnpredict.events import run

        name = self.names.name(item, slide)
        bag = run(self._embedded(slide), on_event, stop)
        record: dict[str, Any] = {"slide_id": name, "content_id": slide.content_id, "tiles": 0}
        if bag is None:
            return record, "No tissue found on this slide."
        record |= {"tiles": len(bag.grid), "features": int(bag.features.shape[1]), "precision": bag.precision,
                   "encoder": {"name": self.encoder.name, "digest": self.encoder.digest}}  # fmt: skip
        if self.out is not None:
            # The cache's own file carries the name the slide had when it was first embedded.
            named = replace(bag, grid=replace(bag.grid, slide_id=name))
            write_features(self.out / f"{name}.h5", named, {"content_id": slide.content_id})
            record["file"] = f"{name}.h5"
        return record, f"{len(bag.grid):,} tiles of {bag.features.shape[1]} features"

    def _embedded(self, slide: Slide) -> Job[Bag | None]:
        from napari_slnpredict.encode.embed import embed as embed_tiles
        from napari_slnpredict.events import Stage, Warn
        from napari_slnpredict.pipeline import check_scale, check_slide
        from napari_slnpredict.slide.grid import lay_grid
        from napari_slnpredict.slide.tissue import find_tissue

        check_slide(slide)
        coarser = check_scale(slide, self.spec, self.encoder.name)
        if coarser:
            yield Warn(coarser)
        yield Stage("tissue", "Finding tissue")
        grid = lay_grid(slide, find_tissue(slide), self.spec)
        if not len(grid):
            return None
        bag: Bag = yield from embed_tiles(
            slide, grid, self.encoder, cache=self.settings.cache_dir, device=self.device, engine=self.engine
        )
        slide.unchanged()
        return bag


def tile_spec(encoder: Encoder, mpp: float | None = None) -> GridSpec:
    """Return the tiles to embed: of the encoder's size, at `mpp`, else at the resolution nearest to 0.5 it takes."""
    from napari_slnpredict.slide.grid import GridSpec

    low, high = encoder.mpp
    spec = GridSpec(tile_px=encoder.tile_px, mpp=float(mpp if mpp is not None else min(max(DEFAULT_MPP, low), high)))
    encoder.check_grid(spec)
    return spec
