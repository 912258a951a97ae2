"""info, doctor, models, encoders, embed, demo, view: what each prints and how it ends."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tell_fakes import StandInEncoder, install, make_bundle, write_slide

from napari_slnpredict.cli import demo as demo_module
from napari_slnpredict.cli import doctor as doctor_module
from napari_slnpredict.cli import view as view_module
from napari_slnpredict.cli.app import main
from napari_slnpredict.cli.doctor import Check, examine
from napari_slnpredict.encode.features import read_features
from napari_slnpredict.errors import ResourceError
from napari_slnpredict.many.work import tile_spec

needs_napari = pytest.mark.skipif(importlib.util.find_spec("napari") is None, reason="napari is not installed here")


def leave(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return int(left.value.code or 0)


def test_info_says_what_a_slide_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A slide that opens wrongly could not be told from one that opens well."""
    slide = write_slide(tmp_path / "one.svs", mpp=0.5)
    assert leave("info", slide, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["width"], facts["height"], facts["mpp"]) == (640, 512, 0.5)
    assert facts["levels"][0] == {"width": 640, "height": 512, "downsample": 1.0}
    assert facts["brightfield"] is True
    agreeing = [row for row in facts["readers"] if row["opens"]]
    assert agreeing
    assert all(row["agrees"] for row in agreeing)
    assert leave("info", slide) == 0
    assert str(tmp_path) not in capsys.readouterr().out


def test_info_names_a_disagreement(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Garbled colours in one reader would stay unseen (tiffslide#86)."""
    monkeypatch.setattr("napari_slnpredict.cli.info._difference", lambda one, other, place: 77)
    assert leave("info", write_slide(tmp_path / "one.svs")) == 0
    assert "DIFFERENT pixels: up to 77" in capsys.readouterr().out


def test_info_on_a_slide_without_scale_asks_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The way out would not be told."""
    assert leave("info", write_slide(tmp_path / "one.svs", mpp=None)) == 0
    assert "--mpp" in capsys.readouterr().out


def checks_by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.what: check for check in checks}


def test_doctor_checks_everything_and_never_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor itself would die of the fault it was asked about."""

    def broken() -> Check:
        raise OSError("libfoo.so: cannot open shared object file")

    monkeypatch.setattr(doctor_module, "_qt", broken)
    checks = checks_by_name(list(examine()))
    assert set(checks) == {"Python", "Settings", "torch", "Device", "Engine", "Reader: tiles", "Reader: tiffslide",
                           "Reader: openslide", "Models", "Cache", "napari", "Qt", "Display"}  # fmt: skip
    assert checks["Qt"].state == "FAIL"
    assert "libfoo" in checks["Qt"].found
    for name in ("Python", "Settings", "torch", "Device", "Reader: tiles", "Cache"):
        assert checks[name].state == "PASS", checks[name]


@pytest.mark.parametrize(("states", "code"), [(("PASS", "WARN"), 0), (("PASS", "FAIL"), 1)])
def test_doctor_exits_1_when_predict_could_not_run(
    states: tuple[str, ...], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A script that installs could not tell whether it worked."""
    monkeypatch.setattr(doctor_module, "examine", lambda: iter([Check(s, s, "found", "do this") for s in states]))
    assert leave("doctor") == code
    said = capsys.readouterr().out
    assert "do: do this" in said
    assert "(default)" in said
    assert leave("doctor", "--json") == code
    assert [check["state"] for check in json.loads(capsys.readouterr().out)["checks"]] == list(states)


def test_doctor_tells_settings_with_their_origin(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody would find out which of four places a value came from."""
    monkeypatch.setenv("SLNPREDICT_BATCH", "7")
    monkeypatch.setattr(doctor_module, "examine", lambda: iter([Check("x", "PASS", "")]))
    assert leave("doctor") == 0
    assert "7  (SLNPREDICT_BATCH)" in capsys.readouterr().out


def test_doctor_finds_two_qts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two Qts in one process end it without a word (micro-sam#880)."""
    monkeypatch.setattr(doctor_module.importlib.util, "find_spec", lambda name: object())
    check = doctor_module._qt()
    assert check.state == "WARN"
    assert check.fix.startswith("pip uninstall")


@needs_napari
def test_doctor_says_that_there_is_no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window that cannot open would be a traceback from Qt."""
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    if sys.platform.startswith("linux"):
        assert doctor_module._display().state == "WARN"
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    assert doctor_module._display().state == "PASS"
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    if sys.platform.startswith("linux"):
        assert doctor_module._display().state == "WARN", "a demo nobody sees would never end"
    view_module.need_viewer()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="X servers")
@pytest.mark.parametrize(
    ("display", "there"), [("", False), (":98765", False), ("far:10.0", True), ("nonsense", False)]
)
def test_a_display_that_nobody_serves_is_none(display: str, there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stale DISPLAY would end `slnpredict demo` by Qt's abort, with exit code 134."""
    for name in ("WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DISPLAY", display)
    assert view_module.has_display() is there


def test_models_lists_sound_and_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model that is refused would be missing without a reason."""
    monkeypatch.setenv("SLNPREDICT_MODELS", str(tmp_path))
    make_bundle(tmp_path / "tiny-sln")
    shutil.copytree(tmp_path / "tiny-sln", tmp_path / "torn")
    (tmp_path / "torn" / "weights.safetensors").write_bytes(b"x")
    assert leave("models", "--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["models"]}
    assert rows["tiny-sln"]["usable"] == "yes"
    assert rows["tiny-sln"]["classes"] == ["negative", "positive"]
    assert rows["torn"]["usable"].startswith("no: ")
    assert leave("models") == 0
    assert "BSD-3-Clause" in capsys.readouterr().out


def test_embed_without_tissue_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Glass would fail the batch."""
    install(monkeypatch)
    write_slide(tmp_path / "glass.svs", tissue=False)
    write_slide(tmp_path / "one.svs")
    assert leave("embed", tmp_path / "glass.svs", tmp_path / "one.svs", "--out", tmp_path / "out", "--json") == 0
    records = json.loads(capsys.readouterr().out)["results"]
    assert [record["slide_id"] for record in records] == ["glass", "one"]
    assert records[0]["tiles"] == 0
    assert records[1]["tiles"] > 10
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["one.h5"]


def test_embedded_features_keep_a_pseudonym(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of a patient inside a feature file that is sent to others (promise R10)."""
    install(monkeypatch)
    slide = write_slide(tmp_path / "Meier_Anna.svs")
    assert leave("embed", slide, "--out", tmp_path / "out", "--pseudonym") == 0
    written = list((tmp_path / "out").iterdir())
    assert len(written) == 1
    assert b"Meier" not in written[0].read_bytes()
    assert len(read_features(written[0])) > 10


@pytest.mark.parametrize(
    ("span", "asked", "mpp"), [((1.0, 1.0), None, 1.0), ((0.05, 20.0), None, 0.5), ((0.05, 20.0), 0.25, 0.25)]
)
def test_tiles_to_embed(span: tuple[float, float], asked: float | None, mpp: float) -> None:
    """An encoder for any resolution would be fed tiles of 11 um."""
    encoder: Any = StandInEncoder(mpp=span)
    assert tile_spec(encoder, asked).mpp == mpp


def test_demo_headless_ends_with_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first thing a user tries would not say where its result is."""
    install(monkeypatch)
    slide = write_slide(tmp_path / "sample.svs")
    make_bundle(tmp_path / "models" / "tiny-sln")
    monkeypatch.setenv("SLNPREDICT_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(demo_module, "shipped_slide", lambda: slide)
    monkeypatch.setattr("napari_slnpredict.cli.predict.DEFAULT_MODEL", "tiny-sln")
    assert leave("demo", "--headless", "--out", tmp_path / "report") == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith("Report: ")
    assert Path(last.removeprefix("Report: ")).is_file()


@needs_napari
def test_demo_opens_the_viewer_where_there_is_a_display(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a display, the demo would write files instead of showing the product."""
    opened: list[Any] = []
    launch = ModuleType("launch")
    launch.view = lambda paths, **options: opened.append((paths, options))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "napari_slnpredict.plugin.launch", launch)
    monkeypatch.setattr(demo_module, "has_display", lambda: True)
    monkeypatch.setattr(demo_module, "shipped_slide", lambda: tmp_path / "sample.svs")
    main_code = leave("demo")
    assert main_code == 0
    assert opened == [([tmp_path / "sample.svs"], {"model": "demo-sln", "run": True})]


@needs_napari
def test_view_passes_scores_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--scores` would be taken and forgotten."""
    opened: list[tuple[object, dict[str, object]]] = []
    launch = ModuleType("launch")
    launch.view = lambda paths, **options: opened.append((paths, options))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "napari_slnpredict.plugin.launch", launch)
    monkeypatch.setattr(view_module, "need_viewer", lambda: None)
    given = ["--scores", "a.h5", "--scores", "b.csv", "--scores-size", "512", "--scores-unit", "0.5"]
    assert leave("view", "slide.svs", *given) == 0
    (paths, options), *_ = opened
    assert paths == [Path("slide.svs")]
    assert options["scores"] == [Path("a.h5"), Path("b.csv")]
    assert (options["scores_size"], options["scores_unit"]) == (512.0, "0.5")
    assert leave("view", "slide.svs", "--scores", "a.h5", "--scores-unit", "furlong") == 2


@needs_napari
def test_view_says_what_it_needs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without Qt or a display the viewer would end in a crash of Qt."""
    monkeypatch.setattr(view_module, "has_display", lambda: False)
    assert leave("view", "x.svs") == 3
    assert "no display" in capsys.readouterr().err
    monkeypatch.setattr(view_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ResourceError, match=r"napari-slnpredict\[all\]"):
        view_module.need_viewer()
