from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_slnpredict.slide.directory import Directory, Inspection
from napari_slnpredict.slide.levels import levels_of, stated_size_differs, vendor_of, why_not_brightfield

NONE = np.zeros(1, np.uint64)


def image(width: int, height: int, *, tiled: bool = True, **more: object) -> Directory:
    made = Directory(0, 8, width, height, tiled, 256, 256, NONE, NONE, 7, 2, 3, (8, 8, 8))
    return replace(made, **more)  # type: ignore[arg-type]


def sizes(levels: tuple[Directory, ...]) -> list[tuple[int, int]]:
    return [(level.width, level.height) for level in levels]


def test_aperio_levels_are_the_tiled_images() -> None:
    """Levels marked as reduced images were lost, or a thumbnail, label or macro became a level."""
    chain = (
        image(8000, 6000),
        image(1024, 768, tiled=False),
        image(2000, 1500, subfile_type=1),
        image(500, 375),
        image(400, 400, tiled=False, subfile_type=1),
        image(1600, 600, tiled=False, subfile_type=9),
        image(400, 300, description="Aperio Image Library\r\nlabel 400x300"),
    )
    assert sizes(levels_of(chain, "aperio")[0]) == [(8000, 6000), (2000, 1500), (500, 375)]


def test_generic_levels_are_marked_as_reduced() -> None:
    """An unrelated picture in the file became a level."""
    chain = (image(8000, 6000), image(2000, 1500, subfile_type=1), image(1000, 750), image(4000, 3000, subfile_type=1))
    assert sizes(levels_of(chain, "generic-tiff")[0]) == [(8000, 6000), (4000, 3000), (2000, 1500)]


def test_levels_below_the_first_image() -> None:
    """The levels of an OME-TIFF were lost."""
    below = (image(4000, 3000), image(2000, 1500))
    assert sizes(levels_of((image(8000, 6000, subifds=below), image(90, 90)), "ome")[0])[1:] == [
        (4000, 3000),
        (2000, 1500),
    ]


def test_what_is_no_reduction_is_no_level() -> None:
    """A picture of another shape, kind or state was taken for a level."""
    others = (
        image(4000, 1000, subfile_type=1),
        image(9000, 6750, subfile_type=1),
        image(2000, 1500, subfile_type=1, samples=1),
        image(1000, 750, subfile_type=1, fault="cut"),
        image(3, 2, subfile_type=1),
    )
    assert sizes(levels_of((image(8000, 6000), *others), "generic-tiff")[0]) == [(8000, 6000), (3, 2)]


def test_focus_planes_are_told() -> None:
    """Two images of one size were both called levels."""
    levels, notes = levels_of((image(8000, 6000), image(8000, 6000)), "aperio")
    assert sizes(levels) == [(8000, 6000)]
    assert "focus planes" in notes[0]


def test_strips_are_one_level() -> None:
    """A picture in strips got levels it cannot have."""
    assert len(levels_of((image(800, 600, tiled=False), image(400, 300, subfile_type=1)), "generic-tiff")[0]) == 1
    assert levels_of((), "dicom") == ((), ())


@pytest.mark.parametrize(
    ("more", "vendor"),
    [
        ({"description": "Aperio Image Library"}, "aperio"),
        ({"description": '<?xml?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'}, "leica"),
        ({"description": "<DataObject ObjectType='DPUfsImport'>"}, "philips"),
        ({"software": "Philips DP v1.0"}, "philips"),
        ({"description": "level=0 mag=40 quality=95"}, "ventana"),
        ({"software": "MedScan"}, "trestle"),
        ({"description": '<?xml version="1.0"?><OME>'}, "ome"),
        ({}, "generic-tiff"),
    ],
)
def test_vendors(more: dict[str, object], vendor: str) -> None:
    """A vendor's file went to a reader that does not know its layout."""
    found = Inspection(Path("a"), Path("a"), "tiff", (0, 0, 0, 0), directories=(image(80, 60, **more),))
    assert vendor_of(found) == vendor
    assert vendor_of(replace(found, ndpi=True)) == "hamamatsu"


@pytest.mark.parametrize(
    ("kind", "vendor"),
    [("dicom", "dicom"), ("dicom-folder", "dicom"), ("mrxs", "mirax"), ("vms", "hamamatsu"), ("other", "other")],
)
def test_vendor_of_what_is_no_tiff(kind: str, vendor: str) -> None:
    """A kind of file had no name."""
    assert vendor_of(Inspection(Path("a"), Path("a"), kind, (0, 0, 0, 0))) == vendor


@pytest.mark.parametrize(
    ("line", "differs"),
    [
        ("46000x32914 [42673,5576 2220x2967] (240x240) JPEG/RGB Q=30;Aperio|AppMag = 20", False),
        ("46000x32914 [42673,5576 2220x2966] (240x240) JPEG/RGB", True),
        ("2220x2967 (256x256) J2K/KDU Q=70|ICC", False),
        ("2221x2967 (256x256) J2K/KDU Q=70", True),
        ("46000x32914 -> 2220x2967 JPEG", False),
        ("no size at all", False),
    ],
)
def test_a_size_that_contradicts_the_description(line: str, differs: bool) -> None:
    """A flipped bit in the size showed another picture without a word, or a good slide was suspected."""
    main = image(2220, 2967, description=f"Aperio Image Library v11\r\n{line}")
    assert bool(stated_size_differs(main)) == differs


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({}, ""),
        ({"samples": 4, "bits": (8,) * 4}, ""),
        ({"bits": (16, 16, 16)}, "16 bits"),
        ({"sample_format": 3, "bits": (32,) * 3}, "floating"),
        ({"sample_format": 2}, "signed"),
        ({"samples": 1, "bits": (8,), "photometric": 1}, "one grey channel"),
        ({"samples": 1, "bits": (8,), "photometric": 0}, "one grey channel"),
        ({"samples": 5, "bits": (16,) * 5}, "5 channels"),
        ({"samples": 4, "bits": (8,) * 4, "photometric": 5}, "CMYK"),
        ({"bits": (4, 4, 4)}, "4 bits"),
    ],
)
def test_kinds_of_pixels(more: dict[str, object], says: str) -> None:
    """Pixels that cannot be stained tissue went to a model, or a colour slide was refused."""
    why = why_not_brightfield(image(80, 60, **more))
    assert (says in why) if says else not why
