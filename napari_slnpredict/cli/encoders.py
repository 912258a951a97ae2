"""`slnpredict encoders`: what --encoder can name, on what terms, and how weights come to this machine."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .models import megabytes
from .options import AsJson

if TYPE_CHECKING:
    from napari_slnpredict.encode.listing import EncoderRow
    from napari_slnpredict.settings import Settings

_HELP = "An encoder's name: show what is known of it, or bring its weights."


def encoders(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help=_HELP, show_default=False)] = "",
    weights: Annotated[
        Path | None,
        typer.Option("--weights", help="Take this file as the weights of NAME.", show_default=False),
    ] = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch the weights of NAME from the hub.")] = False,
    revision: Annotated[
        str, typer.Option("--revision", help="The commit to fetch, where none is known here.", show_default=False)
    ] = "",
    sha256: Annotated[
        str, typer.Option("--sha256", help="The hash the file must have, from its page.", show_default=False)
    ] = "",
    everything: Annotated[
        bool, typer.Option("--all", help="List also those that are not supported, with the reason.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the encoders that --encoder can name: size, licence, scale, whether their weights are here.

    Weights are never fetched unless --download asks for it. Some want an account on the hub: put its token into the
    environment variable HF_TOKEN.
    """
    from napari_slnpredict.settings import load_settings

    if (weights is not None or download) and not name:
        raise typer.BadParameter("says nothing without the name of an encoder", param_hint="--weights, --download")
    if weights is not None and download:
        raise typer.BadParameter("cannot both be given", param_hint="--weights, --download")
    settings = load_settings()
    if weights is not None or download:
        _bring(name, weights, revision, sha256, settings, as_json)
    elif name:
        _show_one(name, settings, as_json)
    else:
        _show_all(settings, everything, as_json)


def _bring(name: str, weights: Path | None, revision: str, sha256: str, settings: Settings, as_json: bool) -> None:
    from napari_slnpredict.bundles.terms import terms_of
    from napari_slnpredict.encode.obtain import download_weights, named, read_origin, take_weights
    from napari_slnpredict.errors import Cancelled
    from napari_slnpredict.events import run

    from .console import Screen, print_json
    from .stop import Stop

    wanted = named(name)
    with Stop() as stop, Screen(1) as screen:
        screen.begin(0, name)
        job = (
            download_weights(name, settings, revision, sha256)
            if weights is None
            else take_weights(name, weights, settings, sha256)
        )
        try:
            path = run(job, screen.event, stop)
        except Cancelled:
            screen.finish("stopped; what came so far is kept, the same command continues")
            raise typer.Exit(130) from None
        screen.finish(f"weights are at {path}")
        screen.say(terms_of(name, wanted.licence, wanted.notice))
    if as_json:
        print_json({"format": 1, "command": "encoders", **read_origin(path)})


def _show_all(settings: Settings, everything: bool, as_json: bool) -> None:
    from dataclasses import asdict

    from napari_slnpredict.encode.listing import list_encoders

    from .console import print_json, print_table

    rows = list_encoders(settings, everything)
    if as_json:
        print_json({"format": 1, "command": "encoders", "encoders": [asdict(row) for row in rows]})
        return
    print_table(*_fitting(_cells([row for row in rows if row.supported]), _room()))
    if everything:
        typer.echo("\nNot supported:")
        print_table(["name", "because"], [[r.name, r.remark.partition(": ")[2]] for r in rows if not r.supported])
    broken = [row for row in rows if row.supported and not row.here and row.megabytes is None]
    for row in broken:
        typer.echo(f"{row.name}: {row.remark}", err=True)
    typer.echo("\nslnpredict encoders NAME tells more of one: its terms, and how its weights come here.")
    typer.echo(f"Also timm:<name> and local:<file or folder>. Models folder: {settings.models_dir}")


def _cells(rows: list[EncoderRow]) -> dict[str, list[str]]:
    """Return the table by columns, the least needed last."""
    return {
        "name": [row.name for row in rows],
        "here": ["yes" if row.here else "no" for row in rows],
        "size": [megabytes(1e6 * row.megabytes) if row.megabytes else "" for row in rows],
        "features": [str(row.dim or "") for row in rows],
        "tiles, µm/px": [f"{row.tile_px} px, {row.mpp:.2f}" if row.tile_px and row.mpp else "" for row in rows],
        "licence": [row.licence for row in rows],
        "passed in": [", ".join(row.passed) or ("float32 only" if row.gates else "") for row in rows],
        "source": [row.source for row in rows],
    }


def _room() -> int:
    """Return the width of the terminal; what is piped has all the room there is."""
    import shutil

    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000


def _fitting(columns: dict[str, list[str]], room: int) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows of the columns that fit, from the first on."""
    kept: list[str] = []
    used = 0
    for heading, cells in columns.items():
        if not any(cells):
            continue
        used += max(map(len, (heading, *cells))) + 2
        if kept and used - 2 > room:
            break
        kept.append(heading)
    return kept, [list(row) for row in zip(*(columns[heading] for heading in kept), strict=True)]


def _show_one(name: str, settings: Settings, as_json: bool) -> None:
    from dataclasses import asdict

    from napari_slnpredict.encode.listing import list_encoders
    from napari_slnpredict.errors import MissingWeights

    from .console import print_json

    row = next((row for row in list_encoders(settings, everything=True) if row.name == name), None)
    if row is None:
        raise MissingWeights(f"there is no encoder {name!r} here", do="see slnpredict encoders --all")
    if as_json:
        print_json({"format": 1, "command": "encoders", "encoder": asdict(row)})
        return
    for heading, text in _facts(row).items():
        if text:
            lines = textwrap.wrap(text, max(40, min(_room(), 120) - 10), break_on_hyphens=False, break_long_words=False)
            typer.echo(textwrap.indent("\n".join(lines), " " * 10).replace(" " * 10, f"{heading:<10}", 1))


def _facts(row: EncoderRow) -> dict[str, str]:
    """Return what is known of one encoder, for people."""
    tiles = f"{row.tile_px} px" if row.tile_px else ""
    gates: dict[str, Any] = {precision: why or "passed" for precision, why in row.gates.items()}
    return {
        "name": row.name,
        "source": row.source,
        "licence": row.licence,
        "terms": row.notice,
        "features": str(row.dim or ""),
        "tiles": f"{tiles} at {row.mpp:.3g} µm/px" if row.tile_px and row.mpp else tiles,
        "size": megabytes(1e6 * row.megabytes) if row.megabytes else "",
        "here": "yes" if row.here else "no",
        "to get it" if row.supported else "because": row.remark,
        "engines": "; ".join(f"{precision}: {text}" for precision, text in gates.items()),
    }
