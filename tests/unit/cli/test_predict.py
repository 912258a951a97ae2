"""`slnpredict predict` as a user runs it, with a stand-in encoder: files, exit codes, what a bad slide costs."""

from __future__ import annotations

import csv
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from tell_fakes import StandInEmbed, install, make_bundle, write_slide

from napari_slnpredict.cli.app import main


def leave(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return int(left.value.code or 0)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model's folder; embedding is the stand-in's."""
    install(monkeypatch)
    make_bundle(tmp_path / "models" / "tiny-sln")
    return tmp_path / "models" / "tiny-sln"


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_two_slides_and_a_table(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The one command everybody uses does not work."""
    for name in ("a", "b"):
        write_slide(tmp_path / "s" / f"{name}.svs", size=(320 + 64 * (name == "b"), 256))
    assert leave("predict", tmp_path / "s", "--model", model, "--out", tmp_path / "out") == 0
    rows = table(tmp_path / "out" / "predictions.csv")
    assert [row["slide_id"] for row in rows] == ["a", "b"]
    assert (tmp_path / "out" / "a" / "report.html").is_file()
    assert not (tmp_path / "out" / "failures.csv").exists()
    said = capsys.readouterr()
    assert said.out == ""
    assert "[2/2] b.svs" in said.err
    assert said.err.startswith("tiny-sln: Demonstration. Not for diagnosis.")
    assert rows[0]["notice"] == "Demonstration. Not for diagnosis."
    assert said.err.strip().splitlines()[-1] == f"2 done: {tmp_path / 'out' / 'predictions.csv'}"


def test_one_network_serves_the_whole_batch(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A night's batch would load a network of a gigabyte a thousand times."""
    engines: list[Any] = []

    class Watching(StandInEmbed):
        def __call__(self, *arguments: Any, **options: Any) -> Any:
            engines.append(options["engine"])
            return super().__call__(*arguments, **options)

    monkeypatch.setattr("napari_slnpredict.encode.embed.embed", Watching())
    for name in ("a", "b"):
        write_slide(tmp_path / "s" / f"{name}.svs", size=(320, 256))
    assert leave("predict", tmp_path / "s", "--model", model, "--out", tmp_path / "out") == 0
    assert len(engines) == 2
    assert engines[0] is engines[1]


def test_a_bad_slide_costs_itself(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One broken file would end a night's batch, or vanish from it in silence (promise R3)."""
    good = write_slide(tmp_path / "good.svs", size=(320, 256))
    (tmp_path / "text.svs").write_text("no slide")
    coarse = write_slide(tmp_path / "coarse.svs", size=(320, 256), mpp=4.0)
    bare = write_slide(tmp_path / "bare.svs", size=(320, 256), mpp=None)
    slides = (tmp_path / "missing.svs", tmp_path / "text.svs", coarse, bare, good)
    assert leave("predict", *slides, "--model", model, "--out", tmp_path / "out") == 1
    failures = {row["slide"]: row for row in table(tmp_path / "out" / "failures.csv")}
    assert {name: row["error"] for name, row in failures.items()} == {
        "missing.svs": failures["missing.svs"]["error"],
        "text.svs": "UnsupportedSlide",
        "coarse.svs": "BundleMismatch",
        "bare.svs": "MissingScale",
    }
    assert "--mpp" in failures["bare.svs"]["message"]
    said = capsys.readouterr().err
    for name in failures:
        assert name in said
    assert "4 failed: missing.svs, text.svs, coarse.svs, bare.svs; see " in said
    assert [row["slide_id"] for row in table(tmp_path / "out" / "predictions.csv")] == ["good"]


def test_a_surprise_on_one_slide_is_recorded(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A library's exception with a path in it would stop the batch or be written into a shared file."""
    embed = StandInEmbed(error=RuntimeError(f"cannot read {tmp_path}"))
    monkeypatch.setattr("napari_slnpredict.encode.embed.embed", embed)
    slide = write_slide(tmp_path / "a.svs")
    assert leave("predict", slide, "--model", model, "--out", tmp_path / "out") == 1
    text = (tmp_path / "out" / "failures.csv").read_text()
    assert "unexpected RuntimeError" in text
    assert str(tmp_path) not in text
    assert "Traceback" not in capsys.readouterr().err
    assert leave("predict", slide, "--model", model, "--out", tmp_path / "out", "--debug") == 1
    assert "Traceback" in capsys.readouterr().err


def test_failures_of_an_earlier_run_do_not_stay(tmp_path: Path, model: Path) -> None:
    """A mended slide would be reported as failed for ever."""
    path = tmp_path / "a.svs"
    path.write_text("no slide")
    assert leave("predict", path, "--model", model, "--out", tmp_path / "out") == 1
    write_slide(path, size=(320, 256))
    assert leave("predict", path, "--model", model, "--out", tmp_path / "out") == 0
    assert not (tmp_path / "out" / "failures.csv").exists()


def test_json_is_alone_on_stdout(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A program reading the results would stumble over progress text."""
    (tmp_path / "bad.svs").write_text("x")
    good = write_slide(tmp_path / "good.svs", size=(320, 256))
    code = leave("predict", tmp_path / "bad.svs", good, "--model", model, "--out", tmp_path / "out", "--json")
    result = json.loads(capsys.readouterr().out)
    assert code == 1
    assert [record["slide_id"] for record in result["results"]] == ["good"]
    assert result["failures"][0]["slide"] == "bad.svs"
    assert result["interrupted"] is False


def test_later_runs_add_to_the_table(tmp_path: Path, model: Path) -> None:
    """A second run into the same folder would drop the first run's rows."""
    for name in ("a", "b"):
        slide = write_slide(tmp_path / f"{name}.svs", size=(320, 256))
        assert leave("predict", slide, "--model", model, "--out", tmp_path / "out") == 0
    assert [row["slide_id"] for row in table(tmp_path / "out" / "predictions.csv")] == ["a", "b"]


def test_colliding_names_are_told_apart(tmp_path: Path, model: Path) -> None:
    """case1/x.svs would be overwritten by case2/x.svs."""
    write_slide(tmp_path / "s" / "case1" / "x.svs", size=(320, 256))
    write_slide(tmp_path / "s" / "case2" / "x.svs", size=(384, 256))
    assert leave("predict", tmp_path / "s", "--model", model, "--out", tmp_path / "out") == 0
    rows = table(tmp_path / "out" / "predictions.csv")
    assert len(rows) == 2
    for row in rows:
        assert row["slide_id"] == f"x-{row['content_id'][:8]}"
        assert (tmp_path / "out" / row["slide_id"] / "tiles.csv").is_file()


def test_a_cohort_table_gives_the_scale(tmp_path: Path, model: Path) -> None:
    """The mpp column would be read and not used."""
    write_slide(tmp_path / "s" / "bare.svs", size=(320, 256), mpp=None)
    (tmp_path / "cohort.csv").write_text("path,patient,label,mpp\ns/bare.svs,p1,none,1.0\n")
    assert leave("predict", tmp_path / "cohort.csv", "--model", model, "--out", tmp_path / "out") == 0
    run = json.loads((tmp_path / "out" / "bare" / "run.json").read_text())
    assert run["slide"]["mpp"] == 1.0
    assert run["settings"]["mpp"] == 1.0


def test_a_pseudonym_is_everywhere(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name in one of the files, folders or messages is enough to break it (promise R10)."""
    slide = write_slide(tmp_path / "Meier_Anna.svs", size=(320, 256))
    bad = tmp_path / "Schmidt_Otto.svs"
    bad.write_text("no slide")
    code = leave("predict", slide, bad, "--model", model, "--out", tmp_path / "out", "--pseudonym", "--json")
    assert code == 1
    said = capsys.readouterr()
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(written) == 9
    for text in (said.out, said.err, *(path.name for path in written), *(path.parent.name for path in written)):
        assert "Meier" not in text
        assert "Schmidt" not in text
    for path in written:
        assert b"Meier" not in path.read_bytes()
        assert b"Schmidt" not in path.read_bytes()


def test_what_the_scanner_noted_stays_in_the_slide(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Patient, user and date stand in the slide's properties; none may reach an output (reliability 5)."""
    told = "|Title = PLANTED-title|Patient ID = PLANTED-1234|User = PLANTED-user|Filename = PLANTED.svs|Date = 01/02/33"
    slide = write_slide(tmp_path / "one.svs", told=told)
    cache = tmp_path / "cache"
    for origin in ("qupath", "level0"):
        arguments = ["predict", slide, "--model", model, "--out", tmp_path / "out", "--cache", cache, "--json"]
        assert leave(*arguments, "--origin", origin) == 0
    assert leave("info", slide) == 0
    assert leave("info", slide, "--json") == 0
    said = capsys.readouterr()
    assert "PLANTED" not in said.out + said.err
    assert "01/02/33" not in said.out + said.err
    for path in [*(tmp_path / "out").rglob("*"), *cache.rglob("*")]:
        if path.is_file():
            assert b"PLANTED" not in path.read_bytes(), path.name
            assert b"01/02/33" not in path.read_bytes(), path.name


def test_an_output_folder_that_cannot_be_written_is_told_first(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An hour of work and nowhere to put it."""
    embed = install(monkeypatch)
    (tmp_path / "file").write_text("in the way")
    slide = write_slide(tmp_path / "a.svs")
    assert leave("predict", slide, "--model", model, "--out", tmp_path / "file" / "out") == 3
    assert embed.calls == 0
    assert str(tmp_path) not in capsys.readouterr().err


def test_a_full_disk_ends_the_run(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand slides would each fail for the same reason, hours later."""
    from napari_slnpredict.errors import ResourceError

    embed = StandInEmbed(error=ResourceError("the disk is full", do="free some space"))
    monkeypatch.setattr("napari_slnpredict.encode.embed.embed", embed)
    for name in ("a", "b"):
        write_slide(tmp_path / "s" / f"{name}.svs")
    assert leave("predict", tmp_path / "s", "--model", model, "--out", tmp_path / "out") == 3
    assert embed.calls == 1


@pytest.mark.parametrize("name", ["no-such-model", "folder"])
def test_an_unknown_model_exits_3(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong name would be replaced by another model, or end in a traceback."""
    (tmp_path / "folder").mkdir()
    model = name if name != "folder" else tmp_path / "folder"
    slide = write_slide(tmp_path / "a.svs", size=(320, 256))
    assert leave("predict", slide, "--model", model, "--out", tmp_path / "out") == 3
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["hash", "pickle"])
def test_an_unsafe_model_exits_3(tmp_path: Path, model: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A changed weight file, or code in a model, would be used (promise R8)."""
    if damage == "hash":
        with (model / "weights.safetensors").open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"\x7f")
    else:
        (model / "head.pkl").write_bytes(b"\x80\x04N.")
    slide = write_slide(tmp_path / "a.svs", size=(320, 256))
    assert leave("predict", slide, "--model", model, "--out", tmp_path / "out") == 3
    assert ("tiny-sln" if damage == "hash" else "head.pkl") in capsys.readouterr().err


class Interrupted(StandInEmbed):
    """Presses Ctrl-C while embedding."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return super().__call__(*args, **options)


def test_ctrl_c_keeps_what_is_done(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stopped batch would count as done, or leave a half-written slide folder."""
    for name in ("a", "b", "c"):
        write_slide(tmp_path / "s" / f"{name}.svs")
    assert leave("predict", tmp_path / "s" / "a.svs", "--model", model, "--out", tmp_path / "out") == 0
    embed = Interrupted()
    monkeypatch.setattr("napari_slnpredict.encode.embed.embed", embed)
    assert leave("predict", tmp_path / "s", "--model", model, "--out", tmp_path / "out", "--json") == 130
    assert embed.closed == 1, "the job must be closed, so that its chunks are sealed"
    result = json.loads(capsys.readouterr().out)
    assert result["interrupted"] is True
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a", "predictions.csv"]
    assert [row["slide_id"] for row in table(tmp_path / "out" / "predictions.csv")] == ["a"]


def test_an_empty_slide_is_done_not_failed(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Glass would count as an error and turn the batch's exit code."""
    slide = write_slide(tmp_path / "glass.svs", tissue=False)
    assert leave("predict", slide, "--model", model, "--out", tmp_path / "out") == 0
    assert "No tissue found on this slide." in capsys.readouterr().err


def test_shards_share_a_folder(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The shards of a job array would overwrite each other's tables, names or failures."""
    write_slide(tmp_path / "s" / "case1" / "x.svs", size=(320, 256))
    write_slide(tmp_path / "s" / "case2" / "x.svs", size=(384, 256))
    write_slide(tmp_path / "s" / "y.svs", size=(320, 256))
    (tmp_path / "s" / "bad.svs").write_text("no slide")
    arguments = ["predict", tmp_path / "s", "--model", model]
    assert leave(*arguments, "--out", tmp_path / "whole") == 1
    codes = [leave(*arguments, "--out", tmp_path / "out", "--shard", f"{index}/3") for index in (1, 2, 3)]
    assert sorted(codes) == [0, 0, 1], "the shard with the bad slide says so"
    for name in ("predictions.csv", "failures.csv"):
        different = ("seconds",)
        ours, whole = table(tmp_path / "out" / name), table(tmp_path / "whole" / name)
        assert [{k: v for k, v in row.items() if k not in different} for row in ours] == [
            {k: v for k, v in row.items() if k not in different} for row in whole
        ]
    assert "Shard 1/3: 2 of 4 slides." in capsys.readouterr().err


def test_a_shard_without_slides_is_done(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The last jobs of an array longer than the cohort would fail."""
    slide = write_slide(tmp_path / "a.svs", size=(320, 256))
    arguments = ["predict", slide, "--model", model, "--out", tmp_path / "out", "--json"]
    assert leave(*arguments, "--shard", "3/3") == 0
    said = capsys.readouterr()
    assert "Shard 3/3: 0 of 1 slides." in said.err
    assert json.loads(said.out)["shard"] == "3/3"


@pytest.mark.parametrize(("option", "value"), [("--shard", "0/3"), ("--cluster", "local:0"), ("--cluster", "here")])
def test_a_misspelt_share_is_a_usage_error(tmp_path: Path, option: str, value: str) -> None:
    """A job array would run with all the slides, or a traceback."""
    assert leave("predict", tmp_path / "a.svs", option, value) == 2
    assert leave("embed", tmp_path / "a.svs", option, value) == 2


def test_a_failure_names_the_line_of_the_table(tmp_path: Path, model: Path) -> None:
    """A file missing from a cohort of a thousand would have to be searched for."""
    write_slide(tmp_path / "a.svs", size=(320, 256))
    (tmp_path / "cohort.csv").write_text("path,slide,patient\na.svs,case A,p1\nb.svs,,p2\n")
    assert leave("predict", tmp_path / "cohort.csv", "--model", model, "--out", tmp_path / "out") == 1
    (row,) = table(tmp_path / "out" / "failures.csv")
    assert row["slide"] == "b.svs"
    assert row["message"].endswith("(line 3 of cohort.csv)")
    assert [row["slide_id"] for row in table(tmp_path / "out" / "predictions.csv")] == ["case A"]
