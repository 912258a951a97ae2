"""Features of a sample by an arm, kept on disk by what the tiles look like: a run that was stopped goes on."""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import DataError
from napari_slnpredict.events import Job, Meter, Stage, Throttle
from napari_slnpredict.files import write_file

from .arms import Arm
from .sets import CHUNK, Sample, pixels_digest

FOLDER = "compared"
#: Tiles timed at once, and how often.
_TIMED, _ROUNDS = 32, 5


def sample_features(arm: Arm, sample: Sample, cache: Path | None) -> Job[NDArray[np.float32]]:
    """Return the features of a sample's tiles, (n, d) float32.

    Chunks of tiles are found again in the cache by the SHA-256 of their pixels and the arm's digest, whatever their
    files are called by now.

    Raises
    ------
    DataError
        The arm gives numbers that are not finite, or not the length it promised.
    """
    yield Stage("features", f"{sample.name}: embedding tiles with {arm.name}", len(sample), "tiles")
    meter, tell = Meter(len(sample)), Throttle()
    features = np.empty((len(sample), arm.dim), np.float32)
    for number, places, pixels in sample.chunks():
        features[places], found = embed_cached(arm, pixels, sample.mpp, cache, sample.digests[number])
        meter.done += len(pixels)
        meter.found += len(pixels) if found else 0
        if tell() or meter.done == len(sample):
            yield meter.progress()
    return features


def embed_cached(
    arm: Arm, pixels: NDArray[np.uint8], mpp: float | None, cache: Path | None, digest: str = ""
) -> tuple[NDArray[np.float32], bool]:
    """Return the features of some tiles (k, p, p, 3), and whether they were found in the cache.

    Parameters
    ----------
    digest : str
        `pixels_digest` of the tiles, where it is known.
    """
    path = None
    if cache is not None:
        path = Path(cache) / FOLDER / arm.digest[:32] / f"{digest or pixels_digest(pixels, mpp)}.npy"
    found = _read(path, (len(pixels), arm.dim))
    if found is not None:
        return found, True
    made = _checked(arm, arm.embed(pixels, mpp), len(pixels))
    if path is not None:
        write_file(path, _npy(made))
    return made, False


def _checked(arm: Arm, features: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    if features.shape != (count, arm.dim):
        raise DataError(f"{arm.name} gives features {features.shape}, not ({count}, {arm.dim})")
    if not np.isfinite(features).all():
        raise DataError(f"{arm.name} gives features that are not finite", do="look at its weights")
    return features


def _read(path: Path | None, shape: tuple[int, int]) -> NDArray[np.float32] | None:
    """Return features written earlier; None where there are none, or not whole ones."""
    if path is None or not path.is_file():
        return None
    try:
        found = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.shape == shape and found.dtype == np.float32 and np.isfinite(found).all() else None


def _npy(features: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, features, allow_pickle=False)
    return buffer.getvalue()


def time_arm(arm: Arm, sample: Sample) -> NDArray[np.float64]:
    """Return ms per tile of a few rounds over the same tiles, after one that does not count: (rounds,)."""
    count = min(_TIMED, CHUNK, len(sample))
    pixels = sample.pixels(np.arange(count))
    arm.embed(pixels, sample.mpp)
    spent = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        arm.embed(pixels, sample.mpp)
        spent.append(1000 * (time.perf_counter() - start) / count)
    return np.array(spent)
