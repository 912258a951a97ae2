"""Which engine runs an encoder here, and why: the fastest that keeps its features.

On a CPU with OpenVINO: its bfloat16 where the processor has it, then its float32; without OpenVINO torch's bfloat16,
then torch's float32, which is the reference and needs no gate. On a CUDA GPU torch's bfloat16, then its float32.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.encode.gate import CheckTiles, Gate, Judge, check_tiles, gate_path, passed, read_gate, write_gate
from napari_slnpredict.encode.record import Encoder
from napari_slnpredict.errors import DataError, ModelError, ResourceError
from napari_slnpredict.events import Job, Stage, run
from napari_slnpredict.settings import Settings, load_settings
from napari_slnpredict.torch_door import import_torch

from .base import PRECISION, PRECISIONS, TITLES, Engine
from .conversion import Refused, convert
from .device import Device, available_cores, choose_device, cpu_facts, has_bfloat16
from .openvino_cpu import OpenVinoEngine
from .openvino_door import openvino_version
from .pytorch import TorchEngine

#: What the setting `engine` may say.
CHOICES = ("auto", "torch", "openvino", *PRECISIONS)
_INSTALL = 'pip install "napari-slnpredict[all]"'


@dataclass(frozen=True)
class Candidate:
    """A precision that could be used, or why it cannot."""

    precision: str
    why_not: str = ""


def candidates(wanted: str, device: Device, encoder: Encoder | None = None) -> list[Candidate]:
    """Return the precisions that a wish allows on a device, the fastest first; `torch` alone is never refused.

    Parameters
    ----------
    wanted : str
        One of `CHOICES`.
    encoder : Encoder, optional
        Networks of other packages cannot be built again in a child process, so that OpenVINO has none of them.

    Raises
    ------
    DataError
        No such choice.
    """
    check_choice(wanted)
    no_bf16 = "" if has_bfloat16() else "this processor has no bfloat16"
    if device.kind == "cuda":
        torch = import_torch()
        no_bf16 = "" if torch.cuda.is_bf16_supported(including_emulation=False) else "this GPU has no bfloat16"
    elif device.kind != "cpu":
        no_bf16 = "not used on this device"
    no_openvino = _no_openvino(device, encoder)
    by_torch = [Candidate("bfloat16", no_bf16), Candidate(PRECISION)]
    by_openvino = [
        Candidate("openvino-bfloat16", no_openvino or no_bf16),
        Candidate("openvino-float32", no_openvino),
    ]
    if wanted == "auto":
        # Where OpenVINO is, torch's bfloat16 would round as much and be slower.
        return [*by_openvino, *(by_torch[1:] if not no_openvino else by_torch)]
    if wanted in ("torch", "openvino"):
        return by_torch if wanted == "torch" else by_openvino
    return [one for one in (*by_openvino, *by_torch) if one.precision == wanted]


def check_choice(wanted: str) -> None:
    """Raise `DataError` when there is no such engine."""
    if wanted not in CHOICES:
        raise DataError(f"there is no engine {wanted!r}", do=f"known are {', '.join(CHOICES)}")


def _no_openvino(device: Device, encoder: Encoder | None) -> str:
    if device.kind != "cpu":
        return f"OpenVINO is used on CPUs, not on {device.name}"
    if not openvino_version():
        return f"OpenVINO is not installed ({_INSTALL})"
    if encoder is not None and type(encoder) is not Encoder:
        return "the encoder comes from another package"
    return ""


class PlannedEngine:
    """An engine that is chosen and made at its first use: features found in the cache need no network.

    Everything an `Engine` has may be asked for; that makes it, and blocks meanwhile. `ready` makes it as a job.

    Parameters
    ----------
    make : callable
        Returns the job that makes the engine.
    usable : callable
        Returns the precisions whose cached features may be used in its place, the most exact first.
    """

    def __init__(self, make: Callable[[], Job[Engine]], usable: Callable[[], tuple[str, ...]]) -> None:
        self._make, self.usable = make, usable
        self._lock = threading.Lock()
        self._engine: Engine | None = None

    @property
    def made(self) -> Engine | None:
        """The engine, once there is one."""
        return self._engine

    def ready(self) -> Job[Engine]:
        """Make the engine, once, whoever asks first."""
        while not self._lock.acquire(timeout=0.1):
            yield Stage("engine", "Waiting for the network")
        try:
            if self._engine is None:
                self._engine = yield from self._make()
            return self._engine
        finally:
            self._lock.release()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(run(self.ready()), name)

    def __call__(self, tiles: NDArray[np.uint8], *, fill: bool = True) -> NDArray[np.float32]:
        return run(self.ready())(tiles, fill=fill)


def plan_engine(
    encoder: Encoder,
    device: Device | None = None,
    *,
    settings: Settings | None = None,
    batch: int | None = None,
    threads: int | None = None,
    tile_px: int = 0,
    judge: Judge | None = None,
    nice: int = 0,
) -> PlannedEngine:
    """Return an engine for an encoder that is made when it is needed; parameters as `make_engine`."""
    settings = settings or load_settings()
    wanted, cache = settings.engine, settings.cache_dir
    check_choice(wanted)

    def make() -> Job[Engine]:
        chosen = device or choose_device(settings.device)
        maker = _Maker(
            encoder, chosen, cache, settings.batch if batch is None else batch, threads or available_cores(),
            tile_px or encoder.tile_px, judge, nice,
        )  # fmt: skip
        return maker.job(wanted)

    def usable() -> tuple[str, ...]:
        return usable_precisions(wanted, cache, encoder, judge)

    return PlannedEngine(make, usable)


def make_engine(encoder: Encoder, device: Device | None = None, **options: Any) -> Engine:
    """Choose an engine, build the network, and try it.

    Parameters
    ----------
    encoder : Encoder
    device : Device, optional
        By default `choose_device` by the settings.
    settings : Settings, optional
        Its `engine` is the user's wish, its cache keeps conversions and gates.
    batch : int, optional
        Tiles a forward pass; 0: by device and size of the network; by default the settings'.
    threads : int, optional
        Cores to use; beside a window one less than there are.
    tile_px : int
        Side of the tiles that will come; 0: the encoder's own.
    judge : callable, optional
        The model that will read the features: its probabilities are part of the gate.
    nice : int
        10 beside a window: an engine's own threads step back behind it.

    Raises
    ------
    BundleMismatch
        The network does not take tiles of that size.
    ModelError, ResourceError
        An engine was asked for by name that cannot be used; the reason is given.
    """
    return run(plan_engine(encoder, device, **options).ready())


def usable_precisions(wanted: str, cache: Path, encoder: Encoder, judge: Judge | None = None) -> tuple[str, ...]:
    """Return the precisions whose cached features a wish allows: float32, and what passed its gate."""
    named = PRECISIONS if wanted == "auto" else tuple(one.precision for one in candidates(wanted, Device("cpu", "")))
    return tuple(p for p in PRECISIONS if p in named and (p == PRECISION or passed(cache, encoder, p, judge)))


class _Maker:
    """Makes the best engine that passes; what is common to its attempts."""

    def __init__(
        self, encoder: Encoder, device: Device, cache: Path, batch: int, threads: int, tile_px: int,
        judge: Judge | None, nice: int,
    ) -> None:  # fmt: skip
        self.encoder, self.device, self.cache = encoder, device, cache
        self.batch, self.threads, self.tile_px, self.judge, self.nice = batch, threads, tile_px, judge, nice

    def job(self, wanted: str) -> Job[Engine]:
        """Try the candidates in their order; the last of `auto` and `torch` never fails its gate."""
        encoder, why_not = self.encoder, ""
        possible = candidates(wanted, self.device, encoder)
        for candidate in possible:
            if candidate.why_not:
                continue
            if candidate.precision == PRECISION:
                return self._torch(PRECISION)
            tiles = check_tiles(encoder, self.tile_px)
            path = gate_path(self.cache, encoder, candidate.precision, self.tile_px, tiles, self._made_by())
            known = read_gate(path, encoder)
            why_not = known.objection(self.judge) if known is not None else ""
            if why_not:
                continue
            try:
                engine, gate = yield from self._measured(candidate.precision, tiles, known)
            except Refused as refusal:
                why_not = f"OpenVINO does not take this network: {refusal}"
                continue
            if known is None:
                write_gate(path, encoder, gate)
            why_not = gate.objection(self.judge)
            if not why_not:
                return engine
        title = TITLES.get(wanted, wanted)
        if not why_not:
            raise ResourceError(f"{title} cannot be used: {possible[-1].why_not}", do="use --engine auto")
        raise ModelError(f"{title} cannot be used for the encoder {encoder.name}: {why_not}", do="use --engine auto")

    def _measured(self, precision: str, tiles: CheckTiles, known: Gate | None) -> Job[tuple[Engine, Gate]]:
        """Make an engine and, where that is not known, measure what it makes of the check tiles."""
        engine: Engine
        if precision == "bfloat16":
            yield Stage("engine", f"Trying {self.encoder.name} in bfloat16")
            engine = self._torch(precision)
            return engine, known or self._measure_torch(engine, tiles)
        conversion = yield from convert(
            self.cache, self.encoder, self.tile_px, tiles, threads=self.threads, nice=self.nice
        )
        engine = OpenVinoEngine(
            conversion, precision, self.device, threads=self.threads, batch=self.batch, nice=self.nice
        )
        return engine, known or Gate(precision, conversion.reference, engine(tiles.pixels))

    def _torch(self, precision: str) -> TorchEngine:
        engine = TorchEngine(self.encoder, self.device, self.batch, self.threads, self.tile_px, precision)
        engine.try_out(self.encoder)
        return engine

    @staticmethod
    def _measure_torch(engine: TorchEngine, tiles: CheckTiles) -> Gate:
        precision = engine.precision
        try:
            engine.enter_thread()
            features = engine(tiles.pixels)
            engine.precision = PRECISION
            return Gate(precision, engine(tiles.pixels), features)
        finally:
            engine.precision = precision
            engine.release()

    def _made_by(self) -> str:
        where = cpu_facts()[0] if self.device.kind == "cpu" else self.device.why
        return f"{where}; torch {import_torch().__version__}; openvino {openvino_version()}"


__all__ = ["CHOICES", "Candidate", "PlannedEngine", "candidates", "make_engine", "plan_engine", "usable_precisions"]
