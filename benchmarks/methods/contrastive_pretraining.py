"""Claim 1: contrastive pre-training on H&E beats ImageNet features for the slide task.

"Sentinel lymph node status prediction using self-attention networks and contrastive learning" (MIDL 2022) says so of
melanoma; its cohort is private, so that nobody else can repeat its figures. What can be tested is the mechanism: slides
whose label depends on a part of their tiles (phantoms of task `sln`), an encoder trained without labels on the
*training* slides alone, frozen, and a MIL head on its features against the same head on the features of the network the
training began with, and on random ones. A sister paper (CaPTion 2022) adds that contrastive pre-training moves
attention to tumour and away from artefacts: phantoms know where both lie.

    .venv/bin/python benchmarks/methods/contrastive_pretraining.py --data DATA --out OUT
    .venv/bin/python benchmarks/methods/contrastive_pretraining.py --smoke

`--cohort C.csv` takes real slides instead (columns path, patient, label with two values, split with train, val, test).
Heads are trained by one recipe for all arms, stopped early on `val`; `test` is looked at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import claim_data
import numpy as np
from claim_arms import Arm, Bench, untrained
from claim_data import Part, Tiles
from claim_options import conditions, grid_of, parser, prepared, schedule, start_of
from claim_verdict import Measured, Report, auc, mean, show
from numpy.typing import NDArray

from napari_slnpredict.cohort.public import camelyon16_cohort
from napari_slnpredict.cohort.table import Row
from napari_slnpredict.encode.record import Encoder
from napari_slnpredict.encode.simclr import SimClr, SimClrSettings
from napari_slnpredict.events import run
from napari_slnpredict.files import digest_bytes
from napari_slnpredict.mil.positions import centre_on_components
from napari_slnpredict.mil.tiles import bag_tiles
from napari_slnpredict.mil.train import Recipe, TrainingBag, fit
from napari_slnpredict.phantom.scene import Tissue

HEADS = {
    "gated": {"hidden": 128, "attention": 64, "dropout": 0.25},
    "self-attention": {"width": 128, "layers": 2, "heads": 4, "dropout": 0.25, "positions": "sinusoid"},
}
#: Chosen of four by the AUC on `val` of heads on the start's features: what choice there was favours the baseline. With
#: attention pressed towards equal, as for the shipped head, nothing is learned where 3 % of the tiles tell.
RECIPE = Recipe(epochs=60, patience=20, learning_rate=3e-4, tiles=0, spread=0.03, smoothing=0.05)
PAPER = (
    "contrastive pre-training on H&E gives better slide predictions than ImageNet features (MIDL 2022); attention goes "
    "to tumour and away from artefacts (CaPTion 2022)"
)
PUBLIC = """# Camelyon16: a fifth of its training slides becomes the validation part; tiles are held in memory, 20 GB
python benchmarks/methods/contrastive_pretraining.py --camelyon16 CAMELYON16 --out OUT --start timm:resnet50.a1_in1k \\
    --tile 224 --mpp 0.5 --most 300 --pretrain-slides 999 --steps 20000 --batch 256 --seeds 5 --device cuda \\
    --precision bf16"""
#: Labels come in pairs: so each laboratory has both equally often. Else it tells the label by chance in one split, and
#: the other way round in the next.
LABS = "A,A,B,B,C,C"
#: Where attention is looked for: field of `Said`, measure, what is claimed.
ATTENTION = (
    ("tumour", "attention on tumour, times its area", "attention goes to tumour"),
    ("artefact", "attention on artefacts, times their area", "attention leaves artefacts"),
)
#: Of a slide's tissue: with less of an artefact than this there is nothing to attend to.
LEAST_SHARE = 0.005
SPLITS = ("train", "val", "test")
OURS, BASELINE, BLIND = "SimCLR from the start", "the start, frozen", "random weights"


@dataclass(frozen=True)
class Said:
    """What an encoder's heads say of the test slides.

    Attributes
    ----------
    probability : (slides, heads)
    tumour, artefact : (slides, heads)
        Attention on it over its share of the tissue; NaN where there is none.
    """

    probability: NDArray[np.float64]
    tumour: NDArray[np.float64]
    artefact: NDArray[np.float64]


def together(heads: list[NDArray[np.float64]]) -> Said:
    """Return what several heads say, each (slides, 3)."""
    return Said(*np.stack(heads, axis=-1).transpose(1, 0, 2))


def options_of(given: list[str] | None) -> argparse.Namespace:
    made = parser(__doc__, steps=100, batch=64, seeds=3)
    made.add_argument("--camelyon16", help="folder of Camelyon16 instead of phantoms")
    made.add_argument("--cohort", help="CSV of real slides instead of phantoms")
    made.add_argument("--head", choices=sorted(HEADS), default="gated")
    made.add_argument("--heads", type=int, default=2, help="heads trained on each encoder, differing by seed")
    made.add_argument("--slides", type=int, nargs=3, default=(80, 24, 60), metavar=("TRAIN", "VAL", "TEST"))
    made.add_argument("--pretrain-slides", type=int, default=30, help="of the training slides the encoder sees so many")
    made.add_argument("--labs", default=LABS, help="laboratories of the phantoms, in turn")
    made.add_argument("--size", type=float, default=1.6, help="width of a phantom slide, mm")
    made.add_argument("--most", type=int, default=160, help="tiles of a slide")
    options = prepared(made, given)
    if options.smoke:
        options.slides, options.size, options.most, options.heads = (2, 2, 4), 0.4, 8, 1
    return options


def main(given: list[str] | None = None) -> Report:
    """Train, look, judge."""
    options = options_of(given)
    start = start_of(options)
    sets = read_sets(options)
    seen = first_slides(sets["train"], options.pretrain_slides)
    bench = Bench(options.out, options.device, options.precision)
    said: dict[str, list[Said]] = {}
    arms = arms_of(options, start)
    for seed in range(options.seeds):
        for arm in arms:
            # What was not trained has one set of features; its heads still differ by seed.
            vectors = bench.vectors(arm, seed if arm.method else 0, seen, sets)
            heads = [judged(vectors, sets, options, seed * options.heads + number) for number in range(options.heads)]
            said.setdefault(arm.name, []).append(together(heads))
        report = reported(said, sets, options, start)
        show(report, options.out, final=seed == options.seeds - 1)
    return report


def arms_of(options: argparse.Namespace, start: Encoder) -> list[Arm]:
    """Return the encoders compared."""
    common = schedule(options)
    arms = [
        Arm(BLIND, untrained(start)),
        Arm(OURS, start, lambda seed: SimClr(SimClrSettings(seed=seed, least_crop=0.6, **common))),
    ]
    return arms if start.weights is None else [*arms, Arm(BASELINE, start)]


def read_sets(options: argparse.Namespace) -> dict[str, Tiles]:
    """Return the tiles of the three splits; a tile's label is its slide's."""
    if options.cohort or options.camelyon16:
        rows = claim_data.cohort_rows(options.cohort) if options.cohort else camelyon_rows(options.camelyon16)
        own = {split: [row for row in rows if row.split == split] for split in SPLITS}
        return {split: claim_data.slides(own[split], grid_of(options), options.most) for split in SPLITS}
    counts = zip(SPLITS, options.slides, strict=True)
    parts = [Part(split, count, seed, options.labs) for seed, (split, count) in enumerate(counts, 11)]
    return claim_data.phantoms(options.out, "sln", parts, grid_of(options), size_mm=options.size, most=options.most)


def camelyon_rows(folder: str) -> list[Row]:
    """Return Camelyon16's slides; a fifth of its training slides, by the hash of their names, is for validation."""
    rows = list(camelyon16_cohort(Path(folder)).rows)
    held = {row.slide for row in rows if row.split == "train" and int(digest_bytes(row.slide)[:8], 16) % 5 == 0}
    return [dataclasses.replace(row, split="val") if row.slide in held else row for row in rows]


def first_slides(tiles: Tiles, count: int) -> Tiles:
    """Return the tiles of the first slides, as if there were no others."""
    some = tiles.take(np.flatnonzero(tiles.table.slide < count))
    return dataclasses.replace(some, table=dataclasses.replace(some.table, slides=some.table.slides[:count]))


def slide_rows(tiles: Tiles) -> list[NDArray[np.int64]]:
    """Return the rows of each slide."""
    return [np.flatnonzero(tiles.table.slide == number) for number in range(len(tiles.table.slides))]


def bags(features: NDArray[np.float32], tiles: Tiles) -> list[TrainingBag]:
    """Return one bag a slide."""
    table, made = tiles.table, []
    for rows in slide_rows(tiles):
        places = centre_on_components(table.centre_um[rows], table.component[rows])
        made.append(TrainingBag(features[rows], int(table.label[rows[0]]), places))
    return made


def judged(
    vectors: dict[str, NDArray[np.float32]], sets: dict[str, Tiles], options: Any, seed: int
) -> NDArray[np.float64]:
    """Train one head and ask it about the test slides: probability, tumour, artefact, (slides, 3)."""
    recipe = dataclasses.replace(RECIPE, seed=seed, epochs=3 if options.smoke else RECIPE.epochs)
    classes = sets["train"].table.classes
    learnt = run(
        fit(bags(vectors["train"], sets["train"]), bags(vectors["val"], sets["val"]), classes, options.head,
            HEADS[options.head], recipe)
    ).head  # fmt: skip
    test, lines = sets["test"], []
    for rows in slide_rows(test):
        tiles = bag_tiles(vectors["test"][rows], test.table.centre_um[rows], test.table.component[rows])
        weighed = run(learnt.module.weigh(tiles))
        lines.append((learnt.probabilities(weighed.logits)[1], *attended(weighed.attention, test, rows)))
    return np.array(lines)


def attended(attention: NDArray[np.float64] | None, tiles: Tiles, rows: NDArray[np.int64]) -> tuple[float, float]:
    """Return how many times its area's share of attention tumour and artefacts get; NaN where there are none."""
    if attention is None or tiles.kinds is None or tiles.artefact is None:
        return float("nan"), float("nan")
    tumour, artefact = tiles.share(Tissue.NEST, Tissue.ALTERED)[rows], tiles.artefact[rows]
    return _times(attention, tumour), _times(attention, artefact)


def _times(attention: NDArray[np.float64], share: NDArray[np.float32]) -> float:
    return float(attention @ share / share.mean()) if share.mean() > LEAST_SHARE else float("nan")


def reported(said: dict[str, list[Said]], sets: dict[str, Tiles], options: Any, start: Encoder) -> Report:
    """Return figures and verdicts of what there is so far."""
    test = sets["test"]
    first = [rows[0] for rows in slide_rows(test)]
    labels, patients = test.table.label[first], test.table.group[first]
    what = conditions(options, start, len(said[OURS])) | {
        "data": options.cohort
        or options.camelyon16
        or f"phantoms sln, {options.size:g} mm, laboratories {options.labs}",
        "slides": " / ".join(f"{len(one.table.slides)} {name}" for name, one in sets.items()),
        "head": f"{options.head}, {options.heads} an encoder",
    }
    report = Report("Contrastive pre-training on H&E beats ImageNet for the slide task", PAPER, what, PUBLIC)
    slides = {arm: [one.probability for one in seeds] for arm, seeds in said.items()}
    measured = report.add(Measured("slide AUC", auc, labels, patients, slides))
    baseline = BASELINE if BASELINE in said else BLIND
    part = "better slide predictions than ImageNet" if baseline == BASELINE else "better slide predictions than random"
    report.findings.append(measured.finding(part, OURS, baseline))
    if test.kinds is not None:
        attention(report, said, patients, baseline)
    if baseline == BLIND:
        report.notes.append("No ImageNet weights were given (--start or --data): the claim itself was not tested.")
    seen = min(options.pretrain_slides, len(sets["train"].table.slides))
    report.notes.append(f"Pre-training saw tiles of {seen} training slides alone: not transductive.")
    return report


def attention(report: Report, said: dict[str, list[Said]], patients: NDArray[np.int64], baseline: str) -> None:
    """Add how attention lies: how many times the tissue's share of area. Slides without the tissue are left out."""
    for part, name, words in ATTENTION:
        values = {arm: [getattr(one, part) for one in seeds] for arm, seeds in said.items()}
        has = np.isfinite(values[OURS][0][:, 0])
        if has.sum() < 2:
            continue
        kept = {arm: [one[has] for one in seeds] for arm, seeds in values.items()}
        measured = report.add(Measured(name, mean, np.ones(has.sum(), int), patients[has], kept))
        report.findings.append(measured.finding(words, OURS, baseline, lower=part == "artefact"))


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
