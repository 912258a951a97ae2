"""`slnpredict index` and `slnpredict search` as a user runs them, with a stand-in encoder."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tell_fakes import install, write_slide

from napari_slnpredict.cli.app import main
from napari_slnpredict.encode.place import Place
from napari_slnpredict.errors import MissingWeights
from napari_slnpredict.many.cluster import travelling
from napari_slnpredict.many.index import IndexPlan
from napari_slnpredict.retrieval import Index
from napari_slnpredict.settings import Settings

TABLE = "path,patient,label\na.svs,p1,none\nb.svs,p1,tumour\nc.svs,p2,tumour\nd.svs,,none\n"


def leave(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return int(left.value.code or 0)


@pytest.fixture
def cohort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Four small slides with a table; embedding is the stand-in's."""
    embed = install(monkeypatch)
    for number, name in enumerate("abcd"):
        write_slide(tmp_path / f"{name}.svs", size=(320 + 64 * number, 256))
    table = tmp_path / "cohort.csv"
    table.write_text(TABLE)
    return SimpleNamespace(folder=tmp_path, table=table, index=tmp_path / "index", embed=embed)


def index(cohort: SimpleNamespace, *more: object, slides: Path | None = None) -> int:
    return leave("index", slides or cohort.table, "--out", cohort.index, "--cache", cohort.folder / "cache", *more)


def states(said: str) -> dict[str, str]:
    return {row["slide_id"]: row["state"] for row in json.loads(said)["results"]}


def test_an_index_grows_is_not_done_twice_and_follows_its_table(
    cohort: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    """A night's index would be computed again for one new slide, or keep what a slide was before it changed."""
    assert index(cohort, "--json") == 0
    said = capsys.readouterr()
    assert set(states(said.out).values()) == {"added"}
    assert "The index holds the 6-d features of stand-in, of tiles of 64 px at 1 µm/px." in said.err
    pages = {page.slide_id: page for page in Index(cohort.index).pages}
    assert {name: (page.patient, page.label) for name, page in pages.items()} == {
        "a": ("p1", "none"), "b": ("p1", "tumour"), "c": ("p2", "tumour"), "d": ("", "none"),
    }  # fmt: skip
    assert cohort.embed.calls == 4
    write_slide(cohort.folder / "b.svs", size=(640, 512))
    cohort.table.write_text(TABLE.replace("c.svs,p2", "c.svs,p3"))
    assert index(cohort, "--json") == 0
    assert states(capsys.readouterr().out) == {
        "a": "already in", "b": "done again", "c": "facts changed", "d": "already in",
    }  # fmt: skip
    assert cohort.embed.calls == 5, "what did not change was embedded again"
    again = Index(cohort.index)
    assert len(again.pages) == 4, "the slide that changed stands in the index twice"
    assert {page.patient for page in again.pages if page.slide_id == "c"} == {"p3"}
    # A folder of slides says nothing of patients, and does not wipe them out.
    assert index(cohort, "--json", slides=cohort.folder) == 0
    assert set(states(capsys.readouterr().out).values()) == {"already in"}


def test_shards_fill_one_index(cohort: SimpleNamespace) -> None:
    """A job array would leave slides out, or write over each other."""
    for share in ("1/2", "2/2"):
        assert index(cohort, "--shard", share) == 0
    assert len(Index(cohort.index).pages) == 4
    assert cohort.embed.calls == 4


def test_a_bad_slide_costs_itself_and_the_next_run_does_the_rest(
    cohort: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One damaged file would end the night's index; or a stopped run would begin anew."""
    good = (cohort.folder / "b.svs").read_bytes()
    (cohort.folder / "b.svs").write_text("no slide")
    assert index(cohort) == 1
    with (cohort.index / "failures.csv").open() as file:
        (failure,) = csv.DictReader(file)
    assert (failure["slide"], failure["error"]) == ("b.svs", "UnsupportedSlide")
    assert "b.svs" in capsys.readouterr().err
    (cohort.folder / "b.svs").write_bytes(good)
    assert index(cohort) == 0
    assert not (cohort.index / "failures.csv").exists()
    assert cohort.embed.calls == 4


def test_a_moved_slide_is_found_again_and_a_copy_is_named(
    cohort: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two names of one slide would each show every tile of it; a moved cohort would lose its pictures."""
    assert index(cohort) == 0
    (cohort.folder / "a.svs").rename(cohort.folder / "z.svs")
    (cohort.folder / "e.svs").write_bytes((cohort.folder / "b.svs").read_bytes())
    capsys.readouterr()
    assert index(cohort, "--json", slides=cohort.folder) == 0
    found = states(capsys.readouterr().out)
    assert found == {
        "b": "already in", "c": "already in", "d": "already in", "e": "a copy", "z": "facts changed",
    }  # fmt: skip
    moved = next(page for page in Index(cohort.index).pages if page.slide_path == "../z.svs")
    assert (moved.patient, cohort.embed.calls) == ("p1", 4)


def test_another_encoder_is_refused_naming_both(
    cohort: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Distances between two encoders' numbers mean nothing."""
    assert index(cohort) == 0
    install(monkeypatch, name="other", digest="f" * 64)
    assert index(cohort, "--encoder", "other") == 1
    said = capsys.readouterr().err
    assert "6-d features of stand-in (eeeeeeee)" in said
    assert "6-d features of other (ffffffff)" in said
    # A place that no tile of the index covers must be embedded, by the encoder that made the index.
    assert leave("search", cohort.index, "--slide", cohort.folder / "a.svs", "--at", "1,1px") == 1
    assert "the other here gives" in capsys.readouterr().err

    def lost(name: str, settings: object = None) -> None:
        raise MissingWeights("no such file", do="check the path after local:")

    monkeypatch.setattr("napari_slnpredict.encode.encoder.load_encoder", lost)
    assert leave("search", cohort.index, "--slide", cohort.folder / "a.svs", "--at", "1,1px") == 3
    assert "--encoder local:FOLDER" in capsys.readouterr().err


def test_a_pseudonymous_index_names_nobody(cohort: SimpleNamespace) -> None:
    """A file name or a patient in one page is enough to break it (promise R10)."""
    assert index(cohort, "--pseudonym") == 0
    pages = Index(cohort.index).pages
    assert all(page.slide_id == page.content_id and page.slide_path == "" for page in pages)
    patients = [page.patient for page in pages]
    assert not {"p1", "p2"} & set(patients)
    assert len(set(patients)) == 3, "slides of one patient could not be told from others"


def test_a_plan_travels_to_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker would write the index into its own folder."""
    monkeypatch.chdir(tmp_path)
    plan = travelling(IndexPlan(Settings(cache="cache"), Path("index"), encoder="hne-small"))
    assert isinstance(plan, IndexPlan)
    assert plan.out == tmp_path / "index"


def middle_of(cohort: SimpleNamespace, slide: str, row: int) -> str:
    page = next(page for page in Index(cohort.index).pages if page.slide_id == slide)
    x, y = page.places[row] + 32
    return f"{x},{y}px"


def test_search_tells_the_nearest_and_leaves_out_what_it_is_told_to(
    cohort: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tile itself, its own slide or its patient's would fill the answer."""
    assert index(cohort) == 0
    slide, at = cohort.folder / "a.svs", middle_of(cohort, "a", 2)
    capsys.readouterr()
    base = ("search", cohort.index, "--slide", slide, "--at", at, "--top", "5", "--json")
    assert leave(*base) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["holds"], told["slides"], len(told["results"])) == ("6-d features of stand-in", 4, 5)
    (asked,) = told["like"]
    assert (asked["x"], asked["y"]) not in {(row["x"], row["y"]) for row in told["results"] if row["slide"] == "a"}
    distances = [row["distance"] for row in told["results"]]
    assert distances == sorted(distances)
    pages = Index(cohort.index).pages
    own = next(page for page in pages if page.slide_id == "a")
    exact = np.concatenate([page.exact.astype(np.float64) @ own.exact[2] for page in pages])
    assert told["results"][0]["cosine"] == pytest.approx(np.sort(exact)[-2], abs=1e-6)
    assert leave(*base, "--other-slides") == 0
    told = json.loads(capsys.readouterr().out)
    assert "a" not in {row["slide"] for row in told["results"]}
    assert leave(*base, "--other-patients") == 0
    told = json.loads(capsys.readouterr().out)
    assert {row["slide"] for row in told["results"]} == {"c"}
    assert told["left_out"] == "patient p1, 1 slide of unknown patients"
    assert leave(*base, "--other-slides", "--other-patients") == 2
    assert leave(*base[:-1], "--other-slides") == 0
    assert capsys.readouterr().out.splitlines()[0].split() == [
        "rank", "slide", "patient", "label", "x", "(px)", "y", "(px)", "distance",
    ]  # fmt: skip


def test_um_and_px_ask_for_the_same_tile_and_a_bare_number_is_refused(
    cohort: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    """A place in um taken for pixels would ask with another tile, and nobody would see it."""
    write_slide(cohort.folder / "half.svs", size=(640, 512), mpp=0.5)
    assert index(cohort, slides=cohort.folder / "half.svs") == 0
    capsys.readouterr()
    asked = []
    for at in ("320,256px", "160,128um", "160.0 , 128.0 µm"):
        assert leave("search", cohort.index, "--slide", "half", "--at", at, "--json") == 0
        asked.append(json.loads(capsys.readouterr().out)["like"])
    assert asked[0] == asked[1] == asked[2]
    assert leave("search", cohort.index, "--slide", "half", "--at", "320,256") == 2
    assert leave("search", cohort.index, "--slide", "nobody", "--at", "320,256px") == 1
    assert leave("search", cohort.folder / "nowhere", "--slide", "half", "--at", "320,256px") == 1


def test_a_patient_that_nobody_knows_must_be_named(cohort: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    """The slide's own patient could not be left out, and would be."""
    assert index(cohort) == 0
    base = ("search", cohort.index, "--slide", "d", "--at", middle_of(cohort, "d", 0), "--other-patients")
    capsys.readouterr()
    assert leave(*base) == 1
    assert "does not say whose slide d is" in capsys.readouterr().err
    assert leave(*base, "--patient", "p1", "--json") == 0
    assert {row["slide"] for row in json.loads(capsys.readouterr().out)["results"]} == {"c"}


def test_the_gallery_is_written_and_a_slide_that_is_gone_is_named(
    cohort: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder without its pictures would look finished."""
    assert index(cohort) == 0
    at, unlike, out = middle_of(cohort, "a", 2), middle_of(cohort, "a", 4), cohort.folder / "out"
    base = ("search", cohort.index, "--slide", "a", "--at", at, "--unlike", unlike, "--out", out)
    assert leave(*base) == 0
    with (out / "hits.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20
    assert (out / "gallery.png").read_bytes().startswith(b"\x89PNG")
    page = (out / "gallery.html").read_text()
    assert page.count("data:image/jpeg") == 22
    assert "slide not there" not in page
    for name in "bcd":
        (cohort.folder / f"{name}.svs").unlink()
    capsys.readouterr()
    assert leave(*base, "--other-slides") == 1
    said = capsys.readouterr().err
    assert "b: no picture: not where the index says" in said
    assert "slide not there" in (out / "gallery.html").read_text()
    # Without its file a slide's tiles can still be asked with, as long as the index has them.
    (cohort.folder / "a.svs").unlink()
    assert leave("search", cohort.index, "--slide", "a", "--at", at) == 0
    assert leave("search", cohort.index, "--slide", "a", "--at", "1,1px") == 1
    assert "whose file is not where it was" in capsys.readouterr().err


class StandInEngine:
    """An engine that is ready."""

    def ready(self) -> Any:
        yield from ()
        return self


def test_a_place_that_is_no_tile_of_the_index_is_embedded(
    cohort: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only tiles of the index could be asked with: none of a slide that is not in it."""
    assert index(cohort, slides=cohort.folder / "a.svs") == 0
    own = Index(cohort.index).pages[0]
    monkeypatch.setattr("napari_slnpredict.encode.engines.plan_engine", lambda *a, **k: StandInEngine())
    monkeypatch.setattr(
        "napari_slnpredict.encode.place.embed_place",
        lambda slide, grid, engine, corner: Place(np.zeros((64, 64, 3), np.uint8), own.exact[3] * 7),
    )
    capsys.readouterr()
    assert leave("search", cohort.index, "--slide", cohort.folder / "c.svs", "--at", "220,128px", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["results"][0]["distance"] == pytest.approx(0, abs=1e-3)
    assert [told["results"][0]["x"], told["results"][0]["y"]] == own.places[3].tolist()
    assert leave("search", cohort.index, "--slide", cohort.folder / "c.svs", "--at", "2,2px") == 1
    assert "no tissue here (2, 2 px)" in capsys.readouterr().err
