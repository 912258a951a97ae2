"""Options that several commands share, said once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from napari_slnpredict.many.shards import Shard

Slides = Annotated[
    list[Path],
    typer.Argument(metavar="SLIDE...", help="Slides, folders of slides, or a cohort CSV.", show_default=False),
]
Mpp = Annotated[
    float | None,
    typer.Option("--mpp", help="µm per pixel of the full image, where the file has none.", min=0.0, show_default=False),
]
Device = Annotated[
    str | None,
    typer.Option("--device", help="auto, cpu, cuda, cuda:1, cuda:all, mps.", show_default="auto"),
]
Engine = Annotated[
    str | None,
    typer.Option("--engine", help="auto, torch, openvino, or a precision (float32).", show_default="auto"),
]
Reader = Annotated[
    str | None,
    typer.Option("--reader", help="tiles, tiffslide or openslide.", show_default="chosen by the file"),
]
Cache = Annotated[
    Path | None,
    typer.Option("--cache", help="Folder of computed features.", show_default="the user's cache folder"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print machine-readable results on stdout.")]
ShardOption = Annotated[
    str,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Do share I (from 1) of N of the slides, for job arrays; shares may use one --out.",
        show_default="all slides",
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="ADDRESS|local:N",
        help="Give the slides to the workers of a dask scheduler (tcp://host:8786), or to N processes here.",
        show_default="this process",
    ),
]
Pseudonym = Annotated[
    bool, typer.Option("--pseudonym", help="Put content ids where file names would stand, in files and messages.")
]


def wants_debug(context: typer.Context) -> bool:
    """Whether ``--debug`` was given, anywhere on the command line."""
    return bool(context.find_root().params.get("debug"))


def shard_of(text: str) -> Shard:
    """Return the shard an option asks for; "" is the whole list."""
    from napari_slnpredict.many.shards import WHOLE, parse_shard

    try:
        return parse_shard(text) if text else WHOLE
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--shard") from error


def cluster_of(text: str | None) -> str | None:
    """Return the address of a cluster, checked for its form."""
    from napari_slnpredict.many.cluster import parse_address

    try:
        if text is not None:
            parse_address(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--cluster") from error
    return text
