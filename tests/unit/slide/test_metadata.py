"""XML in a slide: what would open other files or never end is refused, what is merely broken is mentioned."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_slnpredict.errors import UnsupportedSlide
from napari_slnpredict.slide.limits import LIMITS
from napari_slnpredict.slide.metadata import check_xml, looks_like_xml

SLIDE = Path("slide.ome.tif")
OME = '<OME UUID="urn:uuid:1"><Image><Pixels><TiffData><UUID FileName="%s">%s</UUID></TiffData></Pixels></Image></OME>'


@pytest.mark.parametrize(
    ("text", "is_xml"),
    [(b"<OME/>", True), (b"\xef\xbb\xbf<OME/>", True), (b" \r\n<a/>", True), (b"Aperio <x>", False), (b"", False)],
)
def test_xml_is_known_by_its_beginning(text: bytes, is_xml: bool) -> None:
    """A plain description would be parsed as XML, or hidden XML would escape the checks."""
    assert looks_like_xml(text) is is_xml
    assert looks_like_xml("<OME/>".encode("utf-16")) is True


def test_ordinary_xml_passes() -> None:
    """Every OME-TIFF would be warned of."""
    assert check_xml((OME % ("slide.ome.tif", "urn:uuid:1")).encode(), SLIDE) == []
    assert check_xml((OME % ("its-old-name.ome.tif", "urn:uuid:1")).encode(), SLIDE) == []
    assert check_xml(b"<a>\xc2\xb5m</a>\0\0", SLIDE) == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_refused(encoding: str) -> None:
    """An entity would expand to gigabytes or include a file of this machine, also when written in UTF-16."""
    bomb = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/hostname">]><a>&b;</a>'
    with pytest.raises(UnsupportedSlide, match="DOCTYPE"):
        check_xml(bomb.encode(encoding), SLIDE)


def test_depth_length_and_number_are_bounded() -> None:
    """A parser of trees would run out of stack or memory."""
    deep = LIMITS.xml_depth + 1
    with pytest.raises(UnsupportedSlide, match="deep"):
        check_xml(b"<a>" * deep + b"</a>" * deep, SLIDE)
    with pytest.raises(UnsupportedSlide, match="endless"):
        check_xml(b"<a>" + b"<b/>" * LIMITS.xml_elements + b"</a>", SLIDE)
    with pytest.raises(UnsupportedSlide, match="MiB"):
        check_xml(b"<" + bytes(LIMITS.xml_bytes), SLIDE)


@pytest.mark.parametrize("name", ["../secret.tif", "/etc/passwd", "..", "c:\\x.tif", "a/b.tif"])
def test_references_outside_the_folder_are_refused(name: str) -> None:
    """A library that follows OME-XML would open a file the user never chose."""
    with pytest.raises(UnsupportedSlide, match="outside its folder"):
        check_xml((OME % (name, "urn:uuid:2")).encode(), SLIDE)


def test_sets_of_files_and_broken_xml_are_mentioned() -> None:
    """A user would not learn that planes lie elsewhere, or why the scale is missing."""
    assert "other file" in check_xml((OME % ("plane2.ome.tif", "urn:uuid:2")).encode(), SLIDE)[0]
    assert "damaged" in check_xml(b"<OME><Image>", SLIDE)[0]
