"""DICOM, MRXS and VMS: every file a slide refers to lies in its own folder, is a regular file, and is there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from napari_slnpredict.errors import CorruptSlide, UnsupportedSlide
from napari_slnpredict.slide import containers
from napari_slnpredict.slide.inspect import inspect

from .tiny_dicom import dicom


def test_a_dicom_file_and_its_folder_are_known(tmp_path: Path) -> None:
    """A DICOM slide would not be given to the only library that reads it, or without its other files."""
    thumbnail = {0x00080008: ("CS", b"DERIVED\\PRIMARY\\THUMBNAIL\\NONE")}
    (tmp_path / "a.dcm").write_bytes(dicom(thumbnail))
    (tmp_path / "b.dcm").write_bytes(dicom())
    (tmp_path / "ct.dcm").write_bytes(dicom(sop_class="1.2.840.10008.5.1.4.1.1.2"))
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "empty").write_bytes(b"")
    file = inspect(tmp_path / "a.dcm")
    assert (file.kind, file.real, [p.name for p in file.members]) == (
        "dicom",
        (tmp_path / "a.dcm").resolve(),
        ["b.dcm"],
    )
    folder = inspect(tmp_path)
    # A level comes first: that is the file a library is pointed at.
    assert (folder.kind, [p.name for p in folder.members]) == ("dicom-folder", ["b.dcm", "a.dcm"])
    (tmp_path / "c.dcm").write_bytes(dicom({0x0020000E: ("UI", b"9.9.9")}))
    assert [p.name for p in inspect(tmp_path / "a.dcm").members] == ["b.dcm"]
    with pytest.raises(UnsupportedSlide, match="several DICOM slides"):
        inspect(tmp_path)


def test_a_damaged_file_beside_a_dicom_file_is_named(tmp_path: Path) -> None:
    """OpenSlide looks into every file of the folder and would crash on the damaged neighbour."""
    (tmp_path / "a.dcm").write_bytes(dicom())
    (tmp_path / "b.dcm").write_bytes(dicom()[:-500])
    with pytest.raises(CorruptSlide, match=r"b\.dcm"):
        inspect(tmp_path / "a.dcm")


def test_a_pipe_beside_a_dicom_file_does_not_stop_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSlide opens every file of the folder and would wait at a pipe for ever."""
    (tmp_path / "a.dcm").write_bytes(dicom())
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnsupportedSlide, match="pipe, which is no regular file"):
        inspect(tmp_path / "a.dcm")
    (tmp_path / "pipe").unlink()
    (tmp_path / "more").write_bytes(b"x")
    monkeypatch.setattr(containers, "LIMITS", type(containers.LIMITS)(members=1))
    with pytest.raises(UnsupportedSlide, match="folder of 2 files"):
        inspect(tmp_path / "a.dcm")


def mrxs(folder: Path, index: str = "Index.dat", data: tuple[str, ...] = ("Data0000.dat",)) -> Path:
    slide = folder / "slide.mrxs"
    slide.write_bytes(b"\xff\xd8\xff\xe0")
    files = "".join(f"FILE_{k} = {name}\n" for k, name in enumerate(data))
    (folder / "slide").mkdir(exist_ok=True)
    ini = f"\ufeff[GENERAL]\nSLIDE_ID = 1%x\n[HIERARCHICAL]\nINDEXFILE = {index}\n[DATAFILE]\nFILE_COUNT = 1\n{files}"
    (folder / "slide" / "Slidedat.ini").write_text(ini, encoding="utf-8")
    for name in ("Index.dat", "Data0000.dat"):
        (folder / "slide" / name).write_bytes(b"x")
    return slide


def test_a_whole_mrxs_passes(tmp_path: Path) -> None:
    """Every MRXS would be refused."""
    found = inspect(mrxs(tmp_path))
    assert (found.kind, [p.name for p in found.members]) == ("mrxs", ["Slidedat.ini", "Index.dat", "Data0000.dat"])


@pytest.mark.parametrize("name", ["../../x.svs", "/etc/passwd", "..", "sub/Index.dat", "C:x.dat", "..\\x"])
def test_an_mrxs_may_not_reach_out(tmp_path: Path, name: str) -> None:
    """OpenSlide follows such names and would show a file the user never chose."""
    with pytest.raises(CorruptSlide, match="outside its own folder"):
        inspect(mrxs(tmp_path, index=name))
    with pytest.raises(CorruptSlide, match="outside its own folder"):
        inspect(mrxs(tmp_path, data=("Data0000.dat", name)))


def test_an_incomplete_mrxs_is_told_apart(tmp_path: Path) -> None:
    """The commonest mistake, copying the .mrxs alone, would be called an unknown format."""
    slide = mrxs(tmp_path)
    (tmp_path / "slide" / "Data0000.dat").unlink()
    with pytest.raises(CorruptSlide, match=r"Data0000\.dat .*is missing"):
        inspect(slide)
    (tmp_path / "slide" / "Data0000.dat").mkdir()
    with pytest.raises(CorruptSlide, match="no regular file"):
        inspect(slide)
    (tmp_path / "slide" / "Data0000.dat").rmdir()
    (tmp_path / "elsewhere.dat").write_bytes(b"x")
    (tmp_path / "slide" / "Data0000.dat").symlink_to("../elsewhere.dat")
    with pytest.raises(CorruptSlide, match="by a link"):
        inspect(slide)
    (tmp_path / "slide" / "Slidedat.ini").write_text("[HIERARCHICAL]\n")
    with pytest.raises(CorruptSlide, match="names no index"):
        inspect(slide)
    (tmp_path / "slide" / "Slidedat.ini").write_text("no section\n")
    with pytest.raises(CorruptSlide, match=r"Slidedat\.ini is damaged"):
        inspect(slide)
    lone = tmp_path / "lone.mrxs"
    lone.write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(CorruptSlide, match=r"folder lone .*missing"):
        inspect(lone)


def vms(folder: Path, reference: str) -> Path:
    slide = folder / "slide.vms"
    slide.write_text(
        "[Virtual Microscope Specimen]\nNoLayers=1\nImageFile=" + reference + "\nImageFile(1,0)=b.jpg\nMapFile=m.jpg\n"
    )
    for name in ("a.jpg", "b.jpg", "m.jpg"):
        (folder / name).write_bytes(b"\xff\xd8\xff")
    return slide


def test_a_vms_keeps_to_its_folder(tmp_path: Path) -> None:
    """A text file that names a device or another folder would make OpenSlide read it."""
    found = inspect(vms(tmp_path, "a.jpg"))
    assert (found.kind, [p.name for p in found.members]) == ("vms", ["a.jpg", "b.jpg", "m.jpg"])
    for name in ("../a.jpg", "/dev/zero"):
        with pytest.raises(CorruptSlide, match="outside its own folder"):
            inspect(vms(tmp_path, name))
    with pytest.raises(CorruptSlide, match="is missing"):
        inspect(vms(tmp_path, "gone.jpg"))
    (tmp_path / "bare.vms").write_text("[Virtual Microscope Specimen]\nNoLayers=1\n")
    with pytest.raises(CorruptSlide, match="names no image"):
        inspect(tmp_path / "bare.vms")


def test_kinds_of_openslide_alone_pass(tmp_path: Path) -> None:
    """A slide that only OpenSlide knows would be refused as no slide."""
    (tmp_path / "a.svslide").write_bytes(b"SQLite format 3\0" + bytes(200))
    assert inspect(tmp_path / "a.svslide").kind == "other"
    (tmp_path / "b.svs").write_bytes(b"SQLite format 3\0" + bytes(200))
    with pytest.raises(UnsupportedSlide):
        inspect(tmp_path / "b.svs")
