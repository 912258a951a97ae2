"""Networks in OpenVINO's own form: made once in a child process, kept in the cache, read from there ever after.

Tracing and converting take 2 to 15 seconds, hold Python's lock for long stretches and a second copy of the weights: a
child process keeps all that away from a window, can be stopped at any moment, and takes its memory with it. What is
kept does not depend on the processor; the compiled form, which does, takes a tenth of a second and is not kept.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import napari_slnpredict
from napari_slnpredict.encode.gate import CheckTiles
from napari_slnpredict.encode.sealed import read_sealed, write_sealed
from napari_slnpredict.errors import ResourceError, one_line
from napari_slnpredict.events import Job, Stage
from napari_slnpredict.files import digest_json, work_lock

from .openvino_door import import_openvino, openvino_version

if TYPE_CHECKING:
    from napari_slnpredict.encode.record import Encoder

#: Changes with what the child does: older conversions are then made again.
VERSION = 2
FOLDER = "engines"
#: -P: no module from whatever folder the user happens to be in.
_CHILD = ("-P", "-m", "napari_slnpredict.encode.engines.child")
#: How often a waiting job looks whether the child has ended, or whether it shall be stopped.
_LOOK_SECONDS = 0.1
_ATTEMPTS = 2


@dataclass(frozen=True)
class Conversion:
    """A network in OpenVINO's form, and what torch makes of the check tiles.

    Attributes
    ----------
    tile_px, dim : int
    graph : (g,) uint8
        XML. Input (-1, p, p, 3) uint8, normalisation included; output (-1, d) float32.
    weights : (w,) uint8
    reference : (k, d) float32
        Features of the check tiles by torch in float32.
    """

    tile_px: int
    dim: int
    graph: NDArray[np.uint8]
    weights: NDArray[np.uint8]
    reference: NDArray[np.float32]

    def compile(self, batch: int, streams: int, hint: str) -> Any:
        """Return the network compiled for this CPU: `streams` at a time, each on one thread, `batch` tiles a pass."""
        openvino = import_openvino()
        core = openvino.Core()
        # A copy: OpenVINO goes on using this memory without holding on to the array (seen as features that are NaN).
        model = core.read_model(self.graph.tobytes(), openvino.Tensor(self.weights, shared_memory=False))
        model.reshape([batch, self.tile_px, self.tile_px, 3])
        return core.compile_model(
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": hint,
                "NUM_STREAMS": str(streams),
                "INFERENCE_NUM_THREADS": streams,
                # Threads nailed to cores would wait there for whatever else the machine does.
                "ENABLE_CPU_PINNING": False,
            },
        )


class Refused(Exception):
    """The network cannot be converted; the text says why."""


def engines_folder(cache: Path, encoder: Encoder) -> Path:
    """Return where conversions and gates of an encoder lie."""
    return Path(cache) / FOLDER / encoder.digest[:16]


def conversion_path(cache: Path, encoder: Encoder, tile_px: int, tiles: CheckTiles) -> Path:
    """Return the file of a conversion; its name changes with everything that its content depends on."""
    key = digest_json([encoder.digest, tile_px, openvino_version(), VERSION, tiles.digest])
    return engines_folder(cache, encoder) / f"openvino-{tile_px}-{key[:16]}.safetensors"


def read_conversion(path: Path, encoder: Encoder, tile_px: int) -> Conversion | None:
    """Return a conversion from the cache; None where there is none that is whole and this encoder's.

    Raises
    ------
    Refused
        An earlier attempt failed, and would fail again.
    """
    found = read_sealed(path)
    if found is None:
        return None
    header, tensors = found
    if header.get("encoder") != encoder.digest or header.get("tile_px") != tile_px:
        return None
    if "refused" in header:
        raise Refused(str(header["refused"]))
    try:
        graph, weights, reference = (tensors[name] for name in ("graph", "weights", "reference"))
    except KeyError:
        return None
    if reference.ndim != 2 or reference.shape[1] != encoder.dim:
        return None
    return Conversion(tile_px, encoder.dim, graph, weights, reference.astype(np.float32, copy=False))


def convert(
    cache: Path, encoder: Encoder, tile_px: int, tiles: CheckTiles, *, threads: int = 1, nice: int = 0
) -> Job[Conversion]:
    """Return the converted network, from the cache or made now by a child process.

    Closing the job ends the child. Two processes that want the same share the work where they can.

    Raises
    ------
    Refused
        OpenVINO, or the child, cannot; the caller takes another engine.
    """
    path = conversion_path(cache, encoder, tile_px, tiles)
    attempts = 0
    while (found := read_conversion(path, encoder, tile_px)) is None:
        try:
            with work_lock(path.with_suffix(".lock")) as alone:
                if alone:
                    if attempts == _ATTEMPTS:
                        raise Refused("the disk does not give back what was written")
                    attempts += 1
                    yield from _run_child(path, encoder, tile_px, threads, nice)
        except ResourceError as error:
            raise Refused(str(error)) from error
        if not alone:
            # Another process is at it: its result will do.
            time.sleep(_LOOK_SECONDS)
            yield _stage(encoder)
    return found


def _stage(encoder: Encoder) -> Stage:
    return Stage("engine", f"Preparing {encoder.name} for this computer (only once)")


def _run_child(path: Path, encoder: Encoder, tile_px: int, threads: int, nice: int) -> Job[None]:
    """Convert in a child process; when it returns, `path` holds a conversion or a refusal."""
    request = {
        "encoder": _plain(encoder), "tile_px": tile_px, "path": str(path), "threads": threads, "nice": nice,
    }  # fmt: skip
    with tempfile.TemporaryFile() as said:
        try:
            child = subprocess.Popen(
                [sys.executable, *_CHILD],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said, env=_environment(),
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )  # fmt: skip
        except OSError as error:
            raise Refused(f"no child process can be started ({one_line(error)})") from error
        try:
            yield from _wait_for(child, json.dumps(request).encode(), encoder)
        finally:
            if child.poll() is None:
                child.kill()
            child.wait()
        if child.returncode != 0 or read_sealed(path) is None:
            said.seek(0)
            _refuse(path, encoder, tile_px, child.returncode, said.read().decode(errors="replace"))


def _wait_for(child: subprocess.Popen[bytes], request: bytes, encoder: Encoder) -> Job[None]:
    assert child.stdin is not None
    yield _stage(encoder)
    try:
        # A few kilobytes: they fit into the pipe whatever the child does.
        with child.stdin as pipe:
            pipe.write(request)
    except OSError:
        pass  # it has died already; its exit code says so
    while True:
        try:
            child.wait(_LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            yield _stage(encoder)
        else:
            return


def _refuse(path: Path, encoder: Encoder, tile_px: int, code: int, said: str) -> None:
    """Raise `Refused`; remember it where it was the network's fault, so that it is not tried at every start."""
    lines = [line for line in said.splitlines() if line.strip()]
    reason = one_line(lines[-1], 300) if lines else f"the child process ended with {code}"
    if code == 1:
        write_sealed(path, {"encoder": encoder.digest, "tile_px": tile_px, "refused": reason}, {})
    raise Refused(reason)


def _environment() -> dict[str, str]:
    """Return the child's environment: it finds the package where this process did."""
    home = str(Path(napari_slnpredict.__file__).parents[1])
    paths = [home, *filter(None, [os.environ.get("PYTHONPATH", "")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _plain(encoder: Encoder) -> dict[str, Any]:
    """Return an encoder's record as JSON values; `child` makes the record again."""
    plain = dataclasses.asdict(encoder)
    for name in ("weights", "check"):
        plain[name] = None if plain[name] is None else str(plain[name])
    return plain
