"""Running an encoder on a device: uint8 tiles in, float32 features out.

Measured on two cores (benchmarks/embedding.py): two streams of one thread each give 1.0 to 1.4 times the speed of one
stream of two threads, and ten times when something else is busy, since a parallel region waits for its slowest thread.
So on a CPU an engine is called from as many threads as there are cores, each computing alone.

Batches are filled up to one size always, and on a CPU each runs on one thread. oneDNN chooses its kernels by both, so
that a tile's feature differs in the last bits between a batch of 16 and one of 8, or between one thread and two; with
both fixed it depends neither on its neighbours nor on its place. That is what makes a resumed run equal an
uninterrupted one bit by bit, the viewer's the command's too (as long as neither runs out of memory).
"""

from __future__ import annotations

import contextlib
import copy
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import BundleMismatch, ResourceError
from napari_slnpredict.torch_door import import_torch

from .record import Encoder

PRECISION = "float32"
#: Tiles a forward pass on a CPU by millions of parameters: Cancel waits for one pass.
_CPU_BATCHES = ((60e6, 16), (200e6, 4), (float("inf"), 1))
_GPU_BATCH = 64


@dataclass(frozen=True)
class Device:
    """Where a network runs, and why there."""

    name: str  # "cpu", "cuda:0", "mps"
    why: str

    def __str__(self) -> str:
        return f"{self.name} ({self.why})"


def choose_device(wanted: str = "auto") -> Device:
    """Choose a device; `why` is shown to the user.

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
            return Device("cuda:0", str(torch.cuda.get_device_name(0)))
        if mps:
            return Device("mps", "Apple GPU")
        return Device("cpu", _why_no_cuda(torch))
    if wanted == "mps" and mps:
        return Device("mps", "as asked")
    kind, _, number = wanted.partition(":")
    if kind == "cuda" and cuda and (number or "0").isdigit() and int(number or 0) < torch.cuda.device_count():
        return Device(f"cuda:{int(number or 0)}", str(torch.cuda.get_device_name(int(number or 0))))
    reason = _why_no_cuda(torch) if kind == "cuda" and not cuda else f"no device {wanted!r} found"
    raise ResourceError(reason, do="use --device auto or --device cpu")


def _has_mps(torch: Any) -> bool:
    backend = getattr(torch.backends, "mps", None)
    return bool(backend is not None and backend.is_available())


def _why_no_cuda(torch: Any) -> str:
    if Path("/proc/driver/nvidia/version").exists() and torch.version.cuda is None:
        return f"an NVIDIA driver is here, but torch {torch.__version__} was built without CUDA"
    return "no CUDA device found"


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


class Engine(Protocol):
    """What embedding needs of whatever runs a network."""

    precision: str
    dim: int
    tile_px: int
    streams: int  # threads that should call it at the same time

    @property
    def batch(self) -> int:
        """Tiles a forward pass, at present."""

    @property
    def device(self) -> Device:
        """Where it runs, at present."""

    def __call__(self, tiles: NDArray[np.uint8], *, fill: bool = True) -> NDArray[np.float32]:
        """Return the features (k, d) float32 of tiles (k, p, p, 3) uint8."""

    def enter_thread(self) -> None:
        """Prepare the calling thread; first line of each thread that reads for it or calls it."""

    def release(self) -> None:
        """End the use of many threads; last line of whoever started them."""

    def take_notices(self) -> list[str]:
        """Return what the user must be told, once."""


def make_engine(
    encoder: Encoder,
    device: Device | None = None,
    *,
    batch: int = 0,
    threads: int | None = None,
    tile_px: int = 0,
) -> TorchEngine:
    """Build the network, put it on its device, and try it on one tile.

    Parameters
    ----------
    batch : int
        Tiles a forward pass; 0: by device and size of the network.
    threads : int, optional
        Cores to use; beside a window one less than there are.
    tile_px : int
        Side of the tiles that will come; 0: the encoder's own.

    Raises
    ------
    BundleMismatch
        The network does not take tiles of that size.
    """
    device = device or choose_device()
    engine = TorchEngine(encoder, device, batch, threads or available_cores(), tile_px or encoder.tile_px)
    engine.try_out(encoder)
    return engine


@dataclass(frozen=True)
class _Place:
    """A network where it lies, and the normalisation that goes with it."""

    device: Device
    network: Any
    scale: Any  # (1, 3, 1, 1): 1 / (255 std)
    shift: Any  # (1, 3, 1, 1): -mean / std


class TorchEngine:
    """torch on a CPU, a CUDA GPU or an Apple GPU, in float32."""

    precision = PRECISION

    def __init__(self, encoder: Encoder, device: Device, batch: int, threads: int, tile_px: int) -> None:
        network = encoder.build().requires_grad_(False)
        self.dim, self.tile_px, self.streams = encoder.dim, tile_px, threads
        self._mean, self._std = encoder.mean, encoder.std
        self._batch = batch or _default_batch(network, device)
        self._here = threading.local()
        self._shrinking = threading.Lock()
        self._launching = threading.Lock()
        self._notices: list[str] = []
        self._threads_before = 0
        self._place = self._put(network, device)

    @property
    def batch(self) -> int:
        """Tiles a forward pass, at present."""
        return self._batch

    @property
    def device(self) -> Device:
        """Where it runs, at present: the CPU after a GPU ran out of memory."""
        return self._place.device

    def take_notices(self) -> list[str]:
        """Return what the user must be told, once."""
        notices, self._notices = self._notices, []
        return notices

    def enter_thread(self) -> None:
        """Let torch compute on this thread alone, where a CPU is the device."""
        if not getattr(self._here, "entered", False):
            self._here.entered = True
            if self.device.name == "cpu":
                torch = import_torch()
                with self._shrinking:
                    self._threads_before = self._threads_before or torch.get_num_threads()
                    torch.set_num_threads(1)

    def release(self) -> None:
        """Give torch its threads back: setting them in one thread sets the start value of every later one."""
        with self._shrinking:
            if self._threads_before:
                import_torch().set_num_threads(self._threads_before)
            self._threads_before = 0
            self._here.entered = False

    def try_out(self, encoder: Encoder) -> None:
        """Run one black tile: a network that does not take this size says so now, not after an hour."""
        tile = np.zeros((1, self.tile_px, self.tile_px, 3), np.uint8)
        try:
            # On one thread, as later: on a busy machine a pass on all cores takes many times as long.
            self.enter_thread()
            width = self(tile, fill=False).shape[1]
        except (RuntimeError, AssertionError, ValueError) as error:
            raise BundleMismatch(
                f"the encoder {encoder.name} does not take tiles of {self.tile_px} px ({error})",
                do=f"use tiles of {encoder.tile_px} px",
            ) from error
        finally:
            self.release()
        if width != encoder.dim:
            raise BundleMismatch(f"{encoder.name} gives features of length {width}, not {encoder.dim}")

    def __call__(self, tiles: NDArray[np.uint8], *, fill: bool = True) -> NDArray[np.float32]:
        """Return features of tiles; safe from several threads.

        Parameters
        ----------
        tiles : (k, p, p, 3) uint8
        fill : bool
            Fill the last batch up (see the top of this module); without, one tile costs one tile and its feature may
            differ in the last bits.

        Returns
        -------
        (k, d) float32

        Raises
        ------
        ResourceError
            Not even one tile at a time fits into memory.
        """
        parts = [np.empty((0, self.dim), np.float32)]
        start = 0
        while start < len(tiles):
            batch, place = self._batch, self._place
            try:
                parts.append(self._forward(place, tiles[start : start + batch], batch if fill else 0))
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
                self._make_room(batch, place)
                continue
            start += batch
        return np.concatenate(parts)

    def _forward(self, place: _Place, tiles: NDArray[np.uint8], batch: int) -> NDArray[np.float32]:
        torch = import_torch()
        count = len(tiles)
        if count < batch:
            tiles = np.concatenate([tiles, np.zeros((batch - count, *tiles.shape[1:]), np.uint8)])
        # (b, p, p, 3) in memory, seen as (b, 3, p, p): channels_last without a copy.
        pixels = torch.from_numpy(np.ascontiguousarray(tiles)).permute(0, 3, 1, 2)
        with torch.inference_mode():
            if place.device.name == "cpu":
                features = _run(place, pixels)
            else:
                # One thread launches at a time, so that the switches hold; the waiting happens outside the lock.
                with self._launching, _exact_float32(torch):
                    if place.device.name.startswith("cuda"):
                        pixels = pixels.pin_memory()
                    features = _run(place, pixels.to(place.device.name, non_blocking=True))
            return np.asarray(features[:count].float().cpu().numpy(), np.float32)

    def _put(self, network: Any, device: Device) -> _Place:
        torch = import_torch()
        try:
            network = network.to(device.name).to(memory_format=torch.channels_last)
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            self._notices.append(f"the network does not fit into the memory of {device.name}: it runs on the CPU")
            return self._put(network, Device("cpu", "the GPU's memory is too small"))
        mean = torch.tensor(self._mean, dtype=torch.float64).reshape(1, 3, 1, 1)
        std = torch.tensor(self._std, dtype=torch.float64).reshape(1, 3, 1, 1)
        scale, shift = (1 / (255 * std)).float().to(device.name), (-mean / std).float().to(device.name)
        return _Place(device, network, scale, shift)

    def _make_room(self, batch: int, place: _Place) -> None:
        """Halve the batch, down to one tile; then leave the GPU; then give up."""
        with self._shrinking:
            if self._batch < batch or self._place is not place:
                return  # another thread already has
            if place.device.name.startswith("cuda"):
                import_torch().cuda.empty_cache()
            if batch > 1:
                self._batch = batch // 2
                self._notices.append(f"not enough memory on {place.device.name}: {self._batch} tiles at a time now")
                return
            if place.device.name == "cpu":
                raise ResourceError("not enough memory to embed a single tile", do="close other programs")
            cpu = Device("cpu", f"{place.device.name} ran out of memory")
            self._notices.append(f"{place.device.name} ran out of memory even with one tile: the CPU goes on, slower")
            # A copy: another thread may be inside the network on the GPU.
            self._place = self._put(copy.deepcopy(place.network), cpu)


def _default_batch(network: Any, device: Device) -> int:
    if device.name != "cpu":
        return _GPU_BATCH
    size = sum(parameter.numel() for parameter in network.parameters())
    return next(batch for limit, batch in _CPU_BATCHES if size <= limit)


def _run(place: _Place, pixels: Any) -> Any:
    return place.network(pixels.float().mul_(place.scale).add_(place.shift))


@contextlib.contextmanager
def _exact_float32(torch: Any) -> Iterator[None]:
    """No TF32 (ten bits of mantissa) and no autotuned kernels: float32 is what a GPU's result is called."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text
