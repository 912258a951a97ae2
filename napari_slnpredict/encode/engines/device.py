"""Where a network can run, why there, and what the processor can do."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from napari_slnpredict.errors import ResourceError
from napari_slnpredict.torch_door import import_torch

_CPUINFO = Path("/proc/cpuinfo")
#: Processor flags without which bfloat16 is emulated, slower than float32.
_BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


@dataclass(frozen=True)
class Device:
    """Where a network runs, why there, and (once that is known) by which engine."""

    name: str  # "cpu", "cuda:0", "cuda:0+1", "mps"
    why: str
    how: str = ""  # "OpenVINO bf16"

    def __str__(self) -> str:
        return f"{self.name}{', ' if self.how else ''}{self.how} ({self.why})"

    @property
    def first(self) -> str:
        """The name of the device, or of the first of several."""
        return self.name.partition("+")[0]

    @property
    def kind(self) -> str:
        """``cpu``, ``cuda`` or ``mps``."""
        return self.name.partition(":")[0]


def choose_device(wanted: str = "auto") -> Device:
    """Choose a device; `why` is shown to the user.

    Parameters
    ----------
    wanted : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``cuda:all`` (every GPU of the machine), ``mps``.

    Raises
    ------
    ResourceError
        One was asked for by name that is not here.
    """
    torch = import_torch()
    wanted = wanted.strip().lower() or "auto"
    if wanted == "cpu":
        return Device("cpu", "as asked")
    cuda, mps = torch.cuda.is_available(), _has_mps(torch)
    if wanted == "auto":
        if cuda:
            return _cuda_device(torch, 0)
        if mps:
            return Device("mps", "Apple GPU")
        return Device("cpu", _why_no_cuda(torch))
    if wanted == "mps" and mps:
        return Device("mps", "as asked")
    kind, _, number = wanted.partition(":")
    if kind == "cuda" and cuda:
        count = int(torch.cuda.device_count())
        if number == "all":
            name = "cuda:" + "+".join(str(i) for i in range(count))
            return Device(name, f"{count} GPUs, as asked") if count > 1 else _cuda_device(torch, 0)
        if (number or "0").isdigit() and int(number or 0) < count:
            return _cuda_device(torch, int(number or 0))
    reason = _why_no_cuda(torch) if kind == "cuda" and not cuda else f"no device {wanted!r} found"
    raise ResourceError(reason, do="use --device auto or --device cpu")


def _cuda_device(torch: Any, number: int) -> Device:
    return Device(f"cuda:{number}", str(torch.cuda.get_device_name(number)))


def _has_mps(torch: Any) -> bool:
    backend = getattr(torch.backends, "mps", None)
    return bool(backend is not None and backend.is_available())


def _why_no_cuda(torch: Any) -> str:
    if Path("/proc/driver/nvidia/version").exists() and torch.version.cuda is None:
        return f"an NVIDIA driver is here, but torch {torch.__version__} was built without CUDA"
    return "no CUDA device found"


def single_devices(device: Device) -> list[Device]:
    """Split a device of several GPUs into its GPUs."""
    kind, _, numbers = device.name.partition(":")
    if "+" not in numbers:
        return [device]
    return [Device(f"{kind}:{number}", device.why, device.how) for number in numbers.split("+")]


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


@cache
def cpu_facts() -> tuple[str, frozenset[str]]:
    """Return the processor's name and its flags; no flags where the system does not tell them (not Linux)."""
    fields: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in _CPUINFO.read_text(errors="replace").splitlines():
            key, colon, value = line.partition(":")
            if colon:
                fields.setdefault(key.strip().lower(), value.strip())
    name = fields.get("model name") or platform.processor() or platform.machine()
    return name, frozenset((fields.get("flags") or fields.get("features") or "").split())


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 by itself."""
    return bool(cpu_facts()[1] & _BFLOAT16_FLAGS)


def step_back(nice: int) -> None:
    """Lower this thread's priority (Linux keeps it by thread; threads that it starts inherit it).

    Measured: a network at nice 10 beside a panning viewer costs no stall over the idle viewer.
    """
    if nice > 0 and sys.platform.startswith("linux"):
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
