"""napari's reader: what it claims, and what asking costs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from napari_slnpredict.plugin.reader import get_reader

HEAVY = ("torch", "timm", "torchvision", "tiffslide", "zarr", "dask", "tifffile", "openslide", "skimage", "scipy")


@pytest.mark.parametrize(
    "name", ["a.svs", "A.SVS", "b.ndpi", "c.mrxs", "d.scn", "e.bif", "f.svslide", "g.vms", "h.vmu"]
)
def test_slides_are_ours(name: str) -> None:
    """napari would not offer our reader."""
    assert get_reader(name) is not None
    assert get_reader([name, name]) is not None


@pytest.mark.parametrize("name", ["a.tif", "a.tiff", "a.dcm", "a.png", "a", "a.svs.txt"])
def test_other_files_are_not(name: str) -> None:
    """napari would ask at every TIFF, and end in an error where we refuse."""
    assert get_reader(name) is None
    assert get_reader(["x.svs", name]) is None


def test_asking_imports_nothing_heavy() -> None:
    """Every file a user opens in napari would cost seconds."""
    code = (
        "import sys, json; from napari_slnpredict.plugin.reader import get_reader; get_reader('x.svs');"
        f"print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout) == []


def test_manifest_claims_the_same_patterns() -> None:
    """Manifest and reader would disagree."""
    import re

    import napari_slnpredict
    from napari_slnpredict.plugin.reader import SUFFIXES

    text = (Path(napari_slnpredict.__file__).parent / "napari.yaml").read_text()
    (line,) = re.findall(r"filename_patterns: \[(.*)\]", text)
    assert [item.strip().strip('"') for item in line.split(",")] == [f"*{suffix}" for suffix in SUFFIXES]
