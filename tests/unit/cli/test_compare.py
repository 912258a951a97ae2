"""`slnpredict compare encoders` as a user runs it."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_slnpredict.cli.app import main

FAST = ("--draws", "100", "--stained", "0", "--device", "cpu")


def leave(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return int(left.value.code or 0)


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiles of two colours, and a split of it."""
    folder = tmp_path_factory.mktemp("two")
    rng = np.random.default_rng(0)
    lines = ["file,split"]
    for label, colour in (("normal", (220, 150, 190)), ("tumour", (120, 60, 140))):
        (folder / label).mkdir()
        for k in range(12):
            pixels = np.clip(np.asarray(colour) + rng.integers(-30, 30, (40, 40, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{k}.png")
            lines.append(f"{label}/{k}.png,{'train' if k < 6 else 'test'}")
    (folder / "split.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_a_comparison_is_written(tiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole way: names to arms, folder to tiles, figures to files, an arm that is not there named."""
    out = tmp_path / "out"
    arms = "random:test_resnet,histogram@pca8,no-such-encoder"
    assert leave("compare", "encoders", tiles, "--arms", arms, "--out", out, "--json", *FAST) == 1
    told = capsys.readouterr()
    record = json.loads(told.out)
    assert [failure["name"] for failure in record["failures"]] == ["no-such-encoder"]
    assert "no-such-encoder" in told.err
    rows = list(csv.DictReader((out / "comparison.csv").read_text().splitlines()))
    found = {(row["figure"], row["arm"]): row for row in rows}
    assert float(found["probe AUC", "colour"]["value"]) == 1.0
    assert found["probe AUC", "random:test_resnet"]["baseline"] == "colour"
    # Colours stand beside every comparison, asked for or not.
    assert {arm for _, arm in found} == {"colour", "random:test_resnet", "histogram@pca8", "histogram"}
    page = (out / "comparison.html").read_text()
    assert "random weights" in page
    assert str(tiles) not in page + (out / "run.json").read_text()


def test_a_split_file_divides(tiles: Path, tmp_path: Path) -> None:
    """Judged on what it was fitted on, every arm is perfect."""
    out = tmp_path / "out"
    arguments = (tiles, "--arms", "colour", "--split", tiles / "split.csv", "--out", out, *FAST)
    assert leave("compare", "encoders", *arguments) == 0
    record = json.loads((out / "run.json").read_text())
    assert record["sets"][0]["split"] == "fitted on 12, judged on 12 tiles"


def test_splits_of_the_data_itself(tiles: Path, tmp_path: Path) -> None:
    """Public sets come with their own division: fitted on one part, judged on the other."""
    names = sorted(path.relative_to(tiles).as_posix() for path in tiles.rglob("*.png"))
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for name in names:
            archive.write(tiles / name, name)
    lines = [f"{name},{name.split('/')[0]},{'train' if k % 3 else 'test'}" for k, name in enumerate(names)]
    (tmp_path / "set.csv").write_text("\n".join(["file,label,split", *lines]) + "\n")
    out = tmp_path / "out"
    data = f"{tmp_path / 'set.zip'}@20px@1um"
    arms = ("--arms", "colour", "--train", "train", "--test", "test")
    assert leave("compare", "encoders", data, *arms, "--out", out, *FAST) == 0
    record = json.loads((out / "run.json").read_text())
    (facts,) = record["sets"]
    assert facts["split"] == "fitted on 64, judged on 32 tiles"  # pictures of 40 px are four tiles each
    assert (facts["grouping"], facts["own"], facts["tile_px"], facts["mpp"]) == ("files", "own file", 20, 1.0)
    assert record["asked"]["data"] == ["set.zip@20px@1um"]


def test_what_cannot_be_compared(tiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Usage is exit code 2, no tiles a message with exit code 1."""
    out = ("--out", tmp_path / "out", *FAST)
    assert leave("compare", "encoders", tiles, "--train", "train", *out) == 2
    assert leave("compare", "encoders", tmp_path / "nowhere", *out) == 1
    assert "is not there" in capsys.readouterr().err
    assert not (tmp_path / "out" / "comparison.csv").exists()
