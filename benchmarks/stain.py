"""Stain normalisation on a CPU against torchstain, per tile of 224 px.

    .venv/bin/python benchmarks/stain.py [SOURCE] [--rounds 7] [--tiles 64] [--threads N]

The tiles of SOURCE with most tissue, at 1 um/px, are given the stain of the first of them. torchstain estimates and
paints a tile at a time, its only way. Ours estimates a batch (on every pixel, or on every so many along both axes) and
paints tile by tile; or it estimates once per slide and only paints. "same product" is torchstain's definition (no
residual, negative amounts kept, strength over every pixel), the rest is ours by default. Subjects alternate within a
round. Prints one JSON object: ms a tile (medians of the rounds), ratios to torchstain's torch and numpy programs, and
how many grey levels pictures are apart (the constant 1 by which torchstain differs is taken out; that it cuts where we
round is worth 0.5 of the mean absolute difference).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torchstain

from napari_slnpredict.events import run
from napari_slnpredict.slide.blocks import read_block
from napari_slnpredict.slide.grid import GridSpec, lay_grid
from napari_slnpredict.slide.slide import open_slide
from napari_slnpredict.slide.stain import (
    FitSpec,
    Outcome,
    Restainer,
    StainMatrix,
    fit_macenko,
    fit_reinhard,
    fit_vahadane,
    recolour,
    restain,
    slide_stain,
)
from napari_slnpredict.slide.tissue import find_tissue

DEFAULT_SOURCE = Path(__file__).resolve().parents[2] / "shared/data/slides/duodenum_celiac_HE_level15.svs"


def some_tiles(source: Path, count: int) -> tuple[torch.Tensor, StainMatrix]:
    """The tiles with most tissue in which stains can be told apart, (b, 224, 224, 3) uint8; the slide's stain."""
    with open_slide(source) as slide:
        tissue = find_tissue(slide)
        grid = lay_grid(slide, tissue, GridSpec(224, max(1.0, slide.require_mpp()), min_tissue=0.5))
        order = np.argsort(-grid.tissue, kind="stable")[: 2 * count]
        tiles = torch.from_numpy(read_block(slide, grid, order).pixels)
        return tiles[fit_macenko(tiles).outcome == Outcome.FINE][:count].contiguous(), run(slide_stain(slide, tissue))


def subjects(tiles: torch.Tensor, own: StainMatrix) -> dict[str, Callable[[], list[np.ndarray]]]:
    target, planes, arrays = tiles[0], tiles.permute(0, 3, 1, 2).contiguous(), tiles.numpy()
    peer_torch = torchstain.normalizers.MacenkoNormalizer("torch")
    peer_torch.fit(target.permute(2, 0, 1))
    peer_numpy = torchstain.normalizers.MacenkoNormalizer("numpy")
    peer_numpy.fit(target.numpy())
    wanted = fit_macenko(target[None]).matrix(0)
    paint = Restainer(own, wanted)
    wanted_colour = fit_reinhard(target[None])

    wanted_everywhere = fit_macenko(target[None], FitSpec(everywhere=True)).matrix(0)

    def ours(every: int) -> Callable[[], list[np.ndarray]]:
        spec = FitSpec(every=every)
        return lambda: list(restain(tiles, fit_macenko(tiles, spec), wanted).numpy())

    def same(every: int) -> Callable[[], list[np.ndarray]]:
        spec = FitSpec(every=every, everywhere=True)
        plain = {"residual": False, "clamp": False}
        return lambda: list(restain(tiles, fit_macenko(tiles, spec), wanted_everywhere, **plain).numpy())

    return {
        "torchstain, torch": lambda: [peer_torch.normalize(t, stains=False)[0].numpy() for t in planes],
        "torchstain, numpy": lambda: [peer_numpy.normalize(t, stains=False)[0] for t in arrays],
        "every pixel, same product": same(1),
        "every 3rd, same product": same(3),
        "every 4th, same product": same(4),
        "every pixel": ours(1),
        "every 3rd": ours(3),
        "every 4th": ours(4),
        "fit alone, every 4th": lambda: [fit_macenko(tiles, FitSpec(every=4)).stains.numpy()],
        "once per slide": lambda: [paint(t) for t in arrays],
        "Vahadane": lambda: list(restain(tiles, fit_vahadane(tiles), wanted).numpy()),
        "Reinhard": lambda: list(recolour(tiles, fit_reinhard(tiles), wanted_colour).numpy()),
    }


def apart(made: list[np.ndarray], peer: list[np.ndarray]) -> dict[str, float]:
    """Grey levels between pictures: ours is rounded and without the constant 1, theirs is cut and with it."""
    gaps = [np.abs(np.clip(a.astype(float) + 0.5, 0, 255) - b).mean() for a, b in zip(made, peer, strict=True)]
    means = [abs((a.astype(float) + 0.5 - b).mean()) for a, b in zip(made, peer, strict=True)]
    found = {"mean absolute": np.mean(gaps), "worst tile": np.max(gaps), "of the tiles' means, worst": np.max(means)}
    return {name: round(float(value), 3) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", nargs="?", type=Path, default=DEFAULT_SOURCE)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tiles", type=int, default=64)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tiles, own = some_tiles(options.source, options.tiles)
    seconds: dict[str, list[float]] = {}
    pictures: dict[str, list[np.ndarray]] = {}
    for k in range(options.rounds + 1):
        for name, work in subjects(tiles, own).items():
            start = time.perf_counter()
            pictures[name] = work()
            if k:  # the first round warms up
                seconds.setdefault(name, []).append(time.perf_counter() - start)
    ms = {name: 1e3 * statistics.median(times) / len(tiles) for name, times in seconds.items()}
    report = {
        "tiles": len(tiles),
        "threads": options.threads,
        "rounds": options.rounds,
        "ms a tile": {name: round(value, 3) for name, value in ms.items()},
        "times torchstain, torch": {name: round(ms["torchstain, torch"] / v, 2) for name, v in ms.items()},
        "times torchstain, numpy": {name: round(ms["torchstain, numpy"] / v, 2) for name, v in ms.items()},
        "grey levels to torchstain, torch": {
            name: apart(made, pictures["torchstain, torch"]) for name, made in pictures.items() if "same" in name
        },
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
