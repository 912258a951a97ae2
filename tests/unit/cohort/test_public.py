"""Public cohorts in their own folders: Camelyon16 and BRACS' slides."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_slnpredict.cohort.public import bracs_cohort, camelyon16_cohort
from napari_slnpredict.errors import DataError


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return folder


@pytest.fixture
def camelyon(tmp_path: Path) -> Path:
    touch(
        tmp_path, "training/normal/normal_001.tif", "training/tumor/tumor_007.tif", "testing/images/test_001.tif",
        "testing/images/test_002.tif", "training/lesion_annotations/tumor_007.xml", "training/masks/tumor_007_mask.tif",
        "testing/lesion_annotations/test_001.xml",
    )  # fmt: skip
    reference = "test_001,Tumor,IDC,Macro\ntest_002,Normal,None,None\n"
    (tmp_path / "testing" / "reference.csv").write_text(reference)
    return tmp_path


def test_camelyon16(camelyon: Path) -> None:
    """Test slides carry no label in their name, only in the reference."""
    (camelyon / "training/masks/tumor_007_mask.tif").unlink()
    rows = {row.slide: row for row in camelyon16_cohort(camelyon).rows}
    assert {name: (row.label, row.split) for name, row in rows.items()} == {
        "normal_001": ("normal", "train"), "tumor_007": ("tumor", "train"), "test_001": ("tumor", "test"),
        "test_002": ("normal", "test"),
    }  # fmt: skip
    assert rows["tumor_007"].other["outline"].endswith("tumor_007.xml")
    assert rows["normal_001"].other["outline"] == ""


def test_masks_are_no_slides(camelyon: Path) -> None:
    """Masks lie beside the slides with nearly their names; one read as a slide would be a black patient."""
    assert len(camelyon16_cohort(camelyon).rows) == 4


def test_camelyon16_as_in_the_bucket(tmp_path: Path) -> None:
    """The public bucket keeps all slides in one folder, without a reference: test slides have no label then."""
    touch(tmp_path, "images/normal_001.tif", "images/test_001.tif", "annotations/test_001.xml")
    rows = camelyon16_cohort(tmp_path).rows
    assert [(row.slide, row.label) for row in rows] == [("normal_001", "normal"), ("test_001", "")]


def test_camelyon16_that_is_not_whole(camelyon: Path, tmp_path: Path) -> None:
    """A test slide nobody labelled must not become a normal one."""
    touch(camelyon, "testing/images/test_003.tif")
    with pytest.raises(DataError, match="test_003"):
        camelyon16_cohort(camelyon)
    (camelyon / "testing" / "reference.csv").write_text("test_001,Maybe,x\n")
    with pytest.raises(DataError, match="line 1: 'Maybe'"):
        camelyon16_cohort(camelyon)
    with pytest.raises(DataError, match="holds no slide"):
        camelyon16_cohort(touch(tmp_path / "empty", "x.txt"))


def test_bracs_slides(tmp_path: Path) -> None:
    """The class is the folder's, in the task's way of writing; the split is the folder above."""
    touch(
        tmp_path, "train/Group_BT/Type_PB/BRACS_1.svs", "val/Group_AT/Type_FEA/BRACS_2.svs",
        "test/Group_MT/Type_IC/BRACS_3.svs", "test/Group_MT/notes.txt",
    )  # fmt: skip
    rows = bracs_cohort(tmp_path).rows
    assert {(row.slide, row.label, row.split) for row in rows} == {
        ("BRACS_1", "PB", "train"), ("BRACS_2", "FEA", "val"), ("BRACS_3", "IC", "test")
    }  # fmt: skip
    with pytest.raises(DataError, match="Type_"):
        bracs_cohort(touch(tmp_path / "other", "a/b.svs"))
