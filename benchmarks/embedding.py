"""Embedding end to end, against the networks' own forward rates and against what users have today (figure 6).

    .venv/bin/python benchmarks/embedding.py [--encoder NAME] [--engines auto,openvino-float32] [--mpp 0.5]
                                             [--source SLIDE] [--side 8192] [--rounds 5] [--ways openslide,tiffslide]

SOURCE is any H&E slide; a mosaic of its pixels (JPEG tiles of 256 px, levels 1, 4, 16, declared as 0.25 um/px) is
opened, searched for tissue and embedded at MPP. Subjects alternate within a round:

- ``torch eager``: float32, all cores, tiles in memory: the reference of all ratios
- ``ENGINE forward``: our engine alone on tiles in memory, one thread a stream
- ``ENGINE embed``: the product's whole job: opening, tissue, reading, embedding, sealed chunks, features.h5
- ``ENGINE embed beside``, with ``--busy 1``: the same beside that many busy processes
- a way of ``--ways``: OpenSlide or tiffslide behind a DataLoader of as many workers as there are cores, Pillow's
  resizing, torchvision's transform: the pattern of most tools

Prints one JSON object: tiles a second (median), and ratios within each round (median, lowest, highest).
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from read_blocks import DEFAULT_SOURCE, write_mosaic

from napari_slnpredict.encode.embed import embed
from napari_slnpredict.encode.encoder import Encoder, load_encoder
from napari_slnpredict.encode.engines import Device, Engine, available_cores, make_engine
from napari_slnpredict.events import run
from napari_slnpredict.settings import Settings
from napari_slnpredict.slide.blocks import plan_blocks, read_block
from napari_slnpredict.slide.grid import GridSpec, TileGrid, lay_grid
from napari_slnpredict.slide.slide import Slide, open_slide
from napari_slnpredict.slide.tissue import find_tissue
from napari_slnpredict.torch_door import import_torch, import_torchvision

MPP = 0.25
CPU = Device("cpu", "benchmark")


class Bench:
    """One encoder on one slide: every subject returns how many tiles it embedded."""

    def __init__(self, path: Path, encoder: Encoder, mpp: float, cores: int) -> None:
        self.path, self.encoder, self.cores = path, encoder, cores
        self.spec = GridSpec(encoder.tile_px, mpp)
        with open_slide(path, MPP) as slide:
            self.grid = self.lay(slide)
            blocks = [read_block(slide, self.grid, block).pixels for block in plan_blocks(self.grid)[:24]]
        self.pixels: NDArray[np.uint8] = np.concatenate(blocks)[:256]

    def lay(self, slide: Slide) -> TileGrid:
        return lay_grid(slide, find_tissue(slide), self.spec)

    def eager(self) -> Callable[[], int]:
        """What everybody runs: the network as it is built, on normalised float32 tiles in memory."""
        torch = import_torch()
        network = self.encoder.build()
        pixels = torch.from_numpy(self.pixels).permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (self.encoder.mean, self.encoder.std))
        tiles = ((pixels - mean) / std).contiguous()

        def subject() -> int:
            torch.set_num_threads(self.cores)
            with torch.inference_mode():
                for start in range(0, len(tiles), 32):
                    network(tiles[start : start + 32])
            return len(tiles)

        return subject

    def forward(self, engine: Engine) -> Callable[[], int]:
        def subject() -> int:
            places = iter(range(0, len(self.pixels), engine.batch))
            lock = threading.Lock()

            def work() -> None:
                engine.enter_thread()
                while True:
                    with lock:
                        start = next(places, None)
                    if start is None:
                        return
                    engine(self.pixels[start : start + engine.batch])

            threads = [threading.Thread(target=work) for _ in range(engine.streams)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            engine.release()
            return len(self.pixels)

        return subject

    def embed(self, engine: Engine) -> Callable[[], int]:
        def subject() -> int:
            with tempfile.TemporaryDirectory() as cache, open_slide(self.path, MPP) as slide:
                return len(run(embed(slide, self.lay(slide), self.encoder, cache=Path(cache), engine=engine)))

        return subject

    def loader(self, module: str) -> Callable[[], int]:
        """The usual way, on our grid's places: what differs is the reading and the computing, not the tissue."""
        torch = import_torch()
        network, cores = self.encoder.build(), self.cores
        side = round(self.grid.size_level0)
        data = Usual(module, self.path, self.grid.locations.tolist(), side, self.encoder)

        def subject() -> int:
            torch.set_num_threads(cores)
            with open_slide(self.path, MPP) as slide:
                self.lay(slide)
            count = 0
            with torch.inference_mode():
                for batch in torch.utils.data.DataLoader(data, batch_size=32, num_workers=cores):
                    count += len(network(batch))
            return count

        return subject


class Usual:
    """A data set as most tools write it."""

    def __init__(self, module: str, path: Path, places: list[list[int]], side: int, encoder: Encoder) -> None:
        transforms = import_torchvision().transforms
        self.module, self.path, self.places, self.side, self.px = module, path, places, side, encoder.tile_px
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(encoder.mean, encoder.std)])
        self.slide: Any = None

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Any:
        if self.slide is None:
            self.slide = importlib.import_module(self.module).OpenSlide(str(self.path))
        level = self.slide.get_best_level_for_downsample(self.side / self.px * 1.01)
        size = round(self.side / self.slide.level_downsamples[level])
        x, y = self.places[index]
        picture = self.slide.read_region((x, y), level, (size, size)).convert("RGB")
        return self.transform(picture.resize((self.px, self.px)))


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Keep cores busy meanwhile, as a browser or a window does."""
    children = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for child in children:
            child.kill()
            child.wait()


def beside(subject: Callable[[], int], count: int) -> Callable[[], int]:
    def both() -> int:
        with busy(count):
            return subject()

    return both


def measure(subjects: dict[str, Callable[[], int]], rounds: int) -> dict[str, list[float]]:
    """Return tiles a second of every subject, round by round."""
    rates: dict[str, list[float]] = {name: [] for name in subjects}
    for subject in subjects.values():
        subject()
    for number in range(rounds):
        # Every second round backwards: what follows whom must not matter.
        for name in list(subjects)[:: 1 if number % 2 == 0 else -1]:
            start = time.perf_counter()
            count = subjects[name]()
            rates[name].append(count / (time.perf_counter() - start))
    return rates


def ratios(rates: dict[str, list[float]], above: str, below: str) -> list[float]:
    """Return median, lowest and highest ratio of two subjects within a round."""
    each = [a / b for a, b in zip(rates[above], rates[below], strict=True)]
    return [round(value, 2) for value in (statistics.median(each), min(each), max(each))]


def summary(rates: dict[str, list[float]], engines: list[str], ways: list[str]) -> dict[str, Any]:
    """Return the ratios that figure 6 asks for."""
    found: dict[str, Any] = {}
    for engine in engines:
        whole = f"{engine} embed"
        found[f"{whole} / torch eager"] = ratios(rates, whole, "torch eager")
        found[f"{whole} / {engine} forward"] = ratios(rates, whole, f"{engine} forward")
        for way in ways:
            found[f"{whole} / {way}"] = ratios(rates, whole, way)
        if f"{whole} beside" in rates:
            found[f"{whole} beside / {whole}"] = ratios(rates, f"{whole} beside", whole)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="random:resnet18")
    parser.add_argument("--engines", default="auto,openvino-float32")
    parser.add_argument("--mpp", type=float, default=0.5)
    parser.add_argument("--source", type=Path, default=DEFAULT_SOURCE)
    parser.add_argument("--slide", type=Path, help="embed this slide (0.25 um/px) instead of a mosaic of SOURCE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cores", type=int, default=available_cores())
    parser.add_argument("--ways", default="", help="openslide,tiffslide")
    parser.add_argument("--busy", type=int, default=0)
    options = parser.parse_args()
    encoder = load_encoder(options.encoder)
    ways, wishes = [way for way in options.ways.split(",") if way], options.engines.split(",")
    with tempfile.TemporaryDirectory() as folder:
        path = options.slide or Path(folder) / "mosaic.svs"
        if options.slide is None:
            write_mosaic(options.source, path)
        bench = Bench(path, encoder, options.mpp, options.cores)
        subjects = {"torch eager": bench.eager()}
        engines: dict[str, str] = {}
        for wish in wishes:
            settings = Settings(cache=os.environ.get("SLNPREDICT_CACHE", folder), engine=wish)
            engine = make_engine(encoder, CPU, settings=settings, threads=options.cores)
            engines[engine.precision] = str(engine.device)
            subjects[f"{engine.precision} forward"] = bench.forward(engine)
            subjects[f"{engine.precision} embed"] = bench.embed(engine)
            if options.busy:
                subjects[f"{engine.precision} embed beside"] = beside(bench.embed(engine), options.busy)
        subjects.update({way: bench.loader(way) for way in ways})
        rates = measure(subjects, options.rounds)
    result = {
        "encoder": options.encoder,
        "engines": engines,
        "cores": options.cores,
        "tiles": len(bench.grid),
        "mpp": options.mpp,
        "rounds": options.rounds,
        "tiles_per_second": {name: round(statistics.median(values), 1) for name, values in rates.items()},
        "ratios": summary(rates, list(engines), ways),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
