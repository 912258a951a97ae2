"""A step of training against forward and backward alone on tiles in memory: is reading hidden behind computing?

    .venv/bin/python benchmarks/train_step.py [SLIDE] [--start ENCODER] [--method simclr] [--batch 32] [--steps 6]
        [--rounds 5] [--threads 2]

"alone" is the same network with the same loss on views that lie in memory ready made: forward, loss, backward, no
optimiser, no reading, no views. "step" is the time between two steps of `pretrain` on tiles that are read from SLIDE
while it computes: reading, views, forward, loss, backward, optimiser, alarms. "memory" is the latter with the tiles in
memory, so that "step" against "memory" is what reading still costs. Subjects alternate within a round. Prints one JSON
object: ms a step (medians) and ratios (medians of the rounds' ratios).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_slnpredict.cohort.table import Row
from napari_slnpredict.encode.encoder import load_encoder
from napari_slnpredict.encode.method import Batch
from napari_slnpredict.encode.methods import METHODS
from napari_slnpredict.encode.pretrain import _learner, pretrain
from napari_slnpredict.encode.record import for_tiles
from napari_slnpredict.encode.sampling import SlideTiles, slide_tiles
from napari_slnpredict.events import Partial, run
from napari_slnpredict.slide.grid import GridSpec

DEFAULT_SLIDE = Path(__file__).resolve().parents[2] / "shared/data/slides/duodenum_celiac_HE_level15.svs"
#: Steps whose tiles a paused training holds ready; time in which it has read them.
_READY_STEPS, _SETTLE_SECONDS = 5, 0.7
#: Untimed steps after a pause: other subjects' memory lies in the caches.
_WARM_STEPS = 2


class InMemory:
    """The tiles of a source, read once."""

    def __init__(self, data: SlideTiles, rows: np.ndarray) -> None:
        self.table, self.tile_px, self.mpp = data.table, data.tile_px, data.mpp
        self._place = {int(row): at for at, row in enumerate(rows)}
        self._pixels = data.read(rows)

    def read(self, rows: np.ndarray) -> np.ndarray:
        return self._pixels[[self._place[int(row)] for row in rows]]


class Alone:
    """Forward, loss and backward on one batch of views that is there already."""

    def __init__(self, start: Any, method: Any, tiles: np.ndarray, rows: np.ndarray) -> None:
        self.learner = _learner(start.build().requires_grad_(True), method.heads(start.dim)).train()
        given = torch.from_numpy(tiles).permute(0, 3, 1, 2).float() / 255
        self.method, self.batch = method, Batch(given, rows, 0, torch.Generator().manual_seed(0))
        self.seen = method.views(self.batch).contiguous(memory_format=torch.channels_last)

    def __call__(self, steps: int) -> float:
        time.sleep(_SETTLE_SECONDS)
        for step in range(-_WARM_STEPS, steps):
            if step == 0:
                began = time.perf_counter()
            features, out = self.learner(self.seen)
            self.method.loss(features, out, self.batch).total.backward()
            self.learner.zero_grad()
        return (time.perf_counter() - began) / steps


@contextmanager
def training(data: Any, start: Any, method: Any) -> Iterator[Any]:
    """A training that has begun and goes on when asked."""
    with tempfile.TemporaryDirectory() as folder:
        job = pretrain(data, start, method, Path(folder), device="cpu")
        try:
            yield (event.data.number for event in job if isinstance(event, Partial) and event.kind == "step")
        finally:
            job.close()


def timed(steps: Any, count: int) -> float:
    """Return seconds a step of a training that goes on, without the steps whose tiles waited ready while it paused."""
    time.sleep(_SETTLE_SECONDS)
    first = reached = next(steps)
    while reached < first + _READY_STEPS:
        reached = next(steps)
    first = reached
    began = time.perf_counter()
    while reached < first + count:
        reached = next(steps)
    return (time.perf_counter() - began) / (reached - first)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", type=Path, nargs="?", default=DEFAULT_SLIDE)
    parser.add_argument("--start", default="hne-small")
    parser.add_argument("--method", choices=tuple(METHODS), default="simclr")
    parser.add_argument("--tile-px", type=int, default=0)
    parser.add_argument("--mpp", type=float, default=1.0)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    start = load_encoder(args.start)
    start = for_tiles(start, args.tile_px or start.tile_px)
    data = run(slide_tiles([Row(0, args.slide)], GridSpec(start.tile_px, args.mpp, min_tissue=0.5)))
    row = METHODS[args.method]
    extra = {"target": "reference"} if args.method == "stain-invariant" else {}
    needed = 2 * (args.rounds + 1) * (args.steps + 10)
    method = row.make(row.settings(steps=needed, batch=args.batch, **extra))
    method.prepare(data.table, start.tile_px * args.mpp)
    planned = np.unique(np.concatenate([method.rows(step).ravel() for step in range(needed)]))
    memory = InMemory(data, planned)
    rows = method.rows(0)
    alone = Alone(start, method, memory.read(rows.T.ravel()), rows)
    times: dict[str, list[float]] = {"alone": [], "step": [], "memory": []}
    with training(data, start, method) as reading, training(memory, start, method) as remembering:
        for measured in range(args.rounds + 1):
            found = {
                "alone": alone(args.steps), "step": timed(reading, args.steps), "memory": timed(remembering, args.steps)
            }  # fmt: skip
            if measured:  # the first round brings everything into the caches
                for name, seconds in found.items():
                    times[name].append(seconds)
    data.close()
    ratios = {name: np.divide(times[name], times["alone"]).tolist() for name in ("step", "memory")}
    print(json.dumps({
        "start": args.start, "method": args.method, "batch": args.batch, "tile_px": start.tile_px,
        "threads": args.threads, "rounds": args.rounds, "tiles": len(data.table),
        "ms": {name: round(1e3 * statistics.median(values), 1) for name, values in times.items()},
        "step_over_alone": round(statistics.median(ratios["step"]), 3),
        "memory_over_alone": round(statistics.median(ratios["memory"]), 3),
        "spread": [round(min(ratios["step"]), 3), round(max(ratios["step"]), 3)],
    }))  # fmt: skip


if __name__ == "__main__":
    main()
