"""Embedding end to end against the encoder's own forward rate on tiles in memory.

    .venv/bin/python benchmarks/embedding.py [--encoder NAME] [--source SLIDE] [--rounds 5] [--tiles 256] [--cores 2]

SOURCE is any H&E slide; a mosaic of its pixels (JPEG tiles of 256 px) is declared as 0.5 um/px and embedded at
1 um/px, so that a tile of 224 px is read from 448. Subjects alternate within a round:

- ``forward, streams``: tiles in memory, one thread a core, each its own passes
- ``forward, one stream``: tiles in memory, one pass at a time on all cores
- ``embed``: the product's job: reading, embedding, sealed chunks, features.h5 written and read back
- ``queue``: the other way to build it: a thread that reads, a queue, one pass at a time on all cores (no files written)

Prints one JSON object: tiles a second (medians), ratios within each round (median, lowest, highest), and ratios of the
processor time, the steadier figure on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import queue
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from read_blocks import DEFAULT_SOURCE, SIDE, write_mosaic

from napari_slnpredict.encode.embed import embed
from napari_slnpredict.encode.encoder import Encoder, load_encoder
from napari_slnpredict.encode.engines import Device, TorchEngine, available_cores, choose_device, make_engine
from napari_slnpredict.events import run
from napari_slnpredict.slide.blocks import plan_blocks, read_block
from napari_slnpredict.slide.grid import GridSpec, TileGrid, lay_grid
from napari_slnpredict.slide.slide import Slide, open_slide
from napari_slnpredict.slide.tissue import tissue_from_mask
from napari_slnpredict.torch_door import import_torch


class Bench:
    """One encoder on one mosaic."""

    def __init__(self, path: Path, encoder: Encoder, device: Device, cores: int, tiles: int) -> None:
        self.path, self.encoder, self.cores = path, encoder, cores
        self.engine: TorchEngine = make_engine(encoder, device, threads=cores)
        with self.slide() as slide:
            self.grid = self.lay(slide, tiles)
            blocks = [read_block(slide, self.grid, block).pixels for block in plan_blocks(self.grid)]
        self.pixels: NDArray[np.uint8] = np.concatenate(blocks)

    def slide(self) -> Slide:
        return open_slide(self.path, 0.5)

    def lay(self, slide: Slide, tiles: int) -> TileGrid:
        side_um = self.encoder.tile_px * tiles**0.5
        mask = np.zeros((SIDE // 16, SIDE // 16), bool)
        mask[: round(side_um / 8), : round(side_um / 8)] = True
        return lay_grid(slide, tissue_from_mask(mask, 8.0), GridSpec(self.encoder.tile_px, 1.0))

    def forward_streams(self) -> None:
        batch = self.engine.batch
        places = iter(range(0, len(self.pixels), batch))
        lock = threading.Lock()

        def work() -> None:
            self.engine.enter_thread()
            while True:
                with lock:
                    start = next(places, None)
                if start is None:
                    return
                self.engine(self.pixels[start : start + batch])

        threads = [threading.Thread(target=work) for _ in range(self.engine.streams)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.engine.release()

    def forward_one_stream(self) -> None:
        import_torch().set_num_threads(self.cores)
        self.engine(self.pixels)

    def embed(self) -> None:
        with tempfile.TemporaryDirectory() as cache, self.slide() as slide:
            run(embed(slide, self.grid, self.encoder, cache=Path(cache), engine=self.engine))

    def queue(self) -> None:
        import_torch().set_num_threads(self.cores)
        blocks: queue.Queue[NDArray[np.uint8] | None] = queue.Queue(4)

        def read() -> None:
            with self.slide() as slide:
                for block in plan_blocks(self.grid):
                    blocks.put(read_block(slide, self.grid, block).pixels)
            blocks.put(None)

        thread = threading.Thread(target=read)
        thread.start()
        carry = np.empty((0, *self.pixels.shape[1:]), np.uint8)
        while (block := blocks.get()) is not None:
            carry = np.concatenate([carry, block])
            whole = len(carry) // self.engine.batch * self.engine.batch
            self.engine(carry[:whole])
            carry = carry[whole:]
        self.engine(carry)
        thread.join()


def measure(subjects: dict[str, Callable[[], None]], rounds: int) -> tuple[dict[str, list[float]], ...]:
    """Return wall and processor seconds of every subject, round by round."""
    wall: dict[str, list[float]] = {name: [] for name in subjects}
    cpu: dict[str, list[float]] = {name: [] for name in subjects}
    for number in range(rounds):
        # Every second round backwards: what follows whom must not matter.
        for name in list(subjects)[:: 1 if number % 2 == 0 else -1]:
            start, start_cpu = time.perf_counter(), time.process_time()
            subjects[name]()
            wall[name].append(time.perf_counter() - start)
            cpu[name].append(time.process_time() - start_cpu)
    return wall, cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="random:resnet18")
    parser.add_argument("--source", type=Path, default=DEFAULT_SOURCE)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tiles", type=int, default=256)
    parser.add_argument("--cores", type=int, default=available_cores())
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    encoder = load_encoder(options.encoder)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mosaic.svs"
        write_mosaic(options.source, path)
        bench = Bench(path, encoder, choose_device(options.device), options.cores, options.tiles)
        subjects = {
            "forward, streams": bench.forward_streams,
            "forward, one stream": bench.forward_one_stream,
            "embed": bench.embed,
            "queue": bench.queue,
        }
        bench.forward_streams()
        wall, cpu = measure(subjects, options.rounds)
    n = len(bench.grid)
    # The denominator is the better of the two forward rates of that round.
    best = [min(pair) for pair in zip(wall["forward, streams"], wall["forward, one stream"], strict=True)]
    ratios = {name: [b / s for b, s in zip(best, wall[name], strict=True)] for name in ("embed", "queue")}
    cpu_ratio = [b / s for b, s in zip(cpu["forward, streams"], cpu["embed"], strict=True)]
    result = {
        "encoder": options.encoder,
        "device": str(bench.engine.device),
        "batch": bench.engine.batch,
        "cores": options.cores,
        "tiles": n,
        "rounds": options.rounds,
        "tiles_per_second": {name: round(n / statistics.median(values), 1) for name, values in wall.items()},
        "wall_ratio_to_best_forward": {
            name: [round(v, 2) for v in (statistics.median(values), min(values), max(values))]
            for name, values in ratios.items()
        },
        "cpu_ratio_embed_to_forward": round(statistics.median(cpu_ratio), 3),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
