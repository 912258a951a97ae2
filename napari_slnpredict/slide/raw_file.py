"""A slide's file, opened once and read at places: never waits on a pipe, never asks for more than it has.

The path is used once. Whatever reads later is handed the descriptor, so that a file that is replaced meanwhile cannot
lend its bytes to a table of tiles read from another one.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from napari_slnpredict.errors import CorruptSlide, ResourceError, SlideError, UnsupportedSlide

from .directory import Identity

COPY_AGAIN = "copy it again from where it came from"

_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_SPECIAL = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def stat_slide(path: Path) -> os.stat_result:
    """Return the file's status, links followed, or say why there is none."""
    try:
        return path.stat()
    except OSError as cause:
        raise _explain(cause, path) from cause


def open_regular(path: Path | str) -> int:
    """Open a regular, non-empty file for reading; return its descriptor, which the caller closes.

    Raises
    ------
    SlideError
        Not found, a link to nowhere, no permission, a folder, a pipe or a device, empty.
    """
    path = Path(path)
    _refuse_special(stat_slide(path), path)  # before open: opening a pipe waits for its writer
    try:
        descriptor = os.open(path, _OPEN_FLAGS)
    except OSError as cause:
        raise _explain(cause, path) from cause
    try:
        status = os.fstat(descriptor)
        _refuse_special(status, path)
        if status.st_size == 0:
            raise CorruptSlide("is empty, 0 bytes", file=path, do=COPY_AGAIN)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _refuse_special(status: os.stat_result, path: Path) -> None:
    """Refuse everything that is not a regular file."""
    if stat.S_ISREG(status.st_mode):
        return
    if stat.S_ISDIR(status.st_mode):
        raise UnsupportedSlide("is a folder, not a slide file", file=path, do="choose the slide file inside it")
    found = next((words for test, words in _SPECIAL if test(status.st_mode)), "a special file")
    raise UnsupportedSlide(f"is {found}, not a regular file", file=path, do="copy the slide to a file and open that")


def _explain(cause: OSError, path: Path) -> SlideError | ResourceError:
    """Turn the system's error into one of ours."""
    if cause.errno == errno.ELOOP:
        return UnsupportedSlide("is a link that leads back to itself", file=path, do="mend or remove the link")
    if cause.errno in (errno.ENOENT, errno.ENOTDIR):
        what = "is a link to a file that does not exist" if path.is_symlink() else "not found: no such file"
        return SlideError(what, file=path, do="check the path, and that the drive or share is connected")
    if cause.errno in (errno.EACCES, errno.EPERM):
        return SlideError(
            "may not be read: no read permission", file=path, do="ask the file's owner for permission to read it"
        )
    if cause.errno in (errno.EMFILE, errno.ENFILE):
        return ResourceError("too many files are open", file=path, do="close other slides or programs")
    reason = os.strerror(cause.errno) if cause.errno else type(cause).__name__
    return SlideError(f"cannot be opened ({reason})", file=path, do="check the name, the drive and the share")


class RawFile:
    """Random access to the bytes behind a descriptor; does not own it.

    Parameters
    ----------
    descriptor : int
        As of `open_regular`.
    path : Path
        For messages only.
    """

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor = descriptor
        self.path = path
        status = os.fstat(descriptor)
        self.size = status.st_size
        self.identity: Identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    def read(self, offset: int, length: int) -> bytes:
        """Return the bytes at `offset`, fewer than `length` only where the file ends; never allocates past the end."""
        length = max(0, min(length, self.size - offset))
        if offset < 0 or length == 0:
            return b""
        try:
            data = _read_at(self._descriptor, length, offset)
            while 0 < len(data) < length:  # a network share may return less than asked for
                more = _read_at(self._descriptor, length - len(data), offset + len(data))
                if not more:
                    break
                data += more
        except OSError as cause:
            reason = os.strerror(cause.errno) if cause.errno else "unknown cause"
            raise CorruptSlide(
                f"cannot be read at byte {offset} ({reason})",
                file=self.path,
                do="check the drive or share, or copy it again",
            ) from cause
        return data

    def exactly(self, offset: int, length: int, what: str) -> bytes:
        """Return `length` bytes, or raise that `what` is cut off."""
        data = self.read(offset, length)
        if len(data) != length:
            raise self.ends_early(what, offset + length)
        return data

    def ends_early(self, what: str, needed: int) -> CorruptSlide:
        """Return the error for a file that is shorter than its own table says."""
        return CorruptSlide(
            f"ends after {self.size:,} of at least {needed:,} bytes: {what} lies beyond the end of the file",
            file=self.path,
            do=f"the copy is incomplete, {COPY_AGAIN}",
        )


if hasattr(os, "pread"):
    _read_at = os.pread
else:  # Windows; one thread scans, so moving the descriptor's place disturbs nobody

    def _read_at(descriptor: int, length: int, offset: int, /) -> bytes:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, length)
