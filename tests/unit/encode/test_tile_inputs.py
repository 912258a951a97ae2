"""Whatever is named as tiles: each kind is opened as what it is, and a wrong guess is never silent."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from napari_slnpredict.encode.tile_inputs import needs_grid, open_tiles, read_input, sets_of
from napari_slnpredict.encode.tile_subset import subset
from napari_slnpredict.errors import DataError
from napari_slnpredict.events import run

from .made_cohort import tissue_slide


def picture(seed: int, side: int = 32) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of everything."""
    folder = tmp_path_factory.mktemp("inputs")
    for k, label in enumerate("xy"):
        path = folder / "tiles" / label / "a.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(k))
    (folder / "slides").mkdir()
    for k in range(2):
        tissue_slide(folder / "slides" / f"s{k}.svs", k)
    rows = ["path,patient,label,split,stain,subtype", "slides/s0.svs,p0,x,train,HE,0_N",
            "slides/s1.svs,p1,y,test,IHC,6_IC"]  # fmt: skip
    (folder / "cohort.csv").write_text("\n".join(rows) + "\n")
    with zipfile.ZipFile(folder / "set.zip", "w") as archive:
        for k in range(4):
            archive.writestr(f"{k}.png", picture(k, 64))
    lines = [f"{k}.png,{'ab'[k % 2]},g{k},{'train' if k < 3 else 'test'},{'no' if k else 'yes'}" for k in range(4)]
    (folder / "set.csv").write_text("\n".join(["file,label,group,split,response", *lines]) + "\n")
    for name, value in (("p_x", np.zeros((3, 32, 32, 3), np.uint8)), ("p_y", np.array([0, 1, 1]).reshape(3, 1, 1, 1))):
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file[name[-1]] = value
    return folder


def test_every_kind_is_opened(place: Path) -> None:
    """A folder of slides read as tiles, or the reverse, trains on thumbnails."""
    found = {
        "cohort.csv": 2, "slides": 2, "slides/s0.svs": 1, "tiles": None, "set.zip": None, "p_x.h5": None
    }  # fmt: skip
    for name, slides in found.items():
        size = {"tile_px": 64, "mpp": 1.0} if slides else {}
        with run(open_tiles([str(place / name)], **size)) as tiles:
            assert len(tiles.table) > 0
            assert len(tiles.table.slides) == (slides or 0)
            assert tiles.read(np.array([0])).shape == (1, tiles.tile_px, tiles.tile_px, 3)
    assert run(open_tiles([str(place / "p_x.h5")])).table.label.tolist() == [0, 1, 1]


def test_splits_stains_and_tasks(place: Path) -> None:
    """A test slide among the training tiles spoils every figure after."""
    size = {"tile_px": 64, "mpp": 1.0}
    cohort = str(place / "cohort.csv")
    with run(open_tiles([cohort], split="train", **size)) as tiles:
        assert tiles.table.patients == ("p0",)
    with run(open_tiles([cohort], stain="ihc", label="subtype", **size)) as tiles:
        assert tiles.table.classes == ("IC",)
    with run(open_tiles([str(place / "set.zip")], split="train", label="response")) as tiles:
        assert tiles.table.classes == ("no", "yes")
        assert tiles.table.names == ("0.png", "1.png", "2.png")
    with run(open_tiles([str(place / "tiles")], split="train")) as tiles:
        assert len(tiles.table) == 2  # nothing is split there: all
    with pytest.raises(DataError, match=r"no slide of split 'dev'.*There are: test, train"):
        run(open_tiles([cohort], split="dev", **size))
    with pytest.raises(DataError, match="no picture of split 'dev'"):
        run(open_tiles([str(place / "set.zip")], split="dev"))
    with pytest.raises(DataError, match="no column 'grade'"):
        run(open_tiles([str(place / "set.zip")], label="grade"))


def test_several_are_one_and_sizes_may_stand_behind(place: Path) -> None:
    """A set of another size could not be trained on with the rest."""
    inputs = [str(place / "tiles"), f"{place / 'set.zip'}@32px@1.0um", str(place / "set.csv")]
    with run(open_tiles(inputs)) as tiles:
        assert tiles.tile_px == 32
        assert len(tiles.table) == 2 + 4 * 4
        assert set(tiles.table.sources) >= {"x/a.png", "0.png"}
        part = subset(tiles, np.array([3, 0]))
        assert np.array_equal(part.read(np.array([1])), tiles.read(np.array([0])))
        assert part.table.names == (tiles.table.names[3], tiles.table.names[0])
        assert len(part.table) == 2
    with pytest.raises(DataError, match="do not belong"):
        run(open_tiles([str(place / "tiles"), str(place / "set.zip")]))


def test_what_a_user_writes() -> None:
    """A Windows drive is no kind, and an @ in a path is no size."""
    assert read_input("wilds:data/x").kind == "wilds"
    named = read_input(r"C:\tiles\set.zip")
    assert (named.kind, str(named.path)) == ("", r"C:\tiles\set.zip")
    named = read_input("tiles:a@b/c@512px@0.25um")
    assert (named.kind, named.path, named.tile_px, named.mpp) == ("tiles", Path("a@b/c"), 512, 0.25)
    assert read_input("a@512").tile_px is None


def test_sets_have_names_of_their_own(place: Path) -> None:
    """Two slides are one set, two zips are two; a zip's table is none."""
    inputs = [str(place / name) for name in ("slides/s0.svs", "slides/s1.svs", "set.zip", "set.csv", "tiles", "p_x.h5")]
    sets = sets_of(inputs)
    assert [(name, len(members)) for name, members in sets] == [("slides", 2), ("set", 1), ("tiles", 1), ("p_x", 1)]
    assert needs_grid(sets[0][1])
    assert not needs_grid(sets[1][1])


def test_what_is_not_there_or_lacks_a_size(place: Path) -> None:
    """A misspelt name must not be an empty training."""
    with pytest.raises(DataError, match=r"nowhere: is not there"):
        run(open_tiles([str(place / "nowhere")]))
    with pytest.raises(DataError, match="need a size"):
        run(open_tiles([str(place / "cohort.csv")]))
    with pytest.raises(DataError, match="no tiles"):
        run(open_tiles([]))
