"""The one writer of files: whole or absent (promise R5)."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from napari_slnpredict import files
from napari_slnpredict.errors import ResourceError


def leftovers(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.endswith(files.PART_SUFFIX)]


@pytest.mark.parametrize(
    "data", [b"new", "new", lambda part: part.write_bytes(b"new")], ids=["bytes", "text", "callable"]
)
def test_a_whole_file_arrives(tmp_path: Path, data: object) -> None:
    """The three ways to hand over the content must give the same file and no part beside it."""
    target = tmp_path / "deep" / "file.txt"
    files.write_file(target, data)  # type: ignore[arg-type]
    assert target.read_bytes() == b"new"
    assert leftovers(target.parent) == []


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, code: int) -> None:
    """A full disk at the worst moment must not destroy yesterday's result."""
    target = files.write_file(tmp_path / "file.txt", "old")

    def fail(*args: object) -> None:
        raise OSError(code, os.strerror(code))

    if step == "fsync":
        monkeypatch.setattr(files.os, "fsync", fail)
    else:
        monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(ResourceError):
        files.write_file(target, "new")
    assert target.read_text() == "old"
    assert leftovers(tmp_path) == []


def test_a_writer_that_raises_leaves_nothing(tmp_path: Path) -> None:
    """An error inside a library's own writer must not leave a torn file under the final name."""

    def torn(part: Path) -> None:
        part.write_bytes(b"half")
        raise ValueError("library failed")

    with pytest.raises(ValueError, match="library failed"):
        files.write_file(tmp_path / "file.h5", torn)
    assert os.listdir(tmp_path) == []


def test_json_refuses_nan(tmp_path: Path) -> None:
    """NaN is no JSON: a reader in another language would choke on our result."""
    with pytest.raises(ValueError):
        files.write_json(tmp_path / "x.json", {"value": float("nan")})
    assert not (tmp_path / "x.json").exists()


def hammer(path: Path, content: str) -> None:
    for _ in range(50):
        files.write_file(path, content * 1000)


def test_two_processes_leave_one_whole_file(tmp_path: Path) -> None:
    """Viewer and command share the cache: a reader must never see a mixture."""
    target = tmp_path / "shared.txt"
    context = multiprocessing.get_context("fork" if hasattr(os, "fork") else "spawn")
    writers = [context.Process(target=hammer, args=(target, letter)) for letter in "ab"]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        if target.exists():
            seen.add(target.read_text())
    for writer in writers:
        writer.join()
    assert seen <= {"a" * 1000, "b" * 1000}
    assert leftovers(tmp_path) == []


def test_a_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    """A killed run must not lock its slide for ever."""
    lock = tmp_path / "lock"
    with files.work_lock(lock) as mine:
        assert mine
        with files.work_lock(lock) as second:
            assert not second
    assert not lock.exists()
    context = multiprocessing.get_context("fork" if hasattr(os, "fork") else "spawn")
    dead = context.Process(target=int)
    dead.start()
    dead.join()
    import socket

    lock.write_text(json.dumps({"host": socket.gethostname(), "pid": dead.pid}))
    with files.work_lock(lock) as mine:
        assert mine


def test_digest_parts_cannot_be_shifted() -> None:
    """("ab", "c") and ("a", "bc") are different things and must have different digests."""
    assert files.digest_bytes("ab", "c") != files.digest_bytes("a", "bc")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    """The user must learn before the work that its result cannot be kept."""
    folder = tmp_path / "readonly"
    folder.mkdir()
    folder.chmod(0o500)
    with pytest.raises(ResourceError, match="choose another folder"):
        files.check_writable(folder)


def test_a_file_where_a_folder_is_needed_is_named(tmp_path: Path) -> None:
    """`--out` pointing at a file is a user's slip, not a traceback."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(ResourceError, match="a file stands where a folder is needed"):
        files.check_writable(tmp_path / "file" / "sub")


def test_a_file_that_does_not_read_back_takes_no_place(tmp_path: Path) -> None:
    """A disk that gives back other bytes than it took must not cost yesterday's result."""
    target = files.write_file(tmp_path / "file.txt", "old")
    seen: list[bytes] = []

    def check(part: Path) -> None:
        seen.append(part.read_bytes())
        raise OSError(errno.EIO, "the file does not read back")

    with pytest.raises(ResourceError, match="does not read back"):
        files.write_file(target, "new", check)
    assert seen == [b"new"]
    assert target.read_text() == "old"
    assert leftovers(tmp_path) == []


def test_a_growing_file_keeps_what_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cut download would begin anew, or a full disk would end in a traceback."""
    growing = tmp_path / "deep" / ".x.download"

    def cut() -> Iterator[bytes]:
        yield b"abc"
        raise ConnectionError("cut")

    with pytest.raises(ConnectionError):
        list(files.extend_file(growing, cut()))
    assert list(files.extend_file(growing, [b"de", b"f"])) == [5, 6]
    assert growing.read_bytes() == b"abcdef"
    files.write_file(tmp_path / "whole", growing.replace)
    assert (tmp_path / "whole").read_bytes() == b"abcdef"
    assert not growing.exists()
    with pytest.raises(ResourceError, match="a file stands where"):
        list(files.extend_file(tmp_path / "whole" / "x", [b"a"]))
    if Path("/dev/full").exists():
        growing.symlink_to("/dev/full")
        with pytest.raises(ResourceError, match="disk is full"):
            list(files.extend_file(growing, [b"a"]))
