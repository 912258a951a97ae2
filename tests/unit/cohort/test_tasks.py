"""Tasks: a column of the cohort becomes the label, in one way of writing."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_slnpredict.cohort.table import read_cohort
from napari_slnpredict.cohort.tasks import BRACS_CLASSES, TASKS, for_task
from napari_slnpredict.errors import DataError


def cohort(folder: Path, *lines: str) -> Path:
    path = folder / "cohort.csv"
    path.write_text("\n".join(("path,label,subtype,response,her2", *lines)) + "\n")
    return path


def test_answers_are_brought_to_one_way_of_writing(tmp_path: Path) -> None:
    """ "6_IC", "Type_IC" and "invasive carcinoma" as three classes would be three wrong ones."""
    rows = ("a.svs,x,6_IC,responder,2+", "b.svs,y,Type_IC,0,0", "c.svs,z,Invasive Carcinoma,,1+")
    table = read_cohort(cohort(tmp_path, *rows))
    assert [row.label for row in for_task(table, "subtype").rows] == ["IC"] * 3
    assert [row.label for row in for_task(table, "response").rows] == ["yes", "no", ""]
    assert [row.label for row in for_task(table, "her2").rows] == ["2+", "0", "1+"]
    assert for_task(table, "label") is table


def test_known_columns_can_be_tasks_too(tmp_path: Path) -> None:
    """An encoder may be asked what laboratory a tile is from."""
    path = tmp_path / "c.csv"
    path.write_text("path,site\na.svs,north\n")
    assert for_task(read_cohort(path), "site").rows[0].label == "north"


def test_what_is_no_answer_is_named_with_its_line(tmp_path: Path) -> None:
    """A misspelt class would be an eighth class."""
    table = read_cohort(cohort(tmp_path, "a.svs,x,IC,yes,0", "b.svs,x,CI,yes,0"))
    with pytest.raises(DataError, match="line 3: subtype is 'CI'"):
        for_task(table, "subtype")
    with pytest.raises(DataError, match="no column 'grade'"):
        for_task(table, "grade")


def test_subtypes_are_the_seven_in_their_order() -> None:
    """The order is that of the disease; alphabetical order is none."""
    assert TASKS["subtype"].classes == BRACS_CLASSES == ("N", "PB", "UDH", "FEA", "ADH", "DCIS", "IC")
    assert TASKS["subtype"].ordered
    assert TASKS["response"].positive == "yes"
