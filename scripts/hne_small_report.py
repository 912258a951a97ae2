"""How `hne-small` is judged, and the card that says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hne_small_tiles import KINDS, TileSet
from numpy.typing import NDArray

from napari_slnpredict.metrics.intervals import bootstrap
from napari_slnpredict.metrics.scores import auc, balanced_accuracy
from napari_slnpredict.phantom.scene import Tissue
from napari_slnpredict.torch_door import import_torch

ALTERED, NEST = (KINDS.index(int(kind)) for kind in (Tissue.ALTERED, Tissue.NEST))


def features_of(encoder: Any, tiles: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Embed tiles with an encoder as users do: float32, normalised by its own mean and std."""
    torch = import_torch()
    network = encoder.build()
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (encoder.mean, encoder.std))
    rows = []
    with torch.inference_mode():
        for part in np.array_split(tiles, max(1, len(tiles) // 64)):
            given = torch.from_numpy(part).permute(0, 3, 1, 2).float() / 255
            rows.append(network((given - mean) / std).double().numpy())
    return np.concatenate(rows)


def colours_of(tiles: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean and deviation of the three colours: what needs no network."""
    flat = tiles.reshape(len(tiles), -1, 3).astype(np.float64)
    return np.concatenate([flat.mean(axis=1), flat.std(axis=1)], axis=1)


@dataclass(frozen=True)
class Judged:
    """Tiles a probe is fitted on, and tiles it is asked about: for PCam and for phantoms."""

    pcam_known: TileSet
    pcam: TileSet
    phantom_known: TileSet
    phantom: TileSet


def judge_encoders(encoders: dict[str, Any], judged: Judged) -> dict[str, dict[str, Any]]:
    """Return, for each encoder and for colour alone, what linear probe and nearest neighbours reach on unseen tiles."""
    ways: dict[str, Any] = {"colour alone": colours_of}
    ways |= {name: lambda tiles, encoder=encoder: features_of(encoder, tiles) for name, encoder in encoders.items()}
    table: dict[str, dict[str, Any]] = {}
    for name, embed in ways.items():
        known, asked = embed(judged.pcam_known.pixels), embed(judged.pcam.pixels)
        table[name] = _pcam(known, asked, judged)
        known, asked = embed(judged.phantom_known.pixels), embed(judged.phantom.pixels)
        table[name] |= _phantom(known, asked, judged)
        print(name, table[name], flush=True)
    return table


def _pcam(known: NDArray[np.float64], asked: NDArray[np.float64], judged: Judged) -> dict[str, Any]:
    from sklearn.neighbors import KNeighborsClassifier

    labels, truth = judged.pcam_known.labels, judged.pcam.labels
    scores = _probe(known, labels).decision_function(asked)
    near = KNeighborsClassifier(11, metric="cosine").fit(known - known.mean(0), labels)
    return {
        "pcam linear AUC": _interval(auc, truth, scores),
        "pcam kNN AUC": _interval(auc, truth, near.predict_proba(asked - known.mean(0))[:, 1]),
    }


def _phantom(known: NDArray[np.float64], asked: NDArray[np.float64], judged: Judged) -> dict[str, Any]:
    labels, test = judged.phantom_known.labels, judged.phantom
    said = _probe(known, labels).predict(asked).astype(float)
    slides = np.array([group.split(":")[1] for group in test.groups])
    result = {"phantom kinds, balanced accuracy": _interval(balanced_accuracy, test.labels, said, slides)}
    nests, asked_nests = np.isin(labels, (ALTERED, NEST)), np.isin(test.labels, (ALTERED, NEST))
    scores = _probe(known[nests], labels[nests] == ALTERED).decision_function(asked[asked_nests])
    truth, groups, slides = test.labels[asked_nests] == ALTERED, test.groups[asked_nests], slides[asked_nests]
    result["aggressive nest AUC"] = _interval(auc, truth, scores, slides)
    unseen = np.char.startswith(groups, "D:")
    if unseen.any():
        result["aggressive nest AUC, unseen laboratory"] = _interval(auc, truth[unseen], scores[unseen], slides[unseen])
    return result


def _probe(features: NDArray[np.float64], labels: NDArray[Any]) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000)).fit(features, labels)


def _interval(metric: Any, truth: NDArray[Any], said: NDArray[Any], slides: Any = None) -> list[float]:
    found = bootstrap(metric, truth.astype(int), said, slides, draws=1000)
    return [round(value, 3) for value in (found.value, found.low, found.high)]


CARD = """---
license: apache-2.0
library_name: napari-slnpredict
pipeline_tag: image-feature-extraction
tags: [pathology, histology, H&E, encoder, demonstration]
base_model: MobileNetV2 1.0 224 (ImageNet)
---
# hne-small

**A demonstration.** It turns tiles of 128 x 128 px at 1.0 um/px of H&E slides into 256 numbers, fast on a CPU, so that
everything in napari-slnpredict can be tried without a download. **It tells nothing about a patient** and is no match
for encoders trained on real cohorts; for research use one of those (`slnpredict encoders`).

- Network: MobileNetV2 (timm `mobilenetv2_100`, `pad_type="same"`), pooled, then a linear layer 1280 -> 256; float16 in
  the file, float32 when used. Normalisation layers are folded: keep it in evaluation mode.
- Input: RGB 0 to 1, mean 0.5, std 0.5; tiles of 128 px at 1.0 um/px.
- Made by `scripts/train_hne_small.py` on {date}: {steps} steps of {batch} tiles, two views each (turned, mirrored,
  cropped to at least 0.75 of the area, stains jittered in optical density, slightly blurred), NT-Xent
  (T = {temperature}) plus cross-entropy where there are labels; the first three stages frozen; {cpu} s of CPU in all.

## What it has seen
{tiles}

The phantoms' truth was used as labels (kinds of tissue, aggressive nests among them), of training slides alone. Tile
sets do not name patients, so tiles held out of PCam may come from slides whose other tiles were seen.

## How good it is
Linear probe (logistic regression on standardised features) or 11 nearest neighbours on tiles never trained on, with
95 % intervals (bootstrap over tiles for PCam, over slides for phantoms). "Start" is the network before training.

{table}

The phantom figures show that the mechanism works on synthetic slides of the kind it was trained on, and nothing else.
Held-out PCam is {pcam} tiles: differences between rows are within chance unless their intervals part.

## Credits and licences
- MobileNetV2, TensorFlow model garden, ImageNet weights as published in google-coral/test_data: Apache-2.0. This
  derivative is under Apache-2.0 as well; it was changed by the fine-tuning described here.
- PatchCamelyon, Veeling et al. 2018; CAMELYON16, Ehteshami Bejnordi et al. 2017: CC0.
- Oral tissue: Kaggle set by ashenafifasilkebede, CC0 as stated there; Rahman et al. 2020.
- Osteosarcoma Tumor Assessment, Leavey et al. 2019, doi 10.7937/tcia.2019.bvhjhdas, The Cancer Imaging Archive
  (Clark et al. 2013): CC BY 3.0. Tiles were cut from its images.
- Slides of Pathology Atlas (Patoloji Atlasi), Serdar Balci and contributors: MIT and CC BY 4.0. Cropped, reduced,
  re-encoded, cut into tiles.
- Phantom slides: made by this project.
"""


NAMES = {"start (ImageNet)": "start (ImageNet weights)", "colour alone": "mean and deviation of the colours"}


def card_text(metrics: dict[str, dict[str, Any]], facts: dict[str, Any]) -> str:
    """Return the model card."""
    recipe = facts["recipe"]
    tiles = "\n".join(f"- {name}: {count} tiles" for name, count in facts["tiles"].items())
    columns = list(next(iter(metrics.values()), {}))
    lines = [f"| | {' | '.join(columns)} |", "|" + " --- |" * (len(columns) + 1)]
    for name, row in metrics.items():
        cells = [f"{value:.2f} ({low:.2f} to {high:.2f})" for value, low, high in row.values()]
        lines.append(f"| {NAMES.get(name, name)} | {' | '.join(cells)} |")
    return CARD.format(
        date=facts["date"],
        steps=recipe["steps"],
        batch=recipe["batch"],
        temperature=recipe["temperature"],
        cpu=facts.get("cpu_seconds", "?"),
        tiles=tiles,
        table="\n".join(lines) if metrics else "(not judged yet)",
        pcam=facts.get("judged_on", {}).get("pcam", "?"),
    )
