"""Tiles from folders, zips and PatchCamelyon's HDF5: named classes, honest groups, bad files named."""

from __future__ import annotations

import csv
import hashlib
import io
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_slnpredict.encode import tile_files
from napari_slnpredict.encode.joined_tiles import joined
from napari_slnpredict.encode.pcam_tiles import PcamTiles
from napari_slnpredict.encode.tile_files import folder_tiles, zip_tiles
from napari_slnpredict.errors import DataError
from napari_slnpredict.events import run


def picture(seed: int, width: int = 48, height: int | None = None) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height or width, width, 3)).astype(np.uint8)


def png(pixels: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for k, name in enumerate(["tumour/a.png", "tumour/b.PNG", "normal/c.png", "normal/deep/d.png"]):
        path = tmp_path / "tiles" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(picture(k)))
    (tmp_path / "tiles" / "readme.txt").write_text("no tile")
    return tmp_path / "tiles"


def make_zip(where: Path, rows: list[dict[str, str]], pictures: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(where / "set.zip", "w") as archive:
        for name, data in pictures.items():
            archive.writestr(name, data)
    with (where / "set.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return where / "set.zip"


def listed(**more: str) -> tuple[list[dict[str, str]], dict[str, bytes]]:
    pictures = {f"{k}.png": png(picture(k)) for k in range(4)}
    rows = [
        {
            "file": name,
            "label": "tumor" if k % 2 else "normal",
            "group": "p1" if k < 3 else "p2",
            "slide": f"p{1 + (k == 3)}-s{k // 2}",
            "sha256": hashlib.sha256(data).hexdigest(),
            **more,
        }
        for k, (name, data) in enumerate(pictures.items())
    ]
    return rows, pictures


# --- folders ----------------------------------------------------------------------------------------------------------


def test_a_folders_classes_have_names(folder: Path) -> None:
    """Alphabetical numbers without names turned one published method's labels round."""
    tiles = run(folder_tiles(folder, mpp=0.5))
    assert tiles.table.classes == ("normal", "tumour")
    assert tiles.table.label.tolist() == [0, 0, 1, 1]
    assert len(np.unique(tiles.table.group)) == 4
    assert (tiles.tile_px, tiles.mpp) == (48, 0.5)
    assert np.array_equal(tiles.read(np.array([2, 0, 2]))[[0, 1]], [picture(0), picture(2)])


def test_a_flat_folder_has_no_classes(folder: Path) -> None:
    """Pictures without folders are tiles without labels, not one class."""
    tiles = run(folder_tiles(folder / "tumour"))
    assert tiles.table.classes == ()
    assert tiles.table.label.tolist() == [-1, -1]


def test_large_pictures_are_cut(tmp_path: Path) -> None:
    """Tiles lie side by side in the middle, and those of one picture are one group."""
    big = picture(0, 100, 70)
    (tmp_path / "big.png").write_bytes(png(big))
    tiles = run(folder_tiles(tmp_path, tile_px=32))
    assert len(tiles.table) == 6
    assert len(np.unique(tiles.table.group)) == 1
    pixels = tiles.read(np.arange(6))
    assert np.array_equal(pixels[0], big[3:35, 2:34])
    assert np.array_equal(pixels[5], big[35:67, 66:98])


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("small.png", png(picture(1, 20)), "small.png: 20 x 20 px are less than a tile of 48"),
        ("text.png", b"no picture", "text.png: is no picture"),
        ("empty.jpg", b"", "empty.jpg: is no picture"),
    ],
)
def test_a_bad_picture_is_named(folder: Path, name: str, data: bytes, message: str) -> None:
    """One bad file among ten thousand must be found by its name, before training begins."""
    (folder / name).write_bytes(data)
    with pytest.raises(DataError, match=message):
        run(folder_tiles(folder, tile_px=48))


def test_a_picture_that_ends_early_is_named(folder: Path) -> None:
    """The header is whole, the rest is not: found when it is read."""
    whole = (folder / "tumour/a.png").read_bytes()
    (folder / "tumour/a.png").write_bytes(whole[: len(whole) // 2])
    tiles = run(folder_tiles(folder))
    with pytest.raises(DataError, match=r"a\.png: cannot be decoded"):
        tiles.read(np.arange(4))


def test_no_pictures_no_folder(tmp_path: Path) -> None:
    """A wrong path must not become an empty training."""
    with pytest.raises(DataError, match="no pictures"):
        run(folder_tiles(tmp_path))
    with pytest.raises(DataError, match="no folder"):
        run(folder_tiles(tmp_path / "absent"))


def test_a_slide_is_no_tile(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture of gigapixels, by mistake or by malice, is refused by its header."""
    monkeypatch.setattr(tile_files, "MOST_PX", 2000)
    with pytest.raises(DataError, match="slide, not a tile"):
        run(folder_tiles(folder))


# --- zip and table ----------------------------------------------------------------------------------------------------


def test_a_zip_with_its_table(tmp_path: Path) -> None:
    """Patients are groups, slides are slides, labels keep their names; several threads read it."""
    with run(zip_tiles(make_zip(tmp_path, *listed()))) as tiles:
        table = tiles.table
        assert table.classes == ("normal", "tumor")
        assert table.label.tolist() == [0, 1, 0, 1]
        assert table.group.tolist() == [0, 0, 0, 1]
        assert [facts.slide_id for facts in table.slides] == ["p1-s0", "p1-s1", "p2-s1"]
        assert table.patients == ("p1", "p2")
        with ThreadPoolExecutor(4) as pool:
            for k, pixels in enumerate(pool.map(lambda k: tiles.read(np.array([k % 4])), range(24))):
                assert np.array_equal(pixels[0], picture(k % 4))


def test_only_what_the_table_names_is_used(tmp_path: Path) -> None:
    """A table with fewer rows is a choice; a zip with fewer pictures is a fault."""
    rows, pictures = listed()
    with run(zip_tiles(make_zip(tmp_path, rows[:2], pictures))) as tiles:
        assert len(tiles.table) == 2
    del pictures["1.png"]
    with pytest.raises(DataError, match=r"1 pictures of the table are not in it, 1\.png"):
        run(zip_tiles(make_zip(tmp_path, rows, pictures)))


def test_another_picture_under_the_same_name_is_refused(tmp_path: Path) -> None:
    """Checksums are there to be checked."""
    rows, pictures = listed()
    pictures["2.png"] = png(picture(77))
    with run(zip_tiles(make_zip(tmp_path, rows, pictures))) as tiles, pytest.raises(DataError, match="checksum"):
        tiles.read(np.arange(4))


def test_bad_zips_and_tables(tmp_path: Path) -> None:
    """Each says what is wrong with which file."""
    rows, pictures = listed()
    archive = make_zip(tmp_path, rows, pictures)
    archive.write_bytes(b"PK nothing")
    with pytest.raises(DataError, match=r"set\.zip: is no zip"):
        run(zip_tiles(archive))
    (tmp_path / "set.csv").write_text("name,label\na.png,x\n")
    with pytest.raises(DataError, match="no column 'file'"):
        run(zip_tiles(archive))
    with pytest.raises(DataError, match=r"other\.csv: cannot be read"):
        run(zip_tiles(archive, tmp_path / "other.csv"))


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member of gigabytes is refused by its declared size."""
    monkeypatch.setattr(tile_files, "MOST_BYTES", 1000)
    with pytest.raises(DataError, match="no tile"):
        run(zip_tiles(make_zip(tmp_path, *listed())))


@pytest.mark.parametrize(
    ("name", "count", "classes", "groups"),
    [("pcam_lymph_node", 460, 2, 460), ("crc_texture7", 49, 7, 49), ("oral_tissue", 330, 2, 330)],
)
def test_real_sets(shared: Path, name: str, count: int, classes: int, groups: int) -> None:
    """The sets at hand are read as their tables say."""
    with run(zip_tiles(shared / f"tiles/{name}.zip")) as tiles:
        assert len(tiles.table) == count
        assert len(tiles.table.classes) == classes
        assert len(np.unique(tiles.table.group)) == groups
        assert tiles.read(np.arange(0, count, 40)).shape[1:] == (tiles.tile_px, tiles.tile_px, 3)


def test_a_real_set_with_patients(shared: Path) -> None:
    """Cut to 512 px the bone tumours are 180 tiles of 4 patients."""
    with run(zip_tiles(shared / "tiles/osteosarcoma.zip", tile_px=512)) as tiles:
        assert len(tiles.table) == 180
        assert len(np.unique(tiles.table.group)) == 4
        assert len(tiles.table.patients) == 4


# --- PatchCamelyon ----------------------------------------------------------------------------------------------------


def pcam(where: Path, count: int = 6, **wrong: Any) -> tuple[Path, Path, Path]:
    import h5py

    x = np.stack([picture(k, 96) for k in range(count)])
    y = (np.arange(count) % 2).reshape(count, 1, 1, 1).astype(np.uint8)
    with h5py.File(where / "x.h5", "w") as file:
        file.create_dataset("x", data=wrong.get("x", x))
    with h5py.File(where / "y.h5", "w") as file:
        file.create_dataset("y", data=wrong.get("y", y))
    slides = "".join(
        f"{k},{k * 10},{k * 20},camelyon16_train_{'normal' if k < 4 else 'tumor'}_001\n" for k in range(count)
    )
    (where / "meta.csv").write_text(f",coord_y,coord_x,wsi\n{slides}")
    return where / "x.h5", where / "y.h5", where / "meta.csv"


def test_pcams_layout(tmp_path: Path) -> None:
    """Labels by name, groups by slide, any order and repeats of rows."""
    tiles = PcamTiles(*pcam(tmp_path))
    assert (tiles.tile_px, tiles.mpp) == (96, 0.972)
    assert tiles.table.classes == ("normal", "tumor")
    assert tiles.table.label.tolist() == [0, 1, 0, 1, 0, 1]
    assert tiles.table.group.tolist() == [0, 0, 0, 0, 1, 1]
    rows = np.array([5, 0, 5, 2])
    assert np.array_equal(tiles.read(rows), np.stack([picture(k, 96) for k in rows.tolist()]))


def test_pcam_without_labels_or_slides(tmp_path: Path) -> None:
    """Pre-training needs neither; every tile is then a group of its own."""
    tiles = PcamTiles(pcam(tmp_path)[0])
    assert tiles.table.classes == ()
    assert len(np.unique(tiles.table.group)) == 6


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"x": np.zeros((3, 96, 96), np.uint8)}, "not .n, p, p, 3."),
        ({"x": np.zeros((6, 96, 96, 3), np.float32)}, "not .n, p, p, 3."),
        ({"y": np.zeros(4, np.uint8)}, "not 6 labels"),
        ({"y": np.full(6, 2, np.uint8)}, "not 6 labels"),
    ],
    ids=["no channels", "float", "few labels", "label 2"],
)
def test_wrong_pcam_files_are_named(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    """Labels of another split would be learned without a word."""
    with pytest.raises(DataError, match=message):
        PcamTiles(*pcam(tmp_path, **wrong))


def test_what_is_no_hdf5_is_named(tmp_path: Path) -> None:
    """The files come packed as .h5.gz: say so."""
    packed = tmp_path / "x.h5"
    packed.write_bytes(b"\x1f\x8b nothing")
    with pytest.raises(DataError, match="gz"):
        PcamTiles(packed)


def test_a_missing_meta_table_is_named(tmp_path: Path) -> None:
    """Without it neighbours would land on both sides of a split."""
    x, y, meta = pcam(tmp_path)
    meta.unlink()
    with pytest.raises(DataError, match=r"meta\.csv: cannot be read"):
        PcamTiles(x, y, meta)
    meta.write_text("wsi\na\nb\n")
    with pytest.raises(DataError, match="6 slides"):
        PcamTiles(x, y, meta)


def test_sets_of_one_size_join(tmp_path: Path) -> None:
    """Tiles of several places become one training; equal names of classes become one class."""
    one = PcamTiles(*pcam(tmp_path))
    (tmp_path / "more/tumor").mkdir(parents=True)
    (tmp_path / "more/tumor/a.png").write_bytes(png(picture(50, 96)))
    two = run(folder_tiles(tmp_path / "more"))
    both = joined([one, two])
    assert both.table.classes == ("normal", "tumor")
    assert both.table.label.tolist() == [0, 1, 0, 1, 0, 1, 1]
    assert both.table.slide.tolist() == [0, 0, 0, 0, 1, 1, -1]
    assert len(np.unique(both.table.group)) == 3
    assert np.array_equal(both.read(np.array([6, 1])), np.stack([picture(50, 96), picture(1, 96)]))
