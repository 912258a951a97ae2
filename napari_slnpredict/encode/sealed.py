"""Small files of arrays in the cache that prove they are whole: a header and tensors under one checksum.

What lies in a cache may be torn by a full disk, flipped by a bad one, or written by another version. Whoever reads
gets the content, or None and makes it again.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.bundles.bundle import tensor_bytes
from napari_slnpredict.files import write_file

_HEADER = "header"


def write_sealed(path: Path, header: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> Path:
    """Write a header (plain JSON values) and arrays as one file, whole or not at all.

    Raises
    ------
    ResourceError
        No space or no rights.
    """
    sums = {name: checksum(value) for name, value in tensors.items()}
    text = json.dumps({**header, "checksums": sums}, allow_nan=False).encode()
    return write_file(path, tensor_bytes({**tensors, _HEADER: np.frombuffer(text, np.uint8)}))


def read_sealed(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]] | None:
    """Return header and arrays, or None where there is no such file or it is not whole."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
        header = json.loads(tensors.pop(_HEADER).tobytes())
        sums = header.pop("checksums")
        if set(sums) != set(tensors) or any(checksum(tensors[name]) != sums[name] for name in sums):
            return None
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return header, tensors


def checksum(array: NDArray[Any]) -> int:
    """Return a checksum of an array's bytes."""
    # An array without elements cannot be cast to bytes.
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data) if array.size else 0
