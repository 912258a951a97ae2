"""An engine made when it is first used."""

from __future__ import annotations

from typing import Any

from napari_slnpredict.encode.engines import PRECISION, Engine
from napari_slnpredict.encode.late import late_engine


class Inner:
    streams, batch = 3, 16

    def __call__(self, tiles: Any, *, fill: bool = True) -> Any:
        return tiles, fill


def test_nothing_is_loaded_before_it_is_needed() -> None:
    """A batch that finds all features in the cache would load a network of a gigabyte for nothing, or one per slide."""
    made: list[int] = []

    def make() -> Engine:
        made.append(1)
        engine: Any = Inner()
        return engine

    engine = late_engine(make)
    assert engine.precision == PRECISION
    assert made == []
    assert engine.streams == 3
    assert engine.batch == 16
    anything: Any = engine
    answer = anything("tiles", fill=False)
    assert answer == ("tiles", False)
    assert made == [1]
