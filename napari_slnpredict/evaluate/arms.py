"""What is compared: an encoder, or a description of tiles that nobody trained.

===================  ===========================================================================================
arm                  what it is
===================  ===========================================================================================
any encoder          as `encode.encoder.load_encoder`: ``hne-small``, ``local:PATH``, ``timm:NAME``, ``random:NAME``
``colour``           mean and deviation of red, green and blue: what needs no network
``histogram``        colours counted in 8 x 8 x 8 boxes, square roots of their shares
``ENC@descriptor``   the short descriptor that an encoder's bundle brings
``ARM@pca128``       its 128 principal components, fitted on the training tiles alone
===================  ===========================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.bundles.bundle import Bundle, find_bundle, load_bundle
from napari_slnpredict.encode.descriptor import describe
from napari_slnpredict.encode.encoder import load_encoder
from napari_slnpredict.encode.record import ANY_SCALE, Encoder
from napari_slnpredict.encode.trained import load_projection
from napari_slnpredict.errors import BundleMismatch, DataError, MissingWeights, UnsafeFile
from napari_slnpredict.files import digest_bytes
from napari_slnpredict.settings import Settings, load_settings

from .embedding import encode_tiles

#: Tiles (k, p, p, 3) uint8 and their um/px to features (k, d) float32.
Embed = Callable[[NDArray[np.uint8], float | None], NDArray[np.float32]]
COLOUR, HISTOGRAM = "colour", "histogram"
_BINS = 8


@dataclass(frozen=True)
class Arm:
    """One of those compared.

    Attributes
    ----------
    name : str
    digest : str
        Equal digests, equal features of equal tiles.
    dim : int
        Length of a feature as `embed` gives it.
    embed : callable
        Tiles (k, p, p, 3) uint8 and their um/px or None to (k, d) float32; a tile's feature must not depend on its
        neighbours.
    standardise : bool
        Whether vectors are standardised before they are compared by cosine, by the training tiles: numbers of which
        one is large for every tile.
    components : int
        Principal components taken, 0: the feature as it is.
    licence, notice, warning : str
    training : mapping
        What its bundle says of its training, empty where nothing is known.
    """

    name: str
    digest: str
    dim: int
    embed: Embed = field(repr=False)
    standardise: bool = False
    components: int = 0
    licence: str = ""
    notice: str = ""
    warning: str = ""
    training: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def width(self) -> int:
        """Length of the vectors that are compared."""
        return min(self.components, self.dim) if self.components else self.dim

    def fitted(self, known: NDArray[np.float32]) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        """Return what turns features into the vectors compared, learned from training tiles (m, d) alone."""
        if self.components:
            return _principal(known, self.components)
        if self.standardise:
            mean, scale = known.mean(axis=0), known.std(axis=0) + 1e-6
            return lambda features: np.asarray((features - mean) / scale, np.float32)
        return lambda features: features


def load_arm(spec: str, settings: Settings | None = None) -> Arm:
    """Return the arm that a name means.

    Raises
    ------
    DataError
        An ending that is not known.
    SlnPredictError
        As `load_encoder`.
    """
    settings = settings or load_settings()
    base, *endings = re.split(r"@(?=[a-z]+\d*(?:@|$))", spec)
    arm = _base_arm(base, settings)
    for ending in endings:
        count = re.fullmatch(r"pca(\d+)", ending)
        if count:
            arm = replace(arm, name=f"{arm.name}@{ending}", components=int(count[1]))
        elif ending == "descriptor":
            arm = _by_descriptor(arm, _bundle_of(base, settings))
        else:
            raise DataError(f"{spec}: there is no @{ending}", do="known are @pca128 (any number) and @descriptor")
    return arm


def _base_arm(name: str, settings: Settings) -> Arm:
    if name == COLOUR:
        return function_arm(COLOUR, "mean and deviation of 3 channels", colour_statistics, 6, standardise=True)
    if name == HISTOGRAM:
        return function_arm(HISTOGRAM, f"{_BINS} boxes a channel, square roots", colour_histogram, _BINS**3)
    arm = encoder_arm(load_encoder(name, settings), settings=settings)
    bundle = _bundle_of(name, settings)
    return arm if bundle is None else replace(arm, training=dict(bundle.training))


def encoder_arm(encoder: Encoder, *, name: str = "", settings: Settings | None = None) -> Arm:
    """Return an arm for an encoder; its network is built when the first tile comes.

    Its features are computed as everywhere in the program, in the precision the settings choose. Tiles are brought to
    the encoder's resolution where it has one and theirs is known, else to the encoder's size.
    """
    settings = settings or load_settings()
    return Arm(
        name or encoder.name,
        digest_bytes(encoder.digest, settings.engine),
        encoder.dim,
        encode_tiles(encoder, settings),
        licence=encoder.licence,
        notice=encoder.notice,
        warning=encoder.warning,
    )


def function_arm(
    name: str,
    digest: str,
    embed: Callable[[NDArray[np.uint8]], NDArray[np.floating]],
    dim: int,
    *,
    standardise: bool = False,
    warning: str = "",
) -> Arm:
    """Return an arm for a function of tiles (k, p, p, 3) uint8 to features (k, d)."""
    return Arm(
        name,
        digest_bytes(name, digest),
        dim,
        lambda tiles, mpp: np.asarray(embed(tiles), np.float32),
        standardise=standardise,
        warning=warning,
    )


def colour_statistics(tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return mean and deviation of red, green and blue, (k, 6), 0 to 1."""
    flat = tiles.reshape(len(tiles), -1, 3).astype(np.float32) / 255
    return np.concatenate([flat.mean(axis=1), flat.std(axis=1)], axis=1)


def colour_histogram(tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the square roots of the shares of colours in boxes, (k, 512): vectors of length 1 (Hellinger)."""
    box = (tiles.reshape(len(tiles), -1, 3) >> 5).astype(np.int64) @ np.array([_BINS * _BINS, _BINS, 1])
    counts = np.array([np.bincount(row, minlength=_BINS**3) for row in box], np.float32)
    return np.asarray(np.sqrt(counts.reshape(-1, _BINS**3) / max(1, box.shape[1])), np.float32)


def _principal(known: NDArray[np.float32], count: int) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Return the projection on the directions in which training features vary most, the mean taken off."""
    mean = known.mean(axis=0, dtype=np.float64)
    scatter = (known - mean).T @ (known - mean)  # (d, d): d is a few thousand at most
    values, vectors = np.linalg.eigh(scatter)
    axes = vectors[:, np.argsort(-values, kind="stable")[:count]]
    return lambda features: np.asarray((features - mean) @ axes, np.float32)


def _bundle_of(name: str, settings: Settings) -> Bundle | None:
    """Return an encoder's bundle, None for one that has none: weights with a card, timm's and random ones."""
    kind, colon, rest = name.partition(":")
    try:
        if not colon:
            return find_bundle(name, settings)
        from pathlib import Path

        folder = Path(rest).expanduser()
        return load_bundle(folder) if kind == "local" and folder.is_dir() else None
    except (MissingWeights, UnsafeFile):
        return None


def _by_descriptor(arm: Arm, bundle: Bundle | None) -> Arm:
    projection = load_projection(bundle) if bundle is not None else None
    if projection is None:
        raise BundleMismatch(f"{arm.name} brings no descriptor of its own", do="use @pca128 in its place")
    kept, whole = projection, arm.embed
    return replace(
        arm,
        name=f"{arm.name}@descriptor",
        digest=digest_bytes(arm.digest, kept.digest),
        dim=len(kept.weight),
        embed=lambda tiles, mpp: describe(whole(tiles, mpp), kept),
    )


__all__ = [
    "ANY_SCALE", "COLOUR", "HISTOGRAM", "Arm", "Embed", "colour_histogram", "colour_statistics", "encoder_arm",
    "function_arm", "load_arm",
]  # fmt: skip
