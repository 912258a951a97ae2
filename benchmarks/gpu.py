"""Whether a GPU is kept busy: our engine with all its threads against the bare network, and both against a matmul.

    .venv/bin/python benchmarks/gpu.py [--encoder random:vit_large_patch16_224] [--device cuda] [--engine bfloat16]
                                       [--tiles 4096] [--rounds 5]

Subjects, on tiles in memory: ``model only`` (normalised bfloat16 tiles that already lie on the GPU, one stream) and
``engine`` (uint8 tiles in the computer's memory, through pinned memory, from as many threads as a run has). Prints one
JSON object: tiles a second, their ratio, and the arithmetic reached as a share of what a large matrix product reaches
on the same GPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.encode.encoder import load_encoder
from napari_slnpredict.encode.engines import Engine, choose_device, make_engine
from napari_slnpredict.settings import Settings
from napari_slnpredict.torch_door import import_torch


def model_only(encoder: Any, device: str, count: int, batch: int) -> Callable[[], int]:
    torch = import_torch()
    network = encoder.build().to(device, memory_format=torch.channels_last)
    pixels = torch.randn(batch, 3, encoder.tile_px, encoder.tile_px, device=device)
    pixels = pixels.contiguous(memory_format=torch.channels_last)

    def subject() -> int:
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
            for _ in range(count // batch):
                network(pixels)
        torch.cuda.synchronize(device)
        return count // batch * batch

    return subject


def through_engine(engine: Engine, tiles: NDArray[np.uint8]) -> Callable[[], int]:
    def subject() -> int:
        places = iter(range(0, len(tiles), engine.batch))
        lock = threading.Lock()

        def work() -> None:
            engine.enter_thread()
            while True:
                with lock:
                    start = next(places, None)
                if start is None:
                    return
                engine(tiles[start : start + engine.batch])

        threads = [threading.Thread(target=work) for _ in range(engine.streams)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        engine.release()
        return len(tiles)

    return subject


def operations(network: Any, tile_px: int) -> float:
    """Return floating point operations of one tile."""
    from torch.utils.flop_counter import FlopCounterMode

    torch = import_torch()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, 3, tile_px, tile_px))
    return float(counter.get_total_flops())


def matmul(device: str, side: int = 8192, times: int = 20) -> float:
    """Return operations a second of a large bfloat16 matrix product."""
    torch = import_torch()
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    for _ in range(times):
        a @ b
    torch.cuda.synchronize(device)
    return 2 * side**3 * times / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="random:vit_large_patch16_224")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--engine", default="bfloat16")
    parser.add_argument("--tiles", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    device, encoder = choose_device(options.device), load_encoder(options.encoder)
    with tempfile.TemporaryDirectory() as cache:
        engine = make_engine(encoder, device, settings=Settings(cache=cache, engine=options.engine))
    shape = (options.tiles, encoder.tile_px, encoder.tile_px, 3)
    tiles = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    subjects = {
        "model only": model_only(encoder, device.first, options.tiles, engine.batch),
        "engine": through_engine(engine, tiles),
    }
    rates: dict[str, list[float]] = {name: [] for name in subjects}
    for subject in subjects.values():
        subject()
    for number in range(options.rounds):
        for name in list(subjects)[:: 1 if number % 2 == 0 else -1]:
            start = time.perf_counter()
            count = subjects[name]()
            rates[name].append(count / (time.perf_counter() - start))
    busy = [a / b for a, b in zip(rates["engine"], rates["model only"], strict=True)]
    work, best = operations(encoder.build(), encoder.tile_px), matmul(device.first)
    reached = work * statistics.median(rates["engine"])
    result = {
        "encoder": options.encoder,
        "device": str(engine.device),
        "batch": engine.batch,
        "threads": engine.streams,
        "tiles_per_second": {name: round(statistics.median(values), 1) for name, values in rates.items()},
        "engine / model only": [round(v, 3) for v in (statistics.median(busy), min(busy), max(busy))],
        "gflop_a_tile": round(work / 1e9, 2),
        "tflops": {"engine": round(reached / 1e12, 1), "matmul": round(best / 1e12, 1)},
        "share_of_matmul": round(reached / best, 3),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
