"""OpenVINO on a CPU: 1.3 to 4 times torch's speed, more where bfloat16 is built in (benchmarks/engines.py).

One compiled network has as many streams as there are workers, each computing on one thread of its own, so that no
stream waits for another (kept with one busy process beside it: 0.8 of the speed; one stream of all cores: 0.57).
Tiles go in as they were read, (b, p, p, 3) uint8: the normalisation is part of the graph. Every pass has the same
number of tiles: kernels are chosen by it, and a tile's feature depends on neither neighbours nor stream.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import ResourceError

from .base import TITLES, is_out_of_memory
from .device import Device, step_back
from .openvino_door import import_openvino

if TYPE_CHECKING:
    from .conversion import Conversion

#: Tiles a pass by megabytes of weights; small ones stay in the processor's caches and keep Cancel and clicks quick.
_BATCHES = ((32e6, 8), (240e6, 4), (800e6, 2), (float("inf"), 1))
_HINTS = {"openvino-float32": "f32", "openvino-bfloat16": "bf16"}


@dataclass(frozen=True)
class _Lane:
    """An infer request and the memory it reads and writes."""

    request: Any
    pixels: NDArray[np.uint8]  # (b, p, p, 3)
    features: NDArray[np.float32]  # (b, d)


class OpenVinoEngine:
    """A converted network, compiled for this CPU.

    Parameters
    ----------
    conversion : Conversion
    precision : str
        ``openvino-float32`` or ``openvino-bfloat16``.
    device : Device
        The CPU, and why.
    threads : int
        Streams.
    batch : int
        Tiles a pass; 0 lets the network's size decide.
    nice : int
        Linux: how far the engine's own threads step back behind others (10 beside a window).

    Raises
    ------
    ResourceError
        Not enough memory to compile it.
    """

    def __init__(
        self, conversion: Conversion, precision: str, device: Device, *, threads: int, batch: int = 0, nice: int = 0
    ) -> None:
        self.precision, self.dim, self.tile_px = precision, conversion.dim, conversion.tile_px
        self.streams = threads
        self._device = replace(device, how=TITLES[precision])
        self._batch = batch or next(count for limit, count in _BATCHES if conversion.weights.nbytes <= limit)
        self._idle: list[_Lane] = []
        self._compiled = _compile(conversion, self._batch, threads, _HINTS[precision], nice)

    @property
    def batch(self) -> int:
        """Tiles a forward pass."""
        return self._batch

    @property
    def device(self) -> Device:
        """Where it runs."""
        return self._device

    def enter_thread(self) -> None:
        """Do nothing: the streams' threads are the engine's own."""

    def release(self) -> None:
        """Do nothing: no thread was changed."""

    def take_notices(self) -> list[str]:
        """Return nothing: what happens here is told when the engine is made."""
        return []

    def __call__(self, tiles: NDArray[np.uint8], *, fill: bool = True) -> NDArray[np.float32]:
        """Return the features (k, d) float32 of tiles (k, p, p, 3) uint8; safe from several threads.

        Batches are small and always filled up, so that a lone tile has the same feature as one of a slide's, to the
        bit.
        """
        features = np.empty((len(tiles), self.dim), np.float32)
        lane = self._take_lane()
        try:
            for start in range(0, len(tiles), self._batch):
                part = tiles[start : start + self._batch]
                lane.pixels[: len(part)] = part
                lane.request.start_async()
                lane.request.wait()
                features[start : start + len(part)] = lane.features[: len(part)]
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise _no_memory() from error
            raise
        self._idle.append(lane)
        return features

    def _take_lane(self) -> _Lane:
        """Return an idle lane or a new one: there are as many as there ever were callers at once."""
        try:
            return self._idle.pop()
        except IndexError:
            pass
        openvino = import_openvino()
        request = self._compiled.create_infer_request()
        pixels = np.zeros((self._batch, self.tile_px, self.tile_px, 3), np.uint8)
        features = np.empty((self._batch, self.dim), np.float32)
        request.set_input_tensor(openvino.Tensor(pixels, shared_memory=True))
        request.set_output_tensor(openvino.Tensor(features, shared_memory=True))
        return _Lane(request, pixels, features)


def _compile(conversion: Conversion, batch: int, streams: int, hint: str, nice: int) -> Any:
    """Compile a network in a thread that has stepped back: the engine's threads inherit its priority."""
    made: list[Any] = []

    def work() -> None:
        step_back(nice)
        try:
            made.append(conversion.compile(batch, streams, hint))
        except Exception as error:  # noqa: BLE001 - handed to the caller's thread
            made.append(error)

    thread = threading.Thread(target=work, name="slnpredict-compile")
    thread.start()
    thread.join()
    if isinstance(made[0], Exception):
        if is_out_of_memory(made[0]):
            raise _no_memory() from made[0]
        raise made[0]
    return made[0]


def _no_memory() -> ResourceError:
    return ResourceError("not enough memory to run the network", do="close other programs, or use --engine torch")
