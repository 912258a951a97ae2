"""What is shown while slides are worked on."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from napari_slnpredict.cli.console import Screen, print_table
from napari_slnpredict.events import Progress, Stage, Warn


def shown(terminal: bool) -> str:
    screen = Screen(3)
    stream = io.StringIO()
    screen.console = Console(file=stream, force_terminal=terminal, width=120, highlight=False, soft_wrap=True)
    with screen:
        screen.begin(0, "a[b].svs")
        screen.event(Stage("embed", "Looking at [2] tiles", 100, "tiles"))
        screen.event(Progress(50, 100, 25.0, 2.0))
        screen.event(Warn("[bold]odd[/bold]"))
        screen.finish("SLN positive: probability 0.83.")
    return stream.getvalue()


def test_a_log_has_one_line_a_slide() -> None:
    """A cluster's log of a thousand slides would be full of progress bars."""
    lines = shown(terminal=False).splitlines()
    assert lines == ["[1/3] a[b].svs  warning: [bold]odd[/bold]", "[1/3] a[b].svs  SLN positive: probability 0.83."]


def test_a_terminal_has_a_bar_and_takes_names_as_text() -> None:
    """A slide named [red] would vanish from the screen or break it."""
    text = shown(terminal=True)
    assert "a[b].svs" in text
    assert "[bold]odd[/bold]" in text


def test_tables_survive_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    """Columns cut to 80 characters, as tables for eyes are."""
    print_table(["name", "text"], [["a", "x" * 200], ["bb", "line\nfeed"]])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "a     " + "x" * 200
    assert lines[2] == "bb    line\\nfeed"
