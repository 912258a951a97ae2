from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from napari_slnpredict.errors import MissingScale, UnsupportedSlide
from napari_slnpredict.slide.directory import Directory
from napari_slnpredict.slide.scale import (
    Scale,
    given_scale,
    ome_scale,
    parse_number,
    property_scale,
    tiff_scale,
)

NONE = np.zeros(1, np.uint64)


def directory(description: str = "", resolution: tuple[float, float, int] | None = None, **more: object) -> Directory:
    return Directory(
        0, 8, 640, 480, True, 64, 64, NONE, NONE, 7, 2, 3, (8, 8, 8),
        description=description, resolution=resolution, **more,  # type: ignore[arg-type]
    )  # fmt: skip


def aperio(*keys: str) -> str:
    return "Aperio Image Library v11\r\n640x480 (64x64) JPEG/RGB Q=30|" + "|".join(keys)


@dataclass(frozen=True)
class Case:
    name: str
    description: str = ""
    resolution: tuple[float, float, int] | None = None
    vendor: str = "aperio"
    mpp: float | None = None
    source: str = ""
    says: str = ""
    more: dict[str, object] = field(default_factory=dict)


CASES = [
    Case("mpp key", aperio("AppMag = 20", "MPP = 0.4990"), mpp=0.499, source="file"),
    Case("decimal comma", aperio("MPP = 0,499"), mpp=0.499, source="file"),
    Case("two equal keys", aperio("MPP = 0.5", "MPP = 0.50"), mpp=0.5, source="file"),
    Case("two different keys", aperio("MPP = 0.5", "MPP = 0.25"), source="two pixel sizes"),
    Case("zero", aperio("MPP = 0"), source="not believable"),
    Case("negative", aperio("MPP = -0.499"), source="not believable"),
    Case("infinite", aperio("MPP = inf"), source="not a number"),
    Case("nan", aperio("MPP = nan"), source="not a number"),
    Case("huge", aperio("MPP = 1e9"), source="not believable"),
    Case("tiny", aperio("MPP = 1e-9"), source="not believable"),
    Case("a word", aperio("MPP = unknown"), source="not a number"),
    Case("thousands", aperio("MPP = 1,234.5"), source="not a number"),
    Case("no key", aperio("AppMag = 20"), source="no pixel size"),
    Case("another key's tail", aperio("Old MPP = 0.5"), source="no pixel size"),
    Case("magnification disagrees", aperio("AppMag = 5", "MPP = 0.25"), mpp=0.25, source="file", says="contradicts"),
    Case("magnification agrees roughly", aperio("AppMag = 40", "MPP = 0.2"), mpp=0.2, source="file"),
    Case("tags instead", aperio("AppMag = 10"), (10000, 10000, 3), mpp=1.0, source="resolution tags"),
    Case(
        "tags instead of a wrong key", aperio("MPP = x"), (10000, 10000, 3), mpp=1.0, source="resolution tags",
        says="not a number",
    ),
    Case("centimetres", "", (20000, 20000, 3), "generic-tiff", 0.5, "resolution tags"),
    Case("inches", "", (50800, 50800, 2), "generic-tiff", 0.5, "resolution tags"),
    Case("72 dpi", "", (72, 72, 2), "generic-tiff", source="72 dpi is a print setting"),
    Case("72 dpi in cm", "", (28.346456, 28.346456, 3), "generic-tiff", source="72 dpi is a print setting"),
    Case("1200 dpi", "", (1200, 1200, 2), "generic-tiff", source="1200 dpi is a print setting"),
    Case("no unit", "", (20000, 20000, 1), "generic-tiff", source="no unit"),
    Case("zero resolution", "", (0, 0, 3), "generic-tiff", source="not a positive number"),
    Case("nothing", "", None, "generic-tiff", source="no pixel size"),
    Case("not square", "", (20000, 10000, 3), "generic-tiff", source="not square"),
    Case("nearly square", "", (20000, 19800, 3), "generic-tiff", 0.5025, "resolution tags"),
    Case("lens disagrees", "", (43826, 43826, 3), "hamamatsu", 0.2282, "resolution tags", "contradicts",
         {"source_lens": 5.0}),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_a_tiff_says_is_believed_within_reason(case: Case) -> None:
    """A wrong statement in a file became a scale, or a right one was lost."""
    scale = tiff_scale(directory(case.description, case.resolution, **case.more), case.vendor)
    assert scale.mpp == (None if case.mpp is None else pytest.approx(case.mpp, rel=1e-3))
    assert case.source in scale.source
    assert (case.says in " ".join(scale.warnings)) if case.says else not scale.warnings


def test_words_of_a_description_are_not_repeated() -> None:
    """A name planted where a number belongs reached a message."""
    scale = tiff_scale(directory(aperio("MPP = Erika Mustermann")), "aperio")
    assert "Erika" not in scale.source + " ".join(scale.warnings)


def ome(attributes: str, before: str = "", size: tuple[int, int] = (640, 480)) -> str:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>{before}<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        f'<Image ID="Image:0"><Pixels SizeX="{size[0]}" SizeY="{size[1]}" {attributes}/></Image></OME>'
    )


@pytest.mark.parametrize(
    ("attributes", "mpp"),
    [
        ('PhysicalSizeX="0.5" PhysicalSizeY="0.5"', 0.5),
        ('PhysicalSizeX="0.5" PhysicalSizeXUnit="µm" PhysicalSizeY="0.5" PhysicalSizeYUnit="um"', 0.5),
        ('PhysicalSizeX="250" PhysicalSizeXUnit="nm" PhysicalSizeY="250" PhysicalSizeYUnit="nm"', 0.25),
        ('PhysicalSizeX="0.0005" PhysicalSizeXUnit="mm" PhysicalSizeY="0.0005" PhysicalSizeYUnit="mm"', 0.5),
        ('PhysicalSizeX="1" PhysicalSizeXUnit="pixel" PhysicalSizeY="1" PhysicalSizeYUnit="pixel"', None),
        ('PhysicalSizeX="0.5" PhysicalSizeY="1.0"', None),
        ('PhysicalSizeX="0.5"', None),
        ("", None),
    ],
)
def test_ome_xml_physical_size_with_units(attributes: str, mpp: float | None) -> None:
    """An OME-TIFF's pixel size was read in the wrong unit or not at all."""
    found = ome_scale(ome(attributes), (640, 480))
    assert found.mpp == (None if mpp is None else pytest.approx(mpp))


def test_ome_xml_takes_the_image_of_the_slide() -> None:
    """The label's pixel size was taken for the slide's."""
    label = '<Image><Pixels SizeX="9" SizeY="9" PhysicalSizeX="9" PhysicalSizeY="9"/></Image>'
    xml = ome('PhysicalSizeX="0.5" PhysicalSizeY="0.5"').replace('<Image ID="Image:0">', f'{label}<Image ID="Image:0">')
    assert ome_scale(xml, (640, 480)).mpp == 0.5


def test_ome_xml_cut_off_still_gives_what_came_before() -> None:
    """A cut description lost the pixel size, or hid that it was cut."""
    scale = ome_scale(ome('PhysicalSizeX="0.5" PhysicalSizeY="0.5"')[:-8], (640, 480))
    assert scale.mpp == 0.5
    assert "damaged" in scale.warnings[0]


@pytest.mark.parametrize(
    "xml",
    [
        ome("", '<!DOCTYPE a [<!ENTITY b "c">]>'),
        ome("", "<!DOCTYPE a>"),
        "<a>" * 1000,
        " " * (16 * 2**20 + 1),
    ],
    ids=["entity", "doctype", "deep", "long"],
)
def test_hostile_xml_is_refused(xml: str) -> None:
    """Entities were expanded, or a deep or endless text kept the parser busy."""
    with pytest.raises(UnsupportedSlide):
        ome_scale(xml, (640, 480))


@pytest.mark.parametrize(
    ("text", "number"),
    [("0.5", 0.5), (" 0,5 ", 0.5), ("1e-1", 0.1), ("", None), ("0x10", None), ("1_0", None), ("1,2,3", None),
     ("١", None), ("1e999", None), ("nan", None), (".5", 0.5), ("5.", 5.0)],
)  # fmt: skip
def test_numbers(text: str, number: float | None) -> None:
    """Python's own float() reads more than numbers."""
    assert parse_number(text) == number


def test_library_properties() -> None:
    """The scale of a slide only OpenSlide reads was lost."""
    found = {"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.2501", "openslide.objective-power": "40"}
    assert property_scale(found).mpp == pytest.approx(0.25005)
    assert property_scale({}).mpp is None


def test_the_users_scale_replaces_the_files() -> None:
    """--mpp was ignored, or replaced the file's without a word."""
    scale = given_scale(0.25, Scale(0.5, "file"))
    assert (scale.mpp, scale.source) == (0.25, "given")
    assert "replaces" in scale.warnings[0]
    assert not given_scale(0.25, Scale(None, "missing")).warnings


@pytest.mark.parametrize("mpp", [0, -1, float("nan"), float("inf"), 1000])
def test_an_absurd_given_scale_is_refused(mpp: float) -> None:
    """A slip of the keyboard became the scale of a prediction."""
    with pytest.raises(MissingScale):
        given_scale(mpp, Scale(None, ""))
