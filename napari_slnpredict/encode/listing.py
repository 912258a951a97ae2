"""Which encoders can be named, with or without their weights; loads no network and no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path

from napari_slnpredict.bundles.bundle import WEIGHTS, BrokenBundle, Bundle, list_bundles
from napari_slnpredict.errors import SlnPredictError
from napari_slnpredict.settings import Settings
from napari_slnpredict.slide.blocks import INTERPOLATION

from .architecture import Architecture
from .encoder import GROUP, describe_bundle
from .engines import PRECISION, PRECISIONS
from .gate import objection
from .obtain import how_to_obtain, named, read_origin
from .presets import PRESETS, UNSUPPORTED, Preset
from .record import Encoder, encoder_digest

MINE = "your models folder"


@dataclass(frozen=True)
class EncoderRow:
    """One encoder as it is listed.

    Attributes
    ----------
    name, source : str
        `source` is "shipped", "your models folder", a hub repository, or a package.
    dim : int or None
        Length of a feature.
    megabytes : float or None
        Of its weights; for weights that are not here, of its parameters at 4 bytes.
    licence, notice : str
    here : bool
        Whether it can be used at once.
    remark : str
        Where weights come from, or why it cannot be used.
    tile_px : int or None
    mpp : float or None
        um/px of the tiles it takes by default.
    gated : bool
    gates : dict
        Engine's precision to "" (passed) or the reason against it, as measured with this cache; empty: not measured.
    supported : bool
    """

    name: str
    source: str
    dim: int | None
    megabytes: float | None
    licence: str
    here: bool
    remark: str = ""
    notice: str = ""
    tile_px: int | None = None
    mpp: float | None = None
    gated: bool = False
    gates: Mapping[str, str] = field(default_factory=dict)
    supported: bool = True

    @property
    def passed(self) -> list[str]:
        """Precisions beside torch's float32 that keep its features here."""
        return [precision for precision, why in self.gates.items() if not why and precision != PRECISION]


def list_encoders(settings: Settings, everything: bool = False) -> list[EncoderRow]:
    """Return what can be named, with or without weights.

    Parameters
    ----------
    everything : bool
        Also those that people ask for and that are not supported, with the reason.
    """
    rows = [_bundle_row(entry, settings) for entry in list_bundles(settings) if _may_be_encoder(entry)]
    rows += [_preset_row(preset, settings) for preset in PRESETS.values()]
    if settings.models_dir.is_dir():
        found = sorted(settings.models_dir.glob("*.safetensors"))
        rows += [_file_row(file) for file in found if file.stem not in PRESETS and not file.name.startswith(".")]
    rows += [EncoderRow(entry.name, entry.value, None, None, "", True) for entry in entry_points(group=GROUP)]
    if everything:
        rows += [
            EncoderRow(one.name, one.source, None, None, "", False, f"not supported: {one.reason}", supported=False)
            for one in UNSUPPORTED
        ]
    return rows


def _may_be_encoder(entry: Bundle | BrokenBundle) -> bool:
    return isinstance(entry, BrokenBundle) or entry.kind == "encoder"


def _bundle_row(entry: Bundle | BrokenBundle, settings: Settings) -> EncoderRow:
    if isinstance(entry, BrokenBundle):
        return EncoderRow(entry.name, MINE, None, None, "", False, f"a damaged model: {entry.error.what}")
    size = sum((entry.folder / file).stat().st_size for file in entry.files) / 1e6
    shipped = "shipped" if entry.folder.parent.name == "shipped" else MINE
    try:
        described = describe_bundle(entry)
    except SlnPredictError as error:
        return EncoderRow(entry.name, shipped, None, size, entry.licence, False, error.what, entry.notice)
    digest = encoder_digest(entry.files[WEIGHTS], described.architecture, described.mean, described.std)
    low, high = described.mpp
    return EncoderRow(
        entry.name, shipped, described.dim, size, entry.licence, True, "", entry.notice, described.tile_px,
        low if low == high else None, gates=_gates(settings.cache_dir, digest, described.dim),
    )  # fmt: skip


def _preset_row(preset: Preset, settings: Settings) -> EncoderRow:
    wanted = named(preset.name)
    weights = wanted.path(settings)
    here = weights.is_file()
    size = weights.stat().st_size / 1e6 if here else preset.millions * 4
    remark = "" if here else how_to_obtain(wanted)
    gates: Mapping[str, str] = {}
    try:
        sha256 = read_origin(weights).get("weights", "") if here else ""
    except SlnPredictError as error:
        here, sha256, remark = False, "", error.what
    if sha256:
        architecture = Architecture(preset.timm, preset.kwargs, preset.pooling)
        gates = _gates(settings.cache_dir, encoder_digest(sha256, architecture, *preset.norm), preset.dim)
    return EncoderRow(
        preset.name, preset.source, preset.dim, size, preset.licence, here, remark, preset.notice, preset.tile_px,
        preset.tile_mpp, preset.gated, gates,
    )  # fmt: skip


def _file_row(weights: Path) -> EncoderRow:
    """Return the row of a file of weights in the models folder: with a card, or named as timm names its network."""
    name = f"local:{weights}" if weights.with_suffix(".json").is_file() else f"timm:{weights.stem}"
    try:
        origin = read_origin(weights)
    except SlnPredictError as error:
        return EncoderRow(name, MINE, None, weights.stat().st_size / 1e6, "", False, error.what)
    licence = origin.get("licence", "")
    return EncoderRow(name, MINE, None, weights.stat().st_size / 1e6, licence, True, notice=origin.get("notice", ""))


def _gates(cache: Path, digest: str, dim: int | None) -> dict[str, str]:
    """Return what was measured for an encoder with this cache; nothing is measured now."""
    if dim is None:
        return {}
    nothing = (0.0, 0.0, 0.0)
    stand_in = Encoder("", digest, dim, 0, (0.0, 0.0), nothing, nothing, INTERPOLATION, "")
    found = {precision: objection(cache, stand_in, precision) for precision in PRECISIONS}
    return {precision: why for precision, why in found.items() if why is not None}


__all__ = ["MINE", "EncoderRow", "list_encoders"]
