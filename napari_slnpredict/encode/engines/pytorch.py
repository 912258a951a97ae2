"""torch on a CPU, on CUDA GPUs or an Apple GPU, in float32 or bfloat16.

Measured on two cores (benchmarks/engines.py): two streams of one thread each give 1.0 to 1.4 times the speed of one
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
import itertools
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import BundleMismatch, ResourceError
from napari_slnpredict.torch_door import import_torch

from .base import PRECISION, TITLES, is_out_of_memory
from .device import Device, single_devices
from .gpu import GpuLane

if TYPE_CHECKING:
    from napari_slnpredict.encode.record import Encoder

#: Tiles a forward pass on a CPU by millions of parameters: Cancel waits for one pass.
_CPU_BATCHES = ((60e6, 16), (200e6, 4), (float("inf"), 1))
_GPU_BATCH = 64


@dataclass(frozen=True)
class _Place:
    """A network where it lies, and the normalisation that goes with it."""

    device: Device
    network: Any
    scale: Any  # (1, 3, 1, 1): 1 / (255 std)
    shift: Any  # (1, 3, 1, 1): -mean / std


class TorchEngine:
    """A torch network on one device or several.

    Parameters
    ----------
    encoder : Encoder
    device : Device
        ``cuda:0+1`` is two GPUs; threads are shared out among them.
    batch : int
        Tiles a forward pass; 0 lets the network's size decide.
    threads : int
        Cores to use.
    tile_px : int
    precision : str
        ``float32``, or ``bfloat16``: the network runs under autocast, which keeps in float32 what needs it.
    """

    def __init__(
        self, encoder: Encoder, device: Device, batch: int, threads: int, tile_px: int, precision: str = PRECISION
    ) -> None:
        network = encoder.build().requires_grad_(False)
        self.precision, self.dim, self.tile_px = precision, encoder.dim, tile_px
        # Beside a GPU a thread waits for it without a core: another may read meanwhile, even with one core.
        self.streams = threads if device.kind == "cpu" else threads + 1
        self._mean, self._std = encoder.mean, encoder.std
        self._batch = batch or _default_batch(network, device)
        self._here = threading.local()
        self._turn = itertools.count()
        self._shrinking = threading.Lock()
        self._launching = threading.Lock()
        self._notices: list[str] = []
        self._threads_before = 0
        self._places = tuple(self._put(_copy_for(i, network), one) for i, one in enumerate(single_devices(device)))

    @property
    def batch(self) -> int:
        """Tiles a forward pass, at present."""
        return self._batch

    @property
    def device(self) -> Device:
        """Where it runs, at present: the CPU after a GPU ran out of memory."""
        names = [place.device.name for place in self._places]
        name = names[0] + "".join("+" + name.partition(":")[2] for name in names[1:])
        return replace(self._places[0].device, name=name, how=TITLES[self.precision])

    @property
    def network(self) -> Any:
        """The network on its first device."""
        return self._places[0].network

    def take_notices(self) -> list[str]:
        """Return what the user must be told, once."""
        notices, self._notices = self._notices, []
        return notices

    def enter_thread(self) -> None:
        """Let torch compute on this thread alone, where a CPU is the device."""
        if not getattr(self._here, "entered", False):
            self._here.entered = True
            if self.device.kind == "cpu":
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
            batch, place = self._batch, self._my_place()
            try:
                parts.append(self._forward(place, tiles[start : start + batch], batch if fill else 0))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._make_room(batch, place)
                continue
            start += batch
        return np.concatenate(parts)

    def _my_place(self) -> _Place:
        """Return the calling thread's device; threads take turns where there are several."""
        if not hasattr(self._here, "turn"):
            self._here.turn = next(self._turn)
        places, turn = self._places, int(self._here.turn)
        return places[turn % len(places)]

    def _forward(self, place: _Place, tiles: NDArray[np.uint8], batch: int) -> NDArray[np.float32]:
        torch = import_torch()
        count = len(tiles)
        if place.device.kind == "cuda":
            return self._lane(place, max(batch, count)).run(
                tiles, lambda pixels: self._run(place, pixels), self._launching
            )
        if count < batch:
            tiles = np.concatenate([tiles, np.zeros((batch - count, *tiles.shape[1:]), np.uint8)])
        # (b, p, p, 3) in memory, seen as (b, 3, p, p): channels_last without a copy.
        pixels = torch.from_numpy(np.require(tiles, requirements=["C", "W"])).permute(0, 3, 1, 2)
        with torch.inference_mode():
            if place.device.kind == "cpu":
                features = self._run(place, pixels)
            else:
                with self._launching:
                    features = self._run(place, pixels.to(place.device.name))
            return np.asarray(features[:count].float().cpu().numpy(), np.float32)

    def _lane(self, place: _Place, batch: int) -> GpuLane:
        """Return this thread's buffers for a GPU and a batch, made at its first pass."""
        lane = getattr(self._here, "lane", None)
        if lane is None or (lane.device, lane.batch) != (place.device.name, batch):
            lane = self._here.lane = GpuLane(place.device.name, batch, self.tile_px, self.dim)
        return lane

    def _run(self, place: _Place, pixels: Any) -> Any:
        """Normalise and run (b, 3, p, p) uint8 that lie on the device."""
        torch = import_torch()
        kind = place.device.kind
        with contextlib.ExitStack() as switches:
            if kind == "cuda":
                switches.enter_context(_exact_float32(torch))
            if self.precision == "bfloat16":
                switches.enter_context(torch.autocast(kind, torch.bfloat16))
            return place.network(pixels.float().mul_(place.scale).add_(place.shift))

    def _put(self, network: Any, device: Device) -> _Place:
        torch = import_torch()
        try:
            network = network.to(device.name).to(memory_format=torch.channels_last)
        except RuntimeError as error:
            if not is_out_of_memory(error):
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
            if self._batch < batch or place not in self._places:
                return  # another thread already has
            if place.device.kind == "cuda":
                import_torch().cuda.empty_cache()
            if batch > 1:
                self._batch = batch // 2
                self._notices.append(f"not enough memory on {place.device.name}: {self._batch} tiles at a time now")
                return
            if place.device.kind == "cpu":
                raise ResourceError("not enough memory to embed a single tile", do="close other programs")
            cpu = Device("cpu", f"{place.device.name} ran out of memory")
            self._notices.append(f"{place.device.name} ran out of memory even with one tile: the CPU goes on, slower")
            # A copy: another thread may be inside the network on the GPU.
            self._places = (self._put(copy.deepcopy(place.network), cpu),)


def _copy_for(number: int, network: Any) -> Any:
    """The first device takes the network itself, every further one a copy."""
    return network if number == 0 else copy.deepcopy(network)


def _default_batch(network: Any, device: Device) -> int:
    if device.kind != "cpu":
        return _GPU_BATCH
    size = sum(parameter.numel() for parameter in network.parameters())
    return next(batch for limit, batch in _CPU_BATCHES if size <= limit)


@contextlib.contextmanager
def _exact_float32(torch: Any) -> Iterator[None]:
    """No TF32 (ten bits of mantissa) and no autotuned kernels: float32 is what a GPU's result is called."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
