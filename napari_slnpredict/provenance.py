"""What ran, with what, for how long: the facts that go into run.json and the report."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from . import __version__

#: Distributions whose version can change a result.
WATCHED = (
    "numpy", "scipy", "scikit-image", "tiffslide", "tifffile", "openslide-python", "openslide-bin", "imagecodecs",
    "simplejpeg", "torch", "torchvision", "timm", "openvino", "h5py", "dask", "napari",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Return the versions of this package, of Python and of every installed library that can change a result."""
    found = {"napari-slnpredict": __version__, "python": platform.python_version()}
    for name in WATCHED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Return what kind of machine this is, without names of host or user."""
    import os

    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "cpus": os.cpu_count() or 1,
        "python": sys.version.split()[0],
    }


def now() -> str:
    """Return the present time, UTC, to the second, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0).isoformat()


@dataclass
class Stopwatch:
    """Adds up seconds under names: read, decode, encode, write, and the stages of a run."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)

    def add(self, name: str, seconds: float) -> None:
        """Add seconds measured elsewhere."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
