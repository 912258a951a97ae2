"""Jobs of the dock "Train encoder"; like all jobs they touch neither napari nor Qt."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_slnpredict.events import Job, Stage
from napari_slnpredict.settings import load_settings

from .model_jobs import NICE, Options

if TYPE_CHECKING:
    from napari_slnpredict.encode.training import Trained, Training


def starts_job(options: Options) -> Job[list[tuple[str, str]]]:
    """List the encoders a training can begin from: what `load_encoder` takes, and what a list shows."""
    yield Stage("encoders", "Looking for encoders")
    from napari_slnpredict.encode.listing import list_encoders

    rows = [row for row in list_encoders(load_settings(**options)) if row.here]
    return [(row.name, f"{row.name} · {row.source}" if row.source else row.name) for row in rows]


def table_job(path: Path, split: str) -> Job[str]:
    """Read a cohort table and say in a line what is in it; an error names its line."""
    yield Stage("table", f"Reading {path.name}")
    from napari_slnpredict.cohort.table import read_cohort

    cohort = read_cohort(path)
    cohort.check_files()
    rows = cohort.rows
    splits = Counter(row.split for row in rows if row.split)
    chosen = f" · {splits[split]} of split {split}" if splits and split in splits else ""
    stains = " · ".join(f"{count} {stain}" for stain, count in Counter(row.stain for row in rows if row.stain).items())
    patients = len({row.patient for row in rows if row.patient})
    of_patients = f" of {patients} patients" if patients else ""
    return f"{len(rows)} slides{of_patients}{chosen}" + (f" · {stains}" if stains else "")


def training_job(training: Training, options: Options) -> Job[Trained]:
    """Train beside the window: one core stays free for it, and the thread steps back."""
    yield Stage("start", "Starting")
    from napari_slnpredict.encode.engines import available_cores, step_back
    from napari_slnpredict.encode.training import train_encoder

    _import_first()
    step_back(NICE)
    threads = training.options.threads or max(1, available_cores() - 1)
    quiet = replace(training, options=replace(training.options, threads=threads))
    return (yield from train_encoder(quiet, load_settings(**options)))


def _import_first() -> Any:
    """Import what a training needs later: not in a thread that has stepped back (see `worker`)."""
    from napari_slnpredict.torch_door import import_timm, import_torch

    import_torch()
    import_timm()
    import accelerate

    return accelerate
