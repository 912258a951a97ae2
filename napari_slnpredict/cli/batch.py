"""Many slides, one after another: a bad slide costs itself, a full disk ends the run, Ctrl-C keeps what was done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_slnpredict.errors import Cancelled, ResourceError, SlnPredictError
from napari_slnpredict.events import Event

from .console import Screen
from .inputs import Input, Names
from .stop import Stop

if TYPE_CHECKING:
    from napari_slnpredict.slide.slide import Slide

#: What is done with one opened slide: (slide, its input, where events go, whether to stop) -> (record, line to show).
Work = Callable[["Slide", Input, Callable[[Event], None], Callable[[], bool]], tuple[dict[str, Any], str]]


@dataclass
class Outcome:
    """What a batch came to.

    Attributes
    ----------
    records : list
        One per finished slide.
    failures : list of (str, str, str)
        Name, kind of error, message.
    interrupted : bool
    exit_code : int
    """

    records: list[dict[str, Any]] = field(default_factory=list)
    failures: list[tuple[str, str, str]] = field(default_factory=list)
    interrupted: bool = False
    exit_code: int = 0


def run_batch(
    inputs: Sequence[Input],
    names: Names,
    work: Work,
    *,
    mpp: float | None,
    reader: str | None,
    on_change: Callable[[Outcome], None] = lambda outcome: None,
    debug: bool = False,
) -> Outcome:
    """Open each slide and work on it.

    Parameters
    ----------
    mpp : float or None
        um/px for slides whose table row gives none.
    on_change : callable
        Called after every slide that was finished or failed.
    debug : bool
        Print the traceback of an unexpected error.
    """
    from napari_slnpredict.events import Throttle
    from napari_slnpredict.slide.slide import open_slide

    outcome = Outcome()
    with Stop() as stop, Screen(len(inputs)) as screen:
        shown = Throttle(0.1)
        for index, item in enumerate(inputs):
            if stop():
                break
            screen.begin(index, names.shown(item))
            try:
                given = item.mpp if item.mpp is not None else mpp
                with open_slide(item.path, given, reader=reader) as slide:
                    record, line = work(slide, item, _thinned(screen, shown), stop)
            except Cancelled:
                break
            except (SlnPredictError, MemoryError) as error:
                _failed(outcome, screen, names, item, error)
                on_change(outcome)
                if isinstance(error, ResourceError):
                    outcome.exit_code = error.exit_code
                    return outcome
            except Exception as error:  # noqa: BLE001 - whatever a library raises on one slide
                # Named, recorded, and the others go on.
                if debug:
                    screen.console.print_exception()
                _failed(outcome, screen, names, item, error)
                on_change(outcome)
            else:
                outcome.records.append(record)
                screen.finish(line)
                on_change(outcome)
        outcome.interrupted = stop()
        if outcome.interrupted:
            done = len(outcome.records)
            screen.say(f"Stopped. {done} of {len(inputs)} slides are done; the same command continues from there.")
    outcome.exit_code = 130 if outcome.interrupted else int(bool(outcome.failures))
    return outcome


def _thinned(screen: Screen, shown: Callable[[], bool]) -> Callable[[Event], None]:
    from napari_slnpredict.events import Progress

    return lambda event: screen.event(event) if not isinstance(event, Progress) or shown() else None


def _failed(outcome: Outcome, screen: Screen, names: Names, item: Input, error: Exception) -> None:
    if isinstance(error, SlnPredictError):
        message = names.hide(item, error)
    elif isinstance(error, MemoryError):
        message = f"{names.shown(item)}: not enough memory for this slide. Close other programs and run again."
    else:
        # A stranger's message may hold a path or a property of the slide; its kind is enough for a file.
        message = f"{names.shown(item)}: unexpected {type(error).__name__}. Run this slide again with --debug."
    outcome.failures.append((names.shown(item), type(error).__name__, message))
    screen.finish(f"failed: {message.removeprefix(f'{names.shown(item)}: ')}", "red")


def write_failures(out: Path, outcome: Outcome) -> None:
    """Write failures.csv of this run, or remove the one of an earlier run when nothing failed."""
    from napari_slnpredict.export import failures_csv
    from napari_slnpredict.files import write_file

    path = out / "failures.csv"
    if outcome.failures:
        write_file(path, failures_csv(outcome.failures))
    else:
        path.unlink(missing_ok=True)
