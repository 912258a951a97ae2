"""``features.h5``: what others read, what ours refuses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from napari_slnpredict.encode import features as module
from napari_slnpredict.encode.features import Bag, features_digest, magnification, read_features, write_features
from napari_slnpredict.errors import BundleMismatch, DataError, ResourceError

from .made import make_grid


def make_bag(rows: int = 30, dim: int = 6, kind: Any = np.float32) -> Bag:
    grid = make_grid(rows, rows)
    features = np.random.default_rng(2).normal(size=(len(grid), dim)).astype(kind)
    damaged = np.zeros(len(grid), bool)
    damaged[3] = True
    features[3] = 0
    return Bag(grid, features, "e" * 64, "hne-small", "float32", None, damaged)


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_written_is_read(tmp_path: Path, kind: Any) -> None:
    """Features would come back on other tiles or rounded."""
    bag = make_bag(kind=kind)
    path = write_features(tmp_path / "features.h5", bag, {"content_id": "c" * 64})
    back = read_features(path)
    np.testing.assert_array_equal(back.features, bag.features)
    np.testing.assert_array_equal(back.damaged, bag.damaged)
    assert back.features.dtype == kind
    assert back.path == path
    assert (back.encoder_digest, back.encoder_name, back.precision) == ("e" * 64, "hne-small", "float32")
    for field in dataclasses.fields(bag.grid):
        np.testing.assert_array_equal(getattr(back.grid, field.name), getattr(bag.grid, field.name), field.name)
    assert [entry.name for entry in tmp_path.iterdir()] == ["features.h5"]


def test_trident_and_clam_find_what_they_look_for(tmp_path: Path) -> None:
    """Users of other tools could not read the features."""
    bag = make_bag()
    path = write_features(tmp_path / "features.h5", bag)
    with h5py.File(path) as file:
        features, coords = file["features"], file["coords"]
        assert features.shape == (900, 6)
        assert features.chunks == (512, 6)
        assert features.fletcher32
        assert features.compression is None
        assert coords.dtype == np.int64
        np.testing.assert_array_equal(coords[:], bag.grid.locations)
        assert dict(coords.attrs) == {
            "patch_size": 16, "patch_size_level0": 16, "target_magnification": 10, "level0_magnification": 10,
            "overlap": 0, "name": "array", "savetodir": "None", "level0_width": 480, "level0_height": 480,
        }  # fmt: skip
        assert dict(features.attrs) == {"name": "array", "savetodir": "None", "encoder": "hne-small"}
        wanted = {"format", "encoder", "encoder_digest", "precision", "slide_id", "slide_mpp", "mpp", "tile_px"}
        assert wanted | {"grid_digest"} <= set(file.attrs)
        assert set(file) >= {"features", "coords", "tissue", "component"}
    assert str(tmp_path).encode() not in path.read_bytes(), "a path of this machine is in the file"


def test_magnification_follows_tridents_steps() -> None:
    """TRIDENT would take the tiles for another magnification."""
    assert [magnification(mpp) for mpp in (0.1, 0.19, 0.25, 0.5, 1.0, 2.0, 8.0)] == [80, 60, 40, 20, 10, 5, 1]


def test_a_foreign_encoder_is_refused() -> None:
    """A model would judge features it was never trained on."""
    bag = make_bag()
    bag.require("e" * 64)
    with pytest.raises(BundleMismatch, match="hne-small"):
        bag.require("d" * 64)
    assert features_digest("e" * 64, "float32") != features_digest("e" * 64, "bfloat16")
    assert bag.dim == 6
    assert len(bag.kept) == 899
    assert not bag.too_damaged


ATTRIBUTES = [
    "format", "encoder", "encoder_digest", "precision", "slide_id", "slide_mpp", "mpp", "tile_px", "overlap_px",
    "min_tissue", "grid_digest", "tile_size_level0", "lattice", "lattice_origin",
]  # fmt: skip


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_a_missing_attribute_is_named(tmp_path: Path, name: str) -> None:
    """A missing scale would be guessed."""
    path = write_features(tmp_path / "features.h5", make_bag(4))
    with h5py.File(path, "r+") as file:
        del file.attrs[name]
    with pytest.raises(DataError, match=rf"attribute {name} is missing"):
        read_features(path)


def replace_dataset(name: str, make: Callable[[h5py.File, Path], Any]) -> Callable[[Path], None]:
    def tamper(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            del file[name]
            make(file, path)

    return tamper


def external_link(file: h5py.File, path: Path) -> None:
    with h5py.File(path.parent / "secret.h5", "w") as secret:
        secret["features"] = np.ones((16, 6), np.float32)
    file["features"] = h5py.ExternalLink("secret.h5", "/features")


def virtual(file: h5py.File, path: Path) -> None:
    with h5py.File(path.parent / "secret.h5", "w") as secret:
        secret["features"] = np.ones((16, 6), np.float32)
    layout = h5py.VirtualLayout((16, 6), np.float32)
    layout[:] = h5py.VirtualSource(path.parent / "secret.h5", "features", (16, 6))
    file.create_virtual_dataset("features", layout)


def raw_storage(file: h5py.File, path: Path) -> None:
    (path.parent / "secret.raw").write_bytes(bytes(16 * 6 * 4))
    file.create_dataset("features", (16, 6), np.float32, external=[(str(path.parent / "secret.raw"), 0, 384)])


def soft_link(file: h5py.File, path: Path) -> None:
    file["features"] = h5py.SoftLink("/coords")


def group(file: h5py.File, path: Path) -> None:
    file.create_group("features")


def huge(file: h5py.File, path: Path) -> None:
    file.create_dataset("features", (16, 1 << 45), np.float32, chunks=(1, 1024))


def lazy(file: h5py.File, path: Path) -> None:
    file.create_dataset("features", (1 << 40, 6), np.float32, chunks=(512, 6))


def values(name: str, value: Any, **options: Any) -> Callable[[Path], None]:
    return replace_dataset(name, lambda file, path: file.create_dataset(name, data=value, **options))


def rewrite(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-700])


def not_finite(path: Path) -> None:
    features = np.zeros((16, 6), np.float32)
    features[5, 1] = np.nan
    values("features", features)(path)


def moved(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["coords"][2] = (1, 1)


def attribute(name: str, value: Any) -> Callable[[Path], None]:
    def tamper(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            file.attrs[name] = value

    return tamper


TAMPERED: dict[str, tuple[Callable[[Path], None], str]] = {
    "external link": (replace_dataset("features", external_link), "link"),
    "soft link": (replace_dataset("features", soft_link), "link"),
    "virtual": (replace_dataset("features", virtual), "elsewhere"),
    "raw storage": (replace_dataset("features", raw_storage), "elsewhere"),
    "a group": (replace_dataset("features", group), "elsewhere"),
    "petabytes": (replace_dataset("features", huge), "impossible shape"),
    "a trillion tiles": (replace_dataset("features", lazy), "impossible shape"),
    "missing": (replace_dataset("features", lambda file, path: None), "features is missing"),
    "no damage table": (replace_dataset("damaged", lambda file, path: None), "damaged is missing"),
    "flat": (values("features", np.zeros(16, np.float32)), "impossible shape"),
    "text": (values("features", np.full((16, 6), b"x")), "impossible shape"),
    "integers": (values("features", np.zeros((16, 6), np.int32)), "of type int32"),
    "compressed": (values("features", np.zeros((16, 6), np.float32), compression="gzip"), "compressed"),
    "fewer coords": (values("tissue", np.zeros(3, np.float32)), "3 rows for 16"),
    "not finite": (not_finite, "tile 5"),
    "places moved": (moved, "grid_digest"),
    "another format": (attribute("format", "napari-slnpredict features 2"), "another program or version"),
    "scale is text": (attribute("slide_mpp", "fine"), "slide_mpp is not what"),
    "lattice of three": (attribute("lattice", np.arange(3)), "lattice is not two"),
    "cut": (cut, "damaged"),
    "text file": (rewrite(b"features"), "not HDF5"),
    "empty": (rewrite(b""), "not HDF5"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_hostile_and_damaged_files_are_refused(tmp_path: Path, name: str) -> None:
    """A feature file could read other files of the user's, exhaust memory, or lie."""
    path = write_features(tmp_path / "features.h5", make_bag(4))
    tamper, says = TAMPERED[name]
    tamper(path)
    with pytest.raises(DataError, match=says) as caught:
        read_features(path)
    assert str(caught.value).startswith("features.h5: ")


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    """HDF5 without checksums returns damaged features in silence."""
    bag = make_bag(4)
    path = write_features(tmp_path / "features.h5", bag)
    data = bytearray(path.read_bytes())
    at = data.find(bag.features[7].tobytes())
    data[at + 1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged"):
        read_features(path)


def test_no_file_is_said(tmp_path: Path) -> None:
    """The message would speak of HDF5 where a path is mistyped."""
    with pytest.raises(DataError, match="no such file"):
        read_features(tmp_path / "absent.h5")


def test_a_file_that_does_not_read_back_is_never_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a full disk HDF5 opens and reads as zeros: the chunks would be thrown away for it."""
    old = write_features(tmp_path / "features.h5", make_bag(4))
    before = old.read_bytes()
    real = module._image

    def image(bag: Bag, extra: dict[str, Any]) -> bytes:
        return real(dataclasses.replace(bag, features=np.zeros_like(bag.features)), extra)

    monkeypatch.setattr(module, "_image", image)
    with pytest.raises(ResourceError):
        write_features(old, make_bag(5))
    assert old.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["features.h5"]


def test_an_empty_bag_is_written_too(tmp_path: Path) -> None:
    """A slide without tissue would fail at the last step."""
    grid = make_grid(4, 4)
    empty = dataclasses.replace(
        grid, locations=grid.locations[:0], tissue=grid.tissue[:0], component=grid.component[:0], cells=grid.cells[:0]
    )
    bag = Bag(empty, np.zeros((0, 6), np.float32), "e" * 64, "x", "float32")
    assert len(read_features(write_features(tmp_path / "f.h5", bag))) == 0
