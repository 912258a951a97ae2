"""Split files: what a table says is on which side, and what makes no sense."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_slnpredict.errors import DataError
from napari_slnpredict.evaluate.splits import TEST, TRAIN, read_split

from .made_tiles import Planted


def written(folder: Path, text: str) -> Path:
    path = folder / "split.csv"
    path.write_text(text)
    return path


def test_sides_by_file_and_set(tmp_path: Path) -> None:
    """A tile on the wrong side is a training tile among the test tiles."""
    lines = "set,file,half\none,0.png,train\none,1.png,held-out\ntwo,2.png,train\n,3.png,train\none,4.png,\n"
    split = read_split(written(tmp_path, lines))
    table = Planted(patients=1, each=6).table
    table = replace(table, names=tuple(f"{k}.png" for k in range(6)))
    assert split.rows(table, "one", TRAIN).tolist() == [0, 3]
    assert split.rows(table, "one", TEST).tolist() == [1]
    assert split.rows(table, "two", TRAIN).tolist() == [2, 3]


def test_slides_are_named_by_their_id(tmp_path: Path) -> None:
    """A cohort is divided by slide: all its tiles on one side."""
    split = read_split(written(tmp_path, "file,split\ns0,train\ns1,test\n"))
    table = Planted(patients=3, each=4).table
    assert split.rows(table, "cohort", TRAIN).tolist() == [0, 1, 2, 3]
    assert split.rows(table, "cohort", TEST).tolist() == [4, 5, 6, 7]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,where\na,train\n", "no columns"),
        ("name,split\na,train\n", "no columns"),
        ("file,split\na,middle\n", "line 2: 'middle' is no side"),
        ("file,split\na,train\na,test\n", "line 3: a is on both sides"),
        ("", "no columns"),
    ],
)
def test_tables_that_make_no_sense(tmp_path: Path, text: str, said: str) -> None:
    """The line must be named."""
    with pytest.raises(DataError, match=said):
        read_split(written(tmp_path, text))


def test_the_table_of_the_repository_is_read() -> None:
    """The fixed halves must stay readable by the command that judges on them."""
    path = Path(__file__).parents[3] / "scripts" / "tile_split.csv"
    sides = read_split(path).side
    assert set(sides.values()) == {TRAIN, TEST}
    assert np.mean([side == TEST for side in sides.values()]) == pytest.approx(0.5, abs=0.05)
