"""The slide's own file handle: opened once, read from any thread, and asked whether it is still the same file.

Every reader that can take a handle gets one made here, so that all of them see the file that was inspected, also when
its path is deleted or replaced meanwhile.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from napari_slnpredict.errors import CorruptSlide

from .directory import Identity
from .raw_file import open_regular

CONTENT_VERSION = b"slnpredict content 1"
EDGE_BYTES = 65536
SAMPLE_BYTES = 8192
SAMPLES = 64


def identity_of(stat: os.stat_result) -> Identity:
    """Return what must stay equal for a file to count as the same file."""
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


class SlideFile:
    """One open file, read at any place by any thread.

    Parameters
    ----------
    path : Path
        A regular file.

    Raises
    ------
    SlideError
        Not there, not readable, not a regular file, empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._descriptor = open_regular(self.path)
        self._lock = threading.Lock()
        self._users = 0
        self._closing = False
        #: Seconds spent in reading bytes, summed over threads.
        self.seconds = 0.0
        # Not every platform has pread; there, seek and read stay together under a lock.
        self._seeking = None if hasattr(os, "pread") else threading.Lock()
        self.identity: Identity = identity_of(os.fstat(self._descriptor))

    @property
    def descriptor(self) -> int:
        """The descriptor, for `inspect`; still ours to close."""
        return self._descriptor

    @property
    def size(self) -> int:
        """Bytes."""
        return self.identity[2]

    def read_at(self, offset: int, length: int) -> bytes:
        """Return the bytes from `offset`; fewer than `length` where the file ends."""
        with self._lock:
            if self._closing:
                raise ValueError("the slide is closed")
            self._users += 1
        start = time.perf_counter()
        try:
            return self._read(offset, length) if self._seeking is None else self._seek_and_read(offset, length)
        finally:
            self._release(time.perf_counter() - start)

    def _read(self, offset: int, length: int) -> bytes:
        data = os.pread(self._descriptor, length, offset)
        # A signal or a network share may give less than asked although there is more.
        while len(data) < length and (more := os.pread(self._descriptor, length - len(data), offset + len(data))):
            data += more
        return data

    def _seek_and_read(self, offset: int, length: int) -> bytes:
        assert self._seeking is not None
        with self._seeking:
            os.lseek(self._descriptor, offset, os.SEEK_SET)
            return b"".join(iter(_Remaining(self._descriptor, length), b""))

    def _release(self, seconds: float) -> None:
        # The descriptor's number may be given to another file as soon as it is closed: the last reader closes.
        with self._lock:
            self.seconds += seconds
            self._users -= 1
            last = self._closing and self._users == 0
        if last:
            os.close(self._descriptor)

    def stream(self) -> io.BufferedReader:
        """Return a file object with a position of its own over this handle, for libraries."""
        return io.BufferedReader(_Stream(self), buffer_size=65536)

    def require_unchanged(self) -> None:
        """Raise `CorruptSlide` when the path no longer leads to the file that was opened, or its content changed."""
        try:
            now = identity_of(self.path.stat())
        except OSError as error:
            raise changed(self.path) from error
        if now != self.identity:
            raise changed(self.path)

    def close(self) -> None:
        """Close; reads that are under way end first."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
            idle = self._users == 0
        if idle:
            os.close(self._descriptor)

    def __del__(self) -> None:
        # A slide that nobody closed must not keep its file for the life of the process.
        if hasattr(self, "_closing"):
            self.close()


def changed(path: Path) -> CorruptSlide:
    """Return the error for a file that is not the one opened before."""
    return CorruptSlide(
        "the file was changed, replaced or removed while it was open", file=path, do="open it again and repeat"
    )


def require_same(files: Mapping[Path, Identity]) -> None:
    """Raise `CorruptSlide` for the first of some files that is not what it was."""
    for path, identity in files.items():
        try:
            same = identity_of(path.stat()) == identity
        except OSError as error:
            raise changed(path) from error
        if not same:
            raise changed(path)


class _Remaining:
    """Reads on from the current position until `length` bytes have come or the file ends."""

    def __init__(self, descriptor: int, length: int) -> None:
        self._descriptor, self._left = descriptor, length

    def __call__(self) -> bytes:
        data = os.read(self._descriptor, self._left) if self._left > 0 else b""
        self._left -= len(data)
        return data


class _Stream(io.RawIOBase):
    """A readable, seekable stream over a `SlideFile`."""

    def __init__(self, file: SlideFile) -> None:
        self._file, self._position = file, 0
        #: Libraries derive titles and companion paths from a stream's name: a bare word leads nowhere.
        self.name = "slide"

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.size}[whence]
        if start + offset < 0:
            raise ValueError("seek before the start of the file")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        data = self._file.read_at(self._position, len(view))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)


def content_id(paths: Iterable[Path]) -> str:
    """Return the digest that names a slide by its content, hex.

    Size, head, tail and 64 blocks spread over the file enter it: a renamed or copied slide keeps its cache, and no
    slide is read whole. Of a slide of several files all enter, whatever their names and order.

    Parameters
    ----------
    paths : iterable of Path
        All files of the slide.
    """
    digests = sorted(_file_digest(path) for path in {Path(p) for p in paths})
    total = hashlib.sha256(CONTENT_VERSION + len(digests).to_bytes(4, "little"))
    for digest in digests:
        total.update(digest)
    return total.hexdigest()


def _file_digest(path: Path) -> bytes:
    file = SlideFile(path)
    try:
        size = file.size
        total = hashlib.sha256(size.to_bytes(8, "little"))
        if size <= 2 * EDGE_BYTES + SAMPLES * SAMPLE_BYTES:
            pieces = [(0, size)]
        else:
            inner = size - 2 * EDGE_BYTES - SAMPLE_BYTES
            starts = (EDGE_BYTES + inner * k // (SAMPLES - 1) for k in range(SAMPLES))
            pieces = [(0, EDGE_BYTES), *((start, SAMPLE_BYTES) for start in starts), (size - EDGE_BYTES, EDGE_BYTES)]
        for offset, length in pieces:
            total.update(file.read_at(offset, length))
        return total.digest()
    finally:
        file.close()
