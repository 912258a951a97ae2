"""What a cohort CSV may look like, and how its mistakes are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_slnpredict.cohort.table import Row, read_cohort
from napari_slnpredict.errors import DataError


def table(folder: Path, text: str | bytes) -> Path:
    path = folder / "cohort.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        "path,label,mpp\ns/a.svs,none,0.5\ns/b.svs,tumour,\n",
        "\ufeffPath;MPP;Label\r\ns/a.svs;0,5;none\r\ns/b.svs;;tumour\r\n",
        "sep=;\npath;mpp;label\ns/a.svs;0,5;none\n;;\ns/b.svs;;tumour\n",
        "path\tlabel\tmpp\ns/a.svs\tnone\t0.5\n\ns/b.svs\ttumour\t\n",
        "slide,mpp,label\ns/a.svs,0.5,none\ns/b.svs,,tumour\n",
        'path,label,mpp\n" s/a.svs ",none,0.5\ns/b.svs,"tumour"',
    ],
    ids=["plain", "bom-semicolon-crlf", "excel", "tab", "no-path", "quotes"],
)
def test_every_spelling_of_one_table(tmp_path: Path, text: str) -> None:
    """Excel's BOM, semicolons, decimal commas, empty rows, or a table without 'path' would lose the cohort."""
    rows = read_cohort(table(tmp_path, text)).rows
    assert [(row.path, row.label, row.mpp) for row in rows] == [
        (tmp_path / "s/a.svs", "none", 0.5),
        (tmp_path / "s/b.svs", "tumour", None),
    ]


def test_all_columns_arrive(tmp_path: Path) -> None:
    """A column read under another name, or a user's own column lost."""
    text = "path,slide,patient,label,site,split,stain,mpp,age,grade\na.svs,A1,p1,none,X,train,HE,0.25,61,\n"
    cohort = read_cohort(table(tmp_path, text))
    assert cohort.rows == (
        Row(2, tmp_path / "a.svs", "A1", "p1", "none", "X", "train", "HE", 0.25, {"age": "61", "grade": ""}),
    )
    assert cohort.columns[-2:] == ("age", "grade")


def test_lines_are_counted_as_an_editor_counts(tmp_path: Path) -> None:
    """The error would point at a good line."""
    text = 'sep=,\npath,patient,label,note\na.svs,p1,none,"two\nlines"\n\nb.svs,,none,\n'
    assert [row.line for row in read_cohort(table(tmp_path, text)).rows] == [3, 6]
    with pytest.raises(DataError, match="line 6: no patient"):
        read_cohort(table(tmp_path, text), need=("patient", "label"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the table is empty"),
        ("\n\n", "the table is empty"),
        ("path,mpp\n", "no rows"),
        ("path,mpp\n,\n", "no rows"),
        ("file,label\na,b\n", "line 1: no column 'path' or 'slide'"),
        ("path,label,Label\na,b,c\n", "line 1: column 'label' comes twice"),
        ("path,mpp\na.svs,0.5\n,0.5\n", "line 3: no path"),
        ("path,mpp\na.svs,half\n", "line 2: mpp is 'half', not a number"),
        ("path,mpp\na.svs,250\n", "line 2: mpp is 250, not between 0.05 and 20"),
        ("path,mpp\na.svs,nan\n", "line 2: mpp is nan, not between"),
        ("path,label\na.svs,none,more\n", "line 2: 3 cells under 2 columns"),
        ("path,label\na.svs,x\nsub/../a.svs,y\n", "line 3: slide file 'a.svs' stands on line 2 already"),
        ("path,slide\na.svs,S1\nb.svs,s1\n", "line 3: slide 's1' stands on line 2 already"),
        ("path,slide\na.svs,../S1\n", "line 2: slide is '../S1', which cannot name a folder"),
        ('path,label\n"a.svs,x\n', "line 2: unexpected end of data"),
    ],
)
def test_mistakes_are_told_by_line(tmp_path: Path, text: str, message: str) -> None:
    """A thousand-line table with 'something wrong' in it."""
    with pytest.raises(DataError) as raised:
        read_cohort(table(tmp_path, text))
    assert message in str(raised.value)
    assert str(raised.value).startswith("cohort.csv: ")


def test_what_training_needs_is_asked_for(tmp_path: Path) -> None:
    """A model trained on slides without labels, or split without patients."""
    with pytest.raises(DataError, match="line 1: no column 'label'"):
        read_cohort(table(tmp_path, "path,patient\na.svs,p1\n"), need=("patient", "label"))


def test_missing_slides_are_told_at_once(tmp_path: Path) -> None:
    """A training would find out after hours, one slide at a time."""
    (tmp_path / "a.svs").touch()
    path = table(tmp_path, "path\na.svs\n" + "".join(f"m{k}.svs\n" for k in range(7)))
    with pytest.raises(DataError) as raised:
        read_cohort(path).check_files()
    assert "7 of 8 slides are not there (line 3: m0.svs, " in str(raised.value)
    assert "and 2 more" in str(raised.value)
    read_cohort(table(tmp_path, "path\na.svs\n")).check_files()


def test_a_table_that_is_not_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A spreadsheet, or a slide of gigabytes, renamed to .csv ends in a traceback or takes all memory."""
    with pytest.raises(DataError, match="not UTF-8"):
        read_cohort(table(tmp_path, b"PK\x03\x04\xff\xfe\xfa"))
    with pytest.raises(DataError, match="cannot be read"):
        read_cohort(tmp_path / "absent.csv")
    monkeypatch.setattr("napari_slnpredict.cohort.table.MAX_BYTES", 3)
    with pytest.raises(DataError, match="too large"):
        read_cohort(table(tmp_path, "path\na.svs\n"))


def test_what_phantom_writes_is_read(tmp_path: Path) -> None:
    """The program could not read its own tables."""
    from napari_slnpredict.events import run
    from napari_slnpredict.phantom.tasks import make_cohort

    path = run(make_cohort("sln", 1, 0, "A", tmp_path))
    (row,) = read_cohort(path, need=("patient", "label")).rows
    assert row.path.is_file()
    assert row.mpp == 1.0
