"""DICOM files: walked element by element, frames where the table says, before OpenSlide may crash on them."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_slnpredict.errors import CorruptSlide, NotBrightfield, SlideError, UnsupportedSlide
from napari_slnpredict.slide.directory import Inspection
from napari_slnpredict.slide.inspect import inspect

from .tiny_dicom import EXPLICIT, IMPLICIT, dicom, element, item, number, pixel_data
from .tiny_tiff import jpeg


def scan(folder: Path, data: bytes) -> Inspection:
    path = folder / "a.dcm"
    path.write_bytes(data)
    return inspect(path)


def native(syntax: str, changes: dict | None = None, missing: int = 0) -> bytes:
    """Return a file with uncompressed frames."""
    pixels = element(0x7FE00010, "OW", bytes(6 * 16 * 16 * 3 - missing), implicit=syntax == IMPLICIT)
    flat = {0x00400555: ("LO", b"no sequence"), **(changes or {})}
    return dicom(flat, pixels, syntax)


@pytest.mark.parametrize(
    "data",
    [
        dicom(),
        dicom(pixels=pixel_data([jpeg(seed=k) for k in range(6)], table=False)),
        dicom({0x00480006: None, 0x00480007: None, 0x00209311: None}, frames=1),
        native(EXPLICIT),
        native(IMPLICIT),
        dicom({0x00400555: ("SQ", item(element(0x00080100, "SH", b"x") + item(b"", 0xE00D), length=0xFFFFFFFF))}),
    ],
    ids=["jpeg", "no table", "one frame", "explicit", "implicit", "open items"],
)
def test_good_files_pass_in_silence(tmp_path: Path, data: bytes) -> None:
    """A lawful way of writing DICOM would be refused."""
    found = scan(tmp_path, data)
    assert (found.kind, found.members, found.warnings) == ("dicom", (), ())


def test_the_extended_table_is_believed_no_more(tmp_path: Path) -> None:
    """The 64-bit table of a file above 4 GB would go unchecked into a library that crashes on it."""
    frames = [jpeg(seed=k) for k in range(6)]
    places, at = [], 0
    for frame in frames:
        places.append(at)
        at += 8 + len(frame) + len(frame) % 2
    pixels = pixel_data(frames, table=False)
    good = {0x7FE00001: ("OV", struct.pack("<6Q", *places))}
    assert scan(tmp_path, dicom(good, pixels)).warnings == ()
    bad = {0x7FE00001: ("OV", struct.pack("<6Q", *places[:5], places[5] + 2))}
    with pytest.raises(CorruptSlide, match="no frame begins"):
        scan(tmp_path, dicom(bad, pixels))


@pytest.mark.parametrize("k", range(6))
@pytest.mark.parametrize("by", [2, -2, 300, 1 << 20, 1 << 31])
def test_no_wrong_place_of_a_frame_reaches_the_library(tmp_path: Path, k: int, by: int) -> None:
    """OpenSlide 4.0.1 ends the whole process with a segmentation fault on one wrong byte of this table."""
    frames = [jpeg(seed=n) for n in range(6)]
    with pytest.raises(CorruptSlide, match="frame"):
        scan(tmp_path, dicom(pixels=pixel_data(frames, shift={k: by})))


@pytest.mark.parametrize(
    ("data", "kind", "says"),
    [
        (bytes(128) + b"DICM", CorruptSlide, "incomplete"),
        (dicom()[:400], CorruptSlide, "ends"),
        (dicom()[:-600], CorruptSlide, "ends after"),
        (dicom(sop_class="1.2.840.10008.5.1.4.1.1.2"), UnsupportedSlide, "another kind"),
        (dicom(syntax="1.2.840.10008.1.2.4.80"), UnsupportedSlide, "no reader here decodes"),
        (dicom({0x00280010: ("US", number(0))}), CorruptSlide, "0028,0010 is 0"),
        (dicom({0x00280010: None}), CorruptSlide, "missing"),
        (dicom({0x00280008: ("IS", b"7")}), CorruptSlide, "7 frames where its size needs 6"),
        (dicom({0x00480006: ("UL", number(1 << 30, True))}), CorruptSlide, "0048,0006"),
        (dicom({0x00280010: ("US", number(8192))}), UnsupportedSlide, "too large"),
        (dicom({0x00280100: ("US", number(16))}), NotBrightfield, "16 bit"),
        (dicom({0x00280002: ("US", number(1))}), NotBrightfield, "1 channel"),
        (dicom({0x00400555: ("SQ", b"\1\2\3\4\5\6\7\x08")}), CorruptSlide, "unknown kind|without items"),
        (dicom({0x00400555: ("SQ", item(b"", length=900))}), CorruptSlide, "longer than its sequence"),
        (dicom({0x00400555: ("XX", b"abcd")}), CorruptSlide, "unknown kind"),
        (dicom(pixels=pixel_data([jpeg(seed=k) for k in range(5)])), CorruptSlide, "5 of 6 frames"),
        (dicom(pixels=pixel_data([jpeg(32, 16)] * 6)), CorruptSlide, "32 x 16 px in a tile of 16 x 16"),
        (native(EXPLICIT, missing=100), CorruptSlide, "bytes of pixels"),
        (dicom(pixels=b""), CorruptSlide, "ends before its pixels"),
    ],
)  # fmt: skip
def test_damage_and_other_kinds_are_named(tmp_path: Path, data: bytes, kind: type[SlideError], says: str) -> None:
    """A stub, another modality or a contradiction would be left to a library's luck."""
    with pytest.raises(kind, match=says) as error:
        scan(tmp_path, data)
    assert error.value.do


def test_sequences_do_not_nest_for_ever(tmp_path: Path) -> None:
    """A deep tree of sequences would exhaust the interpreter's stack."""
    value = b""
    for _ in range(40):
        value = item(element(0x00400560, "SQ", value))
    with pytest.raises(CorruptSlide, match="nested"):
        scan(tmp_path, dicom({0x00400555: ("SQ", value)}))


def test_one_damaged_frame_is_mentioned(tmp_path: Path) -> None:
    """One frame that cannot be decoded would cost the slide, or be shown without a word."""
    frames = [jpeg(seed=k) for k in range(6)]
    frames[3] = bytes(len(frames[3]))
    assert any("1 of 6 DICOM frames" in text for text in scan(tmp_path, dicom(pixels=pixel_data(frames))).warnings)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(132, 900), st.integers(0, 255)), min_size=1, max_size=6))
def test_no_damage_crashes_the_scan(tmp_path: Path, edits: list[tuple[int, int]]) -> None:
    """Some bytes would raise an error the program does not know."""
    data = bytearray(dicom())
    for at, value in edits:
        data[at] = value
    try:
        scan(tmp_path, bytes(data))
    except SlideError:
        return
