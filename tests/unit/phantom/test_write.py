"""Slides and truth as files, read back by others."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_slnpredict.errors import DataError
from napari_slnpredict.events import run
from napari_slnpredict.phantom.scene import PhantomSlide, Tissue
from napari_slnpredict.phantom.tasks import make_cohort, make_slide, write_slide, write_truth
from napari_slnpredict.phantom.write import outlines
from napari_slnpredict.slide.slide import open_slide


@pytest.fixture(scope="module")
def slide() -> PhantomSlide:
    return make_slide("sln", "positive", 2, "B", size=1.4)


def test_our_own_reader_opens_it_with_scale_and_levels(slide: PhantomSlide, tmp_path: Path) -> None:
    """Wrong: a phantom cannot be opened, or has another size or scale than its truth."""
    with open_slide(write_slide(slide, tmp_path / "a.svs")) as opened:
        assert opened.reader == "tiles"
        assert opened.mpp == 1.0
        assert opened.dimensions == slide.pixels.shape[1::-1]
        assert opened.stored_level_count == 2
        read = opened.read_region((200, 300), 0, (256, 256)).astype(float)
        assert np.abs(read - slide.pixels[300:556, 200:456]).mean() < 6
        low = opened.read_level(1, 0, 0, *opened.level_dimensions[1])[0].astype(float)
        height, width = (side // 4 * 4 for side in slide.pixels.shape[:2])
        means = slide.pixels[:height, :width].reshape(height // 4, 4, width // 4, 4, 3).mean(axis=(1, 3))
        assert np.abs(low - means).mean() < 7  # JPEG of quality 76


def test_other_readers_agree(slide: PhantomSlide, tmp_path: Path) -> None:
    """Wrong: OpenSlide or tiffslide see another pyramid or another scale."""
    import openslide
    import tiffslide

    path = write_slide(slide, tmp_path / "a.svs")
    with openslide.OpenSlide(str(path)) as one, tiffslide.TiffSlide(str(path)) as other:
        assert one.level_dimensions == tuple(map(tuple, other.level_dimensions))
        assert float(one.properties["openslide.mpp-x"]) == float(other.properties["tiffslide.mpp-x"]) == 1.0
        pictures = [np.asarray(reader.read_region((64, 64), 0, (128, 128)))[..., :3] for reader in (one, other)]
        assert np.abs(pictures[0].astype(int) - pictures[1]).max() <= 3


def test_the_same_slide_is_the_same_file(slide: PhantomSlide, tmp_path: Path) -> None:
    """Wrong: a file holds the time it was written, so that content ids differ between machines."""
    first, second = (write_slide(slide, tmp_path / name).read_bytes() for name in ("a.svs", "b.svs"))
    assert first == second


def test_truth_reads_back(slide: PhantomSlide, tmp_path: Path) -> None:
    """Wrong: the mask PNG shows colours instead of codes, or outlines lie beside the mask."""
    write_truth(slide, tmp_path, "a")
    with Image.open(tmp_path / "a.png") as picture:
        assert (np.asarray(picture) == slide.truth).all()
    with Image.open(tmp_path / "a_artefacts.png") as picture:
        assert (np.asarray(picture) == slide.artefacts).all()
    geojson = json.loads((tmp_path / "a.geojson").read_text())
    area = sum(_area(f) for f in geojson["features"] if f["properties"]["classification"]["name"] == "Altered")
    assert area == pytest.approx(64 * int((slide.truth == Tissue.ALTERED).sum()), rel=0.02)
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert len(rows) == len(slide.instances)
    assert {row["kind"] for row in rows} >= {"nest", "altered nest"}


def _area(feature: dict) -> float:
    total = 0.0
    for number, ring in enumerate(feature["geometry"]["coordinates"]):
        x, y = np.asarray(ring).T
        assert ring[0] == ring[-1]
        own = abs(float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]))) / 2
        total += own if number == 0 else -own
    return total


def test_outlines_lie_on_the_pixels_borders(slide: PhantomSlide) -> None:
    """Wrong: outlines are shifted by half a mask pixel (4 um)."""
    truth = np.zeros((40, 60), np.uint8)
    truth[10:20, 30:50] = Tissue.NEST
    changed = PhantomSlide(**{**slide.__dict__, "truth": truth})
    (feature,) = outlines(changed)["features"]
    x, y = np.asarray(feature["geometry"]["coordinates"][0]).T
    assert (x.min(), x.max(), y.min(), y.max()) == (240, 400, 80, 160)


def test_a_cohort_is_a_table_of_slides(tmp_path: Path) -> None:
    """Wrong: the table does not say which slide has which label, or labels are not balanced."""
    table = run(make_cohort("sln", 4, 1, "A,B", tmp_path, split="train", size=0.5))
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["site"] for row in rows] == ["A", "B", "A", "B"]
    assert sorted(row["label"] for row in rows) == ["negative"] * 2 + ["positive"] * 2
    assert len({row["patient"] for row in rows}) == 4
    assert all((tmp_path / row["path"]).is_file() for row in rows)
    assert all("positive" not in row["path"] for row in rows)


def test_a_cohort_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Wrong: making more slides changes or repeats those that are there."""
    run(make_cohort("sln", 2, 1, "A", tmp_path, size=0.5))
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "slides").iterdir()}
    table = run(make_cohort("sln", 3, 1, "A", tmp_path, size=0.5))
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "slides").iterdir()}
    assert len(after) == 3
    assert {name: after[name] for name in before} == before
    run(make_cohort("sln", 1, 9, "C", tmp_path, split="test", size=0.5))
    assert len(list(csv.DictReader(table.read_text().splitlines()))) == 4


def test_her2_comes_in_pairs(tmp_path: Path) -> None:
    """Wrong: the DAB section is not tied to its patient."""
    table = run(make_cohort("her2", 1, 1, "A", tmp_path, size=0.5))
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["stain"] for row in rows] == ["HE", "DAB"]
    assert len({row["patient"] for row in rows}) == 1


def test_a_foreign_table_is_not_overwritten(tmp_path: Path) -> None:
    """Wrong: somebody's cohort.csv is lost."""
    (tmp_path / "cohort.csv").write_text("slide,label\na,b\n")
    with pytest.raises(DataError, match="not a phantom cohort"):
        run(make_cohort("sln", 1, 1, "A", tmp_path, size=0.5))
    assert (tmp_path / "cohort.csv").read_text() == "slide,label\na,b\n"
