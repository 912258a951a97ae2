"""Encoders by name: one frozen record each, one registry, and never a network that is random without saying so.

=================  ========================================================================================
name               what it is
=================  ========================================================================================
``hne-small``      a bundle of kind ``encoder``: shipped, or a folder in the user's models folder
``uni`` ...        a row of `presets.PRESETS`; weights in the models folder
``timm:<name>``    any timm network; weights in the models folder
``local:<path>``   a bundle's folder, or ``x.safetensors`` with its card ``x.json`` beside it
``random:<name>``  a timm network without training, seeded: for comparison, and every output says so
=================  ========================================================================================

Other packages add theirs by the entry point group ``napari_slnpredict.encoders``: a name, and a function that takes the
settings and returns an `Encoder`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from napari_slnpredict.bundles.bundle import WEIGHTS, Bundle, find_bundle, load_bundle, read_json
from napari_slnpredict.bundles.weights import kind_of
from napari_slnpredict.errors import BundleMismatch, MissingWeights, ModelError, SlnPredictError, UnsafeFile
from napari_slnpredict.files import digest_file
from napari_slnpredict.settings import Settings, load_settings
from napari_slnpredict.torch_door import import_timm

from .architecture import Architecture, check_architecture, parse_create_model
from .gate import CHECK
from .obtain import head_prefixes, how_to_obtain, named, read_origin
from .presets import IMAGENET, PRESETS, Preset
from .record import ANY_SCALE, Encoder, encoder_from_parts

DEFAULT = "hne-small"
#: No network here is made for larger tiles.
MOST_TILE_PX = 4096
#: Other packages add encoders under this group of entry points.
GROUP = "napari_slnpredict.encoders"


def load_encoder(name: str, settings: Settings | None = None) -> Encoder:
    """Find an encoder by its name (see the top of this module).

    Raises
    ------
    MissingWeights
        The name is known, the weights are not here; the message says where they go. Or the name is not known.
    UnsafeFile, BundleMismatch
        Weights that are not what their card says.
    """
    settings = settings or load_settings()
    kind, colon, rest = name.partition(":")
    if colon and kind == "timm":
        return _timm(rest, settings)
    if colon and kind == "random":
        return _random(rest)
    if colon and kind == "local":
        return _local(_found(Path(rest).expanduser(), settings))
    if name in PRESETS:
        return _preset(PRESETS[name], settings)
    for entry in entry_points(group=GROUP):
        if entry.name == name:
            return _of_package(entry, settings)
    try:
        bundle = find_bundle(name, settings)
    except MissingWeights as error:
        raise MissingWeights(
            f"there is no encoder {name!r} here",
            do=f"{error.do}; other encoders: {', '.join(PRESETS)}, timm:NAME, local:PATH",
        ) from error
    return encoder_from_bundle(bundle)


def _of_package(entry: EntryPoint, settings: Settings) -> Encoder:
    """Return another package's encoder; whatever goes wrong in it is told as its fault."""
    try:
        added = entry.load()(settings)
    except SlnPredictError:
        raise
    except Exception as error:  # whatever a stranger's code raises
        what = f"the encoder {entry.name} of the package {entry.value} fails ({type(error).__name__}: {error})"
        raise ModelError(what, do="tell its authors") from error
    if not isinstance(added, Encoder):
        raise ModelError(f"{entry.value} gives no Encoder", do="tell its authors")
    return added


def _timm(name: str, settings: Settings) -> Encoder:
    architecture = Architecture(name)
    check_architecture(architecture)
    config = import_timm().models.get_pretrained_cfg(name, allow_unregistered=False)
    weights, sha256 = _weights_of(f"timm:{name}", settings)
    return _from_timm(f"timm:{name}", architecture, config, weights, sha256)


def _weights_of(name: str, settings: Settings) -> tuple[Path, str]:
    """Return the file of a name's weights and the SHA-256 recorded when they were brought, "" where nobody did."""
    wanted = named(name)
    weights = wanted.path(settings)
    if not weights.is_file():
        raise MissingWeights(
            f"the weights of {name} are not on this machine ({weights})",
            do=f"{how_to_obtain(wanted)}; or use {DEFAULT}; they are never replaced by random ones",
        )
    return weights, read_origin(weights).get("weights", "")


def _from_timm(name: str, architecture: Architecture, config: Any, weights: Path | None, sha256: str = "") -> Encoder:
    size = config.input_size if config else (3, 224, 224)
    return encoder_from_parts(
        name,
        architecture,
        weights=weights,
        mean=_triple(config.mean if config else IMAGENET[0], name),
        std=_triple(config.std if config else IMAGENET[1], name),
        tile_px=int(size[-1]),
        licence=str((config.license if config else "") or ""),
        sha256=sha256,
        head=head_prefixes(config),
    )


def _random(name: str) -> Encoder:
    architecture = Architecture(name)
    check_architecture(architecture)
    config = import_timm().models.get_pretrained_cfg(name, allow_unregistered=False)
    encoder = _from_timm(f"random:{name}", architecture, config, None)
    return replace(
        encoder, head=(), warning=f"{name} has random weights: its features were never trained, for comparison only"
    )


def _preset(preset: Preset, settings: Settings) -> Encoder:
    weights, sha256 = _weights_of(preset.name, settings)
    mean, std = preset.norm
    encoder = encoder_from_parts(
        preset.name,
        Architecture(preset.timm, preset.kwargs, preset.pooling),
        weights=weights,
        mean=mean,
        std=std,
        tile_px=preset.tile_px,
        mpp=preset.mpp,
        dim=preset.dim,
        licence=preset.licence,
        notice=preset.notice,
        sha256=sha256,
    )
    return replace(encoder, covers_trained=preset.covers_trained, tile_mpp=preset.tile_mpp)


def _found(path: Path, settings: Settings) -> Path:
    """Return a path; a bare name that is not here, where it lies in the models folder: models name their encoder so."""
    there = settings.models_dir / path.name
    return there if len(path.parts) == 1 and not path.exists() and there.exists() else path


def _local(path: Path) -> Encoder:
    if path.is_dir():
        return replace(encoder_from_bundle(load_bundle(path)), name=f"local:{path.name}")
    if path.suffix != ".safetensors":
        with_kind = ""
        if path.is_file():
            with path.open("rb") as source:
                with_kind = kind_of(source.read(64))
        raise UnsafeFile(
            f"is {with_kind or 'no safetensors file'}", file=path, do="give a bundle's folder or X.safetensors"
        )
    if not path.is_file():
        raise MissingWeights("no such file", file=path, do="check the path after local:")
    card = path.with_suffix(".json")
    if not card.is_file():
        raise MissingWeights(f"its card {card.name} is missing", file=path, do="put the card beside the weights")
    return _from_card(path, card)


def _from_card(weights: Path, card: Path) -> Encoder:
    """Make an encoder of weights with a card: ``timm``, ``mean``, ``std``, ``input_size``, ``features``, ``sha256``."""
    facts = read_json(card)
    needed = ("timm", "mean", "std", "input_size", "sha256")
    lacking = [name for name in needed if not isinstance(facts, dict) or name not in facts]
    if lacking:
        raise UnsafeFile(f"the card does not say {', '.join(lacking)}", file=card, do="mend the card")
    try:
        size, width = _side(facts["input_size"][-1]), facts.get("features")
    except (TypeError, ValueError, IndexError) as error:
        raise UnsafeFile("the card's input_size is not (3, h, w)", file=card, do="mend the card") from error
    encoder = encoder_from_parts(
        f"local:{weights.stem}",
        parse_create_model(str(facts["timm"])),
        weights=weights,
        mean=_triple(facts["mean"], card.name),
        std=_spread(facts["std"], card.name),
        tile_px=size,
        dim=int(width) if isinstance(width, int) else None,
        licence=str(facts.get("licence", facts.get("license", ""))),
        notice=str(facts.get("notice", "")),
        sha256=_hash_as_said(weights, str(facts["sha256"])),
    )
    return replace(encoder, covers_trained=facts.get("covers_trained") is True)


def _hash_as_said(weights: Path, expected: str) -> str:
    found = digest_file(weights)
    if found != expected:
        raise UnsafeFile("is not the file its card names (its SHA-256 differs)", file=weights, do="copy both again")
    return found


@dataclass(frozen=True)
class Described:
    """What a bundle of kind ``encoder`` says of its network, checked for kind but not yet against timm.

    Attributes
    ----------
    architecture : Architecture
    tile_px : int
    mpp : (float, float)
    mean, std : (float, float, float)
    dim : int or None
    """

    architecture: Architecture
    tile_px: int
    mpp: tuple[float, float]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    dim: int | None


def describe_bundle(bundle: Bundle) -> Described:
    """Read what an encoder's bundle says of its network; loads no torch.

    Its ``model`` is ``{"type": "timm", "parameters": {...}}`` with ``timm`` (name), and optionally ``kwargs``,
    ``pooling``, ``projection``, ``stride_in_conv1``, ``mean``, ``std``, ``mpp`` ([low, high]), ``dim``.

    Raises
    ------
    BundleMismatch, UnsafeFile
    """
    if bundle.kind != "encoder" or bundle.model.get("type") != "timm":
        raise BundleMismatch(
            f"is a model of kind {bundle.kind}, not an encoder", file=bundle.folder, do="give it to --model instead"
        )
    facts: Mapping[str, Any] = bundle.model.get("parameters", {})
    try:
        kwargs = {k: v for k, v in dict(facts.get("kwargs", {})).items() if k not in ("num_classes", "features_only")}
        width, dim = facts.get("projection"), facts.get("dim")
        architecture = Architecture(
            _plain_name(facts["timm"]),
            kwargs,
            str(facts.get("pooling", "network")),
            bool(facts.get("stride_in_conv1", False)),
            None if width is None else int(width),
        )
        low, high = facts.get("mpp", (bundle.grid.get("mpp", ANY_SCALE[0]), bundle.grid.get("mpp", ANY_SCALE[1])))
        return Described(
            architecture,
            _side(bundle.grid["tile_px"]),
            _scale(low, high),
            _triple(facts.get("mean", IMAGENET[0]), bundle.name),
            _spread(facts.get("std", IMAGENET[1]), bundle.name),
            None if dim is None else int(dim),
        )
    except (KeyError, TypeError, ValueError) as error:
        what = f"its network is not described ({error} is missing or wrong)"
        raise UnsafeFile(what, file=bundle.folder, do="copy the model again") from error


def encoder_from_bundle(bundle: Bundle) -> Encoder:
    """Make an encoder of a bundle of kind ``encoder`` (`describe_bundle` says what it holds)."""
    described = describe_bundle(bundle)
    encoder = encoder_from_parts(
        bundle.name,
        described.architecture,
        weights=bundle.folder / WEIGHTS,
        mean=described.mean,
        std=described.std,
        tile_px=described.tile_px,
        mpp=described.mpp,
        dim=described.dim,
        licence=bundle.licence,
        notice=bundle.notice,
        sha256=bundle.files[WEIGHTS],
    )
    # Trained further from such an encoder, it is one itself.
    encoder = replace(encoder, covers_trained=_start(bundle).get("covers_trained") is True)
    if CHECK not in bundle.files:
        return encoder
    return replace(encoder, check=bundle.folder / CHECK, check_sha256=bundle.files[CHECK])


def _start(bundle: Bundle) -> Mapping[str, Any]:
    """Return what a bundle says of the encoder it was trained from."""
    start = bundle.training.get("start")
    return start if isinstance(start, dict) else {}


def _plain_name(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("the network's name")
    return value


def _side(value: Any) -> int:
    side = int(value)
    if not 8 <= side <= MOST_TILE_PX:
        raise ValueError(f"a tile of {side} px")
    return side


def _scale(low: Any, high: Any) -> tuple[float, float]:
    span = float(low), float(high)
    if not 0 < span[0] <= span[1] < math.inf:
        raise ValueError(f"a scale of {low} to {high} um/px")
    return span


def _spread(values: Any, source: str) -> tuple[float, float, float]:
    spread = _triple(values, source)
    if not min(spread) > 0:
        raise UnsafeFile(f"{source} gives a std that is not above 0", do="mend the card")
    return spread


def _triple(values: Any, source: str) -> tuple[float, float, float]:
    try:
        first, second, third = (float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise UnsafeFile(f"{source} does not give three numbers for mean and std", do="mend the card") from error
    if not all(math.isfinite(value) for value in (first, second, third)):
        raise UnsafeFile(f"{source} gives a mean or std that is not finite", do="mend the card")
    return first, second, third


__all__ = [
    "ANY_SCALE", "DEFAULT", "GROUP", "Described", "Encoder", "describe_bundle", "encoder_from_bundle",
    "encoder_from_parts", "load_encoder",
]  # fmt: skip
