"""Progress and messages on stderr; stdout belongs to results."""

from __future__ import annotations

import json
from types import TracebackType
from typing import TYPE_CHECKING, Any

from napari_slnpredict.events import Event, Progress, Stage, Warn

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID


class Screen:
    """What a user sees while slides are worked on: a bar on a terminal, one line a slide elsewhere.

    Parameters
    ----------
    count : int
        Slides in all.
    """

    def __init__(self, count: int) -> None:
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.count = count
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._head = ""

    def __enter__(self) -> Screen:
        if self.console.is_terminal:
            self._bar = _bar(self.console)
            self._task = self._bar.add_task("", total=None, rate="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begin(self, index: int, name: str) -> None:
        """Say which slide comes now (`index` from 0)."""
        self._head = f"[{index + 1}/{self.count}] {name}"
        self._show(f"{self._head}  opening", None, None, "")

    def event(self, event: Event) -> None:
        """Show an event of a job."""
        if isinstance(event, Stage):
            self._show(f"{self._head}  {event.text}", 0, event.total, "")
        elif isinstance(event, Progress):
            rate = f"{event.per_second:.0f}/s" if event.per_second else ""
            left = f", {_duration(event.seconds_left)} left" if event.seconds_left else ""
            self._show(None, event.done, event.total, rate + left)
        elif isinstance(event, Warn):
            self.say(f"{self._head}  warning: {event.message}", "yellow")

    def say(self, text: str, style: str = "") -> None:
        """Print a line above the bar; the text is shown as it is."""
        self.console.print(text, style=style or None, markup=False)

    def finish(self, text: str, style: str = "") -> None:
        """Print the line that ends a slide."""
        self.say(f"{self._head}  {text}", style)

    def _show(self, text: str | None, done: float | None, total: float | None, rate: str) -> None:
        if self._bar is None or self._task is None:
            return
        if text is not None:
            from rich.markup import escape

            self._bar.reset(self._task, total=total, description=escape(text), rate=rate)
        self._bar.update(self._task, completed=done, total=total, rate=rate)


def _bar(console: Any) -> Bar:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        console=console,
        transient=True,
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def print_json(value: Any) -> None:
    """Print a machine-readable result on stdout."""
    import typer

    typer.echo(json.dumps(value, ensure_ascii=False, indent=1))


def print_table(columns: list[str], rows: list[list[str]]) -> None:
    """Print a table on stdout, one line a row whatever the width of the terminal, so that it can be piped."""
    import typer

    from napari_slnpredict.errors import one_line

    lines = [columns, *([one_line(cell, 300) for cell in row] for row in rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(columns))]
    for line in lines:
        typer.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())
