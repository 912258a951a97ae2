"""A training wholly described: what it is called, at which resolution, and what its folder may hold."""

import dataclasses
from pathlib import Path

import pytest

from napari_slnpredict.encode.methods import METHODS
from napari_slnpredict.encode.training import Training, TrainingOptions, check_folder, kept_steps, resolution
from napari_slnpredict.errors import DataError

from .training_fakes import start


def described(out: Path) -> Training:
    """A training by its defaults."""
    return Training("simclr", ("a.csv",), out, TrainingOptions(), METHODS["simclr"].settings())


@pytest.mark.parametrize(
    ("folder", "name"), [("Mine No. 2", "mine-no.-2"), ("größe", "gr-e"), ("__", "simclr"), ("x" * 99, "x" * 80)]
)
def test_the_encoder_is_called_like_its_folder(tmp_path: Path, folder: str, name: str) -> None:
    """A folder with a capital would end an hour's training in a refused bundle."""
    assert described(tmp_path / folder).name == name


def test_the_command_says_only_what_was_chosen(tmp_path: Path) -> None:
    """Whoever copies a command wants to read it."""
    plain = described(Path("out"))
    assert plain.command() == "slnpredict pretrain simclr a.csv --out out"
    chosen = dataclasses.replace(plain, options=TrainingOptions(stain="HE", mpp=0.5))
    assert chosen.command() == "slnpredict pretrain simclr a.csv --out out --mpp 0.5 --stain HE"


def test_the_resolution_is_the_user_s_the_start_s_or_the_usual() -> None:
    """An encoder would be trained at a scale its start has never seen, unasked."""
    anything = start()
    assert resolution(anything, 0.0) == 0.5
    assert resolution(anything, 2.0) == 2.0
    assert resolution(dataclasses.replace(anything, mpp=(1.0, 1.0)), 0.0) == 1.0
    assert resolution(dataclasses.replace(anything, tile_mpp=0.25), 0.0) == 0.25


def test_only_a_folder_of_one_s_own_is_written_to(tmp_path: Path) -> None:
    """The bundle takes the folder's place, and with it whatever lies there."""
    out = tmp_path / "out"
    check_folder(out)
    assert not kept_steps(out)
    (out / "training").mkdir()
    (out / "training" / "checkpoint.safetensors").write_bytes(b"")
    (out / "failures.csv").write_text("slide,error,message\n")
    check_folder(out)
    assert kept_steps(out)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"notes\.txt for one"):
        check_folder(out)
