"""How long a read may take before whoever asked is told that the drive or share does not answer.

A thread inside a read of a dead share cannot be woken. So reads from file systems that may die under us (network,
removable) happen on threads of their own, one read at a time each; whoever asked waits with a deadline and goes on
without the thread, which comes back when the share does. A local disk answers or fails by itself: there, reads stay in
the caller's thread and cost nothing more.
"""

from __future__ import annotations

import os
import queue
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from napari_slnpredict.errors import SlideStalled

from .source import DriveSilent

#: Threads of one slide that may hang at once; after that its reads fail at once, until one comes back.
MAX_STUCK = 4
#: An unused thread ends after this long.
IDLE_SECONDS = 2.0
#: File systems of Linux that another machine or a program answers for.
# fmt: off
FAR_KINDS = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "davfs", "drvfs", "fhgfs", "gfs", "gfs2", "glusterfs", "gpfs", "lustre",
    "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "pvfs2", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs",
    "wekafs",
})
# fmt: on
_WINDOWS_REMOVABLE, _WINDOWS_REMOTE = 2, 4

#: How the list of mounts writes blanks and the like.
_OCTAL = re.compile(r"\\([0-7]{3})")

T = TypeVar("T")


class _Ticket(Generic[T]):
    """One piece of work, and what came of it."""

    def __init__(self, work: Callable[[], T]) -> None:
        self.work = work
        self.done = threading.Event()
        self.abandoned = False
        self.result: T
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.result = self.work()
        except BaseException as error:  # noqa: BLE001  it belongs to whoever asked
            self.error = error


class Patience:
    """Runs work on threads of its own and waits for it no longer than a deadline. Thread-safe.

    Parameters
    ----------
    seconds : float
        The deadline.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._idle: list[_Runner] = []
        self._stuck = 0
        self._closed = False

    @property
    def stuck(self) -> int:
        """Threads that hang in a read nobody waits for any more."""
        return self._stuck

    def run(self, work: Callable[[], T]) -> T:
        """Return the work's result or raise its error; raises `DriveSilent` when the deadline passes first."""
        ticket = _Ticket(work)
        with self._lock:
            if self._stuck >= MAX_STUCK:
                raise DriveSilent(f"{self._stuck} reads are still waiting")
            runner = self._idle.pop() if self._idle else None
        (runner or _Runner(self)).inbox.put(ticket)
        if not ticket.done.wait(self._seconds):
            with self._lock:
                if not ticket.done.is_set():
                    ticket.abandoned = True
                    self._stuck += 1
                    raise DriveSilent(f"no answer in {self._seconds:g} s")
        if ticket.error is not None:
            raise ticket.error
        return ticket.result

    def finished(self, runner: _Runner, ticket: _Ticket[Any]) -> None:
        """A thread is free again."""
        with self._lock:
            if ticket.abandoned:
                self._stuck -= 1
            ticket.done.set()
            if self._closed:
                runner.inbox.put(None)
            else:
                self._idle.append(runner)

    def dismiss(self, runner: _Runner) -> bool:
        """Whether a thread that has had nothing to do may end: not when work is just coming its way."""
        with self._lock:
            if runner not in self._idle:
                return False
            self._idle.remove(runner)
            return True

    def close(self) -> None:
        """Let the idle threads end now and the others after their read."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for runner in idle:
            runner.inbox.put(None)


class _Runner:
    """A thread that does one piece of work after the other."""

    def __init__(self, owner: Patience) -> None:
        self.inbox: queue.SimpleQueue[_Ticket[Any] | None] = queue.SimpleQueue()
        self._owner = owner
        # A daemon: one that hangs for good must not keep the program from ending.
        threading.Thread(target=self._loop, name="slnpredict-read", daemon=True).start()

    def _loop(self) -> None:
        while True:
            try:
                ticket = self.inbox.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                if self._owner.dismiss(self):
                    return
                continue
            if ticket is None:
                return
            ticket.run()
            self._owner.finished(self, ticket)
            del ticket  # the result belongs to whoever asked


def is_far(path: Path) -> bool:
    """Whether a file lies where reads may hang: a network, a shared folder of a virtual machine, a removable disk.

    Asks the system's list of mounts, never the file: that might hang already.
    """
    whole = Path(os.path.abspath(path))  # noqa: PTH100  `resolve` asks the file
    if sys.platform == "win32":
        return _windows_far(whole)
    if sys.platform == "darwin":
        return whole.parts[1:2] == ("Volumes",)  # where every network and external drive is mounted
    try:
        kind = mounted_as(whole, Path("/proc/self/mountinfo").read_text("utf-8", "replace"))
    except OSError:
        return False
    return kind in FAR_KINDS or kind.startswith("fuse")


def mounted_as(path: Path, mounts: str) -> str:
    """Return the kind of file system a place lies on, as Linux's list of mounts names it; empty when it does not."""
    kind, nearest = "", 0
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 8 or "-" not in fields[6:-1]:
            continue
        point = Path(_OCTAL.sub(lambda code: chr(int(code[1], 8)), fields[4]))
        # Of two on one place the later one hides the other.
        if (point == path or point in path.parents) and len(point.parts) >= nearest:
            kind, nearest = fields[fields.index("-", 6) + 1], len(point.parts)
    return kind


def _windows_far(path: Path) -> bool:  # pragma: no cover - of Windows only
    import ctypes

    drive = path.drive
    if drive.startswith("\\\\"):
        return True
    kind = getattr(ctypes, "windll").kernel32.GetDriveTypeW(drive + "\\")  # noqa: B009  absent elsewhere
    return kind in (_WINDOWS_REMOVABLE, _WINDOWS_REMOTE)


def stalled(path: Path, error: DriveSilent) -> SlideStalled:
    """Return what to tell a user of a read that has not come back."""
    return SlideStalled(
        f"the drive or share it lies on does not answer ({error})",
        file=path,
        do="check the connection and try again; what was computed is kept",
    )
