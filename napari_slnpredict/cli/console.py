"""Progress and messages on stderr; stdout belongs to results."""

from __future__ import annotations

import json
from types import TracebackType
from typing import TYPE_CHECKING, Any

from napari_slnpredict.events import Event, Meter, Progress, Stage, Warn

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID


#: Bars shown at the same time; more workers than this are working all the same.
MOST_BARS = 8


class Screen:
    """What a user sees while slides are worked on: bars on a terminal, one line a slide elsewhere.

    A bar for each slide in work and, where there are several slides, one for all of them.

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
        self._all: TaskID | None = None
        self._tasks: dict[int, TaskID] = {}
        self._heads: dict[int, str] = {}
        self._last = 0
        self._meter = Meter(count)

    def __enter__(self) -> Screen:
        if self.console.is_terminal:
            self._bar = _bar(self.console)
            if self.count > 1:
                self._all = self._bar.add_task("slides", total=self.count, rate="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begin(self, place: int, name: str) -> None:
        """Say which slide is worked on now, or now too (`place` from 0)."""
        self._last = place
        self._heads[place] = f"[{place + 1}/{self.count}] {name}"
        if self._bar is not None and place not in self._tasks and len(self._tasks) < MOST_BARS:
            self._tasks[place] = self._bar.add_task("", total=None, rate="")
        self._show(place, "opening", None, None, "")

    def event(self, event: Event, place: int | None = None) -> None:
        """Show an event of a slide's job; by default of the slide begun last."""
        place = self._last if place is None else place
        if isinstance(event, Stage):
            self._show(place, event.text, 0, event.total, "")
        elif isinstance(event, Progress):
            rate = f"{event.per_second:.0f}/s" if event.per_second else ""
            left = f", {_duration(event.seconds_left)} left" if event.seconds_left else ""
            self._show(place, None, event.done, event.total, rate + left)
        elif isinstance(event, Warn):
            self.say(f"{self._heads.get(place, '')}  warning: {event.message}", "yellow")

    def describe(self, text: str, place: int | None = None) -> None:
        """Put words beside a slide's bar; the bar goes on."""
        place = self._last if place is None else place
        task = self._tasks.get(place)
        if self._bar is not None and task is not None:
            from rich.markup import escape

            self._bar.update(task, description=escape(f"{self._heads[place]}  {text}"))

    def say(self, text: str, style: str = "") -> None:
        """Print a line above the bars; the text is shown as it is."""
        self.console.print(text, style=style or None, markup=False)

    def finish(self, text: str, style: str = "", place: int | None = None) -> None:
        """Print the line that ends a slide."""
        place = self._last if place is None else place
        head = self._heads.pop(place, f"[{place + 1}/{self.count}]")
        self.say(f"{head}  {text}", style)
        self._meter.done += 1
        if self._bar is not None:
            if (task := self._tasks.pop(place, None)) is not None:
                self._bar.remove_task(task)
            if self._all is not None:
                left = self._meter.progress().seconds_left
                rate = f"{_duration(left)} left" if left else ""
                self._bar.update(self._all, completed=self._meter.done, rate=rate)

    def _show(self, place: int, text: str | None, done: float | None, total: float | None, rate: str) -> None:
        task = self._tasks.get(place)
        if self._bar is None or task is None:
            return
        if text is not None:
            from rich.markup import escape

            self._bar.reset(task, total=total, description=escape(f"{self._heads[place]}  {text}"), rate=rate)
        self._bar.update(task, completed=done, total=total, rate=rate)


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
