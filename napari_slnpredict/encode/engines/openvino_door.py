"""The one door through which OpenVINO comes in, if it is installed at all."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
import threading
from typing import Any

_lock = threading.Lock()


def import_openvino() -> Any:
    """Return the module openvino, kept from telling its maker what is converted.

    Its converter reports to a web service by way of the package openvino_telemetry, by default and without asking;
    where Python says that there is no such package, it uses its own silent stand-in (promise R9).
    """
    with _lock:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        return importlib.import_module("openvino")


def openvino_version() -> str:
    """Return the version of the installed OpenVINO, "" where there is none."""
    try:
        version = importlib.metadata.version("openvino")
    except importlib.metadata.PackageNotFoundError:
        return ""
    return version if importlib.util.find_spec("openvino") is not None else ""
