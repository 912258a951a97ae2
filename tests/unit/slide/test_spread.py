from __future__ import annotations

import threading
import time

import pytest

from napari_slnpredict.slide.spread import spread


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 7, 100])
def test_every_item_is_done_once(threads: int, count: int) -> None:
    """A tile of a batch was decoded twice or left out."""
    done: list[int] = []
    spread(done.append, range(count), threads)
    assert sorted(done) == list(range(count))


def test_helpers_help_and_are_gone_afterwards() -> None:
    """A batch was read by one thread, or left threads behind for the window to wait for."""
    before, seen = threading.active_count(), set()

    def work(_: int) -> None:
        seen.add(threading.get_ident())
        time.sleep(0.002)

    spread(work, range(40), 4)
    assert len(seen) == 4
    assert threading.active_count() <= before


def test_an_error_stops_all_and_is_raised() -> None:
    """A failing read was swallowed in a helper, or the rest was read for nobody."""
    done: list[int] = []

    def work(item: int) -> None:
        time.sleep(0.001)
        if item == 5:
            raise KeyError("bad")
        done.append(item)

    with pytest.raises(KeyError):
        spread(work, range(1000), 3)
    assert len(done) < 100


def test_batches_within_batches() -> None:
    """A virtual tile, itself made of a batch, waited for a helper that never came."""
    done: list[int] = []

    def outer(k: int) -> None:
        spread(lambda j: done.append(10 * k + j), range(10), 4)

    spread(outer, range(20), 4)
    assert sorted(done) == list(range(200))
