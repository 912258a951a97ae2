"""The one door through which torch, torchvision and timm come in.

Measured: once a napari canvas has drawn with Mesa's software GL, libLLVM is mapped into the process; triton (pulled in
by torchvision and timm through torch._dynamo) carries its own LLVM, its symbols bind to the wrong one, and the import
is a segmentation fault. Loading triton's library with RTLD_DEEPBIND first, or telling Python that there is no triton
where no CUDA device could use it, both cure it. Every import of the torch stack in the package goes through here; a
lint test holds that.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

_lock = threading.Lock()
_guarded = False


def import_torch() -> Any:
    """Return the module torch, imported safely beside a drawn window."""
    return _import("torch")


def import_timm() -> Any:
    """Return the module timm, imported safely beside a drawn window."""
    return _import("timm")


def import_torchvision() -> Any:
    """Return the module torchvision, imported safely beside a drawn window."""
    return _import("torchvision")


def _import(name: str) -> ModuleType:
    # No network unless asked by name (reliability R9): timm and its hub client read this at import.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    with _lock:
        _guard_triton()
        return importlib.import_module(name)


def _guard_triton() -> None:
    """Make a later import of triton safe when the window's GL has brought its own LLVM."""
    global _guarded
    if _guarded or not sys.platform.startswith("linux") or "triton" in sys.modules:
        return
    if not _llvm_is_mapped() or importlib.util.find_spec("triton") is None:
        return
    _guarded = True
    if _cuda_driver_present():
        flags = sys.getdlopenflags()
        sys.setdlopenflags(os.RTLD_NOW | os.RTLD_LOCAL | os.RTLD_DEEPBIND)
        try:
            importlib.import_module("triton._C.libtriton")
        finally:
            sys.setdlopenflags(flags)
    else:
        # None in sys.modules makes `import triton` raise ImportError, which torch and timm handle.
        sys.modules["triton"] = None  # type: ignore[assignment]


def _llvm_is_mapped() -> bool:
    try:
        return "libLLVM" in Path("/proc/self/maps").read_text(errors="replace")
    except OSError:
        return False


def _cuda_driver_present() -> bool:
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidiactl").exists()
