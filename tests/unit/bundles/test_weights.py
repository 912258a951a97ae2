"""Tensor files that are not what they claim are refused before anything is built from them."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from napari_slnpredict.bundles.weights import kind_of, read_hashed, read_tensors, refuse_pickles
from napari_slnpredict.errors import MissingWeights, UnsafeFile
from napari_slnpredict.files import digest_file


def header_file(header: Any, payload: bytes = b"", pad: int = 0) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * pad
    return struct.pack("<Q", len(text)) + text + payload


def one(dtype: str = "F32", shape: tuple[int, ...] = (2,), offsets: tuple[int, int] = (0, 8)) -> dict[str, Any]:
    return {"a": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}}


class Bomb:
    """Unpickling it would create a file."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.marker),)


def zipped(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", content)
    return stream.getvalue()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Weights would come back changed."""
    tensors = {"w": np.arange(6, dtype=np.float16).reshape(2, 3), "n": np.array(7, np.int64), "e": np.zeros((0, 3))}
    path = tmp_path / "w.safetensors"
    path.write_bytes(save(tensors, {"note": "hello"}))
    back, sha256 = read_hashed(path)
    assert sha256 == digest_file(path)
    assert set(back) == set(tensors)
    for name, value in tensors.items():
        assert back[name].dtype == value.dtype
        np.testing.assert_array_equal(back[name], value)


def test_bfloat16_is_exact(tmp_path: Path) -> None:
    """numpy has no bfloat16: foundation encoders stored so would not load, or load wrong."""
    wanted = np.array([1.0, -2.5, 0.15625, 3.0e38], np.float32)
    stored = (wanted.view(np.uint32) >> 16).astype("<u2").tobytes()
    path = tmp_path / "w.safetensors"
    path.write_bytes(header_file(one("BF16", (4,)), stored))
    read = read_tensors(path)["a"]
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, (wanted.view(np.uint32) & 0xFFFF0000).view(np.float32))


EIGHT = bytes(8)
HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "short": b"abc",
    "pickle": pickle.dumps({"a": 1}),
    "zip": zipped(b"x"),
    "web page": b"<!DOCTYPE html><html></html>",
    "lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "header past the end": struct.pack("<Q", 1 << 20) + b"{}",
    "header of 2^63": struct.pack("<Q", 1 << 63) + b"{}",
    "not json": header_file(b"{no json}"),
    "list": header_file(b"[1, 2]"),
    "not utf-8": header_file(b'{"\xff": 1}'),
    "deep": header_file(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "duplicate name": header_file(
        b'{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}',
        EIGHT,
    ),
    "unknown dtype": header_file(one("Q4"), EIGHT),
    "no dtype": header_file({"a": {"shape": [2], "data_offsets": [0, 8]}}, EIGHT),
    "entry is text": header_file({"a": "b"}, EIGHT),
    "negative shape": header_file(one("F32", (-2,)), EIGHT),
    "float shape": header_file({"a": {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]}}, EIGHT),
    "bool shape": header_file({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, bytes(4)),
    "huge shape": header_file(one("F32", (1 << 40, 1 << 40)), EIGHT),
    "size is not shape": header_file(one("F32", (3,)), EIGHT),
    "cut": header_file(one("F32", (2,)), bytes(7)),
    "bytes left over": header_file(one("F32", (2,)), bytes(12)),
    "hole": header_file(one("F32", (2,), (4, 12)), bytes(12)),
    "overlap": header_file({**one(), "b": one()["a"]}, EIGHT),
    "too many": header_file({f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(20_001)}),
    "not a number": header_file(one(), np.array([1, np.nan], "<f4").tobytes()),
    "not a number in bfloat16": header_file(one("BF16", (2,), (0, 4)), struct.pack("<2H", 0x3F80, 0x7FC0)),
    "infinite in float16": header_file(one("F16", (2,), (0, 4)), np.array([1, np.inf], "<f2").tobytes()),
    "a header of 33 MB": header_file(one(), EIGHT, pad=33 << 20),
    "infinite": header_file(one(), np.array([1, np.inf], "<f4").tobytes()),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_by_name(name: str, tmp_path: Path) -> None:
    """A damaged or hostile file would become a network that is wrong, or take the machine down."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(UnsafeFile, match=r"^model\.safetensors: "):
        read_tensors(path)


def test_a_pickle_is_never_run(tmp_path: Path) -> None:
    """A model file would run a stranger's code."""
    marker = tmp_path / "ran"
    for name in ("model.safetensors", "model.pt", "model.bin", "model.pkl"):
        path = tmp_path / name
        path.write_bytes(pickle.dumps(Bomb(str(marker))))
        with pytest.raises(UnsafeFile):
            read_tensors(path)
    with pytest.raises(UnsafeFile, match="pickle"):
        refuse_pickles(tmp_path)
    assert not marker.exists()


def test_a_good_header_that_begins_like_a_pickle_is_good(tmp_path: Path) -> None:
    """Every file whose header has 640 bytes would be refused as a pickle."""
    bare = len(json.dumps(one()))
    path = tmp_path / "w.safetensors"
    path.write_bytes(header_file(one(), EIGHT, pad=0x280 - bare))
    assert path.read_bytes()[:2] == b"\x80\x02"
    assert kind_of(path.read_bytes()) == ""
    refuse_pickles(tmp_path)
    assert list(read_tensors(path)) == ["a"]


def test_another_file_than_promised_is_refused(tmp_path: Path) -> None:
    """Weights exchanged after training would be used as if nothing had happened."""
    path = tmp_path / "w.safetensors"
    path.write_bytes(save({"a": np.zeros(2)}))
    with pytest.raises(UnsafeFile, match="SHA-256"):
        read_tensors(path, "0" * 64)
    with pytest.raises(MissingWeights, match="absent"):
        read_tensors(tmp_path / "absent.safetensors")
