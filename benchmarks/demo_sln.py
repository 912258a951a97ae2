"""What `demo-sln` can do on synthetic slides it has never seen, and what chance can do.

    .venv/bin/python benchmarks/demo_sln.py --cohort COHORT [--out demo_sln.json]

Slide level: AUC on the split `test` with a bootstrap interval, beside 20 trainings on permuted labels (same recipe and
slides, labels shuffled within train and within val). Tile level, on positive test slides: AUC of the signed class
evidence and of attention against the truth mask (a tile is positive when at least half of it is aggressive nest), mean
over slides, beside the permuted, 20 untrained and five differently seeded heads. The encoder alone parts aggressive
tiles from others, so a head without signal may point at them as well as away from them: what training adds is the sign,
every time. Prints JSON, then sentences. `--smoke`: tiny slides, random encoder, three permutations.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
from train_demo_sln import (
    CLASSES,
    KIND,
    PARAMETERS,
    RECIPE,
    Case,
    aggressive_share,
    bags_of,
    embed_cohort,
    make_tiny_cohort,
    save,
    train,
)

from napari_slnpredict.bundles.bundle import SHIPPED, load_bundle
from napari_slnpredict.encode.encoder import load_encoder
from napari_slnpredict.events import run
from napari_slnpredict.files import write_json
from napari_slnpredict.metrics.intervals import bootstrap, delong
from napari_slnpredict.metrics.scores import auc, balanced_accuracy, brier
from napari_slnpredict.mil.aggregators import build_aggregator
from napari_slnpredict.mil.head import Head, load_head, make_head
from napari_slnpredict.mil.train import Recipe, standardise
from napari_slnpredict.mil.verdict import judge

POSITIVE_SHARE = 0.5


@dataclass(frozen=True)
class Found:
    """What one head says of the test slides.

    Attributes
    ----------
    probabilities : (slides,) of the positive class
    evidence, attention : (positive slides,) tile AUC
    """

    probabilities: np.ndarray
    evidence: np.ndarray
    attention: np.ndarray

    def auc(self, cases: Sequence[Case]) -> float:
        return auc([case.label for case in cases], self.probabilities)


def look(head: Head, cases: Sequence[Case]) -> Found:
    """Judge every slide; on positive ones compare tiles with the truth."""
    probabilities, evidence, attention = [], [], []
    for case in cases:
        verdict = run(judge(head, case.bag))
        probabilities.append(verdict.probabilities[1])
        truth = aggressive_share(case.truth, case.bag.grid) >= POSITIVE_SHARE
        if case.label and 0 < truth[verdict.seen].sum() < verdict.seen.sum():
            signed = verdict.evidence[:, 1] - verdict.evidence[:, 0]
            evidence.append(auc(truth[verdict.seen], signed[verdict.seen]))
            attention.append(auc(truth[verdict.seen], verdict.attention[verdict.seen]))
    return Found(*(np.array(values) for values in (probabilities, evidence, attention)))


def permuted_heads(cases: Sequence[Case], recipe: Recipe, encoder, count: int) -> list[Head]:
    """Train on shuffled labels: what a head finds where there is nothing to find."""
    heads, start = [], time.perf_counter()
    for number in range(count):
        random = np.random.default_rng(1000 + number)
        bags = [
            bags_of(cases, split, list(random.permutation([case.label for case in cases if case.split == split])))
            for split in ("train", "val")
        ]
        heads.append(train(*bags, replace(recipe, seed=1000 + number), encoder).head)
        print(f"\rpermuted {number + 1} of {count}, {time.perf_counter() - start:.0f} s", end="", file=sys.stderr)
    print(file=sys.stderr)
    return heads


def reseeded_heads(cases: Sequence[Case], recipe: Recipe, encoder, count: int) -> list[Head]:
    """Train with other seeds: whether the model is typical of its recipe."""
    bags = bags_of(cases, "train"), bags_of(cases, "val")
    return [train(*bags, replace(recipe, seed=2000 + number), encoder).head for number in range(count)]


def untrained_heads(cases: Sequence[Case], count: int) -> list[Head]:
    """Random weights on features standardised as in training."""
    import torch

    heads, training = [], bags_of(cases, "train")
    for number in range(count):
        torch.manual_seed(number)
        module = build_aggregator(KIND, PARAMETERS, training[0].features.shape[1], len(CLASSES))
        standardise(module, training)
        module.centre_logits()
        heads.append(make_head(module, CLASSES))
    return heads


def interval_of_mean(values: np.ndarray) -> tuple[float, float, float]:
    """Return the mean and its 95 % bootstrap interval over slides."""
    random = np.random.default_rng(0)
    means = random.choice(values, (2000, len(values))).mean(1)
    return (float(values.mean()), *(float(v) for v in np.percentile(means, [2.5, 97.5])))


def spread_of(values: Sequence[float]) -> dict[str, float]:
    return {
        "mean": float(np.mean(values)),
        "min": float(np.min(values)),
        "p95": float(np.percentile(values, 95)),
        "max": float(np.max(values)),
        "count": len(values),
    }


def report(
    head: Head, cases: Sequence[Case], permuted: list[Head], untrained: list[Head], reseeded: list[Head]
) -> dict:
    """Compare the model with chance."""
    test = [case for case in cases if case.split == "test"]
    labels = np.array([case.label for case in test])
    found = look(head, test)
    chance = [look(other, test) for other in permuted]
    blank = [look(other, test) for other in untrained]
    again = [look(other, test) for other in reseeded]
    drawn = bootstrap(auc, labels, found.probabilities, [case.patient for case in test])
    exact = delong(labels, found.probabilities)
    evidence, attention = interval_of_mean(found.evidence), interval_of_mean(found.attention)
    sites = sorted({case.site for case in test})

    def auc_at(site: str) -> float | None:
        here = np.array([case.site == site for case in test])
        return auc(labels[here], found.probabilities[here]) if len(set(labels[here])) == 2 else None

    result = {
        "test_slides": len(test),
        "auc": {"value": drawn.value, "low": drawn.low, "high": drawn.high, "method": drawn.method},
        "auc_analytic": {"low": exact.low, "high": exact.high, "method": exact.method},
        "auc_by_laboratory": {s: auc_at(s) for s in sites},
        "balanced_accuracy": balanced_accuracy(labels, found.probabilities >= 0.5),
        "brier": brier(labels, found.probabilities),
        "permuted_auc": spread_of([other.auc(test) for other in chance]),
        "reseeded_auc": spread_of([other.auc(test) for other in again]),
        "reseeded_evidence_tile_auc": spread_of([float(other.evidence.mean()) for other in again]),
        "evidence_tile_auc": dict(zip(("value", "low", "high"), evidence, strict=True)),
        "attention_tile_auc": dict(zip(("value", "low", "high"), attention, strict=True)),
        "permuted_evidence_tile_auc": spread_of([float(other.evidence.mean()) for other in chance]),
        "untrained_evidence_tile_auc": spread_of([float(other.evidence.mean()) for other in blank]),
        "permuted_attention_tile_auc": spread_of([float(other.attention.mean()) for other in chance]),
        "untrained_attention_tile_auc": spread_of([float(other.attention.mean()) for other in blank]),
    }
    result["sentences"] = sentences(result)
    return result


def sentences(r: dict) -> list[str]:
    """Say the figures in words, for the card."""
    a, x, e, t = r["auc"], r["auc_analytic"], r["evidence_tile_auc"], r["attention_tile_auc"]
    blind, blank, again = (r[f"{name}_evidence_tile_auc"] for name in ("permuted", "untrained", "reseeded"))
    return [
        f"AUC on {r['test_slides']} unseen synthetic slides: {a['value']:.3f} ({x['low']:.3f} to {x['high']:.3f} by "
        f"{x['method']}, {a['low']:.3f} to {a['high']:.3f} by bootstrap of patients); 95th percentile of "
        f"{r['permuted_auc']['count']} label-permuted trainings: {r['permuted_auc']['p95']:.3f}",
        "AUC by laboratory: " + ", ".join(f"{s} {v:.2f}" for s, v in r["auc_by_laboratory"].items() if v is not None),
        f"aggressive nests by signed class evidence (tile AUC, mean over positive slides): {e['value']:.3f} "
        f"({e['low']:.3f} to {e['high']:.3f}); {again['count']} other seeds {again['min']:.3f} to {again['max']:.3f}",
        f"the same without signal: {chance_words('label-permuted', blind)}; {chance_words('untrained', blank)}",
        f"by attention, for comparison: {t['value']:.3f} ({t['low']:.3f} to {t['high']:.3f})",
    ]


def chance_words(name: str, r: dict[str, float]) -> str:
    span = f"{r['count']} {name} heads {r['min']:.3f} to {r['max']:.3f}"
    return f"{span}, mean {r['mean']:.3f}, 95th percentile {r['p95']:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohort", type=Path)
    parser.add_argument("--bundle", type=Path, default=SHIPPED / "demo-sln")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "slnpredict-demo-sln")
    parser.add_argument("--permutations", type=int, default=20)
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if options.smoke:
            result = smoke(Path(scratch))
        elif options.cohort is None:
            parser.error("--cohort is needed")
        else:
            bundle = load_bundle(options.bundle)
            encoder = load_encoder(bundle.encoder["name"])
            cases = embed_cohort(options.cohort, ("train", "val", "test"), encoder, options.cache)
            refuse_overlap(bundle, cases)
            permuted = permuted_heads(cases, RECIPE, encoder, options.permutations)
            untrained = untrained_heads(cases, options.permutations)
            result = report(load_head(bundle), cases, permuted, untrained, reseeded_heads(cases, RECIPE, encoder, 5))
    print(json.dumps(result, indent=1))
    print("\n".join(result["sentences"]))
    if options.out:
        write_json(options.out, result)


def refuse_overlap(bundle, cases: Sequence[Case]) -> None:
    """Stop when a test slide was seen by the head or by its encoder: the figures would be worth nothing."""
    known = bundle.training["encoder_training"]
    seen = {*bundle.training["slides"], *known["slides"], *bundle.training["patients"], *known["patients"]}
    overlap = [case.slide for case in cases if case.split == "test" and {case.content_id, case.patient} & seen]
    if overlap:
        sys.exit(f"{len(overlap)} test slides were seen in training: {', '.join(overlap[:5])}")


def smoke(scratch: Path) -> dict:
    """Run everything on slides that take seconds."""
    cohort = make_tiny_cohort(scratch / "cohort", {"train": 6, "val": 4, "test": 6})
    encoder, recipe = load_encoder("random:mobilenetv3_small_050"), Recipe(epochs=3, tiles=16)
    cases = embed_cohort(cohort, ("train", "val", "test"), encoder, scratch / "cache")
    trained = train(bags_of(cases, "train"), bags_of(cases, "val"), recipe, encoder)
    bundle = save(trained, cases, encoder, recipe, scratch / "demo-sln", {})
    refuse_overlap(bundle, cases)
    permuted, untrained = permuted_heads(cases, recipe, encoder, 3), untrained_heads(cases, 3)
    return report(load_head(bundle), cases, permuted, untrained, reseeded_heads(cases, recipe, encoder, 2))


if __name__ == "__main__":
    main()
