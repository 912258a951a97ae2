"""`slnpredict models`: what --model can name, and whether it can be used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .options import AsJson

if TYPE_CHECKING:
    from napari_slnpredict.bundles.bundle import BrokenBundle, Bundle


def models(as_json: AsJson = False) -> None:
    """List the models that --model can name: shipped ones and those in your models folder."""
    from napari_slnpredict.bundles.bundle import list_bundles
    from napari_slnpredict.settings import load_settings

    from .console import print_json, print_table

    entries = list_bundles(load_settings(), ("mil", "anomaly", "encoder"))
    rows = [_model_row(entry) for entry in entries if getattr(entry, "kind", "") != "encoder" or _classes(entry)]
    if as_json:
        print_json({"format": 1, "command": "models", "models": rows})
        return
    print_table(
        ["name", "kind", "says", "encoder", "size", "licence", "usable"],
        [[r["name"], r["kind"], ", ".join(r["classes"]), r["encoder"], megabytes(r["bytes"]), r["licence"], r["usable"]]
         for r in rows],
    )  # fmt: skip


def _classes(entry: Bundle | BrokenBundle) -> tuple[str, ...]:
    """Return what a bundle tells apart; an encoder that keeps no tile classes tells nothing."""
    return tuple(getattr(entry, "classes", ()))


def _model_row(entry: Bundle | BrokenBundle) -> dict[str, Any]:
    size = sum(path.stat().st_size for path in entry.folder.rglob("*") if path.is_file())
    error = getattr(entry, "error", None)
    if error is not None:
        return {"name": entry.name, "kind": "", "classes": [], "encoder": "", "bytes": size, "licence": "",
                "notice": "", "usable": f"no: {error}"}  # fmt: skip
    bundle: Any = entry
    return {
        "name": bundle.name,
        "kind": "tile classes" if bundle.kind == "encoder" else bundle.kind,
        "classes": list(bundle.classes),
        "encoder": str(bundle.encoder.get("name", "")),
        "bytes": size,
        "licence": bundle.licence,
        "notice": bundle.notice,
        "usable": "yes",
    }


def megabytes(size: float) -> str:
    """Return a size as people read it."""
    if size >= 1e9:
        return f"{size / 1e9:.1f} GB"
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.0f} kB"
