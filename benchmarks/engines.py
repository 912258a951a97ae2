"""Forward rates of encoders by engine on this CPU, and what each makes of their features.

    .venv/bin/python benchmarks/engines.py [--encoders random:resnet18,hne-small] [--rounds 5] [--tiles 128]

Every precision that this machine has runs on tiles in memory, one thread a stream; ``torch eager`` is float32 on all
cores as everybody runs it. Precisions alternate within a round. Prints one JSON object a line and encoder: tiles a
second (medians), the ratio to eager, the least cosine of centred features on the check tiles, and whether the gate lets
it through.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from gpu import through_engine

from napari_slnpredict.encode.encoder import load_encoder
from napari_slnpredict.encode.engines import Device, available_cores, candidates, make_engine
from napari_slnpredict.encode.engines.conversion import engines_folder
from napari_slnpredict.encode.gate import check_tiles, read_gate
from napari_slnpredict.encode.record import Encoder
from napari_slnpredict.errors import ModelError
from napari_slnpredict.settings import Settings
from napari_slnpredict.torch_door import import_torch

CPU = Device("cpu", "benchmark")


def eager(encoder: Encoder, tiles: np.ndarray) -> Callable[[], int]:
    torch = import_torch()
    network = encoder.build()
    pixels = torch.from_numpy(tiles).permute(0, 3, 1, 2).float().div(255).sub(0.5).contiguous()

    def subject() -> int:
        torch.set_num_threads(available_cores())
        with torch.inference_mode():
            for start in range(0, len(pixels), 32):
                network(pixels[start : start + 32])
        return len(pixels)

    return subject


def one_encoder(name: str, rounds: int, count: int, cache: Path) -> dict[str, Any]:
    encoder = load_encoder(name)
    shown = check_tiles(encoder, encoder.tile_px).pixels
    tiles = np.ascontiguousarray(shown[np.arange(count) % len(shown)])
    subjects, refused = {"torch eager": eager(encoder, tiles)}, dict[str, str]()
    possible = [*candidates("openvino", CPU, encoder), *candidates("torch", CPU, encoder)]
    for precision in (one.precision for one in possible if not one.why_not):
        try:
            engine = make_engine(encoder, CPU, settings=Settings(cache=str(cache), engine=precision))
        except ModelError as error:
            refused[precision] = error.what
            continue
        subjects[precision] = through_engine(engine, tiles)
    seconds: dict[str, list[float]] = {key: [] for key in subjects}
    for subject in subjects.values():
        subject()
    for number in range(rounds):
        for key in list(subjects)[:: 1 if number % 2 == 0 else -1]:
            start = time.perf_counter()
            subjects[key]()
            seconds[key].append(time.perf_counter() - start)
    rate = {key: count / statistics.median(values) for key, values in seconds.items()}
    gates = [read_gate(path, encoder) for path in sorted(engines_folder(cache, encoder).glob("gate-*"))]
    return {
        "encoder": name,
        "tile_px": encoder.tile_px,
        "tiles_per_second": {key: round(value, 1) for key, value in rate.items()},
        "to_eager": {key: round(value / rate["torch eager"], 2) for key, value in rate.items()},
        "centred_cosine": {gate.precision: round(gate.cosine, 5) for gate in gates if gate is not None},
        "refused": refused,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", default="random:resnet18,hne-small")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tiles", type=int, default=128)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in options.encoders.split(","):
            print(json.dumps(one_encoder(name, options.rounds, options.tiles, Path(folder))), flush=True)


if __name__ == "__main__":
    main()
