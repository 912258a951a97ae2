"""predictions.csv and failures.csv of a folder that several processes write to."""

from __future__ import annotations

import csv
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from napari_slnpredict.files import write_json
from napari_slnpredict.many import out_folder
from napari_slnpredict.many.out_folder import Failures, Predictions
from napari_slnpredict.many.shards import WHOLE, Shard


def add(out: Path, name: str, content_id: str = "c") -> None:
    record: dict[str, Any] = {
        "format": 1, "slide_id": name, "content_id": content_id, "classes": ["n", "p"], "answer": "", "tiles": 1,
        "probabilities": {"n": 0.5, "p": 0.5}, "model": {"name": "m", "digest": "d"}, "encoder": {"name": "e"},
        "device": "cpu", "seconds": {}, "warnings": [],
    }  # fmt: skip
    write_json(out / name / "prediction.json", record)


def rows(path: Path, column: str) -> list[str]:
    with path.open(newline="") as file:
        return [row[column] for row in csv.DictReader(file)]


def test_the_table_is_the_sum_of_the_folders(tmp_path: Path) -> None:
    """A slide of another process, or one done again, missing or old in the table."""
    add(tmp_path, "a", "old")
    table = Predictions(tmp_path)
    assert table.contents() == {"a": "old"}
    add(tmp_path, "b")
    add(tmp_path, "a", "newer")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "prediction.json").write_text("{torn")
    table.write()
    assert rows(tmp_path / "predictions.csv", "slide_id") == ["a", "b"]
    assert rows(tmp_path / "predictions.csv", "content_id") == ["newer", "c"]
    (tmp_path / "b" / "prediction.json").unlink()
    table.write()
    assert rows(tmp_path / "predictions.csv", "slide_id") == ["a"]


def test_what_comes_while_the_table_is_written_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two shards that end together: the one that writes last has not seen the other's last slide."""
    add(tmp_path, "a")
    table = Predictions(tmp_path)
    written = out_folder.write_file
    late = iter(["b", "c"])

    def write_file(path: Path, text: str) -> Path:
        name = next(late, None)
        if name:
            add(tmp_path, name)
        return written(path, text)

    monkeypatch.setattr(out_folder, "write_file", write_file)
    table.write()
    assert rows(tmp_path / "predictions.csv", "slide_id") == ["a", "b", "c"]


def test_many_writers_lose_nothing(tmp_path: Path) -> None:
    """An array of jobs over one folder: rows vanish, or the file is torn."""

    def shard(index: int) -> None:
        table = Predictions(tmp_path)
        for k in range(6):
            add(tmp_path, f"{index}-{k}")
            table.write()
        Failures(tmp_path, Shard(index, 4)).write([(f"{index}.svs", "E", "m")])

    threads = [threading.Thread(target=shard, args=(index,)) for index in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(rows(tmp_path / "predictions.csv", "slide_id")) == 24
    assert rows(tmp_path / "failures.csv", "slide") == ["1.svs", "2.svs", "3.svs", "4.svs"]


def test_tables_are_not_written_all_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of ten thousand slides would spend its time writing tables of ten thousand rows."""
    table = Predictions(tmp_path)
    now = [100.0]
    monkeypatch.setattr(out_folder.time, "monotonic", lambda: now[0])
    add(tmp_path, "a")
    table.write(now=False)
    add(tmp_path, "b")
    table.write(now=False)
    assert rows(tmp_path / "predictions.csv", "slide_id") == ["a"]
    now[0] += 3
    table.write(now=False)
    assert rows(tmp_path / "predictions.csv", "slide_id") == ["a", "b"]


def test_each_shard_answers_for_its_own_failures(tmp_path: Path) -> None:
    """A mended slide stays listed for ever, or a shard run again clears the others' failures."""
    one, two = Failures(tmp_path, Shard(1, 2), "x"), Failures(tmp_path, Shard(2, 2), "x")
    one.write([("a.svs", "CorruptSlide", "ends early")])
    two.write([("b.svs", "CorruptSlide", "ends early")])
    assert rows(tmp_path / "failures.csv", "slide") == ["a.svs", "b.svs"]
    one.write([])
    assert rows(tmp_path / "failures.csv", "slide") == ["b.svs"]
    two.write([])
    assert not (tmp_path / "failures.csv").exists()
    assert one.other_lists() == []


def test_an_earlier_number_of_shards_is_forgotten(tmp_path: Path) -> None:
    """Failures of a run in five shards would stay after a run in two, or in one."""
    Failures(tmp_path, Shard(5, 5)).write([("old.svs", "E", "m")])
    Failures(tmp_path, Shard(1, 2)).write([("a.svs", "E", "m")])
    assert rows(tmp_path / "failures.csv", "slide") == ["a.svs"]
    Failures(tmp_path, WHOLE).write([("b.svs", "E", "m")])
    assert rows(tmp_path / "failures.csv", "slide") == ["b.svs"]
    assert not (tmp_path / ".shards").exists()


def test_shards_of_different_lists_are_noticed(tmp_path: Path) -> None:
    """A slide copied into the folder between two jobs shifts the shares: some slide belongs to nobody."""
    Failures(tmp_path, Shard(1, 3), "before").write([])
    Failures(tmp_path, Shard(2, 3), "before").write([])
    three = Failures(tmp_path, Shard(3, 3), "after")
    three.write([])
    assert three.other_lists() == ["1/3", "2/3"]


def test_no_name_of_a_failure_leaves_the_folder(tmp_path: Path) -> None:
    """What is kept between shards holds more than failures.csv does."""
    Failures(tmp_path, Shard(1, 2), "x").write([("slide 7", "E", "slide 7: ends early")])
    part = json.loads((tmp_path / ".shards" / "1of2.json").read_text())
    assert part == {"format": 1, "list": "x", "failures": [["slide 7", "E", "slide 7: ends early"]]}
