"""From a cached bag: seconds to judge a slide, seconds to answer a click, peak memory.

    .venv/bin/python benchmarks/mil_inference.py [--tiles 10000 100000] [--dim 512] [--kinds gated ...] [--skip-slow]

Every aggregator and size has a process of its own, two torch threads, untrained weights at default parameters, features
memory-mapped from disk as float16. Seconds are medians of five (of one above 30,000 tiles for self-attention, which
takes minutes there); a click is what the panel needs: the slide without the tile, its evidence, share and rank. For
self-attention, whose leave-one-out is another judgement, the click's job is timed too. `peak` is the process's largest
resident size, `before` that with torch loaded and nothing judged. Core seconds (CPU time of all threads, mean) say what
a busy machine hides. Prints JSON, then a table.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

KINDS = ("mean", "max", "attention", "gated", "additive", "self-attention")
SLOW_TILES = 30_000


def made_grid(n: int):
    from napari_slnpredict.slide.grid import GridSpec, TileGrid

    columns = max(1, int(np.sqrt(n)))
    cells = np.stack([np.arange(n) // columns, np.arange(n) % columns], 1).astype(np.int32)
    return TileGrid(
        spec=GridSpec(128, 1.0), slide_id="made", slide_mpp=1.0, extent=(columns * 128, (n // columns + 1) * 128),
        size_level0=128.0, locations=cells[:, ::-1].astype(np.int64) * 128, tissue=np.ones(n, np.float32),
        component=(1 + np.arange(n) * 3 // n).astype(np.int32), cells=cells,
        shape=(int(cells[:, 0].max()) + 1, columns),
    )  # fmt: skip


def seconds(work: Callable[[], object], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def resident_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(kind: str, n: int, dim: int, features: Path) -> dict[str, object]:
    import torch

    from napari_slnpredict.encode.features import Bag
    from napari_slnpredict.events import run
    from napari_slnpredict.mil.aggregators import build_aggregator
    from napari_slnpredict.mil.head import make_head
    from napari_slnpredict.mil.verdict import judge, leave_out, leave_out_job

    torch.set_num_threads(2)
    torch.manual_seed(0)
    head = make_head(build_aggregator(kind, {}, dim, 2), ("negative", "positive"))
    bag = Bag(made_grid(n), np.memmap(features, np.float16, "r", shape=(n, dim)), "digest", "made", "float16")
    before = resident_mb()
    slow = kind == "self-attention" and n > SLOW_TILES
    verdict = run(judge(head, bag)) if not slow else None
    result: dict[str, object] = {"kind": kind, "tiles": n, "dim": dim, "before_mb": round(before)}

    def judge_it() -> None:
        nonlocal verdict
        verdict = run(judge(head, bag))

    def click() -> None:
        assert verdict is not None
        leave_out(head, bag, verdict, n // 3)
        _ = None if verdict.evidence is None else verdict.evidence[n // 3]
        _ = verdict.share(), verdict.rank()[n // 3]

    rounds = 1 if slow else 5
    cores = time.process_time()
    result["judge_s"] = round(seconds(judge_it, rounds), 4)
    result["judge_core_s"] = round((time.process_time() - cores) / rounds, 4)
    result["click_s"] = round(seconds(click, 5), 4)
    if not head.closed_form and not slow:
        result["leave_out_job_s"] = round(seconds(lambda: run(leave_out_job(head, bag, verdict, n // 3)), 3), 4)
    result["peak_mb"] = round(resident_mb())
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--skip-slow", action="store_true", help="no self-attention above 30,000 tiles")
    parser.add_argument("--one", nargs=3, metavar=("KIND", "TILES", "FEATURES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        kind, n, features = options.one
        print(json.dumps(measure(kind, int(n), options.dim, Path(features))))
        return
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for n in options.tiles:
            features = Path(folder) / f"{n}.f16"
            random = np.random.default_rng(0)
            with features.open("wb") as target:
                for start in range(0, n, 10_000):
                    block = random.normal(size=(min(10_000, n - start), options.dim))
                    target.write(block.astype(np.float16).tobytes())
            for kind in options.kinds:
                if options.skip_slow and kind == "self-attention" and n > SLOW_TILES:
                    continue
                command = [sys.executable, __file__, "--dim", str(options.dim), "--one", kind, str(n), str(features)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                results.append(json.loads(done.stdout))
                print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    print(json.dumps(results, indent=1))
    print("| aggregator | tiles | judge s (core s) | click s | click job s | peak MB (before) |")
    print("| --- | --- | --- | --- | --- | --- |")
    for r in results:
        judged, job = f"{r['judge_s']} ({r['judge_core_s']})", r.get("leave_out_job_s", "")
        memory = f"{r['peak_mb']} ({r['before_mb']})"
        print(f"| {r['kind']} | {r['tiles']:,} | {judged} | {r['click_s']} | {job} | {memory} |")


if __name__ == "__main__":
    main()
