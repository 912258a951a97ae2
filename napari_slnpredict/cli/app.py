"""`slnpredict`: the commands, and the one place that turns errors into exit codes.

0 all done; 1 some inputs failed, the rest done; 2 usage; 3 the environment cannot; 130 interrupted, resumable.
Nothing heavy is imported here: ``slnpredict --help`` loads neither torch nor a slide library.
"""

from __future__ import annotations

import sys
import threading
from typing import Annotated

import typer

from napari_slnpredict import __version__
from napari_slnpredict.errors import SlnPredictError, one_line

from . import compare, demo, doctor, embed, encoders, index, info, models, phantom, predict, pretrain, search, view

app = typer.Typer(
    name="slnpredict",
    help="Open a whole-slide image, predict from it, see where the model looked, ask why.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command, run in (
    ("view", view.view),
    ("predict", predict.predict),
    ("embed", embed.embed),
    ("index", index.index),
    ("search", search.search),
    ("info", info.info),
    ("doctor", doctor.doctor),
    ("demo", demo.demo),
    ("models", models.models),
    ("encoders", encoders.encoders),
    ("phantom", phantom.phantom),
):
    app.command(command)(run)
app.add_typer(pretrain.pretrain, name="pretrain")
app.add_typer(compare.app, name="compare")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"napari-slnpredict {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version and stop.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an unexpected error. May stand anywhere.")
    ] = False,
) -> None:
    """Open a whole-slide image, predict from it, see where the model looked, ask why."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    if debug:  # it may stand anywhere; the application itself takes it before the command
        arguments = ["--debug", *(argument for argument in arguments if argument != "--debug")]
    surfaced = _surface_threads(debug)
    try:
        code = _run(arguments, debug)
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    sys.exit(code or int(bool(surfaced)))


def _run(arguments: list[str], debug: bool) -> int:
    try:
        app(arguments, prog_name="slnpredict")
    except SlnPredictError as error:
        if debug:
            raise
        say_error(str(error))
        return error.exit_code
    except MemoryError:
        if debug:
            raise
        say_error("not enough memory. Close other programs, or set SLNPREDICT_MEMORY_MB lower.")
        return 3
    except KeyboardInterrupt:
        say_error("stopped")
        return 130
    except Exception as error:
        # The last resort: whatever a library threw, one line for the user.
        if debug:
            raise
        say_error(f"unexpected {type(error).__name__}: {one_line(error)}. Run again with --debug for the traceback.")
        return 1
    return 0


def say_error(message: str) -> None:
    """Print one line about an error to stderr."""
    typer.echo(f"slnpredict: {message}", err=True)


def _surface_threads(debug: bool) -> list[str]:
    """Make an exception that ends a thread visible: one line, and an exit code that is not 0."""
    surfaced: list[str] = []
    default = threading.excepthook

    def hook(failed: threading.ExceptHookArgs) -> None:
        surfaced.append(failed.exc_type.__name__)
        if debug:
            default(failed)
        else:
            say_error(f"a worker failed: {failed.exc_type.__name__}: {one_line(failed.exc_value)}. See --debug.")

    threading.excepthook = hook
    return surfaced


if __name__ == "__main__":
    main()
