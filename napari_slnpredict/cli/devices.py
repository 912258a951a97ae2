"""One command in several processes, one a device: the first of them is what the user sees.

Processes meet as those of ``torchrun`` and ``accelerate launch`` do, by the same environment variables; so either of
these may start them as well, and must where several machines take part.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

#: Once the first process has ended, the others may take so long.
_GRACE_SECONDS = 10.0
_POLL_SECONDS = 0.1


def started_together() -> bool:
    """Whether somebody (we, torchrun, accelerate) started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE") or 1) > 1


def lead(arguments: Sequence[str], count: int) -> int:
    """Run this very command in `count` processes of this machine; return the first one's exit code.

    Parameters
    ----------
    arguments : sequence of str
        After ``slnpredict``.
    """
    command = [sys.executable, "-m", "napari_slnpredict.cli.app", *arguments]
    common = {
        **os.environ,
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
    }
    # Without it every process would take all cores for itself.
    common.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or count) // count)))
    processes = [subprocess.Popen(command, env={**common, "RANK": str(k), "LOCAL_RANK": str(k)}) for k in range(count)]
    # A Ctrl-C reaches the processes themselves; the first one keeps its work and ends, and so does this one.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    ended = signal.signal(signal.SIGTERM, lambda number, frame: processes[0].terminate())
    try:
        return _first_code(processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGTERM, ended)


def _first_code(processes: Sequence[subprocess.Popen[bytes]]) -> int:
    """Wait for the first process; when another one fails, the first can only wait for it in vain."""
    first, others = processes[0], processes[1:]
    deadline = float("inf")
    while first.poll() is None:
        if deadline == float("inf") and any(process.poll() for process in others):
            deadline = time.monotonic() + _GRACE_SECONDS
        if time.monotonic() > deadline:
            return 1
        time.sleep(_POLL_SECONDS)
    end = time.monotonic() + _GRACE_SECONDS
    while first.returncode == 0 and time.monotonic() < end and any(process.poll() is None for process in others):
        time.sleep(_POLL_SECONDS)
    return first.returncode if first.returncode >= 0 else 1


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
