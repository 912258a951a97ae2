"""What the tests of pipeline, export, report and command line share: small slides, a tiny model, a stand-in encoder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_slnpredict.bundles.bundle import Bundle, save_bundle
from napari_slnpredict.encode.features import Bag
from napari_slnpredict.errors import BundleMismatch
from napari_slnpredict.events import Event, Job, Partial, Progress, Stage, Warn, run
from napari_slnpredict.mil.aggregators import build_aggregator
from napari_slnpredict.mil.head import CLASS_NAMES, Head, load_head
from napari_slnpredict.pipeline import Prediction, predict_slide
from napari_slnpredict.settings import Settings
from napari_slnpredict.slide.grid import GridSpec, TileGrid
from napari_slnpredict.slide.slide import Slide, open_slide

DIM, TILE_PX = 6, 64
ENCODER_DIGEST = "e" * 64


@dataclass(frozen=True)
class StandInEncoder:
    """The fields of an encoder that are shown and compared."""

    name: str = "stand-in"
    digest: str = ENCODER_DIGEST
    dim: int = DIM
    tile_px: int = TILE_PX
    mpp: tuple[float, float] = (1.0, 1.0)
    interpolation: str = "none"
    licence: str = "BSD-3-Clause"
    notice: str = ""
    warning: str = ""
    weights: Path | None = None
    tile_mpp: float | None = None

    def check_grid(self, spec: GridSpec) -> None:
        if not self.mpp[0] <= spec.mpp <= self.mpp[1]:
            raise BundleMismatch("other resolution")


@dataclass(frozen=True)
class StandInDevice:
    """A device as it is shown."""

    name: str = "cpu"
    why: str = "asked for"
    how: str = ""
    first: str = "cpu"

    def __str__(self) -> str:
        return f"{self.name} ({self.why})"


class StandInEmbed:
    """An embedding job without a network: the features are the tiles' mean colours and places.

    `damaged` lists tiles said to be unreadable; `error` is raised half-way.
    """

    def __init__(self, damaged: tuple[int, ...] = (), error: Exception | None = None) -> None:
        self.damaged, self.error, self.calls, self.closed = damaged, error, 0, 0

    def __call__(self, slide: Slide, grid: TileGrid, encoder: Any, **options: Any) -> Job[Bag]:
        self.calls += 1
        n = len(grid)
        features = np.random.default_rng(3).normal(size=(n, DIM)).astype(np.float32)
        features[:, :2] += grid.locations / max(grid.extent)
        damaged = np.zeros(n, bool)
        damaged[list(self.damaged)] = True
        try:
            yield Stage("embed", f"Looking at {n} tiles", n, "tiles")
            if encoder.warning:
                yield Warn(encoder.warning)
            if self.damaged:
                yield Warn(f"{len(self.damaged)} of {n} tiles lie on damaged parts of the file")
            for start in range(0, n, 8):
                part = np.arange(start, min(n, start + 8))
                yield Partial("features", (part, features[part], damaged[part]))
                yield Progress(int(part[-1]) + 1, n)
                if self.error is not None and start:
                    raise self.error
            if options.get("watch") is not None:
                options["watch"].add("read", 0.25)
            return Bag(grid, features, encoder.digest, encoder.name, "float32", None, damaged)
        finally:
            self.closed += 1


def install(monkeypatch: pytest.MonkeyPatch, embed: StandInEmbed | None = None, **encoder: Any) -> StandInEmbed:
    """Put the stand-ins where the pipeline looks for encoder, device and embedding."""
    embed = embed or StandInEmbed()
    monkeypatch.setattr("napari_slnpredict.encode.embed.embed", embed)
    monkeypatch.setattr("napari_slnpredict.encode.encoder.load_encoder", lambda name, s=None: StandInEncoder(**encoder))
    monkeypatch.setattr("napari_slnpredict.encode.engines.choose_device", lambda wanted="auto": StandInDevice())
    return embed


def write_slide(
    path: Path, size: tuple[int, int] = (640, 512), mpp: float | None = 1.0, tissue: bool = True, told: str = ""
) -> Path:
    """Write a small slide with a disc of pink texture (or none) on white; `mpp` None leaves the scale out."""
    import tifffile

    width, height = size
    pixels = np.full((height, width, 3), 245, np.uint8)
    if tissue:
        y, x = np.mgrid[:height, :width]
        inside = ((x - width / 2) / (0.42 * width)) ** 2 + ((y - height / 2) / (0.42 * height)) ** 2 < 1
        noise = np.random.default_rng(5).normal(0, 22, (height, width, 1))
        pink = np.clip(np.array([196.0, 120.0, 172.0]) + noise, 0, 255).astype(np.uint8)
        pixels[inside] = pink[inside]
    scale = f"|AppMag = 10|MPP = {mpp}" if mpp else ""
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(
        path,
        pixels,
        tile=(128, 128),
        photometric="rgb",
        compression="zlib",
        description=f"Aperio Image Library v11.2.1\n{width}x{height} [0,0 {width}x{height}] (128x128){scale}{told}",
        metadata=None,
    )
    return path


def make_bundle(
    folder: Path, kind: str = "gated", mpp: float = 1.0, classes: tuple[str, ...] = ("negative", "positive")
) -> Bundle:
    """Write a MIL bundle with random weights for the stand-in encoder."""
    import torch

    parameters: dict[str, Any] = {"hidden": 8}
    if kind in ("gated", "attention", "additive"):
        parameters["attention"] = 4
    if kind == "self-attention":
        parameters = {"width": 16, "heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(2)
        module = build_aggregator(kind, parameters, DIM, len(classes))
    tensors = {name: value.numpy() for name, value in module.state_dict().items()}
    tensors[CLASS_NAMES] = np.frombuffer(json.dumps(list(classes)).encode(), np.uint8)
    return save_bundle(
        folder,
        name="tiny-sln",
        kind="mil",
        model={"type": kind, "parameters": {"dim": DIM, **parameters}},
        tensors=tensors,
        card="# tiny\n",
        task={"name": "sln", "classes": list(classes), "positive": "positive" if "positive" in classes else None},
        encoder={"name": "stand-in", "digest": ENCODER_DIGEST},
        grid={"tile_px": TILE_PX, "mpp": mpp, "overlap_px": 0, "min_tissue": 0.25},
        licence="BSD-3-Clause",
        notice="Demonstration. Not for diagnosis.",
    )


@dataclass
class Predicted:
    """A slide, its head and its prediction."""

    slide: Slide
    head: Head
    prediction: Prediction
    events: list[Event]


def predicted(folder: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Iterator[Predicted]:
    """Predict one small slide with the stand-ins; options: kind, damaged, overlap..., size, tissue, mpp."""
    embed = StandInEmbed(options.pop("damaged", ()))
    install(monkeypatch, embed, **options.pop("encoder", {}))
    head = load_head(make_bundle(folder / "tiny-sln", options.pop("kind", "gated")))
    path = write_slide(folder / options.pop("name", "one.svs"), **options)
    events: list[Event] = []
    with open_slide(path) as slide:
        prediction = run(predict_slide(slide, head, settings=Settings(cache=str(folder / "cache"))), events.append)
        yield Predicted(slide, head, prediction, events)
