"""Tensor files from strangers: safetensors only, every byte accounted for before anything is built from them.

The header is checked here and not left to the library: it accepts duplicate names (the last wins) and spends most of a
minute on a million empty tensors. Nothing in this module can execute what a file contains.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import MissingWeights, UnsafeFile

MAX_TENSORS = 20_000
MAX_HEADER = 32 << 20
#: Names of files that usually hold pickled Python objects, which run code when they are read.
PICKLE_SUFFIXES = frozenset(
    {".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".joblib", ".dill", ".npy", ".npz", ".mar", ".torchscript"}
)
_NUMPY = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip


@dataclass(frozen=True)
class TensorPlace:
    """Where one tensor lies in a file: type, shape, first and last byte after the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return np.dtype(_NUMPY[self.dtype]).itemsize


def kind_of(head: bytes) -> str:
    """Name what a file's first bytes say it is, in words for a message; "" for what may be safetensors."""
    if head[4:8] == bytes(4) and head[8:9] == b"{":
        # Asked first: a header of 640 bytes makes a good file begin like a pickle (0x80 0x02).
        return ""
    if head.startswith(b"PK\x03\x04"):
        return "a zip archive or a PyTorch checkpoint (a pickle)"
    if len(head) > 1 and head[0] == 0x80 and head[1] in range(1, 6):
        return "a Python pickle"
    if head.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer, not the weights themselves"
    if head.lstrip()[:1] == b"<":
        return "a web page"
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "an HDF5 file"
    return "not a safetensors file"


def refuse_pickles(folder: Path) -> None:
    """Raise `UnsafeFile` when anything in a folder is, or calls itself, a pickle or an archive."""
    for count, path in enumerate(sorted(folder.rglob("*"))):
        if count >= 10_000:
            raise UnsafeFile("holds more than 10,000 files", file=folder, do="keep only the model in this folder")
        if path.suffix.lower() in PICKLE_SUFFIXES:
            raise _refusal(path, "may hold a pickle, which runs code when it is read")
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as source:
                kind = kind_of(source.read(64))
            if "pickle" in kind:
                raise _refusal(path, f"is {kind}, which runs code when it is read")


def _refusal(path: Path, what: str) -> UnsafeFile:
    return UnsafeFile(what, file=path, do="use weights stored as safetensors")


def tensor_places(data: bytes | mmap.mmap, file: Path) -> tuple[dict[str, TensorPlace], int]:
    """Check a safetensors file's header; return where each tensor lies and where the header ends.

    Raises
    ------
    UnsafeFile
        Too short, not safetensors, duplicate names, too many tensors, unknown types, holes, overlaps, bytes missing.
    """
    if len(data) < 8:
        raise UnsafeFile("ends before its header", file=file, do="copy it again")
    if kind := kind_of(data[:64]):
        raise UnsafeFile(f"is {kind}", file=file, do="use weights stored as safetensors")
    length = int.from_bytes(data[:8], "little")
    if not 2 <= length <= min(MAX_HEADER, len(data) - 8):
        raise UnsafeFile("has a header of an impossible length", file=file, do="copy it again")
    header = _parse(data[8 : 8 + length], file)
    if len(header) > MAX_TENSORS:
        raise UnsafeFile(f"holds {len(header)} tensors; {MAX_TENSORS} are allowed", file=file, do="check its source")
    places = {name: _place(name, entry, file) for name, entry in header.items()}
    _check_layout(places, len(data) - 8 - length, file)
    return places, 8 + length


def _parse(text: bytes, file: Path) -> dict[str, Any]:
    def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if len(set(names)) != len(names):
            raise UnsafeFile("names a tensor twice", file=file, do="check its source")
        return dict(pairs)

    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=no_duplicates)
    except (ValueError, RecursionError) as error:
        raise UnsafeFile("has a header that is not JSON", file=file, do="copy it again") from error
    if not isinstance(header, dict):
        raise UnsafeFile("has a header that is not a table", file=file, do="copy it again")
    header.pop("__metadata__", None)
    return header


def _place(name: str, entry: Any, file: Path) -> TensorPlace:
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        numbers = (*shape, begin, end)
        plain = all(type(number) is int and number >= 0 for number in numbers) and len(shape) <= 8
        place = TensorPlace(str(dtype), shape, begin, end)
        fits = plain and math.prod(shape) * place.itemsize == end - begin
    except (KeyError, TypeError, ValueError) as error:
        raise UnsafeFile(f"describes tensor {name!r} in a way not known here", file=file) from error
    if not fits:
        raise UnsafeFile(f"gives tensor {name!r} a size that is not its shape's", file=file, do="copy it again")
    return place


def _check_layout(places: Mapping[str, TensorPlace], total: int, file: Path) -> None:
    """Tensors must fill the file without hole or overlap: bytes nobody names could be anything."""
    at = 0
    for place in sorted(places.values(), key=lambda place: (place.begin, place.end)):
        if place.begin != at:
            raise UnsafeFile("has tensors that overlap or leave holes", file=file, do="copy it again")
        at = place.end
    if at != total:
        raise UnsafeFile(f"ends after {total} of {at} bytes of tensors", file=file, do="copy it again")


def read_tensors(path: Path, sha256: str | None = None) -> dict[str, NDArray[Any]]:
    """Read a safetensors file whole, checked.

    Parameters
    ----------
    path : Path
    sha256 : str, optional
        The hash the file must have. It is taken of the very bytes that are then used, so that no one can exchange
        the file between check and use.

    Returns
    -------
    dict of str to array
        Read-only arrays; bfloat16, which numpy lacks, as float32 (exact).
    """
    return read_hashed(path, sha256)[0]


def read_hashed(path: Path, sha256: str | None = None) -> tuple[dict[str, NDArray[Any]], str]:
    """Read as `read_tensors` does; return the tensors and the file's SHA-256."""
    if path.suffix.lower() in PICKLE_SUFFIXES:
        raise _refusal(path, "may hold a pickle, which runs code when it is read")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MissingWeights("cannot be read", file=path, do="check that it exists and may be read") from error
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256:
        raise UnsafeFile("is not the file it should be (its SHA-256 differs)", file=path, do="copy the model again")
    places, start = tensor_places(data, path)
    tensors = {name: _array(data, start, place) for name, place in places.items()}
    for name, value in tensors.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise UnsafeFile(
                f"tensor {name!r} holds values that are not finite", file=path, do="train or copy it again"
            )
    return tensors, found


def map_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Map a safetensors file of our own into memory: what is not looked at is not read. Values are not checked.

    Raises
    ------
    MissingWeights
        It cannot be opened.
    UnsafeFile
        It is not what `read_tensors` would accept.
    """
    try:
        with path.open("rb") as source:
            # Copy on write: torch warns of arrays it may not write to, and nothing reaches the file either way.
            data = mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_COPY)
    except (OSError, ValueError) as error:  # ValueError: an empty file
        raise MissingWeights("cannot be read", file=path, do="check that it exists and may be read") from error
    places, start = tensor_places(data, path)
    return {name: _array(data, start, place) for name, place in places.items()}


def _array(data: bytes | mmap.mmap, start: int, place: TensorPlace) -> NDArray[Any]:
    count = math.prod(place.shape)
    flat = np.frombuffer(data, _NUMPY[place.dtype], count, start + place.begin)
    if place.dtype == "BF16":
        # bfloat16 is the upper half of float32.
        flat = (flat.astype(np.uint32) << 16).view(np.float32)
    return flat.reshape(place.shape)
