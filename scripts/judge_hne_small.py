"""Judge `hne-small` on tiles that no training has seen, beside what it must beat, and write its card.

    python scripts/judge_hne_small.py --weights mobilenetv2_100_in1k_coral_ptq.safetensors --data DATA

The half of each labelled set that `tile_split.csv` calls "test", and the cohort's H&E slides of ``split=test`` (labels
of slides; another slide's tiles are the gallery). This script is run once, after the recipe was chosen. `--data` holds
``weights/`` with the other ImageNet networks, too. `--previous` is a bundle to compare with.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from hne_small_card import card_text
from hne_small_report import (
    Answers,
    Questions,
    answers,
    chance_at,
    colours_of,
    draws_of,
    features_of,
    histograms_of,
    interval,
)
from hne_small_tiles import TILE_SETS, TileSet, read_half, slide_set
from make_tile_split import HELD_OUT
from numpy.typing import NDArray

from napari_slnpredict.bundles.bundle import SHIPPED, Bundle, load_bundle, save_bundle
from napari_slnpredict.encode.encoder import load_encoder
from napari_slnpredict.encode.trained import load_projection
from napari_slnpredict.files import digest_bytes, write_json
from napari_slnpredict.torch_door import import_torch

OWN, START, RANDOM = "hne-small", "its start (MobileNetV2, ImageNet)", "random weights"
COLOURS, HISTOGRAM, COHORT = "mean and deviation of the colours", "colour histogram", "cohort test slides"
#: What an arm is made of: features and descriptors of tiles.
Arm = Callable[[NDArray[np.uint8]], tuple[NDArray[np.float32], NDArray[np.float32]]]


def main() -> None:
    """Judge every arm, write figures into the bundle and the card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="the start: safetensors with its JSON card")
    parser.add_argument("--data", type=Path, required=True, help="folder with tiles/, cohort/, weights/")
    parser.add_argument("--bundle", type=Path, default=SHIPPED / "hne-small")
    parser.add_argument("--previous", type=Path, help="another bundle, as a further line")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="also write the figures here, JSON")
    parser.add_argument(
        "--keep", type=Path, help="folder for what the other arms make of the tiles: a second run is short"
    )
    parser.add_argument("--enlarged", action="store_true", help="ImageNet networks on enlarged tiles, too: slow")
    parser.add_argument("--others-only", action="store_true", help="fill --keep, and do not look at hne-small")
    args = parser.parse_args()
    import_torch().set_num_threads(args.threads)
    sets = held_out_sets(args.data)
    questions = Questions(
        {one.name: one.labels for one in sets},
        {one.name: one.groups for one in sets},
        {one.name: draws_of(one.groups, one.labels) for one in sets},
    )
    found: dict[str, dict[str, Answers]] = {}
    for name, arm in arms(args):
        if args.others_only and name.startswith(OWN):
            continue
        keep = None if name.startswith(OWN) else args.keep
        found[name] = {one.name: kept_answers(keep, name, arm, one) for one in sets}
        print(name, {one: round(float(a.found.mean()), 3) for one, a in found[name].items()}, flush=True)
    if args.others_only:
        return
    figures = compare(found, questions)
    figures["chance"] = {one.name: round(chance_at(one.labels, one.groups), 3) for one in sets}
    figures["tiles"] = {one.name: [len(one.labels), len(set(one.groups))] for one in sets}
    if args.out:
        write_json(args.out, figures)
    bundle = rewritten(load_bundle(args.bundle), figures)
    print(bundle.card)


def kept_answers(folder: Path | None, name: str, arm: Arm, tiles: TileSet) -> Answers:
    """Return what an arm answers, from the folder where it did before."""
    if folder is None:
        return answers(*arm(tiles.pixels), tiles.labels, tiles.groups)
    path = folder / f"{digest_bytes(name, tiles.pixels.tobytes(), tiles.labels.tobytes())[:24]}.npz"
    if not path.exists():
        fresh = answers(*arm(tiles.pixels), tiles.labels, tiles.groups)
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(path, found=fresh.found, said=fresh.said)
    with np.load(path) as held:
        return Answers(held["found"], held["said"])


def held_out_sets(data: Path) -> list[TileSet]:
    """Return what is judged: the halves nothing has learned from, and the cohort's test slides."""
    halves = [read_half(data / "tiles", name, HELD_OUT) for name in TILE_SETS]
    slides = slide_set(data / "cohort", "test", 40)
    cohort = TileSet(COHORT, slides.pixels, slides.labels, slides.groups, slides.classes)
    return [*halves, cohort]


def arms(args: argparse.Namespace) -> Iterator[tuple[str, Arm]]:
    """Yield name and function of everything that is compared."""
    bundle = load_bundle(args.bundle)
    yield OWN, of_bundle(bundle)
    yield f"{OWN}, the pooled feature for both", plain(load_encoder(f"local:{args.bundle}"))
    yield START, plain(load_encoder(f"local:{args.weights}"))
    for path in sorted((args.data / "weights").glob("*.safetensors")):
        name = path.stem.split("_in1k")[0].replace("_layer1-3", " layer1-3")
        if path.name != args.weights.name:
            yield f"{name}, ImageNet", plain(load_encoder(f"local:{path}"))
    yield RANDOM, plain(load_encoder("random:mobilenetv2_100"))
    yield HISTOGRAM, lambda tiles: (histograms_of(tiles),) * 2
    yield COLOURS, standardised_colours
    if args.previous:
        yield "the hne-small before", plain(load_encoder(f"local:{args.previous}"))
    for path in sorted((args.data / "weights").glob("*.safetensors")) if args.enlarged else ():
        name = path.stem.split("_in1k")[0].replace("_layer1-3", " layer1-3")
        yield f"{name}, ImageNet, tiles enlarged to 224 px", plain(load_encoder(f"local:{path}"), 224)


def plain(encoder: Any, side: int | None = None) -> Arm:
    """Return an arm whose descriptors are its features."""
    return lambda tiles: (features_of(encoder, tiles, side),) * 2


def of_bundle(bundle: Bundle) -> Arm:
    """Return an arm that describes tiles by its own layer."""
    encoder, layer = load_encoder(f"local:{bundle.folder}"), load_projection(bundle)
    if layer is None:
        sys.exit(f"{bundle.folder} has no layer to descriptors")

    def arm(tiles: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        features = features_of(encoder, tiles)
        return features, features @ layer.weight.T + layer.bias

    return arm


def standardised_colours(tiles: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return colours as they are and standardised: a cosine of the bare ones would compare brightness alone."""
    colours = colours_of(tiles)
    return colours, (colours - colours.mean(axis=0)) / colours.std(axis=0)


def compare(found: dict[str, dict[str, Answers]], questions: Questions) -> dict[str, Any]:
    """Return each arm's figures with intervals, set by set and pooled, and what `hne-small` gains over it."""
    pools = {name: (name,) for name in questions.labels} | {"pooled tile sets": tuple(TILE_SETS)}
    result: dict[str, Any] = {"scores": {}, "gains": {}}
    for pool, names in pools.items():
        own = questions.figures(found[OWN], names)
        for arm, given in found.items():
            here = questions.figures(given, names)
            for figure, values in here.items():
                result["scores"].setdefault(arm, {}).setdefault(pool, {})[figure] = _rounded(interval(values))
                if arm != OWN:
                    gain = _rounded(interval(own[figure] - values))
                    result["gains"].setdefault(arm, {}).setdefault(pool, {})[figure] = gain
    return result


def _rounded(values: tuple[float, ...]) -> list[float]:
    return [round(value, 4) for value in values]


def rewritten(bundle: Bundle, figures: dict[str, Any]) -> Bundle:
    """Write the bundle again, with figures and the card that says them."""
    others = [name for name in bundle.files if name not in ("weights.safetensors", "README.md")]
    training = {**bundle.training, "metrics": figures}
    return save_bundle(
        bundle.folder, name=bundle.name, kind=bundle.kind, model=bundle.model, tensors=bundle.tensors(),
        card=card_text(training), task=bundle.task, encoder=bundle.encoder, grid=bundle.grid,
        calibration=bundle.calibration, training=training, licence=bundle.licence, notice=bundle.notice,
        extra_files={name: (bundle.folder / name).read_bytes() for name in others},
    )  # fmt: skip


if __name__ == "__main__":
    main()
