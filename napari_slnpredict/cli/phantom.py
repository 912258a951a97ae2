"""`slnpredict phantom`: synthetic slides with known truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import AsJson


def phantom(
    task: Annotated[str, typer.Option("--task", help="sln, sln-relation, metastasis or her2.")] = "sln",
    count: Annotated[int, typer.Option("--count", help="How many slides.", min=1)] = 10,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same slides.", min=0)] = 0,
    lab: Annotated[
        str, typer.Option("--lab", help="Letters of the laboratories whose stain and scanner to imitate, as A,B.")
    ] = "A",
    out: Annotated[Path, typer.Option("--out", help="Folder for slides, cohort.csv and truth.")] = Path("phantoms"),
    split: Annotated[str, typer.Option("--split", help="What to write into the column split.")] = "",
    as_json: AsJson = False,
) -> None:
    """Make synthetic H&E slides with exact truth: masks, outlines, instance table, cohort.csv."""
    from napari_slnpredict.errors import Cancelled
    from napari_slnpredict.events import run
    from napari_slnpredict.files import check_writable
    from napari_slnpredict.phantom.tasks import make_cohort

    from .console import Screen, print_json
    from .stop import Stop

    check_writable(out)
    with Stop() as stop, Screen(1) as screen:
        screen.begin(0, f"phantom {task}")
        try:
            table = run(make_cohort(task, count, seed, lab, out, split=split), screen.event, stop)
        except Cancelled:
            screen.finish("stopped; the slides made so far are kept")
            raise typer.Exit(130) from None
        screen.finish(f"{count} slides, listed in {table.name}")
    if as_json:
        print_json({"format": 1, "command": "phantom", "count": count, "table": table.name})
