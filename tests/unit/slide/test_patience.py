from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from napari_slnpredict.slide.patience import MAX_STUCK, Patience, is_far, mounted_as
from napari_slnpredict.slide.source import DriveSilent

MOUNTS = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
40 27 0:55 / /mnt/my\\040slides rw,relatime shared:3 master:1 - nfs4 server:/slides rw,vers=4.2
41 27 0:56 / /home/me/remote rw,nosuid - fuse.sshfs me@host:/ rw
42 41 8:1 / /home/me/remote/disk rw - xfs /dev/sda1 rw
43 27 8:2 / /srv rw - ext4 /dev/sda2 rw
44 43 0:57 / /srv rw - cifs //host/share rw
short line
"""


def readers() -> int:
    return sum(thread.name == "slnpredict-read" for thread in threading.enumerate())


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/you/a.svs", "ext4"),
        ("/mnt/my slides/a/b.svs", "nfs4"),
        ("/mnt/my slides2/b.svs", "ext4"),
        ("/home/me/remote/b.svs", "fuse.sshfs"),
        ("/home/me/remote/disk/b.svs", "xfs"),
        ("/srv/b.svs", "cifs"),
    ],
)
def test_the_list_of_mounts_says_what_a_file_lies_on(path: str, kind: str) -> None:
    """A share was taken for a local disk, so that its silence would hang the program."""
    assert mounted_as(Path(path), MOUNTS) == kind
    assert mounted_as(Path(path), "") == ""


def test_a_local_file_is_near(tmp_path: Path) -> None:
    """Every read of a local slide would be handed to another thread."""
    path = tmp_path / "a"
    path.touch()
    assert not is_far(path)
    assert not is_far(tmp_path / "missing")


def test_results_and_errors_come_back() -> None:
    """A read through another thread lost its tile or its error."""
    patience = Patience(5)
    assert [patience.run(lambda k=k: k * k) for k in range(20)] == [k * k for k in range(20)]
    with pytest.raises(KeyError):
        patience.run(lambda: {}["x"])
    assert readers() == 1
    patience.close()


def test_silence_has_an_end_and_is_forgiven() -> None:
    """A dead share held whoever asked for ever, or a share that came back was never asked again."""
    patience, back = Patience(0.05), threading.Event()
    start = time.monotonic()
    with pytest.raises(DriveSilent, match="no answer"):
        patience.run(back.wait)
    assert time.monotonic() - start < 2
    assert patience.stuck == 1
    back.set()
    deadline = time.monotonic() + 5
    while patience.stuck and time.monotonic() < deadline:
        time.sleep(0.005)
    assert patience.stuck == 0
    assert patience.run(lambda: 7) == 7
    patience.close()


def test_few_threads_hang_at_once() -> None:
    """Each tile of a dead share left another thread hanging."""
    patience, back = Patience(0.02), threading.Event()
    before = readers()
    for _ in range(MAX_STUCK):
        with pytest.raises(DriveSilent):
            patience.run(back.wait)
    start = time.monotonic()
    for _ in range(50):
        with pytest.raises(DriveSilent, match="still waiting"):
            patience.run(back.wait)
    assert time.monotonic() - start < 1
    assert readers() - before <= MAX_STUCK
    back.set()
    patience.close()


def test_threads_end_with_the_slide() -> None:
    """Closed slides left reading threads behind."""
    patience, inside, back = Patience(5), threading.Event(), threading.Event()

    def slow() -> None:
        inside.set()
        back.wait(5)

    caller = threading.Thread(target=lambda: patience.run(slow))
    caller.start()
    inside.wait(5)
    patience.run(lambda: None)
    patience.close()
    back.set()
    caller.join()
    deadline = time.monotonic() + 5
    while readers() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert readers() == 0


def test_an_unused_thread_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """An open slide nobody reads kept its threads."""
    monkeypatch.setattr("napari_slnpredict.slide.patience.IDLE_SECONDS", 0.02)
    patience = Patience(5)
    for k in range(200):  # ends and new work meet
        assert patience.run(lambda k=k: k) == k
        time.sleep(0.02 if k % 50 == 0 else 0.0001)
    deadline = time.monotonic() + 5
    while readers() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert readers() == 0
    assert patience.run(lambda: 1) == 1
    patience.close()
