"""Train the shipped demonstration model `demo-sln` on a cohort of synthetic slides.

    slnpredict phantom --task sln --count 120 --seed 1 --lab A,B,C --split train --out COHORT   (and val, test)
    .venv/bin/python scripts/train_demo_sln.py --cohort COHORT [--figures demo_sln.json]

Embeds every slide of the splits `train` and `val` (features are kept in --cache: a second run takes a minute), trains
gated attention with early stopping on `val`, and writes the bundle. `--figures` takes what benchmarks/demo_sln.py wrote
about the same bundle's test slides into its record and card; training again with the same seed gives the same weights.
`--smoke` does all of it on a handful of tiny slides with a random encoder and writes to a temporary folder.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict import __version__
from napari_slnpredict.bundles.bundle import SHIPPED, Bundle, save_bundle
from napari_slnpredict.encode.embed import embed
from napari_slnpredict.encode.encoder import load_encoder
from napari_slnpredict.encode.engines import choose_device, make_engine
from napari_slnpredict.encode.features import Bag
from napari_slnpredict.encode.record import Encoder
from napari_slnpredict.events import run
from napari_slnpredict.mil.head import head_parts
from napari_slnpredict.mil.train import Recipe, Trained, TrainingBag, fit, training_bag
from napari_slnpredict.phantom.scene import FIELD_UM, Tissue
from napari_slnpredict.phantom.tasks import make_cohort
from napari_slnpredict.provenance import now, versions
from napari_slnpredict.slide.grid import GridSpec, TileGrid, lay_grid
from napari_slnpredict.slide.slide import open_slide
from napari_slnpredict.slide.tissue import find_tissue

CLASSES = ("negative", "positive")
KIND = "gated"
PARAMETERS = {"hidden": 128, "attention": 64, "dropout": 0.25}
# Attention spread out and labels softened: see `Recipe`. Chosen on the split `val`, by its loss and its truth masks.
RECIPE = Recipe(epochs=60, patience=15, learning_rate=1e-3, tiles=256, spread=0.3, smoothing=0.05, seed=1)
LICENCE = "BSD-3-Clause"
NOTICE = "Demonstration model trained on synthetic slides. It tells nothing about a patient. Not for diagnosis."


@dataclass(frozen=True)
class Case:
    """One slide of the cohort, embedded."""

    slide: str
    patient: str
    label: int
    site: str
    split: str
    content_id: str
    bag: Bag
    truth: Path


def embed_cohort(cohort: Path, splits: Sequence[str], encoder: Encoder, cache: Path) -> list[Case]:
    """Embed the slides of some splits; what is in the cache is only read."""
    with (cohort / "cohort.csv").open(newline="", encoding="utf-8-sig") as table:
        rows = [row for row in csv.DictReader(table) if row["split"] in splits]
    engine = make_engine(encoder, choose_device(), threads=2, tile_px=encoder.tile_px)
    spec, cases = GridSpec(encoder.tile_px, 1.0), []
    for number, row in enumerate(rows, 1):
        with open_slide(cohort / row["path"], float(row["mpp"])) as slide:
            grid = lay_grid(slide, find_tissue(slide), spec)
            bag = run(embed(slide, grid, encoder, cache=cache, engine=engine))
            content_id = slide.content_id
        truth = cohort / "truth" / f"{row['slide']}.png"
        label = CLASSES.index(row["label"])
        cases.append(Case(row["slide"], row["patient"], label, row["site"], row["split"], content_id, bag, truth))
        print(f"\rembedded {number} of {len(rows)}: {row['slide']} {len(grid)} tiles   ", end="", file=sys.stderr)
    print(file=sys.stderr)
    return cases


def aggressive_share(truth: Path, grid: TileGrid) -> NDArray[np.float64]:
    """Return the share of each tile's area that is aggressive nest, (n,), from the truth mask."""
    from PIL import Image

    altered = np.asarray(Image.open(truth)) == Tissue.ALTERED  # palette values are the codes
    sums = np.pad(altered.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    top_left = np.round(grid.locations * grid.slide_mpp / FIELD_UM).astype(int)
    side = round(grid.spec.tile_um / FIELD_UM)
    x0, y0 = np.clip(top_left, 0, None).T
    x1, y1 = (np.minimum(start + side, limit) for start, limit in ((x0, altered.shape[1]), (y0, altered.shape[0])))
    return (sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]) / side**2


def bags_of(cases: Sequence[Case], split: str, labels: Sequence[int] | None = None) -> list[TrainingBag]:
    """Return the bags of a split, with their own labels or with others in their order."""
    chosen = [case for case in cases if case.split == split]
    given = [case.label for case in chosen] if labels is None else labels
    return [training_bag(case.bag, label) for case, label in zip(chosen, given, strict=True)]


def train(training: list[TrainingBag], validation: list[TrainingBag], recipe: Recipe, encoder: Encoder) -> Trained:
    """Train one head; one torch thread, as the tensors are small and two threads would mostly wait."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return run(fit(training, validation, CLASSES, KIND, PARAMETERS, recipe, encoder.digest))
    finally:
        torch.set_num_threads(threads)


def save(trained: Trained, cases: Sequence[Case], encoder: Encoder, recipe: Recipe, out: Path, figures: dict) -> Bundle:
    """Write the bundle with everything that went into it."""
    model, tensors = head_parts(trained.head, trained.kind)
    seen = [case for case in cases if case.split in ("train", "val")]
    training = {
        "slides": sorted(case.content_id for case in seen),
        "patients": sorted({case.patient for case in seen}),
        "encoder_training": encoder_training(encoder),
        "split": {split: sum(case.split == split for case in seen) for split in ("train", "val")},
        "sites": sorted({case.site for case in seen}),
        "recipe": asdict(recipe),
        "best_epoch": asdict(trained.best),
        "metrics": figures,
        "date": now(),
        "versions": versions(),
        "data": "synthetic slides (slnpredict phantom --task sln); no patient data",
    }
    return save_bundle(
        out,
        name="demo-sln",
        kind="mil",
        task={"name": "sln", "classes": list(CLASSES), "positive": "positive", "ordered": False},
        encoder={"name": encoder.name, "digest": encoder.digest},
        grid={"tile_px": encoder.tile_px, "mpp": 1.0, "overlap_px": 0, "min_tissue": GridSpec(1, 1.0).min_tissue},
        model=model,
        tensors=tensors,
        card=card(seen, encoder, trained, figures),
        training=training,
        licence=LICENCE,
        notice=NOTICE,
    )


def encoder_training(encoder: Encoder) -> dict:
    """Return what the encoder itself was trained on, so that an overlap with test slides can be found."""
    from napari_slnpredict.bundles.bundle import load_bundle

    folder = SHIPPED / encoder.name
    if not (folder / "bundle.json").is_file():
        return {"slides": [], "patients": []}
    training = load_bundle(folder).training
    return {name: list(training.get(name, [])) for name in ("slides", "patients")}


def card(seen: Sequence[Case], encoder: Encoder, trained: Trained, figures: dict) -> str:
    """Return the model card."""
    lines = [
        "# demo-sln",
        "",
        NOTICE,
        "",
        "A gated-attention head (Ilse et al. 2018) on frozen features. It exists so that all of napari-slnpredict",
        "can be tried offline: opening, predicting, the map, the click. On slides of real tissue its answer means",
        "nothing, however sure it looks.",
        "",
        "## Task",
        "",
        "Synthetic slides of tumour nests in stroma. Positive: the large, dark nuclei of the slide keep together in",
        "its dense nests. Negative: as many such nuclei and as many dense nests, but apart. Colour, tissue area and",
        "the number of nuclei say nothing about the label.",
        "",
        "## Made from",
        "",
        f"- {len(seen)} synthetic slides (`slnpredict phantom --task sln`), laboratories"
        f" {', '.join(sorted({case.site for case in seen}))}: "
        + ", ".join(f"{sum(case.split == s for case in seen)} {s}" for s in ("train", "val")),
        f"- features of `{encoder.name}` ({encoder.digest[:12]}), tiles of {encoder.tile_px} px at 1 um per pixel",
        "  (the encoder has seen tiles of these training slides with their truth as labels; none of a test slide)",
        f"- script `scripts/train_demo_sln.py`, napari-slnpredict {__version__}; epoch {trained.best.number} of "
        f"{len(trained.history)} by validation loss ({trained.best.validation_loss:.3f})",
        "",
    ]
    if figures:
        lines += ["## Figures", "", "On slides never seen (`benchmarks/demo_sln.py`); 95 % intervals.", ""]
        lines += [f"- {line}" for line in figures.get("sentences", [])]
        lines.append("")
    return "\n".join(lines)


def make_tiny_cohort(folder: Path, counts: dict[str, int]) -> Path:
    """Make a cohort of slides one and a half millimetres wide, for `--smoke`."""
    for seed, (split, count) in enumerate(counts.items(), 1):
        run(make_cohort("sln", count, seed, "A,B", folder, split=split, size=1.5))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohort", type=Path)
    parser.add_argument("--encoder", default="hne-small")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "slnpredict-demo-sln")
    parser.add_argument("--out", type=Path, default=SHIPPED / "demo-sln")
    parser.add_argument("--figures", type=Path, help="JSON of benchmarks/demo_sln.py")
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    recipe = RECIPE
    with tempfile.TemporaryDirectory() as scratch:
        if options.smoke:
            options.cohort = make_tiny_cohort(Path(scratch) / "cohort", {"train": 6, "val": 4})
            options.encoder, options.out = "random:mobilenetv3_small_050", Path(scratch) / "demo-sln"
            options.cache, recipe = Path(scratch) / "cache", Recipe(epochs=3, tiles=16)
        if options.cohort is None:
            parser.error("--cohort is needed")
        encoder = load_encoder(options.encoder)
        cases = embed_cohort(options.cohort, ("train", "val"), encoder, options.cache)
        trained = train(bags_of(cases, "train"), bags_of(cases, "val"), recipe, encoder)
        figures = json.loads(options.figures.read_text()) if options.figures else {}
        bundle = save(trained, cases, encoder, recipe, options.out, figures)
        size = sum(path.stat().st_size for path in bundle.folder.rglob("*") if path.is_file())
        print(f"{bundle.name} {bundle.digest[:12]}: epoch {trained.best.number}, "
              f"validation loss {trained.best.validation_loss:.3f}, {size / 1e6:.2f} MB")  # fmt: skip


if __name__ == "__main__":
    main()
