"""Settings that explain themselves: one source for flags, fields and records."""

from dataclasses import dataclass

import pytest

from napari_slnpredict.encode.methods import METHODS
from napari_slnpredict.encode.option import check_options, given, option, options_of, spelt
from napari_slnpredict.encode.training import TrainingOptions
from napari_slnpredict.errors import DataError


@dataclass(frozen=True)
class Settings:
    """A few of each kind."""

    steps: int = option(10, "Steps", low=1, high=100, main=True)
    near_um: float = option(4e-4, "Near", "um", low=0)
    how: str = option("a", "How", choices=("a", "b"))
    same: bool = option(False, "Same")
    name: str = option("", "Name")
    inner: int = 3  # no option: nobody may choose it


def test_a_field_becomes_an_option_with_its_words_and_limits() -> None:
    """A form and a help page would have to invent them."""
    options = {one.name: one for one in options_of(Settings)}
    assert list(options) == ["steps", "near_um", "how", "same", "name"]
    assert [one.kind for one in options.values()] == [int, float, str, bool, str]
    assert options["near_um"].flag == "--near-um"
    assert options["near_um"].help == "Near, um"
    assert options["how"].help == "How: a, b"
    assert options["steps"].main
    assert not options["how"].main


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("steps", 0, "less than 1"), ("steps", 101, "more than 100"), ("how", "c", "none of a, b"),
     ("near_um", float("nan"), "no number"), ("near_um", float("inf"), "no number")],
)  # fmt: skip
def test_a_value_that_cannot_be_is_refused_in_words(name: str, value: object, said: str) -> None:
    """A training of hours would begin with a batch of minus one."""
    with pytest.raises(DataError, match=f"--{name.replace('_', '-')}: .*{said}"):
        check_options(Settings(**{name: value}))  # type: ignore[arg-type]
    check_options(Settings())


def test_only_what_differs_is_spelt() -> None:
    """Copy as command would copy forty flags, or lose digits of a rate."""
    chosen = Settings(steps=20, near_um=1 / 3, same=True, name="two words")
    assert given(chosen) == {"steps": 20, "near_um": 1 / 3, "same": True, "name": "two words"}
    assert spelt(chosen) == ["--steps", "20", "--near-um", str(1 / 3), "--same", "--name", "two words"]
    assert spelt(Settings(near_um=3e-5)) == ["--near-um", "3e-05"]
    assert spelt(Settings()) == []


@pytest.mark.parametrize("name", METHODS)
def test_settings_of_a_method_do_not_clash_with_those_of_every_training(name: str) -> None:
    """Two flags of one spelling: one of them would never be heard."""
    names = [one.name for kind in (TrainingOptions, METHODS[name].settings) for one in options_of(kind)]
    assert len(names) == len(set(names))
    assert all(one.text for one in options_of(METHODS[name].settings))
    check_options(METHODS[name].settings())
