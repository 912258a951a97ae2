"""Train and judge the shipped encoder `hne-small`: tiles of 128 px at 1 um per pixel -> 256 numbers.

MobileNetV2 with ImageNet weights, a linear projection that begins as its principal components, then fine-tuned at once
by contrast (two views of a tile, NT-Xent) and by labels where the licence gives some. The first three stages stay as
they were: edges need no pathology, and they cost half of the time on a CPU. Its normalisation layers are folded, so the
network stays in evaluation mode throughout.

    python scripts/train_hne_small.py --weights mobilenetv2_100_in1k_coral_ptq.safetensors --data DATA --phantoms COHORT

`--weights` needs its JSON card beside it; `--data` holds ``tiles/``, ``cohort/`` and ``LICENSES/``; `--phantoms` is a
cohort of task ``sln`` with splits train and test. The shipped one was trained on

    slnpredict phantom --task sln --count 120 --seed 1 --lab A,B,C   --split train --out COHORT
    slnpredict phantom --task sln --count 30  --seed 2 --lab A,B,C   --split val   --out COHORT
    slnpredict phantom --task sln --count 100 --seed 3 --lab A,B,C,D --split test  --out COHORT

and took nine minutes of one core.
"""

from __future__ import annotations

import argparse
import datetime
import math
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hne_small_report import Judged, card_text, judge_encoders
from hne_small_tiles import (
    SPEC,
    TILE_PX,
    TileSet,
    held_out,
    make_node_phantoms,
    read_phantoms,
    read_real_slides,
    read_tile_set,
)
from numpy.typing import NDArray

from napari_slnpredict.bundles.bundle import SHIPPED, save_bundle, tensor_bytes
from napari_slnpredict.encode.architecture import Architecture, build_network
from napari_slnpredict.encode.augment import ViewSpec, views
from napari_slnpredict.encode.encoder import load_encoder
from napari_slnpredict.encode.simclr import nt_xent
from napari_slnpredict.torch_door import import_torch

DIM = 256
FROZEN = ("conv_stem", "bn1", "blocks.0.", "blocks.1.", "blocks.2.")
#: Crops keep three quarters of the area: more would enlarge an ordinary nucleus to the size of an atypical one.
VIEWS = ViewSpec(crop=(0.75, 1.0))
#: Side in px at about 1 um/px, as far as it is known, before cutting or padding to 128.
# CRC-VAL-HE-7K stays out: copies of it name different licences, and its own could not be read.
TILE_SETS = {"pcam_lymph_node": 96, "oral_tissue": 128, "osteosarcoma": 512}
NOTICE = (
    "Demonstration encoder, trained on synthetic slides and a few hundred public tiles. "
    "For research; it tells nothing about a patient."
)


@dataclass(frozen=True)
class Recipe:
    """How long and how fast."""

    steps: int
    batch: int = 64
    rate: float = 3e-4
    temperature: float = 0.2
    labels: float = 1.0  # weight of the labels' loss beside the contrastive one
    seed: int = 8


def main() -> None:
    """Read tiles, train, save the bundle, judge it, write its card."""
    args = _arguments()
    torch = import_torch()
    torch.set_num_threads(args.threads)
    recipe = Recipe(args.steps)
    began = time.process_time()
    start = load_encoder(f"local:{args.weights}")
    licence_text = (args.data / "LICENSES" / "Apache-2.0.txt").read_bytes()
    labelled, unlabelled, pcam = gather(args.data, args.phantoms)
    print(f"tiles: {[(one.name, len(one.pixels)) for one in [*labelled, *unlabelled]]}", flush=True)
    network = begin(start, [*labelled, *unlabelled])
    curve = fit(network, labelled, unlabelled, recipe)
    tensors = half_precision(network)
    facts = training_facts(recipe, curve, labelled, unlabelled, args)
    facts["cpu_seconds"] = round(time.process_time() - began)
    save(args.out, tensors, facts, card_text({}, facts), labelled[0], licence_text)
    encoders = {
        "hne-small": load_encoder(f"local:{args.out}"),
        "start (ImageNet)": start,
        "random weights": load_encoder("random:mobilenetv2_100"),
    }
    unseen = read_phantoms(args.phantoms, "test", 6, 1)
    facts["judged_on"] = {"pcam": len(pcam.pixels), "phantom": len(unseen.pixels)}
    facts["metrics"] = judge_encoders(encoders, Judged(labelled[2], pcam, labelled[0], unseen))
    save(args.out, tensors, facts, card_text(facts["metrics"], facts), labelled[0], licence_text)
    print((args.out / "README.md").read_text())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="safetensors with its JSON card beside it")
    parser.add_argument("--data", type=Path, required=True, help="folder with tiles/, cohort/, LICENSES/")
    parser.add_argument("--phantoms", type=Path, required=True, help="folder of a phantom cohort, task sln")
    parser.add_argument("--out", type=Path, default=SHIPPED / "hne-small")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def gather(data: Path, phantoms: Path) -> tuple[list[TileSet], list[TileSet], TileSet]:
    """Return labelled tiles (phantoms, nodes, PCam, others), unlabelled tiles, and the PCam tiles that are held out."""
    sets = {name: read_tile_set(data / "tiles", name, side) for name, side in TILE_SETS.items()}
    pcam = sets["pcam_lymph_node"]
    away = np.array([held_out(name) for name in pcam.groups])
    labelled = [read_phantoms(phantoms, "train", 12, 0), make_node_phantoms(36, 7_000_000, 10), pcam.part(~away)]
    labelled += [sets[name] for name in TILE_SETS if name != "pcam_lymph_node"]
    return labelled, [read_real_slides(data / "cohort", 150, 2)], pcam.part(away)


def begin(start: Any, sets: list[TileSet]) -> Any:
    """Return the network with the start's weights; its projection holds the principal components of its features."""
    torch = import_torch()
    network = build_network(Architecture("mobilenetv2_100", {"pad_type": "same"}, projection=DIM))
    network.net.load_state_dict(start.build().net.state_dict())
    rng = np.random.default_rng(0)
    tiles = np.concatenate([one.pixels[rng.permutation(len(one.pixels))[:300]] for one in sets])
    with torch.inference_mode():
        features = torch.cat([network.net(_normalised(as_tensor(part))) for part in np.array_split(tiles, 20)])
    centre = features.mean(dim=0)
    _, spread, axes = torch.linalg.svd(features - centre, full_matrices=False)
    scale = 1.0 / (spread[:DIM].mean() / math.sqrt(len(features)))
    with torch.no_grad():
        network.projection.weight.copy_(axes[:DIM] * scale)
        network.projection.bias.copy_(-(axes[:DIM] @ centre) * scale)
    for name, parameter in network.net.named_parameters():
        parameter.requires_grad_(not name.startswith(FROZEN))
    return network.to(memory_format=torch.channels_last)


def as_tensor(tiles: NDArray[np.uint8]) -> Any:
    """Return tiles as (b, 3, h, w) float32, 0 to 1."""
    return import_torch().from_numpy(np.ascontiguousarray(tiles)).permute(0, 3, 1, 2).float() / 255


def _normalised(tiles: Any) -> Any:
    return (tiles - 0.5) / 0.5


class Sampler:
    """Draws a batch: half phantoms by kind, a quarter other labelled tiles by class, a quarter unlabelled."""

    def __init__(self, labelled: list[TileSet], unlabelled: list[TileSet], batch: int, seed: int) -> None:
        self.labelled, self.unlabelled, self.batch = labelled, unlabelled, batch
        self.rng = np.random.default_rng(seed)

    def draw(self) -> tuple[NDArray[np.uint8], list[tuple[int, NDArray[np.int64]]]]:
        """Return tiles, and for each set of labels the head to use and the labels of the rows, -1 elsewhere."""
        quarter = self.batch // 4
        plan = [(0, 5 * quarter // 4), (1, 3 * quarter // 4)]
        plan += [(int(self.rng.integers(2, len(self.labelled))), quarter)]
        tiles, labels, place = [], [], 0
        for which, count in plan:
            rows = self._by_class(self.labelled[which].labels, count)
            tiles.append(self.labelled[which].pixels[rows])
            row_labels = np.full(self.batch, -1)
            row_labels[place : place + count] = self.labelled[which].labels[rows]
            labels.append((max(which - 1, 0), row_labels))  # both phantom sets share head 0
            place += count
        for _ in range(self.batch - place):
            source = self.unlabelled[self.rng.integers(len(self.unlabelled))]
            tiles.append(source.pixels[self.rng.integers(len(source.pixels))][None])
        return np.concatenate(tiles), labels

    def _by_class(self, labels: NDArray[np.int64], count: int) -> NDArray[np.int64]:
        wanted = self.rng.choice(np.unique(labels), count)
        return np.array([self.rng.choice(np.flatnonzero(labels == one)) for one in wanted])


def fit(network: Any, labelled: list[TileSet], unlabelled: list[TileSet], recipe: Recipe) -> list[dict[str, float]]:
    """Fine-tune the network in place; return the training curve."""
    torch = import_torch()
    torch.manual_seed(recipe.seed)
    rng = torch.Generator().manual_seed(recipe.seed)
    sampler = Sampler(labelled, unlabelled, recipe.batch, recipe.seed)
    contrast = torch.nn.Sequential(torch.nn.Linear(DIM, DIM), torch.nn.ReLU(), torch.nn.Linear(DIM, 128))
    widths = [len(one.classes) for one in (labelled[0], *labelled[2:])]
    heads = torch.nn.ModuleList(torch.nn.Linear(DIM, width) for width in widths)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": trained, "lr": recipe.rate},
        {"params": [*contrast.parameters(), *heads.parameters()], "lr": 5 * recipe.rate},
    ]
    optimiser = torch.optim.AdamW(groups, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, recipe.steps))
    curve = []
    for step in range(recipe.steps):
        tiles, labels = sampler.draw()
        given = as_tensor(tiles)
        pair = torch.cat([views(given, VIEWS, rng), views(given, VIEWS, rng)])
        features = network(_normalised(pair).contiguous(memory_format=torch.channels_last))  # (2 b, d)
        z = contrast(features)
        far = nt_xent(z[: len(given)], z[len(given) :], recipe.temperature)
        named = sum(
            torch.nn.functional.cross_entropy(
                heads[head](features), torch.from_numpy(np.tile(rows, 2)), ignore_index=-1
            )
            for head, rows in labels
        )
        loss = far + recipe.labels * named / len(labels)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 5.0)
        optimiser.step()
        schedule.step()
        curve.append({"step": step, "contrast": float(far.detach()), "labels": float(named.detach()) / len(labels)})
        if step % 20 == 0:
            print(curve[-1], f"{time.process_time():.0f} s", flush=True)
    return curve


def _rate(step: int, steps: int) -> float:
    warm = max(1, steps // 20)
    return min(1.0, (step + 1) / warm) * 0.5 * (1 + math.cos(math.pi * step / steps))


def half_precision(network: Any) -> dict[str, NDArray[Any]]:
    """Return the tensors as a bundle names them: float16, normalisation in float32."""
    tensors = {}
    for name, value in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        array = value.detach().contiguous().numpy()
        small = array.ndim > 1
        tensors[name.removeprefix("net.")] = array.astype(np.float16) if small else array.astype(np.float32)
    return tensors


def training_facts(
    recipe: Recipe, curve: list[dict[str, float]], labelled: list[TileSet], unlabelled: list[TileSet], args: Any
) -> dict[str, Any]:
    """Return what bundle.json says about the training."""
    import timm

    sets = [*labelled, *unlabelled]
    return {
        "slides": sorted({slide for one in sets for slide in one.slides}),
        "patients": sorted({patient for one in sets for patient in one.patients}),
        "tiles": {one.name: len(one.pixels) for one in sets},
        "start": args.weights.name,
        "recipe": {
            "steps": recipe.steps, "batch": recipe.batch, "rate": recipe.rate, "temperature": recipe.temperature,
            "labels": recipe.labels, "seed": recipe.seed, "frozen": list(FROZEN),
        },
        "curve": [{key: round(value, 4) for key, value in row.items()} for row in curve[:: max(1, len(curve) // 40)]],
        "date": datetime.date.today().isoformat(),
        "versions": {
            "python": platform.python_version(), "torch": import_torch().__version__, "timm": timm.__version__,
        },
    }  # fmt: skip


def save(
    out: Path, tensors: dict[str, Any], facts: dict[str, Any], card: str, phantoms: TileSet, licence_text: bytes
) -> None:
    """Write the bundle; the reference tiles for other precisions are synthetic."""
    rows = np.linspace(0, len(phantoms.pixels) - 1, 12).astype(int)
    save_bundle(
        out,
        name="hne-small",
        kind="encoder",
        model={
            "type": "timm",
            "parameters": {
                "timm": "mobilenetv2_100",
                "kwargs": {"pad_type": "same"},
                "projection": DIM,
                "mean": [0.5, 0.5, 0.5],
                "std": [0.5, 0.5, 0.5],
                "mpp": [1.0, 1.0],
                "dim": DIM,
            },
        },
        grid={"tile_px": TILE_PX, "mpp": SPEC.mpp, "overlap_px": 0, "min_tissue": 0.25},
        tensors=tensors,
        training=facts,
        card=card,
        licence="Apache-2.0",
        notice=NOTICE,
        extra_files={
            "check/tiles.safetensors": tensor_bytes({"tiles": phantoms.pixels[rows]}),
            "LICENSE-Apache-2.0.txt": licence_text,
        },
    )


if __name__ == "__main__":
    sys.exit(main())
