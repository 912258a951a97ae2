"""`slnpredict search`: the tiles of an index that look most like some tiles of a slide."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import AsJson, Cache, Device, Engine, Mpp, Reader

if TYPE_CHECKING:
    from napari_slnpredict.retrieval.gallery import Found
    from napari_slnpredict.retrieval.searching import Place, Wish
    from napari_slnpredict.settings import Settings

_PLACE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*,\s*(\d+(?:\.\d+)?)\s*(px|um|µm|μm)\s*")


def search(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="Folder made by slnpredict index.")],
    slide: Annotated[
        str, typer.Option("--slide", metavar="SLIDE", help="Slide to ask with: a file, or its name in the index.")
    ],
    at: Annotated[
        list[str],
        typer.Option(
            "--at",
            metavar="X,Y",
            help="Place on it, with its unit: 5120,2048px (full image) or 1280,512um. May be given several times.",
        ),
    ],
    unlike: Annotated[
        list[str] | None,
        typer.Option("--unlike", metavar="X,Y", help="A place not to be like, in the same form.", show_default=False),
    ] = None,
    top: Annotated[int, typer.Option("--top", help="How many tiles.", min=1, max=10_000)] = 20,
    other_slides: Annotated[bool, typer.Option("--other-slides", help="Leave out the slide itself.")] = False,
    other_patients: Annotated[
        bool,
        typer.Option("--other-patients", help="Leave out every slide of its patient, and those of unknown patients."),
    ] = False,
    patient: Annotated[
        str,
        typer.Option("--patient", help="The slide's patient, where the index does not know it.", show_default=False),
    ] = "",
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Also write hits.csv, gallery.png and gallery.html here.", show_default=False),
    ] = None,
    encoder: Annotated[
        str, typer.Option("--encoder", help="Where the index's encoder is, if not under its name.", show_default=False)
    ] = "",
    mpp: Mpp = None,
    device: Device = None,
    engine: Engine = None,
    reader: Reader = None,
    cache: Cache = None,
    as_json: AsJson = False,
) -> None:
    """Find the tiles of an index that look most like some places of a slide.

    A place that the index holds needs no encoder; another one is read from the slide and embedded. The distance is that
    of two descriptors of length 1: 0 the same, 1.41 nothing in common, 2 the opposite.
    """
    from napari_slnpredict.files import check_writable
    from napari_slnpredict.retrieval.gallery import write_gallery
    from napari_slnpredict.retrieval.searching import Wish
    from napari_slnpredict.settings import load_settings

    wish = Wish(
        slide, tuple(place_of(text, "--at") for text in at), tuple(place_of(text, "--unlike") for text in unlike or ()),
        top, _left_out(other_slides, other_patients), patient, encoder, mpp, reader, out is not None,
    )  # fmt: skip
    settings = load_settings(device=device, engine=engine, cache=str(cache) if cache else None)
    if out is not None:
        check_writable(out)
    found, missing = _search(index, wish, settings)
    if out is not None:
        write_gallery(out, found)
    _show(found, missing, as_json)
    for name, why in missing.items():
        typer.echo(f"slnpredict: {name}: no picture: {why}", err=True)
    raise typer.Exit(int(bool(missing)))


def place_of(text: str, option: str) -> Place:
    """Read ``5120,2048px`` or ``1280.5,512um``; a place without a unit would be taken for the other one some day."""
    from napari_slnpredict.retrieval.searching import Place

    found = _PLACE.fullmatch(text)
    if found is None:
        raise typer.BadParameter(
            f"{text!r} is no place: give it as 5120,2048px (pixels of the full image) or as 1280,512um",
            param_hint=option,
        )
    return Place(float(found[1]), float(found[2]), "px" if found[3] == "px" else "um")


def _left_out(other_slides: bool, other_patients: bool) -> str:
    from napari_slnpredict.retrieval.leaving_out import NOTHING, OWN_PATIENT, OWN_SLIDE

    if other_slides and other_patients:
        raise typer.BadParameter("give --other-slides or --other-patients, not both", param_hint="--other-patients")
    return OWN_SLIDE if other_slides else OWN_PATIENT if other_patients else NOTHING


def _search(folder: Path, wish: Wish, settings: Settings) -> tuple[Found, dict[str, str]]:
    from napari_slnpredict.events import run
    from napari_slnpredict.retrieval import open_index
    from napari_slnpredict.retrieval.searching import search_index

    from .console import Screen
    from .stop import Stop

    index = open_index(folder)
    with Stop() as stop, Screen(1) as screen:
        screen.begin(0, folder.name)
        return run(search_index(index, wish, settings), screen.event, stop)


def _show(found: Found, missing: Mapping[str, str], as_json: bool) -> None:
    from napari_slnpredict.retrieval.gallery import asked_row, hit_rows

    from .console import print_json, print_table

    rows = hit_rows(found.hits)
    if as_json:
        record: dict[str, Any] = {
            "format": 1,
            "command": "search",
            "holds": found.holds,
            "tiles": found.tiles,
            "slides": found.slides,
            "left_out": found.left_out,
            "like": [asked_row(tile) for tile in found.like],
            "unlike": [asked_row(tile) for tile in found.unlike],
            "results": rows,
            "failures": [{"slide": name, "message": why} for name, why in missing.items()],
        }
        print_json(record)
        return
    left_out = f", not at {found.left_out}" if found.left_out else ""
    typer.echo(f"Looked at {found.tiles:,} tiles of {found.slides:,} slides{left_out}: {found.holds}.", err=True)
    shown = ("rank", "slide", "patient", "label", "x", "y", "distance")
    cells = [[f"{row[name]:.3f}" if name == "distance" else str(row[name]) for name in shown] for row in rows]
    print_table(["rank", "slide", "patient", "label", "x (px)", "y (px)", "distance"], cells)
