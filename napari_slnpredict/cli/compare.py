"""`slnpredict compare`: encoders against each other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import AsJson, Cache, Device, wants_debug

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_slnpredict.evaluate.arms import Arm
    from napari_slnpredict.evaluate.comparison import Comparison, Failure
    from napari_slnpredict.evaluate.figures import JudgeOptions
    from napari_slnpredict.evaluate.sets import JudgedSet
    from napari_slnpredict.settings import Settings

    from .console import Screen
    from .stop import Stop

app = typer.Typer(help="Compare encoders: tables, pictures, intervals.", no_args_is_help=True)
ARMS, BESIDE = "hne-small", ("colour", "histogram")


@app.callback()
def compare() -> None:
    """Compare encoders: tables, pictures, intervals."""


@dataclass(frozen=True)
class Wish:
    """What tiles to take; as the options of `encoders`."""

    task: str
    split: Path | None
    train: str | None
    test: str | None
    stain: str | None
    tile_px: int | None
    tile_mpp: float | None


@app.command("encoders")
def encoders(
    context: typer.Context,
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA...",
            help="Sets of tiles: cohort.csv, slides, a folder, set.zip[@512px][@1um], x.h5, wilds:DIR, bracs:DIR.",
            show_default=False,
        ),
    ],
    arms: Annotated[
        str, typer.Option("--arms", help="Encoders by name, random:NAME, local:PATH, each also with @pca128.")
    ] = ARMS,
    out: Annotated[Path, typer.Option("--out", help="Folder for the results.")] = Path("comparison"),
    baseline: Annotated[str, typer.Option("--baseline", help="The arm others are measured against.")] = "colour",
    task: Annotated[str, typer.Option("--task", help="Column of the labels, where data has a table.")] = "label",
    split: Annotated[
        Path | None, typer.Option("--split", help="CSV of file,split (train, test): fit on one, judge on the other.")
    ] = None,
    train: Annotated[str | None, typer.Option("--train", help="Split of the data itself to fit on.")] = None,
    test: Annotated[str | None, typer.Option("--test", help="Split of the data itself to judge on.")] = None,
    stain: Annotated[str | None, typer.Option("--stain", help="Only slides of this stain, as HE.")] = None,
    tile_px: Annotated[
        int | None, typer.Option("--tile-px", help="Side of tiles, px.", min=16, show_default="224; pictures: whole")
    ] = None,
    tile_mpp: Annotated[
        float | None,
        typer.Option("--tile-mpp", help="µm per pixel of tiles.", min=0.05, max=20.0, show_default="1; pictures: own"),
    ] = None,
    tiles: Annotated[int, typer.Option("--tiles", help="Tiles of a set at most.", min=20)] = 5000,
    stained: Annotated[
        int, typer.Option("--stained", help="Tiles of a set shown in other stains; 0: none.", min=0)
    ] = 240,
    draws: Annotated[int, typer.Option("--draws", help="Draws of groups, for intervals.", min=100)] = 2000,
    seed: Annotated[int, typer.Option("--seed", help="Everything random follows from it.")] = 0,
    allow_overlap: Annotated[
        bool, typer.Option("--allow-overlap", help="Judge an encoder on what it has seen; every figure is marked.")
    ] = False,
    device: Device = None,
    engine: Annotated[
        str, typer.Option("--engine", help="float32 (torch) unless asked: auto, openvino, bfloat16 ...")
    ] = "float32",
    cache: Cache = None,
    as_json: AsJson = False,
) -> None:
    """Judge encoders on tiles: probe, neighbours, retrieval, place, stain, cost, each with its interval.

    Writes comparison.csv, comparison.png, comparison.html and run.json under --out. An arm or a set that fails is named
    on stderr and in the report; the others go on. A stopped run goes on from the features it has.
    """
    from napari_slnpredict.evaluate.figures import JudgeOptions
    from napari_slnpredict.files import check_writable
    from napari_slnpredict.settings import load_settings

    if split is not None and (train or test):
        raise typer.BadParameter("give --split, or --train and --test", param_hint="--split")
    if (train is None) != (test is None):
        raise typer.BadParameter("--train and --test go together", param_hint="--train")
    settings = load_settings(device=device, engine=engine, cache=str(cache) if cache else None)
    check_writable(out)
    check_writable(settings.cache_dir)
    wish = Wish(task, split, train, test, stain, tile_px, tile_mpp)
    options = JudgeOptions(draws=draws, seed=seed, tiles=tiles, stain_tiles=stained)
    # The baseline, and what colour alone tells, stand beside every figure.
    asked = [name.strip() for name in arms.split(",") if name.strip()]
    names = list(dict.fromkeys([*asked, baseline, *BESIDE]))
    found = _compare(data, names, wish, options, settings, baseline, allow_overlap, wants_debug(context))
    _finish(found, out, {**_plain(wish), "data": [_shown(one) for one in data], "arms": names}, as_json)
    raise typer.Exit(int(bool(found.failures)))


def _compare(
    data: Sequence[str],
    names: Sequence[str],
    wish: Wish,
    options: JudgeOptions,
    settings: Settings,
    baseline: str,
    allow_overlap: bool,
    debug: bool,
) -> Comparison:
    from napari_slnpredict.errors import DataError
    from napari_slnpredict.evaluate.encoders import judge
    from napari_slnpredict.events import run

    from .console import Screen
    from .stop import Stop

    failures: list[Failure] = []
    loaded = _arms(names, settings, failures, debug)
    arms = list({arm.name: arm for arm in loaded.values()}.values())
    sets: list[JudgedSet] = []
    with Stop() as stop, Screen(1) as screen:
        screen.begin(0, "compare encoders")
        for failure in failures:
            screen.say(f"{failure.name} left out: {failure.message}", "red")
        try:
            sets = _sets(data, wish, failures, screen, stop)
            if not arms or not sets:
                message = failures[0].message if failures else "name arms and tiles"
                raise DataError(f"nothing to compare: {message}")
            base = loaded[baseline].name if baseline in loaded else baseline
            job = judge(
                arms, sets, baseline=base, options=options, cache=settings.cache_dir,
                allow_overlap=allow_overlap, failures=failures,
            )  # fmt: skip
            return run(job, lambda event: screen.event(event, 0), stop)
        finally:
            for judged in sets:
                getattr(judged.data, "close", lambda: None)()


def _arms(names: Sequence[str], settings: Settings, failures: list[Failure], debug: bool) -> dict[str, Arm]:
    """Return the arms that are there, by the names asked for; those that are not are named."""
    from napari_slnpredict.errors import SlnPredictError
    from napari_slnpredict.evaluate.arms import load_arm
    from napari_slnpredict.evaluate.comparison import Failure

    arms = {}
    for name in names:
        try:
            arms[name] = load_arm(name, settings)
        except SlnPredictError as error:
            if debug:
                raise
            failures.append(Failure(name, "", type(error).__name__, str(error)))
    return arms


def _sets(data: Sequence[str], wish: Wish, failures: list[Failure], screen: Screen, stop: Stop) -> list[JudgedSet]:
    """Return the sets that can be opened; those that cannot are named."""
    from napari_slnpredict.encode.tile_inputs import sets_of
    from napari_slnpredict.errors import Cancelled, SlnPredictError
    from napari_slnpredict.evaluate.comparison import Failure
    from napari_slnpredict.evaluate.splits import read_split

    split = read_split(wish.split) if wish.split is not None else None
    sets = []
    for name, inputs in sets_of(data):
        try:
            judged = _set(name, inputs, wish, split, screen, stop)
            sets.append(judged)
            left_out = getattr(judged.data, "left_out", ())
            failures += [Failure(slide, name, kind, message) for slide, kind, message in left_out]
        except Cancelled:
            raise
        except SlnPredictError as error:
            screen.say(f"{name} left out: {error}", "red")
            failures.append(Failure(name, name, type(error).__name__, str(error)))
    return sets


def _set(name: str, inputs: Sequence[str], wish: Wish, split: Any, screen: Screen, stop: Stop) -> JudgedSet:
    import numpy as np

    from napari_slnpredict.encode.joined_tiles import JoinedTiles, joined
    from napari_slnpredict.encode.tile_inputs import needs_grid, open_tiles
    from napari_slnpredict.evaluate.sets import JudgedSet
    from napari_slnpredict.evaluate.splits import TEST, TRAIN
    from napari_slnpredict.events import run

    tile_px, mpp = wish.tile_px, wish.tile_mpp
    if needs_grid(inputs):
        tile_px, mpp = tile_px or 224, mpp or 1.0

    def opened(part: str | None) -> JoinedTiles:
        job = open_tiles(inputs, tile_px=tile_px, mpp=mpp, split=part, label=wish.task, stain=wish.stain)
        return run(job, lambda event: screen.event(event, 0), stop)

    if wish.train is not None:
        parts = [opened(wish.train), opened(wish.test)]
        sizes = [len(part.table) for part in parts]
        return replace(
            JudgedSet(name, joined(parts), np.arange(sizes[0]), sizes[0] + np.arange(sizes[1])),
            note=f"fitted on its split {wish.train}, judged on {wish.test}",
        )
    tiles = opened(None)
    if split is None:
        return JudgedSet(name, tiles)
    train, test = (split.rows(tiles.table, name, side) for side in (TRAIN, TEST))
    both = np.intersect1d(tiles.table.group[train], tiles.table.group[test])
    note = f"{len(both)} patients or slides are on both sides of the split" if len(both) else ""
    return JudgedSet(name, tiles, train, test, note)


def _finish(found: Comparison, out: Path, asked: dict[str, Any], as_json: bool) -> None:
    """Write the files and say what came out."""
    from napari_slnpredict.evaluate.comparison_files import answer_words, run_record, write_comparison

    files = write_comparison(found, out, asked)
    typer.echo(answer_words(found), err=True)
    typer.echo(f"{', '.join(path.name for path in files)} are in {out}", err=True)
    if as_json:
        import dataclasses
        import math

        from .console import print_json

        scores = [
            {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in row.items()}
            for row in map(dataclasses.asdict, found.scores)
        ]
        print_json({**run_record(found, asked), "scores": scores})


def _plain(wish: Wish) -> dict[str, Any]:
    import dataclasses

    return {**dataclasses.asdict(wish), "split": wish.split.name if wish.split is not None else None}


def _shown(data: str) -> str:
    """Return an input without the folders it lies in: paths never leave the program."""
    from napari_slnpredict.encode.tile_inputs import read_input

    path = str(read_input(data).path)
    return data.replace(path, Path(path).name)
