"""One thread's way to a CUDA GPU and back, so that the GPU need not wait between batches.

Tiles go as uint8 through pinned memory on a stream of their own, while the GPU still computes another thread's batch
on its main stream; features come back into pinned memory. The thread waits for its own batch alone, without the lock
and without a core. As many batches are under way as there are threads: that is the bound of the queue.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.torch_door import import_torch


class GpuLane:
    """Buffers and a copy stream of one thread.

    Parameters
    ----------
    device : str
        ``cuda:0``.
    batch, tile_px, dim : int
        Tiles a pass, their side, and the length of a feature.
    """

    def __init__(self, device: str, batch: int, tile_px: int, dim: int) -> None:
        torch = import_torch()
        self.device, self.batch = device, batch
        self._pixels = torch.zeros((batch, tile_px, tile_px, 3), dtype=torch.uint8, pin_memory=True)
        self._features = torch.empty((batch, dim), dtype=torch.float32, pin_memory=True)
        self._copies = torch.cuda.Stream(device)
        self._done = torch.cuda.Event()

    def run(
        self, tiles: NDArray[np.uint8], compute: Callable[[Any], Any], launching: threading.Lock
    ) -> NDArray[np.float32]:
        """Return the features (k, d) of tiles (k, p, p, 3), k <= batch.

        Parameters
        ----------
        tiles : (k, p, p, 3) uint8
        compute : callable
            (b, 3, p, p) uint8 on the device -> (b, d).
        launching : Lock
            Held while kernels are launched: switches of the library are the process's, and batches must not mix.
        """
        torch, count = import_torch(), len(tiles)
        # Whatever else lies in the buffer fills the batch up: a tile's feature does not depend on its neighbours.
        self._pixels.numpy()[:count] = tiles
        with torch.inference_mode():
            with torch.cuda.stream(self._copies):
                there = self._pixels.to(self.device, non_blocking=True)
            with launching:
                main = torch.cuda.current_stream(self.device)
                main.wait_stream(self._copies)
                there.record_stream(main)
                features = compute(there.permute(0, 3, 1, 2))
                self._features.copy_(features, non_blocking=True)
                self._done.record(main)
            self._done.synchronize()
        found: NDArray[np.float32] = self._features.numpy()[:count].copy()
        return found
