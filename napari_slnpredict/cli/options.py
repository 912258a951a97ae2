"""Options that several commands share, said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
    typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.", show_default="auto"),
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
Pseudonym = Annotated[
    bool, typer.Option("--pseudonym", help="Put content ids where file names would stand, in files and messages.")
]


def wants_debug(context: typer.Context) -> bool:
    """Whether ``--debug`` was given, anywhere on the command line."""
    return bool(context.find_root().params.get("debug"))
