"""CAMELYON17-WILDS, BRACS and Camelyon16 on tiny files of the same layout."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_slnpredict.cohort.public import TUMOR
from napari_slnpredict.encode.public_tiles import bracs_tiles, camelyon16_tiles, wilds_tiles
from napari_slnpredict.errors import DataError
from napari_slnpredict.events import Warn, run
from napari_slnpredict.slide.grid import GridSpec

from .made_cohort import tissue_slide

#: The splits of the published loader: of its column, then overwritten by centre.
SPLITS = {"train": 0, "id_val": 1, "test": 2, "val": 3}


@pytest.fixture(scope="module")
def wilds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty patches of five centres; the column ``split`` is 0 or 1 everywhere, as published."""
    folder = tmp_path_factory.mktemp("camelyon17_v1.0")
    rng = np.random.default_rng(0)
    lines = []
    for k in range(40):
        centre = k % 5
        patient, node = f"{4 + 20 * centre + k % 2:03d}", k % 3
        x, y = int(rng.integers(1000, 9000)), int(rng.integers(1000, 9000))
        lines.append([k, patient, node, x, y, k % 2, 10 * centre + node, centre, int(rng.random() < 0.2)])
        slide = f"patient_{patient}_node_{node}"
        path = folder / "patches" / slide / f"patch_{slide}_x_{x}_y_{y}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((96, 96, 4), 255, np.uint8)  # the published patches have an alpha channel
        pixels[..., :3] = k
        Image.fromarray(pixels).save(path)
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["", "patient", "node", "x_coord", "y_coord", "tumor", "slide", "center", "split"])
        writer.writerows(lines)
    return folder


def published_rows(folder: Path, split: str) -> list[int]:
    """Row numbers of a split by the rules of the published loader, in plain words."""
    with (folder / "metadata.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    number = []
    for line in lines:
        value = int(line["split"])
        if int(line["center"]) == 1:
            value = SPLITS["val"]
        if int(line["center"]) == 2:
            value = SPLITS["test"]
        number.append(value)
    return [k for k, value in enumerate(number) if value == SPLITS[split]]


@pytest.mark.parametrize("split", list(SPLITS))
def test_wilds_splits_are_the_published_ones(wilds: Path, split: str) -> None:
    """Figures on another division could be compared with nobody's: same indices per split, in the same order."""
    tiles = wilds_tiles(wilds, split=split)
    rows = published_rows(wilds, split)
    assert len(rows) > 1
    pixels = tiles.read(np.arange(len(tiles.table)))
    assert pixels[:, 0, 0, 0].tolist() == rows  # the pictures carry their row number
    assert tiles.table.label.tolist() == [k % 2 for k in rows]


def test_wilds_facts(wilds: Path) -> None:
    """Patients keep their zeros and are the groups; centres are the sites."""
    tiles = wilds_tiles(wilds)
    table = tiles.table
    assert (tiles.tile_px, tiles.mpp) == (96, 0.972)
    assert table.classes == ("normal", "tumor")
    assert "patient_004" in table.patients
    assert len(np.unique(table.group)) == len(table.patients) == 10
    assert np.array_equal(table.site, np.arange(40) % 5 + 1)
    x = int(table.names[3].partition("_x_")[2].partition("_y_")[0])
    assert table.centre_um[3, 0] == pytest.approx((x + 16) * 0.972)


def test_wilds_that_is_not_whole(wilds: Path, tmp_path: Path) -> None:
    """A missing picture or a strange table is named, not passed over."""
    text = (wilds / "metadata.csv").read_text().splitlines()
    (tmp_path / "metadata.csv").write_text("\n".join([text[0], text[1].replace(",", ",x", 3)]) + "\n")
    with pytest.raises(DataError, match="line 2"):
        wilds_tiles(tmp_path)
    (tmp_path / "metadata.csv").write_text("\n".join(text[:2]) + "\n")
    with pytest.raises(DataError, match="is not there"):
        wilds_tiles(tmp_path).read(np.array([0]))
    (tmp_path / "metadata.csv").write_text("patient,node\n1,2\n")
    with pytest.raises(DataError, match="x_coord"):
        wilds_tiles(tmp_path)
    with pytest.raises(DataError, match="no picture of split 'middle'"):
        wilds_tiles(wilds, split="middle")


def test_bracs_regions(tmp_path: Path) -> None:
    """Regions of one slide are one group, small ones are counted, the split is the folder's."""
    rng = np.random.default_rng(0)
    for name, size in (
        ("train/0_N/BRACS_10_N_1.png", (70, 40)),
        ("train/6_IC/BRACS_10_IC_2.png", (40, 40)),
        ("train/6_IC/BRACS_11_IC_1.png", (20, 60)),
        ("test/3_FEA/BRACS_12_FEA_1.png", (40, 64)),
    ):
        path = tmp_path / "latest_version" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3)).astype(np.uint8)).save(path)
    events: list[object] = []
    tiles = run(bracs_tiles(tmp_path, tile_px=32), events.append)
    table = tiles.table
    assert [event.message for event in events if isinstance(event, Warn)] == [
        "1 of 4 regions are smaller than a tile of 32 px"
    ]
    assert table.classes == ("FEA", "IC", "N")
    assert sorted(facts.slide_id for facts in table.slides) == ["BRACS_10", "BRACS_12"]
    assert len(table) == 2 + 1 + 2
    assert tiles.mpp == 0.25
    assert len(run(bracs_tiles(tmp_path, tile_px=32, split="test")).table) == 2


def test_camelyon16_tiles_are_labelled_by_outlines(tmp_path: Path) -> None:
    """A tile of a tumour slide outside the outline is normal: labelled tumour, most of them would be wrong."""
    for kind, seed in (("normal", 1), ("tumor", 2)):
        folder = tmp_path / "training" / kind
        folder.mkdir(parents=True)
        tissue_slide(folder / f"{kind}_001.tif", seed)
    corners = "".join(
        f'<Coordinate Order="{k}" X="{x}" Y="{y}" />'
        for k, (x, y) in enumerate(((0, 0), (640, 0), (640, 320), (0, 320)))
    )
    outline = f'<Annotation PartOfGroup="_0"><Coordinates>{corners}</Coordinates></Annotation>'
    text = f"<ASAP_Annotations><Annotations>{outline}</Annotations></ASAP_Annotations>"
    (tmp_path / "training" / "tumor_001.xml").write_text(text)
    with run(camelyon16_tiles(tmp_path, GridSpec(64, 1.0, min_tissue=0.5), split="train")) as tiles:
        table = tiles.table
        assert table.classes == ("normal", TUMOR)
        tumour_slide = table.slide == [facts.slide_id for facts in table.slides].index("tumor_001")
        upper = table.centre_um[:, 1] < 320
        assert np.array_equal(table.label == 1, tumour_slide & upper)
        assert 0 < (table.label == 1).sum() < tumour_slide.sum()
    (tmp_path / "training" / "tumor_001.xml").unlink()
    with run(camelyon16_tiles(tmp_path, GridSpec(64, 1.0, min_tissue=0.5))) as tiles:
        assert (tiles.table.label[tumour_slide] == -1).all()
        assert (tiles.table.label[~tumour_slide] == 0).all()
    with pytest.raises(DataError, match="no slide of split 'test'"):
        run(camelyon16_tiles(tmp_path, GridSpec(64, 1.0), split="test"))
