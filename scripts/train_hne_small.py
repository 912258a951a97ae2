"""Train the shipped encoder `hne-small`: tiles of 128 px at 1 um per pixel -> 1280 numbers, and a descriptor of 128.

MobileNetV2 with ImageNet weights; its last stages and a linear layer to descriptors learn by contrast (two views of a
tile, NT-Xent) and by labels where the licence gives some (`hne_small_learn`). The stages before them stay as they were.
Its normalisation layers are folded, so the network stays in evaluation mode throughout.

    python scripts/train_hne_small.py --weights mobilenetv2_100_in1k_coral_ptq.safetensors --data DATA --phantoms COHORT
    python scripts/make_check_tiles.py --data DATA
    python scripts/judge_hne_small.py --weights ... --data DATA

`--weights` needs its JSON card beside it; `--data` holds ``tiles/``, ``cohort/`` and ``LICENSES/``; `--phantoms` is a
cohort of task ``sln`` with splits train and test. The shipped one was trained on

    slnpredict phantom --task sln --count 120 --seed 1 --lab A,B,C   --split train --out COHORT
    slnpredict phantom --task sln --count 30  --seed 2 --lab A,B,C   --split val   --out COHORT
    slnpredict phantom --task sln --count 100 --seed 3 --lab A,B,C,D --split test  --out COHORT

The recipe was chosen inside the training half by `hne_small_choose.py`; `judge_hne_small.py` opens the other half.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from hne_small_learn import DESCRIPTOR, FEATURES, Parts, Recipe, begin_descriptor, cached, fit, settle_descriptor
from hne_small_tiles import (
    SPEC,
    TILE_PX,
    TILE_SETS,
    TileSet,
    make_node_phantoms,
    read_phantoms,
    slide_set,
    training_half,
)
from numpy.typing import NDArray

from napari_slnpredict.bundles.bundle import SHIPPED, save_bundle, tensor_bytes
from napari_slnpredict.encode.architecture import Architecture, build_network
from napari_slnpredict.encode.encoder import load_encoder
from napari_slnpredict.encode.trained import HEADS
from napari_slnpredict.torch_door import import_timm, import_torch

RECIPE = Recipe()
NOTICE = (
    "Demonstration encoder, trained on synthetic slides and a few hundred public tiles. "
    "For research; it tells nothing about a patient."
)


def main() -> None:
    """Read tiles, train, save the bundle."""
    args = arguments().parse_args()
    import_torch().set_num_threads(args.threads)
    recipe = replace(RECIPE, steps=args.steps)
    began = time.perf_counter()
    start = load_encoder(f"local:{args.weights}")
    licence_text = (args.data / "LICENSES" / "Apache-2.0.txt").read_bytes()
    sets = gather(args.data, args.phantoms)
    print(f"tiles: {[(one.name, len(one.pixels)) for one in sets]}", flush=True)
    parts = Parts(starting_network(start), recipe.first_stage)
    outputs = [cached(parts, one, recipe.views, at) for at, one in enumerate(sets)]
    print(f"views made after {time.perf_counter() - began:.0f} s", flush=True)
    begin_descriptor(parts, outputs)
    curve = fit(parts, outputs, recipe)
    settle_descriptor(parts, outputs, recipe)
    round_weights(parts.modules())
    facts = training_facts(recipe, curve, sets, args.weights.name)
    facts["seconds"] = round(time.perf_counter() - began)
    card = "# hne-small\n\nTrained, not judged yet: `scripts/judge_hne_small.py` writes this card.\n"
    save(args.out, parts, facts, card, sets[0], licence_text)


def arguments() -> argparse.ArgumentParser:
    """Return the parser of what a training needs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="safetensors with its JSON card beside it")
    parser.add_argument("--data", type=Path, required=True, help="folder with tiles/, cohort/, LICENSES/")
    parser.add_argument("--phantoms", type=Path, required=True, help="folder of a phantom cohort, task sln")
    parser.add_argument("--out", type=Path, default=SHIPPED / "hne-small")
    parser.add_argument("--steps", type=int, default=RECIPE.steps)
    parser.add_argument("--threads", type=int, default=2)
    return parser


def gather(data: Path, phantoms: Path) -> list[TileSet]:
    """Return all tiles that are learned from: phantoms, nodes, the training halves, real slides (without labels)."""
    return [
        read_phantoms(phantoms, "train", 4, 0),
        make_node_phantoms(24, 7_000_000, 5),
        *(training_half(data / "tiles", name) for name in TILE_SETS),
        slide_set(data / "cohort", "train", 80),
    ]


def starting_network(start: Any) -> Any:
    """Return the start's network, its weights in place."""
    network = build_network(Architecture("mobilenetv2_100", {"pad_type": "same"}))
    network.load_state_dict(start.build().state_dict())
    round_weights(network)
    return network.to(memory_format=import_torch().channels_last)


def round_weights(module: Any) -> None:
    """Round matrices to bfloat16: what computes in it then rounds activations alone, and half precision holds them."""
    torch = import_torch()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.copy_(parameter.bfloat16().float())


def half_precision(module: Any, prefix: str = "") -> dict[str, NDArray[Any]]:
    """Return tensors as a bundle names them: matrices in float16, the rest in float32."""
    tensors = {}
    for name, value in module.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            array = value.detach().contiguous().numpy()
            tensors[prefix + name.removeprefix("net.")] = array.astype(np.float16 if array.ndim > 1 else np.float32)
    return tensors


def training_facts(recipe: Recipe, curve: list[dict[str, float]], sets: list[TileSet], start: str) -> dict[str, Any]:
    """Return what bundle.json says about the training."""
    return {
        "slides": sorted({slide for one in sets for slide in one.slides}),
        "patients": sorted({patient for one in sets for patient in one.patients}),
        "files": sorted(file for one in sets for file in one.files),
        "tiles": {one.name: len(one.pixels) for one in sets},
        "start": start,
        "recipe": asdict(recipe),
        "curve": [{key: round(value, 4) for key, value in row.items()} for row in curve[:: max(1, len(curve) // 40)]],
        "date": datetime.date.today().isoformat(),
        "versions": {
            "python": platform.python_version(), "torch": import_torch().__version__, "timm": import_timm().__version__,
        },
    }  # fmt: skip


def save(out: Path, parts: Parts, facts: dict[str, Any], card: str, phantoms: TileSet, licence_text: bytes) -> None:
    """Write the bundle; its reference tiles for other precisions are synthetic, `make_check_tiles` adds others."""
    rows = np.linspace(0, len(phantoms.pixels) - 1, 12).astype(int)
    parameters = {
        "timm": "mobilenetv2_100", "kwargs": {"pad_type": "same"}, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5],
        "mpp": [1.0, 1.0], "dim": FEATURES,
    }  # fmt: skip
    save_bundle(
        out,
        name="hne-small",
        kind="encoder",
        model={"type": "timm", "parameters": parameters},
        grid={"tile_px": TILE_PX, "mpp": SPEC.mpp, "overlap_px": 0, "min_tissue": 0.25},
        tensors=half_precision(parts.network),
        training=facts | {"descriptor": DESCRIPTOR},
        card=card,
        licence="Apache-2.0",
        notice=NOTICE,
        extra_files={
            HEADS: tensor_bytes(half_precision(parts.descriptor, "descriptor.")),
            "check/tiles.safetensors": tensor_bytes({"tiles": phantoms.pixels[rows]}),
            "LICENSE-Apache-2.0.txt": licence_text,
        },
    )


if __name__ == "__main__":
    sys.exit(main())
