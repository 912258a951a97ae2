"""`slnpredict pretrain METHOD`: train a tile encoder. Each method's flags are made from its settings.

Neither the methods nor torch are loaded before one of them is named: a command is built when it is asked for.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from .options import AsJson

if TYPE_CHECKING:
    from napari_slnpredict.encode.methods import MethodRow
    from napari_slnpredict.encode.option import Option
    from napari_slnpredict.encode.training import Trained, Training
    from napari_slnpredict.events import Event

    from .console import Screen

Tiles = Annotated[
    list[str],
    typer.Argument(
        metavar="TILES...",
        help="Slides, folders of slides, a cohort CSV; folders or zips of tiles; PatchCamelyon's h5.",
        show_default=False,
    ),
]
Out = Annotated[
    Path,
    typer.Option("--out", help="Folder of the encoder; the same command goes on where it was stopped."),
]
Devices = Annotated[
    int,
    typer.Option("--devices", help="Train on so many GPUs (or, with --device cpu, in so many processes).", min=1),
]
#: A line is written this seldom where there is no bar, seconds.
_LINE_SECONDS = 30.0


class MethodGroup(TyperGroup):
    """The methods as commands."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the methods."""
        from napari_slnpredict.encode.methods import METHODS

        return list(METHODS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a method's command, made from its settings; None for what is no method."""
        from napari_slnpredict.encode.methods import METHODS

        return method_command(METHODS[cmd_name]) if cmd_name in METHODS else None


pretrain = typer.Typer(
    cls=MethodGroup,
    help="Train a tile encoder from slides or tiles; the methods' own --help lists every setting.",
    no_args_is_help=True,
)


def method_command(row: MethodRow) -> Any:
    """Return the command of one method."""
    from napari_slnpredict.encode.option import options_of
    from napari_slnpredict.encode.training import Training, TrainingOptions

    def run(tiles: list[str], out: Path, devices: int, as_json: bool, **chosen: Any) -> None:
        options, settings = (
            {one.name: chosen[one.name] for one in options_of(kind)} for kind in (TrainingOptions, row.settings)
        )
        wanted = Training(row.name, tuple(tiles), out, TrainingOptions(**options), row.settings(**settings))
        train(wanted, devices, as_json)

    parameters = [
        _parameter("tiles", Tiles),
        _parameter("out", Out),
        *(_option(one) for one in (*options_of(row.settings), *options_of(TrainingOptions))),
        _parameter("devices", Devices, 1),
        _parameter("as_json", AsJson, False),
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    made = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    made.command(row.name, help=row.text)(run)
    return typer.main.get_command(made)


def _parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _option(one: Option) -> inspect.Parameter:
    """Return a setting as a parameter of a command."""
    flag = f"{one.flag}/--no-{one.flag.removeprefix('--')}" if one.kind is bool else one.flag
    low, high = (one.low, one.high) if one.kind in (int, float) else (None, None)
    return _parameter(
        one.name,
        Annotated[one.kind, typer.Option(flag, help=one.help, callback=_checked(one), min=low, max=high)],
        one.default,
    )


def _checked(one: Option) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        problem = one.problem(value)
        if problem:
            raise typer.BadParameter(problem, param_hint=one.flag)
        return value

    return check


def train(training: Training, devices: int = 1, as_json: bool = False) -> None:
    """Train as described, here or in several processes, and leave with the exit code."""
    import sys

    from napari_slnpredict.encode.devices import process_number

    from .devices import lead, started_together

    if devices > 1 and not started_together():
        raise typer.Exit(lead(sys.argv[1:], devices))
    if process_number():
        raise typer.Exit(_assist(training))
    raise typer.Exit(_train_here(training, as_json))


def _assist(training: Training) -> int:
    """Do another process's share of every batch, silently; the first one decides when to stop."""
    import signal

    from napari_slnpredict.encode.training import train_encoder
    from napari_slnpredict.events import run
    from napari_slnpredict.settings import load_settings

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    run(train_encoder(training, load_settings()))
    return 0


def _train_here(training: Training, as_json: bool) -> int:
    from napari_slnpredict.encode.training import kept_steps, train_encoder
    from napari_slnpredict.errors import Cancelled
    from napari_slnpredict.events import run
    from napari_slnpredict.settings import load_settings

    from .console import Screen
    from .stop import Stop

    settings = load_settings()
    with Stop() as stop, Screen(1) as screen:
        screen.begin(0, f"pretrain {training.method}")
        try:
            trained = run(train_encoder(training, settings), _Teller(screen), stop)
        except Cancelled:
            kept = "the same command continues from there" if kept_steps(training.out) else "nothing was trained yet"
            screen.finish(f"stopped; {kept}")
            return 130
        screen.finish(_ending(training, trained))
    return _report(training, trained, as_json)


class _Teller:
    """Shows what a training tells."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._last = time.monotonic()
        self._left = ""

    def __call__(self, event: Event) -> None:
        from napari_slnpredict.events import Partial, Progress

        if isinstance(event, Partial) and event.kind == "note":
            self._screen.say(str(event.data))
        elif isinstance(event, Partial) and event.kind == "probe":
            self._screen.say(f"step {event.data.number}: {figures(event.data.figures)}")
        elif isinstance(event, Partial) and event.kind == "step":
            self._step(event.data)
        else:
            if isinstance(event, Progress):
                self._left = f" of {event.total}, {event.seconds_left or 0:.0f} s left"
            self._screen.event(event)

    def _step(self, step: Any) -> None:
        self._screen.describe(figures(step.figures))
        now = time.monotonic()
        if not self._screen.console.is_terminal and now - self._last > _LINE_SECONDS:
            self._last = now
            self._screen.say(f"step {step.number}{self._left}: {figures(step.figures)}")


def figures(values: Any) -> str:
    """Return figures as one reads them: ``loss 2.31, near/far AUC 0.712``."""
    return ", ".join(f"{name} {value:.3g}" for name, value in values.items())


def _ending(training: Training, trained: Trained) -> str:
    if trained.already:
        return f"{training.out} holds this very encoder already, finished"
    return "trained" + (", ended early: the probe gained nothing more" if trained.early else "")


def _report(training: Training, trained: Trained, as_json: bool) -> int:
    """Say what was left out and what to type next; return the exit code."""
    from napari_slnpredict.many.out_folder import Failures

    Failures(training.out).write(list(trained.left_out))
    bundle = trained.bundle
    assert bundle is not None
    name = f"local:{training.out}"
    if trained.left_out:
        typer.echo(f"{len(trained.left_out)} slides were left out; see {training.out / 'failures.csv'}", err=True)
    typer.echo(
        f"Encoder: {name} (also in the viewer's list when its folder lies in the models folder)\n"
        f"Next:    slnpredict embed SLIDES --encoder {name}\n"
        f"         slnpredict index SLIDES --encoder {name} --out INDEX",
        err=True,
    )
    if as_json:
        from napari_slnpredict.encode.encoder import load_encoder

        from .console import print_json

        looks = bundle.training.get("probes") or [{}]
        print_json(
            {
                "format": 1, "command": "pretrain", "method": training.method, "encoder": name,
                "digest": load_encoder(name).digest, "bundle_digest": bundle.digest,
                "slides": len(bundle.training.get("slides", ())), "tiles": bundle.training.get("tiles"),
                "probe": looks[-1], "already": trained.already, "ended_early": trained.early,
                "failures": [{"slide": one, "error": kind, "message": text} for one, kind, text in trained.left_out],
            }
        )  # fmt: skip
    return int(bool(trained.left_out))
