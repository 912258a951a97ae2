"""Many slides from the command line: what is shown, what is written beside the results, and with what exit code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from napari_slnpredict.events import Event, Progress, Throttle

from .console import Screen
from .stop import Stop

if TYPE_CHECKING:
    from napari_slnpredict.many.out_folder import Failure
    from napari_slnpredict.many.shards import Shard
    from napari_slnpredict.many.slides import Named
    from napari_slnpredict.many.work import Plan, Receipt


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
    ends_run : int
        Not 0: the environment failed; the exit code.
    """

    records: list[dict[str, Any]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    interrupted: bool = False
    ends_run: int = 0

    @property
    def exit_code(self) -> int:
        """0 all done, 1 some failed, 3 the environment cannot, 130 interrupted."""
        return self.ends_run or (130 if self.interrupted else int(bool(self.failures)))


class _Board:
    """Listens to a run: shows it, and keeps what came of each slide."""

    def __init__(self, screen: Screen, slides: Sequence[Named], on_change: Callable[[Outcome], None]) -> None:
        self.outcome = Outcome()
        self._screen, self._slides, self._on_change = screen, slides, on_change
        self._shown: dict[int, Throttle] = {}

    def began(self, place: int) -> None:
        self._shown[place] = Throttle(0.1)
        self._screen.begin(place, self._slides[place].label.shown)

    def told(self, place: int, event: Event) -> None:
        if not isinstance(event, Progress) or self._shown.setdefault(place, Throttle(0.1))():
            self._screen.event(event, place)

    def ended(self, place: int, receipt: Receipt) -> None:
        self._shown.pop(place, None)
        if receipt.trace:
            self._screen.say(receipt.trace.rstrip())
        if receipt.failure is None:
            self.outcome.records.append(receipt.record or {})
            self._screen.finish(receipt.line, place=place)
        else:
            name, _, message = receipt.failure
            self.outcome.failures.append(receipt.failure)
            self.outcome.ends_run = receipt.ends_run or self.outcome.ends_run
            self._screen.finish(f"failed: {message.removeprefix(f'{name}: ')}", "red", place=place)
        self._on_change(self.outcome)

    def say(self, text: str) -> None:
        self._screen.say(text)


def run_batch(
    plan: Plan,
    slides: Sequence[Named],
    *,
    cluster: str | None = None,
    on_change: Callable[[Outcome], None] = lambda outcome: None,
    notice: str = "",
) -> Outcome:
    """Work on each slide, here or on a cluster.

    Parameters
    ----------
    cluster : str, optional
        ADDRESS of a scheduler, or ``local:N``.
    on_change : callable
        Called after every slide that was finished or failed.
    notice : str
        Said before the first slide.
    """
    from napari_slnpredict.many.run import run_here

    if cluster is None:
        work = plan.ready()
    if notice:
        typer.echo(notice, err=True)
    with Stop() as stop, Screen(len(slides)) as screen:
        board = _Board(screen, slides, on_change)
        if cluster is None:
            run_here(plan, work, slides, board, stop)
            lost = False
        else:
            from napari_slnpredict.many.cluster import run_on_cluster

            lost = run_on_cluster(cluster, plan, slides, board, stop)
        outcome = board.outcome
        outcome.interrupted = (stop() or lost) and not outcome.ends_run
        if outcome.interrupted:
            done = len(outcome.records)
            screen.say(f"Stopped. {done} of {len(slides)} slides are done; the same command continues from there.")
    return outcome


def cut_shard(slides: Sequence[Named], shard: Shard) -> list[Named]:
    """Return the slides of this shard and say how many they are."""
    mine = list(slides) if shard.count == 1 else shard.cut(slides)
    if shard.count > 1:
        typer.echo(f"Shard {shard}: {len(mine)} of {len(slides)} slides.", err=True)
    return mine


def warn_of_other_lists(others: Sequence[str]) -> None:
    """Say that shards saw different lists: some slides may belong to none of them."""
    if others:
        typer.echo(
            f"Shards {', '.join(others)} were cut from another list of slides than this one; some slides may belong to "
            "none. Run once without --shard to be sure: what is done is not computed again.",
            err=True,
        )


def closing_words(outcome: Outcome, out: Path) -> str:
    """Say where the results are and, in a long log, once more what failed."""
    done = f"{len(outcome.records)} done: {out / 'predictions.csv'}"
    if not outcome.failures:
        return done
    shown = ", ".join(name for name, _, _ in outcome.failures[:5])
    more = f" and {len(outcome.failures) - 5} more" if len(outcome.failures) > 5 else ""
    return f"{done}\n{len(outcome.failures)} failed: {shown}{more}; see {out / 'failures.csv'}"


def summary(command: str, outcome: Outcome, shard: Shard) -> dict[str, Any]:
    """Return what ``--json`` prints."""
    return {
        "format": 1,
        "command": command,
        "shard": str(shard) if shard.count > 1 else None,
        "results": outcome.records,
        "failures": [{"slide": name, "error": kind, "message": text} for name, kind, text in outcome.failures],
        "interrupted": outcome.interrupted,
    }
