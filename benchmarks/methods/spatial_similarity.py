"""Claim 3: descriptors learned from place alone find tumour tiles on other slides better than ImageNet features.

"Self-supervised similarity learning for digital pathology" (Gildenblat and Klaiman, arXiv 1905.08139): 128 numbers a
tile, better than ImageNet features in retrieving tumour tiles, judged also by the ratio of distances far over near.

    .venv/bin/python benchmarks/methods/spatial_similarity.py --data DATA --out OUT
    .venv/bin/python benchmarks/methods/spatial_similarity.py --smoke

On lymph-node phantoms (truth masks), and with --data on the outlined slides of the cohort, with an encoder trained on
the *other* slides of its training part: no outlined patient is seen. A question is a tumour tile; its answers are tiles
of other slides (of other patients, on the cohort); precision is averaged over the questions of a slide, then over
slides, because a slide with much tumour would else speak for all. Beside it: the features the training began with, the
same after PCA to 128 numbers (fitted on training tiles), random weights, a colour histogram, and chance.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path
from typing import Any, TypeAlias

import claim_data
import numpy as np
from claim_arms import Arm, Bench, untrained
from claim_data import Part, Tiles
from claim_options import conditions, grid_of, parser, prepared, schedule, start_of
from claim_verdict import Measured, Report, auc, mean, ratio, show
from numpy.typing import NDArray

from napari_slnpredict.encode.descriptor import describe
from napari_slnpredict.encode.record import Encoder
from napari_slnpredict.encode.similarity import PairPlanner, PairSpec, Similarity, SimilaritySettings
from napari_slnpredict.errors import DataError
from napari_slnpredict.evaluate.arms import colour_histogram
from napari_slnpredict.metrics.draws import Draws
from napari_slnpredict.metrics.neighbours import chance_precision, class_distances, retrieval_precision
from napari_slnpredict.phantom.scene import Tissue
from napari_slnpredict.slide.grid import GridSpec
from napari_slnpredict.torch_door import import_torch

PAPER = (
    "128-d descriptors learned from place retrieve tumour tiles better than ImageNet features and a generic "
    "self-supervised method; distances far over near of about 1.5 (arXiv 1905.08139)"
)
PUBLIC = """# Camelyon16: trained on its training slides, asked about its test slides; tiles are held in memory, 20 GB
python benchmarks/methods/spatial_similarity.py --camelyon16 CAMELYON16 --out OUT --start timm:resnet50.a1_in1k \\
    --tile 224 --mpp 1.0 --most 300 --steps 20000 --batch 256 --rate 1e-4 --seeds 3 --device cuda --precision bf16"""
OURS, FULL, SHORT, BLIND, HISTOGRAM = "similarity, 128", "start, full", "start, PCA to 128", "random, full", "histogram"
TOP = (1, 5, 10)
#: Tiles of the cohort's slides are laid at the coarsest of their resolutions: none is enlarged.
COHORT_MPP = 2.0
WIDTH = 128
#: The number of answers the verdict is about.
JUDGED_AT = 5
#: Descriptors of the test tiles, by arm, one array a seed.
Vectors: TypeAlias = dict[str, list[NDArray[np.float32]]]


def options_of(given: list[str] | None) -> argparse.Namespace:
    made = parser(__doc__, steps=100, batch=48, seeds=3)
    made.add_argument("--camelyon16", help="folder of Camelyon16 instead of phantoms")
    made.add_argument("--slides", type=int, nargs=2, default=(16, 32), metavar=("TRAIN", "TEST"))
    made.add_argument("--size", type=float, default=2.6, help="width of a phantom slide, mm")
    made.add_argument("--most", type=int, default=240, help="tiles of a slide")
    made.add_argument("--near-um", type=float, default=450.0)
    made.add_argument("--far-um", type=float, default=1700.0)
    options = prepared(made, given)
    if options.smoke:
        options.slides, options.size, options.most = (2, 4), 0.5, 40
        options.near_um, options.far_um = 100.0, 200.0
    return options


def main(given: list[str] | None = None) -> Report:
    """Train, look, judge; phantoms first, then the cohort."""
    options = options_of(given)
    start = start_of(options)
    tasks = [phantom_task(options)] if not options.camelyon16 else [camelyon_task(options)]
    if options.data and not options.camelyon16:
        tasks.append(cohort_task(options))
    bench = Bench(options.out, options.device, options.precision)
    found: dict[str, Vectors] = {task.name: {} for task in tasks}
    for seed in range(options.seeds):
        for task in tasks:
            task.look(bench, options, start, seed, found[task.name])
        report = reported(tasks, found, options, start)
        show(report, options.out, final=seed == options.seeds - 1)
    return report


@dataclasses.dataclass(frozen=True)
class Task:
    """Slides to learn from, and slides to ask about.

    Attributes
    ----------
    label : (n,) int64
        Of the test tiles: 1 tumour, 0 not, -1 nobody said.
    apart : str
        What a question and its answers must not share: "slide" or "patient".
    """

    name: str
    training: Tiles
    test: Tiles
    label: NDArray[np.int64]
    apart: str

    @property
    def words(self) -> str:
        """How much there is."""
        learn, ask = len(self.training.table.slides), len(np.unique(self.test.table.slide))
        return f"{learn} slides to learn from, {ask} to ask about, {(self.label == 1).sum()} tumour tiles of " + str(
            (self.label >= 0).sum()
        )

    @property
    def separate(self) -> NDArray[np.int64]:
        """What a question and its answers must not share, (n,)."""
        return self.test.table.slide if self.apart == "slide" else self.test.table.group

    def look(self, bench: Bench, options: Any, start: Encoder, seed: int, found: Vectors) -> None:
        """Add one seed's descriptors of the test tiles, and once those of the baselines."""
        sets = {"test": self.test}
        if not found:
            both = {"test": self.test, "training": self.training}
            plain = bench.vectors(Arm(f"start {self.name}", start), 0, self.training, both)
            found[FULL] = [describe(plain["test"])]
            found[SHORT] = [describe(reduced(plain["training"], plain["test"]))]
            blind = bench.vectors(Arm(f"random {self.name}", untrained(start)), 0, self.training, sets)
            found[BLIND] = [describe(blind["test"])]
            found[HISTOGRAM] = [describe(colour_histogram(self.test.pixels))]
            found[OURS] = []
        pairs = {"near_um": options.near_um, "far_um": options.far_um, "descriptor": WIDTH}
        arm = Arm(
            f"similarity {self.name}",
            start,
            lambda seed: Similarity(SimilaritySettings(seed=seed, **pairs, **schedule(options))),
        )
        found[OURS].append(bench.vectors(arm, seed, self.training, sets, descriptors=True)["test"])


def reduced(training: NDArray[np.float32], test: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return test features along the first 128 principal components of training features, (n, 128)."""
    centre = training.mean(axis=0)
    _, axes = np.linalg.eigh(np.cov((training - centre).T.astype(np.float64)))
    return np.asarray((test - centre) @ axes[:, ::-1][:, :WIDTH], np.float32)


def phantom_task(options: argparse.Namespace) -> Task:
    """Return lymph nodes with deposits; a tile is tumour where half of it is a deposit."""
    train, test = options.slides
    parts = [Part("train", train, 31), Part("test", test, 32, "A,B,C,D")]
    sets = claim_data.phantoms(
        options.out, "metastasis", parts, grid_of(options), size_mm=options.size, most=options.most
    )
    share = sets["test"].share(Tissue.DEPOSIT)
    label = np.where(share >= 0.5, 1, np.where(share < 0.1, 0, -1))
    return Task("phantoms", sets["train"], sets["test"], label, "slide")


def cohort_task(options: argparse.Namespace) -> Task:
    """Return the cohort: outlined slides to ask about, slides of other patients in its training part to learn from."""
    home = Path(options.data) / "cohort"
    spec = GridSpec(options.tile, COHORT_MPP, 0, 0.5)
    rows = claim_data.cohort_rows(home / "cohort.csv")
    asked = [row for row in rows if (home / "regions" / f"{row.slide}.geojson").is_file()]
    patients = {row.patient for row in asked}
    training = [row for row in rows if row.split == "train" and row.patient not in patients]
    test = claim_data.slides(asked, spec, 100_000)
    label = claim_data.outlined(test, asked, home / "regions")
    marked = np.flatnonzero(label >= 0)
    return Task("cohort", claim_data.slides(training, spec, options.most), test.take(marked), label[marked], "patient")


def camelyon_task(options: argparse.Namespace) -> Task:
    """Return Camelyon16: its own division, labels from its annotations."""
    from napari_slnpredict.encode.tile_inputs import open_tiles

    sets = {}
    for split in ("train", "test"):
        given = {"tile_px": options.tile, "mpp": options.mpp, "split": split, "most": options.most}
        with claim_data.do(open_tiles([f"camelyon16:{options.camelyon16}"], **given)) as data:
            sets[split] = claim_data.in_memory(data)
    table = sets["test"].table
    tumour = next(k for k, name in enumerate(table.classes) if name.lower().startswith("tumo"))
    label = np.where(table.label == tumour, 1, np.where(table.label >= 0, 0, -1))
    return Task("Camelyon16", sets["train"], sets["test"], label, "slide")


def by_group(values: NDArray[Any], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return means over the questions of each slide, (slides, ...)."""
    return np.stack([values[groups == one].mean(axis=0) for one in np.unique(groups)])


def reported(tasks: list[Task], found: dict[str, Vectors], options: Any, start: Encoder) -> Report:
    """Return figures and verdicts of what there is so far."""
    words = {f"data {task.name}": task.words for task in tasks}
    what = (
        conditions(options, start, len(found[tasks[0].name][OURS]))
        | words
        | {"near, far": f"{options.near_um:g}, {options.far_um:g} um"}
    )
    report = Report("Similarity learned from place retrieves tumour better than ImageNet", PAPER, what, PUBLIC)
    for task in tasks:
        retrieval(report, task, found[task.name])
        distances(report, task, found[task.name], options)
    report.notes.append(cost(found[tasks[0].name]))
    return report


def retrieval(report: Report, task: Task, found: Vectors) -> None:
    """Add precision among the first answers, mean over a slide's questions, then over slides."""
    known = np.flatnonzero(task.label >= 0)
    label, separate = task.label[known], task.separate[known]
    tumour = label == 1
    slides = np.unique(separate[tumour])

    def precise(one: NDArray[np.float32]) -> NDArray[np.float64]:
        return by_group(retrieval_precision(one[known], label, separate, TOP)[tumour], separate[tumour])

    lines = {arm: [precise(one) for one in seeds] for arm, seeds in found.items()}
    chance = by_group(chance_precision(label, separate)[tumour], separate[tumour])
    for column, k in enumerate(TOP):
        said = {arm: [one[:, column] for one in seeds] for arm, seeds in lines.items()} | {"chance": [chance]}
        measured = report.add(Measured(f"{task.name}, precision@{k}", mean, np.ones(len(slides), int), slides, said))
        if k == JUDGED_AT:
            for baseline in (FULL, SHORT):
                part = f"{task.name}: retrieves tumour better than {baseline}"
                report.findings.append(measured.finding(part, OURS, baseline))


def distances(report: Report, task: Task, found: Vectors, options: Any) -> None:
    """Add how distances tell far tiles from near ones (A), and tumour from the rest (B)."""
    known = np.flatnonzero(task.label >= 0)
    label, separate = task.label[known], task.separate[known]
    apart = {arm: [class_distances(one[known], label, separate) for one in seeds] for arm, seeds in found.items()}
    report.add(Measured(f"{task.name}, between/within class distance (B)", of_classes, label, separate, apart))
    table = task.test.table
    try:
        spec = PairSpec(options.near_um, options.far_um)
        pairs = PairPlanner(table, spec, task.test.tile_px * (task.test.mpp or 1.0)).draw(2000, 0, 0)
    except DataError as error:
        report.notes.append(f"{task.name}: no near and far pairs to measure ({error})")
        return
    slide, far = table.slide[pairs.first], pairs.far.astype(int)
    lengths = {
        arm: [np.linalg.norm(one[pairs.first] - one[pairs.second], axis=1) for one in seeds]
        for arm, seeds in found.items()
    }
    measured = report.add(Measured(f"{task.name}, near/far AUC (A)", auc, far, slide, lengths))
    report.findings.append(measured.finding(f"{task.name}: tells far from near better than {FULL}", OURS, FULL))
    report.add(Measured(f"{task.name}, far/near distance (A)", ratio, far, slide, lengths))


def of_classes(drawn: Draws, _: NDArray[Any], said: NDArray[Any]) -> NDArray[np.float64]:
    """Return the mean distance to tiles of the other class over that to tiles of the own, of `class_distances`."""
    return drawn.ratio(said[:, 1], said[:, 0])


def cost(found: Vectors) -> str:
    """Return bytes a tile and time of a search, descriptors against features, measured in turns."""
    torch = import_torch()
    short, full = (torch.from_numpy(found[arm][0]) for arm in (OURS, FULL))
    repeats = max(1, 100_000 // len(short))
    galleries = {one: one.repeat(repeats, 1) for one in (short, full)}
    times: dict[Any, list[float]] = {short: [], full: []}
    for _ in range(7):
        for one, gallery in galleries.items():
            began = time.perf_counter()
            torch.topk(gallery @ one[0], min(10, len(gallery)))
            times[one].append(time.perf_counter() - began)
    fast, slow = (float(np.median(times[one])) for one in (short, full))
    return (
        f"A descriptor takes {2 * short.shape[1]} bytes in half precision, a feature {2 * full.shape[1]} "
        f"({full.shape[1] / short.shape[1]:.1f} times as many); one exact search among {len(galleries[short])} tiles "
        f"{1000 * fast:.1f} against {1000 * slow:.1f} ms ({slow / fast:.1f} times as long), medians of 7 in turns."
    )


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
