"""Options the three scripts share, and the network everything starts from."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from napari_slnpredict.encode.encoder import load_encoder
from napari_slnpredict.encode.record import Encoder, for_tiles
from napari_slnpredict.slide.grid import GridSpec
from napari_slnpredict.torch_door import import_torch

#: The ImageNet network that starts the shipped encoder too, where its weights lie in --data.
START = "weights/mobilenetv2_100_in1k_coral_ptq.safetensors"
UNTRAINED = "random:mobilenetv2_100"


def parser(about: str, *, steps: int, batch: int, seeds: int) -> argparse.ArgumentParser:
    """Return the options every claim has."""
    made = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--out", type=Path, help="folder for slides, trainings, figures; a later run goes on there")
    made.add_argument("--data", type=Path, help="folder with tiles/, cohort/, weights/; without it phantoms alone")
    made.add_argument("--start", help=f"encoder all arms start from; default DATA/{START}, else {UNTRAINED}")
    made.add_argument("--steps", type=int, default=steps, help="of each training")
    made.add_argument("--batch", type=int, default=batch, help="tiles a step")
    made.add_argument("--rate", type=float, default=3e-4, help="highest learning rate, the same for every arm")
    made.add_argument("--seeds", type=int, default=seeds, help="trainings of each arm")
    made.add_argument("--tile", type=int, default=64, help="side of a tile, px")
    made.add_argument("--mpp", type=float, default=1.0, help="um per px of the tiles")
    made.add_argument("--threads", type=int, help="that compute; by default the libraries choose")
    made.add_argument("--device", default="auto")
    made.add_argument("--precision", default="no", help="no, bf16 or fp16")
    made.add_argument("--smoke", action="store_true", help="seconds: tiny phantoms, three steps, figures without sense")
    return made


def prepared(made: argparse.ArgumentParser, given: list[str] | None) -> argparse.Namespace:
    """Return the options as they are meant: a folder, and tiny values for --smoke."""
    options = made.parse_args(given)
    options.began = time.perf_counter()
    if options.smoke:
        options.steps, options.batch, options.seeds, options.tile = 2, 8, 2, 32
        options.start, options.threads = options.start or "random:mobilenetv3_small_050", options.threads or 1
        options.out = options.out or Path(tempfile.mkdtemp(prefix="slnpredict-smoke-"))
    if options.out is None:
        made.error("--out is needed")
    if options.threads:
        limit_threads(options.threads)
    return options


def limit_threads(count: int) -> None:
    """Let torch and the linear algebra below numpy use so many threads; on a busy machine more only wait."""
    from threadpoolctl import threadpool_limits

    import_torch().set_num_threads(count)
    threadpool_limits(count)


def start_of(options: argparse.Namespace) -> Encoder:
    """Return the network all arms start from, for tiles of the size asked for."""
    name = options.start
    if name is None:
        weights = options.data and options.data / START
        name = f"local:{weights}" if weights and weights.is_file() else UNTRAINED
    encoder = load_encoder(name)
    print(f"all arms start from {encoder.name}" + (f" ({encoder.warning})" if encoder.warning else ""), file=sys.stderr)
    return for_tiles(encoder, options.tile)


def grid_of(options: argparse.Namespace) -> GridSpec:
    """Return how tiles are laid."""
    return GridSpec(options.tile, options.mpp, 0, 0.5)


def conditions(options: argparse.Namespace, start: Encoder, seeds: int) -> dict[str, object]:
    """Return what every report says of its run; `seeds` are done."""
    return {
        "start": start.name,
        "tiles": f"{options.tile} px at {options.mpp:g} um/px",
        "steps": options.steps,
        "batch": options.batch,
        "rate": options.rate,
        "seeds": seeds if seeds == options.seeds else f"{seeds} of {options.seeds}",
        "minutes of this call": round((time.perf_counter() - options.began) / 60, 1),
        "threads": options.threads or import_torch().get_num_threads(),
        "load": " ".join(f"{value:.1f}" for value in os.getloadavg()) if hasattr(os, "getloadavg") else "?",
    }


def schedule(options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings every training has, whatever its method: the same budget for every arm."""
    return {"steps": options.steps, "batch": options.batch, "rate": options.rate, "probe_every": options.steps}
