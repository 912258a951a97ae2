"""Ctrl-C once, twice, and a scheduler's SIGTERM."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from napari_slnpredict.cli.stop import Stop

PROGRAM = """
import os, signal, sys, time
from napari_slnpredict.cli.stop import Stop
with Stop() as stop:
    for number in {signals}:
        os.kill(os.getpid(), number)
        time.sleep(0.05)
    print("asked", stop(), flush=True)
"""


def run(*signals: int) -> subprocess.CompletedProcess[str]:
    code = PROGRAM.format(signals=[int(s) for s in signals])
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_once_is_a_wish(number: signal.Signals) -> None:
    """Work would be cut off in the middle of a chunk, or SIGTERM would skip every clean-up."""
    done = run(number)
    assert done.returncode == 0
    assert done.stdout.strip() == "asked True"
    assert "finished work is kept" in done.stderr


def test_twice_is_an_order() -> None:
    """A user could not get out of a read that hangs."""
    done = run(signal.SIGINT, signal.SIGINT)
    assert done.returncode == 130
    assert done.stdout == ""


def test_term_twice_is_still_a_wish() -> None:
    """Schedulers repeat SIGTERM; the chunk is sealed all the same."""
    assert run(signal.SIGTERM, signal.SIGTERM).returncode == 0


def test_handlers_are_given_back() -> None:
    """After a batch, Ctrl-C would no longer end the interpreter."""
    before = signal.getsignal(signal.SIGINT)
    with Stop() as stop:
        assert signal.getsignal(signal.SIGINT) != before
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
    assert signal.getsignal(signal.SIGINT) == before


def test_outside_the_main_thread_nothing_is_touched() -> None:
    """signal.signal raises there; a notebook's thread would fail."""
    seen = []

    def work() -> None:
        with Stop() as stop:
            seen.append(stop())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
