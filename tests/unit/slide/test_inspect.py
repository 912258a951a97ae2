"""The scan as a whole: good slides pass in silence, everything else is refused in words, nothing crashes it."""

from __future__ import annotations

import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_slnpredict.errors import CorruptSlide, NotBrightfield, SlideError, UnsupportedSlide
from napari_slnpredict.slide import raw_file
from napari_slnpredict.slide.inspect import inspect, open_regular

from .tiny_tiff import Image, jpeg, tiff


def written(folder: Path, data: bytes, name: str = "slide.svs") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_good_slides_pass_in_silence(tmp_path: Path, big: bool, order: str) -> None:
    """A good slide in one of the four dialects of TIFF would be refused, warned of or misread."""
    found = inspect(written(tmp_path, tiff(Image(below=[Image(20, 12)]), Image(30, 20, None), big=big, order=order)))
    first = found.directories[0]
    assert (found.kind, found.big, found.byteorder, found.ndpi, found.warnings) == ("tiff", big, order, False, ())
    assert (first.width, first.height, first.tile_width, first.across, first.down) == (40, 24, 16, 3, 2)
    assert (first.tiled, first.compression, first.photometric, first.bits) == (True, 7, 6, (8, 8, 8))
    data = (tmp_path / "slide.svs").read_bytes()
    for k in range(6):
        start = int(first.offsets[k])
        assert data[start : start + int(first.byte_counts[k])] == jpeg(seed=k)
    assert [d.width for d in first.subifds] == [20]
    assert (found.directories[1].tiled, found.directories[1].tile_height, found.directories[1].fault) == (False, 20, "")


@dataclass(frozen=True)
class Foreign:
    data: bytes
    says: str


FOREIGN = {
    "text": Foreign(b"slide,label\na,1\n" * 30, "text file"),
    "page": Foreign(b"<!DOCTYPE html><html><body>Sign in</body></html>", "web page"),
    "page without a doctype": Foreign(b"\n<head><title>x</title></head>\n<html>", "web page"),
    "xml": Foreign(b"<?xml version='1.0'?><a/>", "XML"),
    "jpeg": Foreign(jpeg(), "JPEG picture"),
    "png": Foreign(b"\x89PNG\r\n\x1a\n" + bytes(100), "PNG"),
    "zip": Foreign(b"PK\x03\x04" + bytes(100), "zip archive"),
    "pdf": Foreign(b"%PDF-1.7\n" + bytes(100), "PDF"),
    "lfs": Foreign(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
    "zeros": Foreign(bytes(5000), "zeros"),
    "noise": Foreign(bytes(range(1, 200)), "unknown kind"),
}


@pytest.mark.parametrize("case", FOREIGN.values(), ids=FOREIGN.keys())
def test_a_renamed_file_is_called_what_it_is(tmp_path: Path, case: Foreign) -> None:
    """A user who renamed or downloaded the wrong thing would be told of headers instead of what the file is."""
    with pytest.raises(UnsupportedSlide, match=case.says) as error:
        inspect(written(tmp_path, case.data))
    assert "slide.svs" in str(error.value)
    assert error.value.do


def test_what_cannot_be_opened_is_refused_at_once(tmp_path: Path) -> None:
    """A missing file, a link to nowhere, an empty file, a folder or a pipe would hang or surface as a system error."""
    (tmp_path / "nowhere.svs").symlink_to("gone.svs")
    (tmp_path / "loop.svs").symlink_to("loop.svs")
    (tmp_path / "folder.svs").mkdir()
    os.mkfifo(tmp_path / "pipe.svs")
    written(tmp_path, b"", "empty.svs")
    for name, kind, says in (
        ("missing.svs", SlideError, "not found"),
        ("nowhere.svs", SlideError, "link to a file that does not exist"),
        ("loop.svs", UnsupportedSlide, "leads back to itself"),
        ("folder.svs", UnsupportedSlide, "is a folder"),
        ("pipe.svs", UnsupportedSlide, "named pipe, not a regular file"),
        ("empty.svs", CorruptSlide, "empty"),
    ):
        start = time.perf_counter()
        with pytest.raises(kind, match=says) as error:
            inspect(tmp_path / name)
        assert time.perf_counter() - start < 1
        assert str(tmp_path) not in str(error.value)


def test_no_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of another user would be called damaged."""
    path = written(tmp_path, tiff())

    def denied(*_: object) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    # Root, who runs tests in containers, may read everything. Undone at once: pytest's own tidying opens folders.
    with monkeypatch.context() as patched:
        patched.setattr(raw_file.os, "open", denied)
        with pytest.raises(SlideError, match="permission"):
            inspect(path)


def test_an_open_descriptor_is_used_and_left_open(tmp_path: Path) -> None:
    """The scan would judge another file than the one that is read afterwards, or close it under the reader."""
    path = written(tmp_path, tiff())
    descriptor = open_regular(path)
    path.unlink()
    written(tmp_path, b"another file")
    found = inspect(path, fd=descriptor)
    assert found.size == os.fstat(descriptor).st_size
    os.close(descriptor)


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    """A copy that stopped anywhere before the end would open with tiles or levels silently missing."""
    whole = tiff(Image(), Image(20, 12), Image(30, 20, None))
    for size in range(8, len(whole), 97):
        path = written(tmp_path, whole[:size])
        with pytest.raises(SlideError, match=r"ends after [\d,]+ of|beyond the end"):
            inspect(path)


def test_an_incomplete_slide_can_be_looked_at_on_demand(tmp_path: Path) -> None:
    """The user could not even look at the part of a slide that arrived."""
    data = tiff(Image(), Image(20, 12))
    second = inspect(written(tmp_path, data)).directories[1].offset
    path = written(tmp_path, data[: second + 10])
    with pytest.raises(CorruptSlide):
        inspect(path)
    found = inspect(path, allow_incomplete=True)
    assert len(found.directories) == 1
    assert any("incomplete" in warning for warning in found.warnings)


def test_damage_beside_the_slide_costs_only_itself(tmp_path: Path) -> None:
    """A slide whose label image is gone would be refused, or the label decoded from rubbish."""
    label = Image(30, 20, None, tags={273: (4, (0xF0000000,))})
    found = inspect(written(tmp_path, tiff(Image(), label)))
    assert found.directories[0].fault == ""
    assert "outside the file" in found.directories[1].fault
    assert any("label" in warning for warning in found.warnings)


def test_pixels_that_are_not_brightfield_are_named(tmp_path: Path) -> None:
    """16-bit, grey or ink images would be cut to 8-bit RGB and judged by a model."""
    plain = {"compression": 8, "blocks": [b"x" * 50] * 6}
    for tags, says in (
        ({258: (3, (16, 16, 16)), 262: (3, (2,))}, "16 bits"),
        ({258: (3, (8,)), 262: (3, (1,)), 277: (3, (1,))}, "grey"),
        ({258: (3, (32,) * 3), 262: (3, (2,)), 339: (3, (3,) * 3)}, "floating"),
        ({258: (3, (8,) * 4), 262: (3, (5,)), 277: (3, (4,))}, "CMYK"),
        ({258: (3, (8,) * 5), 262: (3, (1,)), 277: (3, (5,))}, "5 channels"),
    ):
        with pytest.raises(NotBrightfield, match=says):
            inspect(written(tmp_path, tiff(Image(tags=tags, **plain))))  # type: ignore[arg-type]


BASE = tiff(Image(below=[Image(20, 12)], tags={270: (2, b"Aperio Image Library |MPP = 0.5\0")}), Image(30, 20, None))
BIG = tiff(Image(), Image(20, 12), big=True, order=">")
ODD = st.sampled_from([0, 1, 2, 7, 255, 256, 65535, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    base=st.sampled_from([BASE, BIG]),
    edits=st.lists(
        st.tuples(st.integers(0, len(BASE) - 5), st.one_of(st.binary(min_size=1, max_size=12), ODD)), max_size=5
    ),
    keep=st.floats(0.0, 1.0),
)
def test_no_damage_crashes_or_stalls_the_scan(
    tmp_path: Path, base: bytes, edits: list[tuple[int, bytes | int]], keep: float
) -> None:
    """Some arrangement of bytes would raise an error the program does not know, or take for ever."""
    data = bytearray(base)
    for at, change in edits:
        new = struct.pack("<I", change) if isinstance(change, int) else change
        data[at % len(data) : at % len(data) + len(new)] = new
    path = written(tmp_path, bytes(data[: max(1, int(len(data) * keep))]) if keep < 0.3 else bytes(data))
    start = time.perf_counter()
    try:
        words = [str(d.index) for d in inspect(path).directories]
    except SlideError as error:
        words = str(error).splitlines()
    assert time.perf_counter() - start < 2
    assert words
    assert all(word.isprintable() for word in words)
