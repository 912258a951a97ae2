"""The record of an encoder: what it is, what its numbers depend on, and how its network is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from napari_slnpredict.bundles.weights import read_hashed
from napari_slnpredict.errors import BundleMismatch, ModelError
from napari_slnpredict.files import digest_file, digest_json
from napari_slnpredict.slide.blocks import INTERPOLATION
from napari_slnpredict.slide.grid import GridSpec
from napari_slnpredict.torch_door import import_timm, import_torch

from .architecture import Architecture, build_network, check_architecture, check_shapes, load_tensors, output_width

#: Networks made for photographs were made for no scale at all.
ANY_SCALE = (0.05, 20.0)
SEED = 20_240_917


@dataclass(frozen=True)
class Encoder:
    """A network that turns a tile into a vector, and all that decides its numbers.

    Attributes
    ----------
    name : str
    digest : str
        SHA-256 over weights, architecture, normalisation and interpolation: equal digests, equal features.
    dim : int
        Length of a feature.
    tile_px : int
        Side of the tiles it was made for, px.
    mpp : (float, float)
        Lowest and highest um/px it was made for.
    mean, std : (float, float, float)
        Of the channels, for pixels from 0 to 1.
    interpolation : str
        How tiles are brought to their resolution (`slide.blocks.INTERPOLATION`).
    pooling : str
    licence, notice : str
    covers_trained : bool
        Whether its terms cover models trained on its features (`bundles.terms`).
    tile_mpp : float or None
        um/px of the tiles it was published with, where that is known.
    warning : str
        "" or what must stand beside every result ("random weights ...").
    architecture : Architecture
    weights : Path or None
        The safetensors file; None for random ones.
    sha256 : str
        Of `weights`.
    head : tuple of str
        Name prefixes of the classifier, which a file may hold and the encoder has no use for.
    check : Path or None
        Reference tiles for other engines and precisions (`gate`); None: the shipped ones. No part of the digest.
    check_sha256 : str
    """

    name: str
    digest: str
    dim: int
    tile_px: int
    mpp: tuple[float, float]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    pooling: str
    licence: str = ""
    notice: str = ""
    warning: str = ""
    architecture: Architecture = field(default_factory=lambda: Architecture(""), repr=False)
    weights: Path | None = field(default=None, repr=False)
    sha256: str = field(default="", repr=False)
    head: tuple[str, ...] = field(default=(), repr=False)
    check: Path | None = field(default=None, repr=False)
    check_sha256: str = field(default="", repr=False)
    covers_trained: bool = False
    tile_mpp: float | None = None

    def entry(self) -> dict[str, Any]:
        """Return what a bundle trained on its features says of it: identity and terms."""
        return {
            "name": self.name,
            "digest": self.digest,
            "licence": self.licence,
            "notice": self.notice,
            "covers_trained": self.covers_trained,
        }

    def build(self) -> Any:
        """Return the network: an nn.Module in evaluation mode, (b, 3, tile_px, tile_px) float32 -> (b, dim) float32.

        Its input is normalised by `mean` and `std`. Weights are loaded strictly and their hash is checked again.
        """
        if self.weights is None:
            return _random_network(self.architecture)
        tensors, _ = read_hashed(self.weights, self.sha256)
        for name in [name for name in tensors if name.startswith(self.head)] if self.head else []:
            del tensors[name]
        # Compared on shapes before anything is allocated: the file's size bounds what a stranger's network may take.
        shapes = {name: value.shape for name, value in tensors.items()}
        check_shapes(build_network(self.architecture, "meta"), shapes, self.weights.name)
        network = build_network(self.architecture)
        load_tensors(network, tensors, self.weights.name)
        return network

    def check_grid(self, spec: GridSpec) -> None:
        """Raise `BundleMismatch` when tiles of another resolution than the encoder's are to be embedded."""
        low, high = self.mpp
        if not low * 0.99 <= spec.mpp <= high * 1.01:
            raise BundleMismatch(
                f"the encoder {self.name} works at {low:g} to {high:g} um/px, the tiles are at {spec.mpp:g}",
                do="lay the grid at the encoder's resolution",
            )


def encoder_from_parts(
    name: str,
    architecture: Architecture,
    *,
    weights: Path | None,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    tile_px: int,
    mpp: tuple[float, float] = ANY_SCALE,
    dim: int | None = None,
    licence: str = "",
    notice: str = "",
    warning: str = "",
    sha256: str = "",
    head: tuple[str, ...] = (),
) -> Encoder:
    """Make the record of an encoder; the digest is computed here and nowhere else.

    Parameters
    ----------
    dim : int, optional
        The width the source claims; compared with the network's.
    """
    check_architecture(architecture)
    width = output_width(architecture, tile_px)
    if dim is not None and dim != width:
        raise BundleMismatch(f"{name} claims features of length {dim}; its network gives {width}", do="mend its card")
    if weights is not None and not sha256:
        sha256 = digest_file(weights)
    digest = encoder_digest(sha256 or _random_identity(), architecture, mean, std)
    return Encoder(
        name, digest, width, tile_px, mpp, mean, std, INTERPOLATION, architecture.pooling, licence, notice, warning,
        architecture, weights, sha256, head,
    )  # fmt: skip


def encoder_digest(
    weights: str | dict[str, Any], architecture: Architecture, mean: Sequence[float], std: Sequence[float]
) -> str:
    """Return the identity of an encoder's features; loads no torch.

    Parameters
    ----------
    weights : str or dict
        SHA-256 of the file, or what random weights depend on.
    """
    return digest_json(
        {
            "weights": weights,
            "architecture": architecture.plain(),
            "mean": [float(value) for value in mean],
            "std": [float(value) for value in std],
            "interpolation": INTERPOLATION,
        }
    )


def for_tiles(encoder: Encoder, tile_px: int) -> Encoder:
    """Return an encoder that takes tiles of another side than it was made for, with the same weights.

    Convolutional networks take any; a vision transformer has a place for each of its patches, and resamples those
    places (``dynamic_img_size``). Features of another side are other features: the digest changes with that argument.

    Raises
    ------
    BundleMismatch
        The network cannot: its patches do not fill such a tile, say.
    """
    if tile_px == encoder.tile_px:
        return encoder
    try:
        output_width(encoder.architecture, tile_px)
        return replace(encoder, tile_px=tile_px)
    except BundleMismatch:
        kwargs = {**encoder.architecture.kwargs, "dynamic_img_size": True}
    architecture = replace(encoder.architecture, kwargs=kwargs)
    try:
        output_width(architecture, tile_px)
    except ModelError as error:
        raise BundleMismatch(
            f"the network of {encoder.name} cannot take tiles of {tile_px} px ({error.what})",
            do=f"use tiles of {encoder.tile_px} px, or of a whole number of its patches",
        ) from error
    digest = encoder_digest(encoder.sha256 or _random_identity(), architecture, encoder.mean, encoder.std)
    return replace(encoder, architecture=architecture, digest=digest, tile_px=tile_px)


def _random_identity() -> dict[str, Any]:
    # Seeded, but a library may draw its numbers in another order tomorrow.
    return {"random": SEED, "torch": import_torch().__version__, "timm": import_timm().__version__}


def _random_network(architecture: Architecture) -> Any:
    torch = import_torch()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return build_network(architecture)
