"""Pickled checkpoints become safetensors once, in a child process: ``python -m napari_slnpredict.bundles.pickled``.

A pickle can run code when it is read. torch's restricted loader builds tensors and plain containers only, but it has
had a hole (CVE-2025-32434, mended in 2.6), so that a stranger's file is never read in the process that holds a window
or a slide: the child has no input but the file, bounded memory and time, and may write one file. What comes out is
checked like any other safetensors file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from napari_slnpredict.errors import MissingWeights, ModelError, ResourceError, SlnPredictError, UnsafeFile, one_line
from napari_slnpredict.events import Job, Stage
from napari_slnpredict.files import write_file
from napari_slnpredict.torch_door import import_torch

from .bounds import bound_process

#: The first torch whose restricted loader has no known hole.
_SAFE_TORCH = (2, 6)
_SLACK, _CPU_SECONDS = 24 << 30, 900
_LOOK_SECONDS = 0.1
_KINDS = {kind.__name__: kind for kind in (UnsafeFile, ModelError, MissingWeights, ResourceError)}


def convert_pickle(source: Path, target: Path) -> Job[Path]:
    """Read a checkpoint of named tensors in a child process and write it as safetensors.

    Parameters
    ----------
    source : Path
        As ``torch.save`` writes a ``state_dict``.
    target : Path
        Replaced, or untouched when something is wrong.

    Raises
    ------
    UnsafeFile
        It holds more than named tensors, or is larger inside than outside.
    ModelError
        torch here is too old to read a stranger's checkpoint.
    ResourceError
        No space, no memory.
    """
    if not source.is_file():
        raise MissingWeights("no such file", file=source, do="check the path")
    command = [sys.executable, "-P", "-m", __name__, str(source.absolute()), str(target.absolute())]
    surroundings = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=surroundings
    )
    try:
        while process.poll() is None:
            yield Stage("convert", f"Converting {source.name} to safetensors")
            try:
                process.wait(_LOOK_SECONDS)
            except subprocess.TimeoutExpired:
                continue
    finally:
        if process.poll() is None:
            process.kill()
        answer = process.communicate()[0]
    if process.returncode != 0 or not target.is_file():
        raise _understand(source, answer)
    return target


def _understand(source: Path, answer: bytes) -> SlnPredictError:
    try:
        fault = json.loads(answer)
        return _KINDS[fault["kind"]](str(fault["what"]), file=source, do=str(fault["do"]))
    except (ValueError, KeyError, TypeError):
        return UnsafeFile(
            "the process that read it ended early: it is damaged, or too large for this machine",
            file=source,
            do="copy it again",
        )


def read_checkpoint(source: Path) -> dict[str, Any]:
    """Return the named tensors of a checkpoint (the child's work: never call it beside a window).

    Returns
    -------
    dict of str to torch.Tensor
    """
    _check_archive(source)
    torch = import_torch()
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < _SAFE_TORCH:
        raise ModelError(
            f"torch {torch.__version__} cannot read a stranger's checkpoint safely", do="update torch to 2.6 or newer"
        )
    try:
        # Mapped: a tensor costs memory when it is looked at, not when it is claimed.
        content = torch.load(source, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a damaged pickle raises what it likes
        raise UnsafeFile(
            f"torch's restricted loader refuses it ({one_line(str(error).splitlines()[0], 160)})",
            do="ask its authors for safetensors",
        ) from error
    if not isinstance(content, dict) or not content or not all(isinstance(v, torch.Tensor) for v in content.values()):
        names = ", ".join(map(str, list(content)[:4])) if isinstance(content, dict) else type(content).__name__
        raise UnsafeFile(f"holds more than named tensors ({one_line(names, 80)})", do="give a plain state_dict")
    claimed = sum(value.numel() * value.element_size() for value in content.values())
    if claimed > source.stat().st_size:
        # A tensor with stride 0 is 10^12 elements in one stored number.
        raise UnsafeFile(f"claims {claimed / 1e6:.0f} MB of tensors, more than it stores", do="check its source")
    return {str(name): value.detach().contiguous().clone() for name, value in content.items()}


def _check_archive(source: Path) -> None:
    """Refuse what torch never writes: another container, records that are packed or lie about their size."""
    try:
        with zipfile.ZipFile(source) as archive:
            records = archive.infolist()
    except (OSError, zipfile.BadZipFile) as error:
        raise UnsafeFile("is no checkpoint of torch 1.6 or newer", do="ask its authors for safetensors") from error
    packed = any(record.compress_type != zipfile.ZIP_STORED for record in records)
    if packed or sum(record.file_size for record in records) > source.stat().st_size:
        raise UnsafeFile("holds packed records, which torch never writes", do="check its source")


def main() -> int:
    """Convert the file named first on the command line to the one named second."""
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    stored = source.stat().st_size
    bound_process(3 * stored + _SLACK, _CPU_SECONDS, 2 * stored + (1 << 20))
    try:
        tensors = read_checkpoint(source)
        from safetensors.torch import save_file

        write_file(target, lambda part: save_file(tensors, part))
    except MemoryError:
        return _say("ResourceError", "needs more memory than it stores", "check its source")
    except SlnPredictError as error:
        return _say(type(error).__name__, error.what, error.do)
    return 0


def _say(kind: str, what: str, do: str) -> int:
    sys.stdout.write(json.dumps({"kind": kind, "what": what, "do": do}))
    return 1


if __name__ == "__main__":
    sys.exit(main())
