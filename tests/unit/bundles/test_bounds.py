"""Children that read strangers' files are bounded by the system, not by their own good will."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("resource")


@pytest.mark.parametrize(
    "deed", ["bytearray(1 << 30)", "file = open('x', 'wb', 0); file.write(bytes(4096)); file.write(b'b')"]
)
def test_a_bounded_process_takes_no_more(deed: str, tmp_path: Path) -> None:
    """A crafted file would take the machine's memory or disk with it."""
    code = (
        "import signal\nfrom napari_slnpredict.bundles.bounds import bound_process\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"bound_process(600 << 20, 20, 4096)\ntry:\n    {deed}\nexcept (MemoryError, OSError):\n    raise SystemExit(7)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, timeout=60, check=False)
    assert done.returncode == 7
