"""What the shipped encoder may have learned from: the division of the tile sets, and the script that reads it."""

from __future__ import annotations

import ast
import csv
import hashlib
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from napari_slnpredict.bundles.bundle import SHIPPED, load_bundle

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"
#: What runs when the encoder is trained.
TRAINING = ("train_hne_small.py", "hne_small_learn.py", "hne_small_choose.py", "make_check_tiles.py")


@pytest.fixture(autouse=True)
def scripts_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(SCRIPTS), *sys.path])


def division() -> list[dict[str, str]]:
    with (SCRIPTS / "tile_split.csv").open(newline="", encoding="utf-8") as source:
        return list(csv.DictReader(source))


def test_no_picture_is_on_both_sides() -> None:
    """The held-out half would hold what was learned, under its own name or as the same picture under another one."""
    rows = division()
    halves = {half: {row["sha256"] for row in rows if row["split"] == half} for half in ("train", "test")}
    assert not halves["train"] & halves["test"]
    assert len(halves["train"]) + len(halves["test"]) == len(rows)
    for name in {row["set"] for row in rows}:
        sizes = [sum(row["set"] == name and row["split"] == half for row in rows) for half in halves]
        assert abs(sizes[0] - sizes[1]) <= 0.1 * sum(sizes), name


def test_the_division_is_what_the_script_makes(shared: Path) -> None:
    """The division was changed by hand until figures pleased; or a slide lies on both sides."""
    from make_tile_split import SPLIT, table_text

    assert table_text(shared / "tiles") == SPLIT.read_text(encoding="utf-8")
    with (shared / "tiles" / "osteosarcoma.csv").open(newline="") as source:
        slide = {row["file"]: row["slide"] for row in csv.DictReader(source)}
    sides = {(slide[row["file"]], row["split"]) for row in division() if row["set"] == "osteosarcoma"}
    assert len(sides) == len({name for name, _ in sides})


def test_training_scripts_cannot_name_the_other_half() -> None:
    """A training would read tiles that figures are made on."""
    for script in TRAINING:
        tree = ast.parse((SCRIPTS / script).read_text(encoding="utf-8"))
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
        modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not names & {"HELD_OUT", "read_half"}, script
        assert not modules & {"judge_hne_small"}, script
    tiles = ast.parse((SCRIPTS / "hne_small_tiles.py").read_text(encoding="utf-8"))
    calls = [
        node for node in ast.walk(tiles) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "read_half"
    ]
    assert [ast.unparse(call.args[2]) for call in calls] == ["TRAIN"]


def test_reading_one_half_leaves_the_other_alone(tmp_path: Path) -> None:
    """The division would be applied after reading, or not at all; or another picture would pass under a known name."""
    from hne_small_tiles import read_half
    from PIL import Image

    pictures = {}
    for at, name in enumerate(("a.png", "b.png", "c.png")):
        buffer = io.BytesIO()
        Image.fromarray(np.full((96, 96, 3), 40 * at, np.uint8)).save(buffer, "PNG")
        pictures[name] = buffer.getvalue()
    with zipfile.ZipFile(tmp_path / "pcam_lymph_node.zip", "w") as archive:
        for name in ("a.png", "c.png"):  # b is held out: whoever opens it fails
            archive.writestr(name, pictures[name])
    rows = [f"{name},{label},," for name, label in zip(pictures, ("normal", "tumor", "tumor"), strict=True)]
    (tmp_path / "pcam_lymph_node.csv").write_text("\n".join(["file,label,group,slide", *rows]))
    split = tmp_path / "split.csv"

    def divide(first: str) -> None:
        hashes = [hashlib.sha256(data).hexdigest() for data in pictures.values()]
        lines = zip(pictures, ("train", "test", "train"), [first or hashes[0], *hashes[1:]], strict=True)
        split.write_text("\n".join(["set,file,split,sha256", *(f"pcam_lymph_node,{','.join(line)}" for line in lines)]))

    divide("")
    tiles = read_half(tmp_path, "pcam_lymph_node", "train", split)
    assert tiles.groups.tolist() == ["a.png", "c.png"]
    assert tiles.labels.tolist() == [0, 1]
    assert tiles.pixels.shape == (2, 128, 128, 3)
    divide("0" * 64)
    with pytest.raises(SystemExit, match=r"a\.png"):
        read_half(tmp_path, "pcam_lymph_node", "train", split)


def test_the_shipped_weights_have_seen_one_half_only(shared_root: Path) -> None:
    """The weights in the wheel are older than the division, or have seen a test patient of the cohort."""
    training = load_bundle(SHIPPED / "hne-small").training
    seen = set(training["files"])
    learned = [row["file"] for row in division() if row["split"] == "train"]
    assert seen == {hashlib.sha256(name.encode()).hexdigest()[:16] for name in learned}
    with (shared_root / "data" / "cohort" / "cohort.csv").open(newline="", encoding="utf-8-sig") as source:
        kept = {row["patient"] for row in csv.DictReader(source) if row["split"] != "train"}
    assert kept
    assert not kept & set(training["patients"])
