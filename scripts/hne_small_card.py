"""The card of `hne-small`, from what its bundle says of its training and of how it was judged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CARD = """---
license: apache-2.0
library_name: napari-slnpredict
pipeline_tag: image-feature-extraction
tags: [pathology, histology, H&E, encoder, demonstration]
base_model: MobileNetV2 1.0 224 (ImageNet)
---
# hne-small

**A demonstration.** It turns tiles of 128 x 128 px at 1.0 um/px of H&E slides into 1280 numbers for models, and these
into 128 for finding similar tiles, fast on a CPU, so that everything in napari-slnpredict can be tried without a
download. **It tells nothing about a patient** and is no match for encoders trained on real cohorts; for research use
one of those (`slnpredict encoders`).

- Network: MobileNetV2 (timm `mobilenetv2_100`, `pad_type="same"`), pooled: 1280 numbers; a linear layer to a descriptor
  of 128 (`heads.safetensors`), compared by cosine. float16 in the file, float32 when used; matrices hold bfloat16
  values. Normalisation layers are folded: keep it in evaluation mode.
- Precision: float32 only. In bfloat16 the centred features of its reference tiles agree to 0.994 (OpenVINO) and 0.997
  (torch) with float32's at worst; 0.999 is needed, so the program does not use it (`benchmarks/engines.py`).
- Input: RGB 0 to 1, mean 0.5, std 0.5; tiles of 128 px at 1.0 um/px.
- Made by `scripts/train_hne_small.py` on {date} in {minutes} min with one thread (made twice, the same bytes): {steps}
  steps of {batch} tiles, two of {views} views of each (turned, mirrored, cropped to at least 0.75 of the area, stains
  jittered in optical density, slightly blurred).
  {losses}
  The stages before the {stage}th stayed as they were; kept is the running mean of the weights{mixed}.
  The layer to descriptors was made last: principal components, half way to where labels draw them.

## What it has seen
{tiles}

Of the labelled tile sets it has seen the half that `scripts/tile_split.csv` calls "train", of the cohort of real slides
those of `split=train`, without labels{unlabelled}.
The phantoms' truth was used as labels (kinds of tissue, aggressive nests among them), of training slides alone.
ImageNet, by way of its start.

## How good it is
On tiles no training has seen: the other half of each set, and the cohort's H&E test slides. The recipe
(which losses, how much of the trained weights in the mean) was chosen inside the training half, on one fold of three
that `scripts/hne_small_choose.py` makes; the other half was looked at once, with the chosen one. precision@5: share of
the same class among the five most alike tiles of other slides (where slides are known, else of other pictures). Probe
AUC: logistic regression, folds by slide, its penalty chosen by inner folds; three classes: mean of each against the
rest. 95 % intervals by bootstrap over slides, or pictures where no slide is known; both networks and gains on the same
draws. hne-small answers retrieval by its descriptor and the probe by its feature; other networks use one vector for
both. Networks of ImageNet see the same 128 px, and, in lines of their own, these enlarged to the
224 px they were made for.

### precision@5
{precision}

### Probe AUC
{probe}

### What hne-small gains over others on the pooled tile sets (mean of the three), paired
{gains}

{verdict}

PatchCamelyon and the oral set name neither slides nor patients, so tiles of one slide may lie in both halves, and
intervals over pictures are too narrow. Osteosarcoma's four patients lie in both halves, its slides do not; its classes
follow its patients. Cohort: six slides of six patients with the slide's label for every tile, so only a report.
Colours alone carry much of it, see their lines: these sets differ in stain between classes.

{previous}

What it does for synthetic slides never seen is in the card of `demo-sln`, which stands on it.

## Credits and licences
- MobileNetV2, TensorFlow model garden, ImageNet weights as published in google-coral/test_data: Apache-2.0. This
  derivative is under Apache-2.0 as well; it was changed by the fine-tuning described here. ImageNet is a set of
  photographs gathered for research; none of them is in here.
- PatchCamelyon, Veeling et al. 2018; CAMELYON16, Ehteshami Bejnordi et al. 2017: CC0.
- Oral tissue: Kaggle set by ashenafifasilkebede, CC0 as stated there; Rahman et al. 2020.
- Osteosarcoma Tumor Assessment, Leavey et al. 2019, doi 10.7937/tcia.2019.bvhjhdas; Arunachalam et al. 2019; The Cancer
  Imaging Archive (Clark et al. 2013): CC BY 3.0. Tiles were cut from its images.
- Slides of Pathology Atlas (Patoloji Atlasi), Serdar Balci and contributors: MIT and CC BY 4.0. Cropped, reduced,
  re-encoded, cut into tiles.
- Phantom slides: made by this project.
"""


#: Measured once, with the bundle this one replaced.
PREVIOUS = """\
The encoder shipped before had seen all of the oral and osteosarcoma sets. On the 208 held-out PatchCamelyon tiles
that neither has seen the two are not told apart: precision@5 0.76 now, 0.77 before (difference -0.018, -0.044 to
+0.009); probe AUC 0.90 and 0.90 (+0.001, -0.038 to +0.042)."""


def card_text(training: Mapping[str, Any]) -> str:
    """Return the card of a judged encoder."""
    recipe, metrics = training["recipe"], training["metrics"]
    sets = ["pooled tile sets", *metrics["tiles"]]
    return CARD.format(
        date=training["date"],
        minutes=round(training["seconds"] / 60),
        steps=recipe["steps"],
        batch=sum(recipe["shares"].values()),
        views=recipe["views"],
        losses=_losses(recipe),
        unlabelled="" if recipe["contrast"] else " and only in the principal components its descriptor begins with",
        stage=recipe["first_stage"] + 1,
        mixed="" if recipe["trained"] == 1 else f", {recipe['trained']:.0%} of them and the rest of the start's",
        tiles="\n".join(f"- {name}: {count} tiles" for name, count in training["tiles"].items()),
        precision=_table(metrics, sets, "precision@5"),
        probe=_table(metrics, sets, "probe AUC"),
        gains=_gains(metrics),
        verdict=_verdict(metrics),
        previous=PREVIOUS,
    )


def _losses(recipe: Mapping[str, Any]) -> str:
    parts = []
    if recipe["contrast"]:
        parts.append(f"NT-Xent between the two (T = {recipe['temperature']})")
    if recipe["labels"]:
        parts.append("cross-entropy of cosines between descriptor and class where there are labels")
    if recipe["feature_labels"]:
        parts.append(f"{recipe['feature_labels']} times cross-entropy of a linear layer on the feature")
    return "Losses: " + " +\n  ".join(parts) + "."


def _table(metrics: Mapping[str, Any], sets: list[str], figure: str) -> str:
    counts = metrics["tiles"]
    heads = [f"{name} ({counts[name][0]} tiles, {counts[name][1]} groups)" if name in counts else name for name in sets]
    lines = [f"| | {' | '.join(heads)} |", "|" + " --- |" * (len(sets) + 1)]
    for arm, scores in metrics["scores"].items():
        lines.append(f"| {arm} | {' | '.join(_interval(scores[name][figure]) for name in sets)} |")
    if figure == "precision@5":
        chance = metrics["chance"]
        mean = sum(value for name, value in chance.items() if "cohort" not in name) / (len(chance) - 1)
        cells = [f"{chance.get(name, mean):.2f}" for name in sets]
        lines.append(f"| chance | {' | '.join(cells)} |")
    return "\n".join(lines)


def _gains(metrics: Mapping[str, Any]) -> str:
    lines = ["| over | precision@5 | probe AUC |", "| --- | --- | --- |"]
    for arm, pools in metrics["gains"].items():
        both = pools["pooled tile sets"]
        lines.append(f"| {arm} | {_signed(both['precision@5'])} | {_signed(both['probe AUC'])} |")
    return "\n".join(lines)


def _verdict(metrics: Mapping[str, Any]) -> str:
    """Say, for each figure, over what the gain's interval lies above 0, holds 0, or lies below it."""
    lines = []
    for figure in ("precision@5", "probe AUC"):
        sides: dict[str, list[str]] = {"ahead of": [], "not told apart from": [], "behind": []}
        for arm, pools in metrics["gains"].items():
            if not arm.startswith("hne-small"):
                _, low, high = pools["pooled tile sets"][figure]
                sides["ahead of" if low > 0 else "behind" if high < 0 else "not told apart from"].append(arm)
        lines.append(f"By {figure} on the pooled sets it is")
        lines += [f"- {side}: {'; '.join(arms)}" for side, arms in sides.items() if arms]
        lines.append("")
    return "\n".join(lines).rstrip()


def _interval(values: list[float]) -> str:
    value, low, high = values
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


def _signed(values: list[float]) -> str:
    value, low, high = values
    return f"{value:+.3f} ({low:+.3f} to {high:+.3f})"
