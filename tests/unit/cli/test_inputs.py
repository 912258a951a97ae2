"""What counts as input, and what each slide is called in the outputs."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_slnpredict.cli.inputs import find_inputs
from napari_slnpredict.errors import DataError
from napari_slnpredict.many.slides import Input


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(*named: Path) -> list[str]:
    return [item.path.name for item in find_inputs(named)]


def test_a_folder_gives_its_slides(tmp_path: Path) -> None:
    """Slides left out, or tables and hidden files tried as slides."""
    touch(*(tmp_path / n for n in ("b.svs", "a.tiff", "notes.txt", ".hidden.svs", "sub/c.NDPI", "sub/deep/d.tif")))
    assert found(tmp_path) == ["a.tiff", "b.svs", "c.NDPI", "d.tif"]


def test_a_dicom_folder_is_one_slide(tmp_path: Path) -> None:
    """Each file of a DICOM slide would be predicted on its own."""
    touch(*(tmp_path / "case1" / f"{k}.dcm" for k in range(4)), tmp_path / "b.svs")
    assert found(tmp_path) == ["b.svs", "case1"]
    assert found(tmp_path / "case1") == ["case1"]


def test_mirax_data_and_our_own_results_are_no_slides(tmp_path: Path) -> None:
    """map.ome.tif of an earlier run, or the parts of a .mrxs, predicted as slides."""
    touch(tmp_path / "x.mrxs", tmp_path / "x" / "Data0000.tif", tmp_path / "out" / "y" / "prediction.json")
    touch(tmp_path / "out" / "y" / "map.ome.tif")
    assert found(tmp_path) == ["x.mrxs"]


def test_a_slide_named_twice_is_done_once(tmp_path: Path) -> None:
    """Work done twice, and two rows in the table."""
    touch(tmp_path / "a.svs")
    assert found(tmp_path / "a.svs", tmp_path, tmp_path / "a.svs") == ["a.svs"]


def test_a_missing_file_is_tried_later(tmp_path: Path) -> None:
    """One misspelt name would stop a batch of a thousand before it began."""
    assert found(tmp_path / "missing.svs") == ["missing.svs"]


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    """A wrong folder would end in success with nothing done."""
    with pytest.raises(DataError, match="no slide found"):
        find_inputs([tmp_path])


def test_a_cohort_table_names_slides_and_lines(tmp_path: Path) -> None:
    """The scale or the name a table gives would be lost, or a failure not say which line it means."""
    table = tmp_path / "cohort.csv"
    table.write_text("path,slide,mpp\ns/a.svs,A,0.5\ns/b.svs,,\n")
    assert find_inputs([table]) == [
        Input(tmp_path / "s/a.svs", 0.5, "A", "line 2 of cohort.csv"),
        Input(tmp_path / "s/b.svs", None, "", "line 3 of cohort.csv"),
    ]
    assert [item.stem for item in find_inputs([table])] == ["A", "b"]


def test_a_wrong_table_is_refused(tmp_path: Path) -> None:
    """A table with a mistake would be half worked off."""
    table = tmp_path / "cohort.csv"
    table.write_text("path,mpp\na.svs,half\n")
    with pytest.raises(DataError, match=r"cohort.csv: line 2"):
        find_inputs([table])
