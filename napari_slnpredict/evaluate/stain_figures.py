"""How much of a feature is stain: the same tiles as other laboratories would have stained them.

Tiles are unmixed by their own stains and mixed again in those of the phantoms' laboratories (`phantom.labs`), what the
two stains do not explain kept as it was. Tiles whose stains cannot be told apart are left out and counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.events import Job, Meter, Stage, Throttle
from napari_slnpredict.metrics.draws import Draws, draw
from napari_slnpredict.metrics.neighbours import unit
from napari_slnpredict.phantom.labs import LABS
from napari_slnpredict.phantom.labs import unit as unit_colour
from napari_slnpredict.slide.stain import REFERENCE, StainMatrix, fit_macenko, restain
from napari_slnpredict.torch_door import import_torch

from .arms import Arm
from .comparison import Measured
from .figures import JudgeOptions, few_groups
from .probe import fit_probe
from .sets import Sample, spread_rows
from .tile_features import embed_cached

#: Laboratories whose stain the tiles get; a probe is fitted in the first and asked in the others.
STAINS = ("A", "B", "C", "D")
_LEAST = 10


def lab_stain(name: str) -> StainMatrix:
    """Return the stain of a phantom laboratory, at the reference's strength times its own."""
    lab = LABS[name]
    first, second = (tuple(float(v) for v in unit_colour(dye)) for dye in (lab.haematoxylin, lab.eosin))
    strengths = [base * own * lab.thickness for base, own in zip(REFERENCE.strength, lab.strength, strict=True)]
    red, green, blue = (value + 1.0 for value in lab.glass)
    return StainMatrix(
        (first, second),  # type: ignore[arg-type]
        (strengths[0], strengths[1]),
        (red, green, blue),
        f"laboratory {name}",
    )


@dataclass(frozen=True)
class Stained:
    """The same tiles in several stains, the same for every arm.

    Attributes
    ----------
    places : (m,) int64
        In the sample.
    pixels : (s, m, p, p, 3) uint8
    draws : Draws
        Over those that are judged.
    asked : (q,) int64
        Of `places`, those judged.
    left_out : int
    note : str
    """

    places: NDArray[np.int64] = field(repr=False)
    pixels: NDArray[np.uint8] = field(repr=False)
    asked: NDArray[np.int64] = field(repr=False)
    draws: Draws = field(repr=False)
    left_out: int = 0
    note: str = ""


def stained_of(sample: Sample, options: JudgeOptions) -> Job[Stained | None]:
    """Return some tiles in the stains of several laboratories; None where hardly any has two stains."""
    usable = np.flatnonzero(sample.labelled) if sample.labelled.any() else np.arange(len(sample))
    chosen = [spread_rows(sample.table, usable, options.stain_tiles, options.seed)]
    if sample.split:
        sides = [np.intersect1d(side, usable) for side in (sample.rounds[0].known, sample.rounds[0].asked)]
        chosen = [spread_rows(sample.table, side, options.stain_tiles // 2, options.seed) for side in sides]
    places = np.concatenate(chosen)
    yield Stage("stain", f"{sample.name}: staining {len(places)} tiles again", len(places), "tiles")
    torch, meter, tell = import_torch(), Meter(len(places)), Throttle()
    targets = [lab_stain(name) for name in STAINS]
    kept, versions = [], []
    for start in range(0, len(places), 32):
        part = places[start : start + 32]
        tiles = torch.from_numpy(np.ascontiguousarray(sample.pixels(part)))
        fit = fit_macenko(tiles)
        usable = fit.usable.numpy()
        if usable.any():
            own = fit.take(np.flatnonzero(usable).tolist())
            versions.append(np.stack([restain(tiles[fit.usable], own, target).numpy() for target in targets]))
            kept.append(part[usable])
        meter.done += len(part)
        if tell():
            yield meter.progress()
    if sum(map(len, kept)) < _LEAST:
        return None
    found = np.concatenate(kept)
    asked = np.flatnonzero(np.isin(found, sample.asked))
    group = sample.table.group[found[asked]]
    if len(np.unique(group)) < 2:
        return None
    label = sample.table.label[found[asked]]
    draws = draw(group, np.maximum(label, 0), draws=options.draws, seed=options.seed)
    left_out = len(places) - len(found)
    note = "; ".join(
        text
        for text in (few_groups(group, label), f"left out for lack of two stains: {left_out}" if left_out else "")
        if text
    )
    return Stained(found, np.concatenate(versions, axis=1), asked, draws, left_out, note)


def stained_features(arm: Arm, stained: Stained, sample: Sample, cache: Path | None) -> Job[NDArray[np.float32]]:
    """Return the features of every tile in every stain, (s, m, d)."""
    stains, tiles = stained.pixels.shape[:2]
    yield Stage("stain", f"{sample.name}: {arm.name} sees other stains", stains * tiles, "tiles")
    meter = Meter(stains * tiles)
    features = np.empty((stains, tiles, arm.dim), np.float32)
    for number, pixels in enumerate(stained.pixels):
        features[number], found = embed_cached(arm, pixels, sample.mpp, cache)
        meter.done += tiles
        meter.found += tiles if found else 0
        yield meter.progress()
    return features


def stain_figures(
    arm: Arm,
    features: NDArray[np.float32],
    seen: NDArray[np.float32],
    stained: Stained,
    sample: Sample,
    options: JudgeOptions,
) -> dict[str, Measured]:
    """Return how much stain there is in the features of an arm.

    Parameters
    ----------
    features : (n, d)
        Of the sample.
    seen : (s, m, d)
        Of its tiles in other stains.
    """
    closeness = np.full((len(stained.places), 3), np.nan)  # closer, within, between
    said = np.full((len(seen), len(stained.places), max(1, len(sample.table.classes))), np.nan)
    label = sample.table.label[stained.places]
    group = sample.table.group[stained.places]
    for one in sample.rounds:
        fit = arm.fitted(features[one.known])
        known, asked = (np.flatnonzero(np.isin(stained.places, part)) for part in (one.known, one.asked))
        if not len(asked):
            continue
        vectors = np.stack([unit(fit(version[asked])) for version in seen])
        closeness[asked] = _closeness(vectors, group[asked])
        known = known[label[known] >= 0]
        if len(np.unique(label[known])) > 1:
            probe = fit_probe(
                fit(seen[0][known]), label[known], group[known], len(sample.table.classes), seed=options.seed
            )
            for version in range(len(seen)):
                said[version, asked] = probe.probabilities(fit(seen[version][asked]))
    return _scores(closeness, said, label, stained)


def _scores(
    closeness: NDArray[np.float64], said: NDArray[np.float64], label: NDArray[np.int64], stained: Stained
) -> dict[str, Measured]:
    at, draws = stained.asked, stained.draws

    def measured(values: NDArray[np.float64], base: float = float("nan")) -> Measured:
        return Measured(values, base, len(at), draws.groups, stained.note)

    names = ("stain: same tile closer", "stain: cosine within", "stain: cosine between")
    bases = (0.5, float("nan"), float("nan"))
    found = {
        name: measured(draws.mean(closeness[at, column]), base)
        for column, (name, base) in enumerate(zip(names, bases, strict=True))
    }
    _, within, between = closeness[at].T
    found["stain: shift over distance"] = measured(draws.ratio(1 - within, 1 - between))
    truth = label[at]
    if (truth >= 0).all() and len(np.unique(truth)) > 1 and np.isfinite(said[:, at]).all():
        own, *others = (draws.class_auc(truth, version[at]) for version in said)
        elsewhere = np.mean(others, axis=0)
        found["stain: probe AUC, other stains"] = measured(elsewhere, 0.5)
        found["stain: probe AUC lost"] = measured(own - elsewhere)
    return found


def _closeness(vectors: NDArray[np.float64], group: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return, for each tile, chance and cosines: (m, 3), of unit vectors (s, m, w).

    The chance that a tile in another stain is nearer to it than a tile of another group in the same stain; its cosine
    with itself in other stains; its cosine with those other tiles.
    """
    stains, m = vectors.shape[:2]
    other = group[:, None] != group[None]
    among = other.sum(axis=1)
    closer, within, between = np.zeros(m), np.zeros(m), np.zeros(m)
    for a in range(stains):
        beside = vectors[a] @ vectors[a].T
        between += np.where(other, beside, 0.0).sum(axis=1) / stains
        for b in range(stains):
            if a == b:
                continue
            itself = (vectors[a] * vectors[b]).sum(axis=1)
            within += itself / (stains * (stains - 1))
            wins = (itself[:, None] > beside) + 0.5 * (itself[:, None] == beside)
            closer += np.where(other, wins, 0.0).sum(axis=1) / (stains * (stains - 1))
    lonely = among == 0
    share = np.maximum(1, among)
    found = np.stack([closer / share, within, between / share], axis=1)
    found[lonely] = np.nan
    return found
