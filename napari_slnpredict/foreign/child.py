"""Reading a stranger's file in a process of its own, with limits, and away from the window's thread.

A file that makes the HDF5 library crash, or that never ends, costs itself; a table of a million rows does not make the
window stutter either, as it would in a thread.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from napari_slnpredict.bundles.bounds import bound_process
from napari_slnpredict.errors import one_line
from napari_slnpredict.events import Job, Stage

from .raw import RawScores, ScoresError, pack, unpack

#: What a child may take.
MEMORY_BYTES, CPU_SECONDS = 6 << 30, 120
#: How often a cancelled reading is noticed, s.
_LOOK_EVERY = 0.1
_FAULT = b"!"
START_BYTES = 4096


def read_raw(path: Path) -> RawScores:
    """Read a score file here and now (the child's work).

    Raises
    ------
    ScoresError
        Not there, or not what it should be.
    """
    from . import hdf5, tables

    start = first_bytes(path)
    if start.startswith(hdf5.SIGNATURE):
        return hdf5.read_hdf5(path)
    if tables.looks_like_table(start):
        return tables.read_table(path)
    raise ScoresError("is neither HDF5 nor a table with named columns", file=path, do="give a CSV or an HDF5 file")


def first_bytes(path: Path) -> bytes:
    """Return the first bytes of a regular file.

    Raises
    ------
    ScoresError
        Not found, a folder, a pipe, no rights, empty.
    """
    if not path.is_file():  # opening a pipe would wait for its writer
        raise ScoresError("no such file", file=path, do="check the path")
    try:
        with path.open("rb") as file:
            start = file.read(START_BYTES)
    except OSError as error:
        raise ScoresError(f"cannot be read ({one_line(error.strerror)})", file=path, do="check its rights") from error
    if not start:
        raise ScoresError("is empty, 0 bytes", file=path, do="copy it again")
    return start


def is_scores(path: Path) -> bool:
    """Whether a file is HDF5 or a table, and so no slide; what cannot be read is left to the slide's reader."""
    from . import hdf5, tables

    try:
        start = first_bytes(path)
    except (ScoresError, OSError):
        return False
    return start.startswith(hdf5.SIGNATURE) or tables.looks_like_table(start)


def read_in_child(path: Path) -> Job[RawScores]:
    """Read a score file in a child process.

    Raises
    ------
    ScoresError
        As `read_raw`; or the child died of the file.
    """
    command = [sys.executable, "-P", "-m", "napari_slnpredict.foreign.child", str(path.absolute())]
    # No plugin of the HDF5 library is loaded because a file asks for it.
    surroundings = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "HDF5_PLUGIN_PRELOAD": "::"}
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=surroundings
    )
    try:
        while True:
            yield Stage("scores", f"Reading {path.name}")
            try:
                answer, _ = process.communicate(timeout=_LOOK_EVERY)
                break
            except subprocess.TimeoutExpired:
                continue
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    return _understand(path, answer)


def _understand(path: Path, answer: bytes) -> RawScores:
    if answer.startswith(_FAULT):
        fault = json.loads(answer[1:])
        raise ScoresError(fault["what"], file=path, do=fault["do"])
    try:
        return unpack(answer)
    except (ValueError, KeyError, TypeError) as error:
        what = "the program that reads it ended early: the file is damaged, or too large for this machine"
        raise ScoresError(what, file=path, do="copy it again; do not use it if that does not help") from error


def main() -> int:
    """Read the file named on the command line and write what was found to stdout."""
    bound_process(MEMORY_BYTES, CPU_SECONDS, 0)
    out = sys.stdout.buffer
    try:
        out.write(pack(read_raw(Path(sys.argv[1]))))
    except ScoresError as error:
        out.write(_FAULT + json.dumps({"what": error.what, "do": error.do}).encode())
    except MemoryError:
        out.write(_FAULT + json.dumps({"what": "needs too much memory", "do": "keep only this slide's rows"}).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
