"""Which encoders can be named, with or without their weights; loads no network and no torch."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import entry_points

from napari_slnpredict.bundles.bundle import BrokenBundle, Bundle, list_bundles
from napari_slnpredict.settings import Settings

from .presets import PRESETS

#: Other packages add encoders under this group of entry points.
GROUP = "napari_slnpredict.encoders"


@dataclass(frozen=True)
class EncoderRow:
    """One line of ``slnpredict encoders``."""

    name: str
    source: str  # "shipped", "your models folder", a hub repository, a package
    dim: int | None
    megabytes: float | None
    licence: str
    here: bool
    remark: str = ""  # why it cannot be used, or where weights go


def list_encoders(settings: Settings) -> list[EncoderRow]:
    """Return what can be named, with or without weights; loads no network and no torch."""
    rows = [_bundle_row(entry) for entry in list_bundles(settings) if _is_encoder(entry)]
    for preset in PRESETS.values():
        weights = settings.models_dir / f"{preset.name}.safetensors"
        here = weights.is_file()
        size = weights.stat().st_size / 1e6 if here else preset.millions * 4
        remark = preset.notice if here else f"weights go to {weights}"
        rows.append(EncoderRow(preset.name, preset.source, preset.dim, size, preset.licence, here, remark))
    if settings.models_dir.is_dir():
        for weights in sorted(settings.models_dir.glob("*.safetensors")):
            if weights.stem not in PRESETS:
                kind = "local:" + str(weights) if weights.with_suffix(".json").is_file() else f"timm:{weights.stem}"
                rows.append(EncoderRow(kind, "your models folder", None, weights.stat().st_size / 1e6, "", True))
    rows += [EncoderRow(entry.name, entry.value, None, None, "", True) for entry in entry_points(group=GROUP)]
    return rows


def _is_encoder(entry: Bundle | BrokenBundle) -> bool:
    return isinstance(entry, Bundle) and entry.kind == "encoder"


def _bundle_row(entry: Bundle | BrokenBundle) -> EncoderRow:
    if isinstance(entry, BrokenBundle):
        return EncoderRow(entry.name, "", None, None, "", False, entry.error.what)
    size = sum((entry.folder / file).stat().st_size for file in entry.files) / 1e6
    shipped = "shipped" if entry.folder.parent.name == "shipped" else "your models folder"
    dim = entry.model.get("parameters", {}).get("dim")
    return EncoderRow(
        entry.name, shipped, dim if isinstance(dim, int) else None, size, entry.licence, True, entry.notice
    )
