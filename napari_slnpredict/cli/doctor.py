"""`slnpredict doctor`: what works here, what does not, and what mends it."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import importlib.util
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from napari_slnpredict.errors import SlnPredictError, one_line

from .options import AsJson
from .view import has_display

if TYPE_CHECKING:
    from napari_slnpredict.encode.record import Encoder
    from napari_slnpredict.settings import Settings

#: Least free space for the cache before a warning, bytes.
LEAST_FREE = 2_000_000_000
QT_BINDINGS = ("PyQt6", "PySide6", "PyQt5", "PySide2")


@dataclass(frozen=True)
class Check:
    """One thing looked at.

    Attributes
    ----------
    what : str
    state : str
        ``PASS``; ``WARN``: predict works, something else does not; ``FAIL``: predict cannot run.
    found, fix : str
    """

    what: str
    state: str
    found: str
    fix: str = ""


def doctor(as_json: AsJson = False) -> None:
    """Say what works on this machine, which device will be used and why, and what to install."""
    from .console import print_json

    checks = list(examine())
    failed = any(check.state == "FAIL" for check in checks)
    if as_json:
        print_json({"format": 1, "command": "doctor", "checks": [dataclasses.asdict(c) for c in checks],
                    "settings": setting_rows()})  # fmt: skip
    else:
        _print(checks)
    raise typer.Exit(int(failed))


def examine() -> Iterator[Check]:
    """Run every check; one that breaks is a failed check, never the end of the doctor."""
    for what, look in (
        ("Python", _python),
        ("Settings", _settings),
        ("torch", _torch),
        ("Device", _device),
        ("Engine", _engine),
        ("Reader: tiles", _own_reader),
        ("Reader: tiffslide", lambda: _library("Reader: tiffslide", "tiffslide")),
        ("Reader: openslide", lambda: _library("Reader: openslide", "openslide", "openslide-python")),
        ("Models", _models),
        ("Cache", _cache),
        ("napari", _napari),
        ("Qt", _qt),
        ("Display", _display),
    ):
        yield _guarded(what, look)


def _guarded(what: str, look: Callable[[], Check]) -> Check:
    try:
        return look()
    except SlnPredictError as error:
        return Check(what, "FAIL", one_line(error), error.do)
    except Exception as error:  # noqa: BLE001 - whatever is broken here is the finding
        return Check(what, "FAIL", f"{type(error).__name__}: {one_line(error, 200)}", "install napari-slnpredict again")


def _python() -> Check:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Check("Python", "PASS", found)


def _loaded() -> Settings:
    from napari_slnpredict.settings import load_settings

    return load_settings()


def _settings() -> Check:
    from napari_slnpredict.settings import settings_with_origin

    _, origin = settings_with_origin()
    changed = [name for name, source in origin.items() if source != "default"]
    return Check("Settings", "PASS", f"{len(changed)} of {len(origin)} changed from their defaults")


def setting_rows() -> list[dict[str, str]]:
    """Return every setting with its value and where it came from."""
    from napari_slnpredict.settings import settings_with_origin

    settings, origin = settings_with_origin()
    shown = {"cache": str(settings.cache_dir), "models": str(settings.models_dir)}
    return [
        {"name": name, "value": shown.get(name, str(getattr(settings, name))), "from": source}
        for name, source in origin.items()
    ]


def _torch() -> Check:
    from napari_slnpredict.torch_door import import_timm, import_torch, import_torchvision

    torch, vision, timm = import_torch(), import_torchvision(), import_timm()
    built = torch.version.cuda
    return Check(
        "torch",
        "PASS",
        f"{torch.__version__}, torchvision {vision.__version__}, timm {timm.__version__}, "
        f"{'built for CUDA ' + built if built else 'built for the CPU'}",
    )


def _device() -> Check:
    from napari_slnpredict.encode.engines import choose_device
    from napari_slnpredict.torch_door import import_torch

    device = choose_device(_loaded().device)
    found = f"{device.name}: {device.why}"
    if device.name == "cpu" and shutil.which("nvidia-smi") and not import_torch().cuda.is_available():
        return Check(
            "Device",
            "WARN",
            f"{found}; an NVIDIA driver is here, but torch cannot use it",
            "install the torch build for your driver: see pytorch.org/get-started",
        )
    return Check("Device", "PASS", found)


def _engine() -> Check:
    """Say what would run the shipped encoder, and what stands against anything faster."""
    from napari_slnpredict.encode.encoder import DEFAULT, load_encoder
    from napari_slnpredict.encode.engines import PRECISION, TITLES, candidates, choose_device, openvino_version

    settings = _loaded()
    device = choose_device(settings.device)
    possible = candidates(settings.engine, device)
    objections = known_objections(settings.cache_dir, load_encoder(DEFAULT, settings))
    lost = {one.precision: one.why_not or objections.get(one.precision) or "" for one in possible}
    chosen = next((precision for precision, why in lost.items() if not why), "")
    against = [f"{TITLES[precision]}: {why}" for precision, why in lost.items() if why]
    if chosen and chosen != PRECISION and chosen not in objections:
        against.append("every encoder is measured before its first run")
    if not chosen:
        return Check("Engine", "FAIL", "; ".join(against), "set engine to auto")
    found = "; ".join([f"{TITLES[chosen]} {openvino_version() if 'openvino' in chosen else ''}".strip(), *against])
    if device.kind == "cpu" and not openvino_version() and settings.engine in ("auto", "openvino"):
        return Check(
            "Engine", "WARN", f"{found}; a CPU is up to four times as fast with OpenVINO", "pip install openvino"
        )
    return Check("Engine", "PASS", found)


def known_objections(cache: Path, encoder: Encoder) -> dict[str, str]:
    """Return what was found when an encoder was measured here: "" for precisions that may be used, else the reason."""
    from napari_slnpredict.encode.engines import PRECISIONS
    from napari_slnpredict.encode.gate import objection

    found = {precision: objection(cache, encoder, precision) for precision in PRECISIONS}
    return {precision: why for precision, why in found.items() if why is not None}


def _own_reader() -> Check:
    for name in ("simplejpeg", "imagecodecs"):
        importlib.import_module(name)
    return Check("Reader: tiles", "PASS", f"simplejpeg {_version('simplejpeg')}, imagecodecs {_version('imagecodecs')}")


def _library(what: str, module: str, distribution: str = "") -> Check:
    """Check a reader that predict can do without for most slides."""
    distribution = distribution or module
    try:
        importlib.import_module(module)
    except Exception as error:  # noqa: BLE001 - a missing shared library raises what it likes
        return Check(
            what,
            "WARN",
            f"cannot be loaded ({one_line(error, 120)}): some formats will not open",
            f"pip install --force-reinstall {distribution}",
        )
    return Check(what, "PASS", _version(distribution))


def _models() -> Check:
    from napari_slnpredict.bundles.bundle import BrokenBundle, list_bundles

    entries = list_bundles(_loaded())
    broken = [entry for entry in entries if isinstance(entry, BrokenBundle)]
    sound = [entry.name for entry in entries if not isinstance(entry, BrokenBundle)]
    lacking = {"hne-small", "demo-sln"} - set(sound)
    if lacking:
        return Check("Models", "FAIL", f"shipped models missing or changed: {', '.join(sorted(lacking))}",
                     "install napari-slnpredict again")  # fmt: skip
    if broken:
        return Check("Models", "WARN", f"{broken[0].name} is refused: {broken[0].error.what}", broken[0].error.do)
    return Check("Models", "PASS", f"{', '.join(sorted(sound))}: every hash is right")


def _cache() -> Check:
    from napari_slnpredict.files import check_writable

    folder = _loaded().cache_dir
    check_writable(folder)
    free = shutil.disk_usage(folder).free
    if free < LEAST_FREE:
        return Check("Cache", "WARN", f"{folder}: {free / 1e9:.1f} GB free", "free some space or choose --cache")
    return Check("Cache", "PASS", f"{folder}: writable, {free / 1e9:.0f} GB free")


def _napari() -> Check:
    if importlib.util.find_spec("napari") is None:
        return Check(
            "napari", "WARN", "not installed: no viewer; predict works", 'pip install "napari-slnpredict[all]"'
        )
    number = tuple(int(part) for part in _version("napari").split(".")[:2] if part.isdigit())
    if number < (0, 9):
        return Check(
            "napari", "WARN", f"{_version('napari')} is too old for the viewer", 'pip install -U "napari>=0.9"'
        )
    return Check("napari", "PASS", _version("napari"))


def _qt() -> Check:
    present = [name for name in QT_BINDINGS if importlib.util.find_spec(name) is not None]
    if not present:
        return Check("Qt", "WARN", "no Qt binding: no viewer; predict works", 'pip install "napari-slnpredict[all]"')
    if len(present) > 1:
        # Two Qts in one process end it without a word (micro-sam#880).
        spare = " ".join(present[1:])
        return Check("Qt", "WARN", f"{len(present)} Qt bindings: {', '.join(present)}", f"pip uninstall {spare}")
    return Check("Qt", "PASS", f"{present[0]} {_version(present[0])}")


def _display() -> Check:
    if has_display():
        return Check("Display", "PASS", "there is one")
    return Check("Display", "WARN", "none: no viewer; predict and demo --headless work", "set DISPLAY, or use predict")


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "unknown version"


def _print(checks: list[Check]) -> None:
    width = max(len(check.what) for check in checks)
    for check in checks:
        typer.echo(f"{check.state}  {check.what:<{width}}  {check.found}")
        if check.fix and check.state != "PASS":
            typer.echo(f"      {'':<{width}}  do: {check.fix}")
    try:
        rows = setting_rows()
    except SlnPredictError:
        return
    typer.echo("\nSettings")
    for row in rows:
        typer.echo(f"      {row['name']:<{width}}  {row['value']}  ({row['from']})")
