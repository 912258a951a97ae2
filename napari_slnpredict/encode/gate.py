"""Whether an encoder keeps its features in another engine or precision than torch's float32.

Rounding is harmless for most networks and ruinous for some (a MobileNet in bfloat16), so every encoder is measured,
on this processor, with the tiles in its bundle's ``check/`` folder (or, where it has none, the shipped ones). What a
model sees of a feature is how it differs from the others, hence the cosine of *centred* features; and where the model
is at hand, the change of its probabilities. The measured features are kept, not the verdict on them: another model
asks them anew, without the network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.bundles.bundle import SHIPPED
from napari_slnpredict.bundles.weights import read_tensors
from napari_slnpredict.errors import ResourceError, UnsafeFile
from napari_slnpredict.files import digest_bytes, digest_json
from napari_slnpredict.torch_door import import_torch

from .sealed import read_sealed, write_sealed

if TYPE_CHECKING:
    from .record import Encoder

#: Name of the file of reference tiles in an encoder's bundle: tensor ``tiles``, (k, p, p, 3) uint8.
CHECK = "check/tiles.safetensors"
#: Least cosine of any tile's centred features, and greatest change of any class's probability.
MIN_COSINE, MAX_SHIFT = 0.999, 0.01
FOLDER = "engines"

#: Features (k, d) of some tiles -> probabilities (c,) of a slide made of them.
Judge: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.floating]]


@dataclass(frozen=True)
class CheckTiles:
    """Reference tiles of the size a network takes.

    Attributes
    ----------
    pixels : (k, p, p, 3) uint8
    """

    pixels: NDArray[np.uint8]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the pixels."""
        return digest_bytes(str(self.pixels.shape), np.ascontiguousarray(self.pixels).tobytes())


def check_tiles(encoder: Encoder, tile_px: int) -> CheckTiles:
    """Return the tiles an encoder is measured with: its bundle's, else the shipped encoder's, brought to its size.

    Raises
    ------
    UnsafeFile
        The file is not what its bundle says, or holds no tiles.
    """
    path = encoder.check or SHIPPED / "hne-small" / CHECK
    tiles = read_tensors(path, encoder.check_sha256 or None).get("tiles")
    if tiles is None or tiles.ndim != 4 or tiles.shape[3] != 3 or tiles.dtype != np.uint8 or len(tiles) < 2:
        raise UnsafeFile("holds no tiles (k, p, p, 3) uint8", file=path, do="copy the model again")
    if tiles.shape[1:3] != (tile_px, tile_px):
        torch = import_torch()
        batch = torch.from_numpy(tiles.copy()).permute(0, 3, 1, 2)
        resized = torch.nn.functional.interpolate(batch, size=(tile_px, tile_px), mode="bilinear", antialias=True)
        tiles = np.ascontiguousarray(resized.permute(0, 2, 3, 1).numpy())
    return CheckTiles(tiles)


@dataclass(frozen=True)
class Gate:
    """Features of the check tiles, twice.

    Attributes
    ----------
    precision : str
    reference : (k, d) float32
        By torch in float32.
    features : (k, d) float32
        In the precision in question.
    """

    precision: str
    reference: NDArray[np.float32]
    features: NDArray[np.float32]

    @cached_property
    def cosine(self) -> float:
        """Least cosine between a tile's two features, the mean reference feature taken off both."""
        return centred_cosine(self.reference, self.features)

    def shift(self, judge: Judge) -> float:
        """Return the greatest change of a probability of the slide that the check tiles make up."""
        change = np.abs(np.asarray(judge(self.reference)) - np.asarray(judge(self.features)))
        return float(change.max(initial=0.0)) if np.isfinite(change).all() else float("inf")

    def objection(self, judge: Judge | None = None) -> str:
        """Return why this precision must not be used, "" when it may."""
        # Not "less than": NaN passes no gate.
        if not self.cosine >= MIN_COSINE:
            return f"centred features agree to {self.cosine:.4f}, {MIN_COSINE} is needed"
        if judge is not None and not (shift := self.shift(judge)) <= MAX_SHIFT:
            return f"the model's probabilities change by {shift:.3f}, {MAX_SHIFT} is allowed"
        return ""


def centred_cosine(reference: NDArray[np.floating], features: NDArray[np.floating]) -> float:
    """Return the least cosine over rows of (k, d) features, the mean row of `reference` taken off both."""
    centre = reference.mean(axis=0, dtype=np.float64)
    a, b = reference - centre, features - centre
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = (a * b).sum(axis=1) / lengths
    # A tile that is exactly the mean has no direction: equal then, or not.
    cosines = np.where(lengths == 0, (a == b).all(axis=1).astype(float), cosines)
    return float(cosines.min())


def gate_path(cache: Path, encoder: Encoder, precision: str, tile_px: int, tiles: CheckTiles, made_by: str) -> Path:
    """Return the file of a gate; `made_by` names processor and library versions, on which rounding depends."""
    key = digest_json([encoder.digest, precision, tile_px, tiles.digest, made_by])
    return Path(cache) / FOLDER / encoder.digest[:16] / f"gate-{precision}-{tile_px}-{key[:16]}.safetensors"


def write_gate(path: Path, encoder: Encoder, gate: Gate) -> None:
    """Keep a gate; where it cannot be written it is measured again next time."""
    header = {"encoder": encoder.digest, "precision": gate.precision}
    try:
        write_sealed(path, header, {"reference": gate.reference, "features": gate.features})
    except ResourceError:
        return


def read_gate(path: Path, encoder: Encoder) -> Gate | None:
    """Return a gate from the cache; None where there is none that is whole and this encoder's."""
    found = read_sealed(path)
    if found is None:
        return None
    header, tensors = found
    shapes = {name: value.shape for name, value in tensors.items()}
    if header.get("encoder") != encoder.digest or set(shapes) != {"reference", "features"}:
        return None
    if shapes["reference"] != shapes["features"] or shapes["features"][1:] != (encoder.dim,):
        return None
    return Gate(str(header.get("precision")), tensors["reference"], tensors["features"])


def objection(cache: Path, encoder: Encoder, precision: str, judge: Judge | None = None) -> str | None:
    """Return what this cache knows against a precision: "" when it passed (on whatever processor), None for nothing."""
    folder = Path(cache) / FOLDER / encoder.digest[:16]
    found: str | None = None
    for path in sorted(folder.glob(f"gate-{precision}-*.safetensors")):
        gate = read_gate(path, encoder)
        if gate is not None and gate.precision == precision:
            found = gate.objection(judge)
            if not found:
                break
    return found


def passed(cache: Path, encoder: Encoder, precision: str, judge: Judge | None = None) -> bool:
    """Whether an encoder's gate for a precision was passed with this cache."""
    return objection(cache, encoder, precision, judge) == ""
