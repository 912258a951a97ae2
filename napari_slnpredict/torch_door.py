"""The one door through which torch, torchvision and timm come in.

Measured: once a napari canvas has drawn with Mesa's software GL, libLLVM is mapped into the process; triton (pulled in
by torchvision and timm, and by torch's optimisers at their first step, through torch._dynamo) carries its own LLVM, its
symbols bind to the wrong one, and the import is a segmentation fault. Three things cure it, and the door does the one
that fits:

- no LLVM yet: import triton now; a canvas may be drawn afterwards;
- LLVM is there, and a GPU could use triton: load triton's library with RTLD_DEEPBIND first;
- LLVM is there, and no GPU: tell Python that there is no triton, which torch and timm handle.

Every import of the torch stack in the package goes through here; a lint test holds that.
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

_lock = threading.RLock()  # an import may, far down, come through the door again
_settled = False


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
    """Settle once how triton comes in: asking each time would read the process's map before every forward pass."""
    global _settled
    if _settled:
        return
    _settled = True
    if not sys.platform.startswith("linux") or "triton" in sys.modules or importlib.util.find_spec("triton") is None:
        return
    if not _llvm_is_mapped():
        _try_import("triton")
    elif not _cuda_driver_present() or not _try_import("triton._C.libtriton", deep=True):
        # None in sys.modules makes `import triton` raise ImportError.
        sys.modules["triton"] = None  # type: ignore[assignment]


def _try_import(name: str, deep: bool = False) -> bool:
    """Import a part of triton, `deep` so that its symbols bind to its own libraries first."""
    flags = sys.getdlopenflags()
    try:
        if deep:
            sys.setdlopenflags(os.RTLD_NOW | os.RTLD_LOCAL | os.RTLD_DEEPBIND)
        importlib.import_module(name)
    except (ImportError, OSError, RuntimeError, AttributeError):
        # A triton that cannot be imported (built for another system) must not take torch with it.
        for module in [module for module in sys.modules if module == "triton" or module.startswith("triton.")]:
            del sys.modules[module]
        return False
    finally:
        sys.setdlopenflags(flags)
    return True


def _llvm_is_mapped() -> bool:
    try:
        return "libLLVM" in Path("/proc/self/maps").read_text(errors="replace")
    except OSError:
        return False


def _cuda_driver_present() -> bool:
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidiactl").exists()
