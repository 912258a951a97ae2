"""Error messages are read by people, printed on terminals and put into reports."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from napari_slnpredict import errors


def all_kinds(base: type[errors.SlnPredictError] = errors.SlnPredictError) -> list[type[errors.SlnPredictError]]:
    return [base, *(kind for child in base.__subclasses__() for kind in all_kinds(child))]


def test_a_message_names_file_fault_and_remedy() -> None:
    """Without one of the three the user cannot act."""
    error = errors.CorruptSlide("ends after 38 of 61 MB", file=Path("/data/patient/slide.svs"), do="copy it again")
    assert str(error) == "slide.svs: ends after 38 of 61 MB. Copy it again."


def test_control_characters_of_file_names_are_escaped() -> None:
    """A file name with an escape sequence must not reach the terminal."""
    message = str(errors.SlideError("is odd", file="a\x1b[2J\nb.svs"))
    assert message.isprintable()


@pytest.mark.parametrize("kind", all_kinds(), ids=lambda kind: kind.__name__)
def test_every_kind_has_an_exit_code_a_title_and_survives_a_process(kind: type[errors.SlnPredictError]) -> None:
    """Errors of worker processes come back pickled; the dock and the exit code need their class."""
    error = kind("what", file="f.svs", do="act")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert kind.exit_code in {1, 3, 130}
    assert kind.title
