from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from napari_slnpredict.errors import CorruptSlide, SlideError
from napari_slnpredict.slide.handle import SlideFile, content_id


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "slide.bin"
    file.write_bytes(np.random.default_rng(0).integers(0, 256, 1_000_000, dtype=np.uint8).tobytes())
    return file


def test_reading_at_places_and_past_the_end(path: Path) -> None:
    """A read near the end invented bytes or raised instead of coming back short."""
    data = path.read_bytes()
    file = SlideFile(path)
    assert file.read_at(1000, 50) == data[1000:1050]
    assert file.read_at(len(data) - 10, 50) == data[-10:]
    assert file.read_at(len(data) + 10, 50) == b""
    file.close()


def test_without_pread_the_bytes_are_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the platform has no pread, threads read each other's places."""
    monkeypatch.delattr(os, "pread")
    data = path.read_bytes()
    file = SlideFile(path)
    wrong: list[int] = []

    def read(seed: int) -> None:
        starts = np.random.default_rng(seed).integers(0, len(data), 200).tolist()
        wrong.extend(start for start in starts if file.read_at(start, 3000) != data[start : start + 3000])

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    file.close()
    assert not wrong


def test_streams_have_positions_of_their_own(path: Path) -> None:
    """Two library handles over one file moved each other's position."""
    data = path.read_bytes()
    file = SlideFile(path)
    one, two = file.stream(), file.stream()
    one.seek(500)
    assert two.read(10) == data[:10]
    assert one.read(10) == data[500:510]
    assert one.seek(-5, os.SEEK_END) == len(data) - 5
    assert one.read() == data[-5:]
    with pytest.raises(ValueError, match="before the start"):
        one.seek(-len(data) - 1, os.SEEK_END)
    file.close()


def test_nothing_is_read_after_closing(path: Path) -> None:
    """A closed slide's descriptor number, given to another file, lent that file's bytes."""
    file = SlideFile(path)
    file.close()
    file.close()
    with pytest.raises(ValueError, match="closed"):
        file.read_at(0, 1)


def test_closing_waits_for_the_last_reader(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The descriptor was closed under a read that was under way."""
    file = SlideFile(path)
    started, go_on, closed = threading.Event(), threading.Event(), []
    real_pread, real_close = os.pread, os.close

    def slow(descriptor: int, length: int, offset: int) -> bytes:
        started.set()
        assert go_on.wait(5)
        return real_pread(descriptor, length, offset)

    monkeypatch.setattr(os, "pread", slow)
    monkeypatch.setattr(os, "close", lambda descriptor: (closed.append(descriptor), real_close(descriptor)))
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(file.read_at(0, 4)))
    reader.start()
    assert started.wait(5)
    file.close()
    assert not closed
    go_on.set()
    reader.join(5)
    assert got == [path.read_bytes()[:4]]
    assert len(closed) == 1


def test_a_replaced_file_is_noticed(path: Path) -> None:
    """A verdict was given on a file that had been exchanged meanwhile."""
    file = SlideFile(path)
    file.require_unchanged()
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.replace(path)
    with pytest.raises(CorruptSlide, match="changed"):
        file.require_unchanged()
    path.unlink()
    with pytest.raises(CorruptSlide, match="changed"):
        file.require_unchanged()
    assert len(file.read_at(0, 10)) == 10
    file.close()


def test_a_missing_file_is_a_slide_error(tmp_path: Path) -> None:
    """A missing file ended in a traceback."""
    with pytest.raises(SlideError, match="not found"):
        SlideFile(tmp_path / "gone.svs")


def test_content_id_follows_the_content(path: Path) -> None:
    """A renamed slide lost its cache, or a changed one kept it."""
    before = content_id([path])
    assert content_id([path.rename(path.with_name("renamed.svs"))]) == before
    path = path.with_name("renamed.svs")
    data = bytearray(path.read_bytes())
    for place in (0, 100, len(data) - 1):
        changed = bytearray(data)
        changed[place] ^= 1
        path.write_bytes(changed)
        assert content_id([path]) != before
    path.write_bytes(data + b"\0")
    assert content_id([path]) != before


def test_content_id_of_a_small_file_covers_every_byte(tmp_path: Path) -> None:
    """Two small slides that differ in the middle shared a cache."""
    path = tmp_path / "small"
    ids = set()
    for place in range(0, 2000, 100):
        data = bytearray(2000)
        data[place] = 1
        path.write_bytes(data)
        ids.add(content_id([path]))
    assert len(ids) == 20


def test_content_id_of_several_files(tmp_path: Path) -> None:
    """A DICOM slide's id depended on which of its files was opened, or missed one."""
    paths = [tmp_path / name for name in "abc"]
    for k, path in enumerate(paths):
        path.write_bytes(bytes([k]) * 10)
    whole = content_id(paths)
    assert content_id(reversed(paths)) == whole
    assert content_id([*paths, paths[0]]) == whole
    assert content_id(paths[:2]) != whole
