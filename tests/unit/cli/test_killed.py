"""`slnpredict predict` killed with -9 in the middle: the next run ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tell_fakes import write_slide

from napari_slnpredict.encode.features import read_features

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 on this system")

CHUNK = 16
#: The command as a user runs it, with small chunks; told how many to seal before it is killed, it kills itself.
COMMAND = f"""
import os, signal, sys
from napari_slnpredict.cli.app import main
from napari_slnpredict.encode import embed
from napari_slnpredict.encode.store import FeatureStore

embed.CHUNK_TILES = {CHUNK}
seals, taken, seal, take = [], [0], FeatureStore.seal, embed._Run._take

def sealing(self, chunk):
    if len(seals) == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    seals.append(len(chunk))
    return seal(self, chunk)

def taking(self, result):
    taken[0] += len(result.chunk)
    take(self, result)

FeatureStore.seal, embed._Run._take = sealing, taking
try:
    main(sys.argv[2:])
finally:
    print(f"embedded {{taken[0]}}", file=sys.stderr)
"""


def predict(slide: Path, out: Path, cache: Path, *, seals: int) -> subprocess.CompletedProcess[str]:
    arguments = ["predict", slide, "--model", "demo-sln", "--device", "cpu", "--out", out]
    return subprocess.run(
        [sys.executable, "-c", COMMAND, str(seals), *map(str, arguments)],
        env={**os.environ, "SLNPREDICT_CACHE": str(cache)}, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip


def embedded(done: subprocess.CompletedProcess[str]) -> int:
    assert done.returncode == 0, done.stderr
    return int(done.stderr.rsplit("embedded ", 1)[1])


def test_killed_in_the_middle(tmp_path: Path) -> None:
    """Kill -9 (or a power failure) would cost the night's work, or end in another answer than an unbroken run."""
    slide = write_slide(tmp_path / "one.svs", size=(1600, 1400))
    whole = predict(slide, tmp_path / "whole", tmp_path / "cache-1", seals=1000)
    tiles = embedded(whole)
    assert tiles > 4 * CHUNK
    killed = predict(slide, tmp_path / "out", tmp_path / "cache-2", seals=3)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "out" / "one").exists(), "half a prediction looks like a whole one"
    again = predict(slide, tmp_path / "out", tmp_path / "cache-2", seals=1000)
    assert embedded(again) == tiles - 3 * CHUNK, "more than the chunk under way was computed again"
    first, second = (read_features(next((tmp_path / name).rglob("features.h5"))) for name in ("cache-1", "cache-2"))
    np.testing.assert_array_equal(first.features, second.features)
    told = [json.loads((tmp_path / name / "one" / "prediction.json").read_text()) for name in ("whole", "out")]
    for name in ("probabilities", "answer", "logits", "content_id", "bundle"):
        assert told[0].get(name) == told[1].get(name)
    assert told[0]["probabilities"] is not None
