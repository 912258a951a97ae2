"""Large arrays that live for a moment."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from napari_slnpredict.slide.pages import pages


def test_pages_are_an_array_like_any_other() -> None:
    """A picture could not be written to, or would vanish with the name of its memory."""
    found = pages(300, 400, 3)
    assert found.shape == (300, 400, 3)
    assert found.dtype == np.uint8
    found[10, 20] = 7
    part = found[5:20, 10:30]
    del found
    assert part[5, 10].tolist() == [7, 7, 7]
    assert not part[0].any()


def test_nothing_of_no_size() -> None:
    """A view beside the slide would raise, for the system maps no empty memory."""
    assert pages(0, 5, 3).shape == (0, 5, 3)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_memory_goes_back_at_once() -> None:
    """Panning would leave the process larger by a part of what it has shown."""

    def own_kib() -> int:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

    before = own_kib()
    found = pages(64 << 20)
    found[:] = 1
    assert own_kib() - before > 60 << 10
    del found
    assert own_kib() - before < 8 << 10
