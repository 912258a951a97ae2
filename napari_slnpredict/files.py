"""The one place that writes files: every output is whole or absent.

Aside (a part file with a unique name in the same folder), fsync, rename, fsync of the folder. A killed process leaves
the old file or the new one, never a torn one; two processes that write the same file leave one of the two, whole
(reliability R5). A lint test forbids ``open(..., "w")`` and its relatives everywhere else in the package.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import socket
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from .errors import ResourceError, one_line

PART_SUFFIX = ".part"


def write_file(
    path: Path, data: bytes | str | Callable[[Path], object], check: Callable[[Path], object] | None = None
) -> Path:
    """Write a whole file or nothing.

    Parameters
    ----------
    path : Path
        Where the file shall be. Its folder is created.
    data : bytes, str or callable
        The content, or a function that writes to the part file's path it is given (for libraries that write
        themselves: h5py, tifffile, matplotlib).
    check : callable, optional
        Reads the part file back before it takes its place, and raises an `OSError` when it is not what it should be.

    Raises
    ------
    ResourceError
        No space, no rights, read-only: the part file is removed, the old file stays as it was.
    """
    path = Path(path)
    part = path.with_name(
        f".{path.name[:80]}.{socket.gethostname()[:20]}-{os.getpid()}-{secrets.token_hex(4)}{PART_SUFFIX}"
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if callable(data):
            data(part)
            with part.open("rb+") as written:
                os.fsync(written.fileno())
        else:
            with part.open("xb") as target:
                target.write(data.encode() if isinstance(data, str) else data)
                target.flush()
                os.fsync(target.fileno())
        if check is not None:
            check(part)
        part.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise _resource_error(error, path) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    return path


def extend_file(path: Path, pieces: Iterable[bytes]) -> Iterator[int]:
    """Append pieces to a file that grows over several runs (a download); yields its size after each piece.

    What is in it may end anywhere: nobody may read it before its hash was checked, and then `write_file` puts it in
    place by a rename (``write_file(place, path.replace)``).

    Raises
    ------
    ResourceError
        As `write_file`; what was written before stays. Errors of `pieces` pass as they are.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered: what could not be written is not tried again when the file is closed.
        target = path.open("ab", buffering=0)
    except OSError as error:
        raise _resource_error(error, path) from error
    with target:
        try:
            for piece in pieces:
                rest = memoryview(piece)
                try:
                    while rest:
                        rest = rest[target.write(rest) :]
                except OSError as error:
                    raise _resource_error(error, path) from error
                yield target.tell()
        finally:
            with contextlib.suppress(OSError):
                os.fsync(target.fileno())


def write_json(path: Path, value: Any) -> Path:
    """Write a value as indented JSON, whole or not at all."""
    return write_file(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def check_writable(folder: Path) -> None:
    """Raise `ResourceError` now, rather than after an hour, when nothing can be written to `folder`."""
    probe = Path(folder) / f".writable-{os.getpid()}-{secrets.token_hex(4)}"
    write_file(probe, b"")
    probe.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    # Without this a rename may be lost with the power; not every platform can open a folder.
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def _resource_error(error: OSError, path: Path) -> ResourceError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return ResourceError("the disk is full", file=path, do="free some space and run again; finished work is kept")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ResourceError(
            "cannot be written here (no rights, or read-only)",
            file=path,
            do="choose another folder with --out or --cache",
        )
    if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        return ResourceError(
            "a file stands where a folder is needed, or the reverse", file=path, do="choose another place"
        )
    return ResourceError(f"cannot be written ({one_line(error.strerror)})", file=path, do="choose another place")


def digest_bytes(*parts: bytes | str) -> str:
    """Return the SHA-256 of the parts, each preceded by its length so that parts cannot be shifted."""
    total = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        total.update(len(raw).to_bytes(8, "little"))
        total.update(raw)
    return total.hexdigest()


def digest_json(value: Any) -> str:
    """Return the SHA-256 of a value's canonical JSON."""
    return digest_bytes(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False))


def digest_file(path: Path, block: int = 1 << 20) -> str:
    """Return the SHA-256 of a file's bytes."""
    total = hashlib.sha256()
    with Path(path).open("rb") as source:
        while chunk := source.read(block):
            total.update(chunk)
    return total.hexdigest()


@contextlib.contextmanager
def work_lock(path: Path) -> Iterator[bool]:
    """Hold an advisory lock; yields False when somebody else alive holds it.

    The lock only saves double work: truth never depends on it (unique part names and renames do that). It carries
    host, pid and time; a lock of a dead process on this host is taken over.
    """
    mine = json.dumps({"host": socket.gethostname(), "pid": os.getpid()})
    taken = _take(path, mine)
    try:
        yield taken
    finally:
        if taken:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _take(path: Path, mine: str) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(2):
        try:
            with path.open("x") as lock:
                lock.write(mine)
            return True
        except FileExistsError:
            if not _is_dead(path):
                return False
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        except OSError:
            return False
    return False


def _is_dead(path: Path) -> bool:
    try:
        holder = json.loads(path.read_text())
        if holder["host"] != socket.gethostname():
            return False
        os.kill(int(holder["pid"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, KeyError, TypeError):
        # Unreadable or half-written: another process is just taking it, or it died doing so. Old ones are dead.
        with contextlib.suppress(OSError):
            import time

            return time.time() - path.stat().st_mtime > 60
    return False
