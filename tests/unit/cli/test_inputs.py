"""What counts as input, and what each slide is called in the outputs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from napari_slnpredict.cli.inputs import Input, Names, find_inputs, read_table
from napari_slnpredict.errors import CorruptSlide, DataError


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


@pytest.mark.parametrize(
    "text",
    ["path,label,mpp\ns/a.svs,none,0.5\ns/b.svs,tumour,\n", "\ufeffslide;mpp;path\nA;0,5;s/a.svs\nB;;s/b.svs\n",
     "slide,mpp\ns/a.svs,0.5\ns/b.svs,\n"],
)  # fmt: skip
def test_a_cohort_table(tmp_path: Path, text: str) -> None:
    """Excel's BOM and semicolons, decimal commas, or a table without 'path' would lose the cohort."""
    table = tmp_path / "cohort.csv"
    table.write_text(text, encoding="utf-8")
    assert read_table(table) == [Input(tmp_path / "s/a.svs", 0.5), Input(tmp_path / "s/b.svs", None)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na,b\n", "line 1: no column 'path'"),
        ("path,mpp\na.svs,0.5\n,0.5\n", "line 3: no path"),
        ("path,mpp\na.svs,half\n", "line 2: mpp is 'half'"),
        ("path,mpp\n", "no rows"),
    ],
)
def test_table_errors_name_the_line(tmp_path: Path, text: str, message: str) -> None:
    """A thousand-line table with 'something wrong' in it."""
    table = tmp_path / "cohort.csv"
    table.write_text(text)
    with pytest.raises(DataError, match=message) as raised:
        read_table(table)
    assert "cohort.csv" in str(raised.value)


def test_a_table_that_is_not_text(tmp_path: Path) -> None:
    """A spreadsheet renamed to .csv ends in a traceback."""
    (tmp_path / "x.csv").write_bytes(b"PK\x03\x04\xff\xfe\xfa")
    with pytest.raises(DataError, match="not UTF-8"):
        read_table(tmp_path / "x.csv")
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path / "absent.csv")


def slide(content: str) -> Any:
    return SimpleNamespace(content_id=content * 16)


def test_names_are_stems_until_they_collide() -> None:
    """Two slides of one name would overwrite each other's results."""
    inputs = [Input(Path(n)) for n in ("a/x.svs", "b/X.svs", "c/y.svs")]
    names = Names(inputs, {})
    assert names.name(inputs[0], slide("1a")) == "x-1a1a1a1a"
    assert names.name(inputs[1], slide("2b")) == "X-2b2b2b2b"
    assert names.name(inputs[2], slide("3c")) == "y"


def test_a_name_taken_by_an_earlier_run_is_not_overwritten() -> None:
    """The result of another slide, computed last week, would be lost."""
    item = Input(Path("x.svs"))
    names = Names([item], {"x": "1a" * 16})
    assert names.name(item, slide("1a")) == "x"
    assert names.name(item, slide("2b")) == "x-2b2b2b2b"


def test_pseudonyms_hide_names_in_messages_too() -> None:
    """A file named after a patient, printed into the log of a cluster (promise R10)."""
    item = Input(Path("/data/Meier_Anna.svs"))
    names = Names([item], {}, pseudonym=True)
    assert names.name(item, slide("1a")) == "1a" * 16
    assert names.shown(item) == "slide 1"
    assert "Meier" not in names.hide(item, CorruptSlide("ends early", file=item.path))


def test_hostile_names_are_made_harmless() -> None:
    """A line feed or an escape sequence in a file name would reach the terminal."""
    item = Input(Path("a\x1b[31m\nb.svs"))
    assert "\x1b" not in item.stem
    assert "\n" not in Names([item], {}).shown(item)
