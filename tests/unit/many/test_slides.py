"""What each slide is called in the outputs."""

from __future__ import annotations

from pathlib import Path

from napari_slnpredict.errors import CorruptSlide
from napari_slnpredict.many.slides import Input, Label, name_all

A, B = "1a" * 16, "2b" * 16


def labels(*paths: str, taken: dict[str, str] | None = None, pseudonym: bool = False) -> list[Label]:
    return [named.label for named in name_all([Input(Path(path)) for path in paths], taken or {}, pseudonym)]


def test_names_are_stems_until_they_collide() -> None:
    """Two slides of one name would overwrite each other's results."""
    first, second, third = labels("a/x.svs", "b/X.svs", "c/y.svs")
    assert first.name(A) == "x-1a1a1a1a"
    assert second.name(B) == "X-2b2b2b2b"
    assert third.name(A) == "y"


def test_a_table_may_name_slides() -> None:
    """The names of a cohort's table would not be those of the results, or collide unseen with a file's."""
    named = name_all([Input(Path("scan_0001.svs"), name="case7"), Input(Path("CASE7.svs")), Input(Path("z.svs"))], {})
    assert [slide.label.name(A) for slide in named] == ["case7-1a1a1a1a", "CASE7-1a1a1a1a", "z"]


def test_a_name_taken_by_an_earlier_run_is_not_overwritten() -> None:
    """The result of another slide, computed last week, would be lost."""
    (label,) = labels("X.svs", taken={"x": A})
    assert label.name(A) == "X"
    assert label.name(B) == "X-2b2b2b2b"


def test_pseudonyms_hide_names_in_messages_too() -> None:
    """A file named after a patient, printed into the log of a cluster (promise R10)."""
    path = Path("/data/Meier_Anna.svs")
    other, label = labels("/data/a.svs", str(path), pseudonym=True)
    assert label.name(A) == A
    assert (other.shown, label.shown) == ("slide 1", "slide 2")
    assert "Meier" not in label.hide(path, CorruptSlide("ends early", file=path))


def test_hostile_names_are_made_harmless() -> None:
    """A line feed or an escape sequence in a file name would reach the terminal."""
    (label,) = labels("a\x1b[31m\nb.svs")
    assert "\x1b" not in label.stem
    assert "\n" not in label.shown
