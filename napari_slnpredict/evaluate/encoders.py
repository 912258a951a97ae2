"""Encoders against each other: every arm on every set, the same tiles, the same folds, the same draws."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_slnpredict.errors import Cancelled, DataError, SlnPredictError, one_line
from napari_slnpredict.events import Job, Meter, Partial, Stage, Throttle, Warn

from .arms import Arm
from .comparison import (
    ALL_SETS,
    ArmFacts,
    Comparison,
    Failure,
    Measured,
    Score,
    SetFacts,
    SetMeasured,
    mean_of_sets,
    scores_of,
)
from .figures import (
    COSTS,
    JudgeOptions,
    Labelled,
    Placed,
    class_counts,
    cost_figures,
    label_figures,
    labelled_of,
    pairs_of,
    place_figures,
    placed_of,
    site_figure,
)
from .overlap import overlap_words
from .sets import JudgedSet, Sample
from .stain_figures import Stained, stain_figures, stained_features, stained_of
from .tile_features import sample_features, time_arm

BASELINE = "colour"


def judge(
    arms: Sequence[Arm],
    sets: Sequence[JudgedSet],
    *,
    baseline: str = BASELINE,
    options: JudgeOptions | None = None,
    cache: Path | None = None,
    allow_overlap: bool = False,
    failures: Sequence[Failure] = (),
) -> Job[Comparison]:
    """Judge arms on sets; yields `Stage`, `Progress`, `Warn`, and ``Partial("scores", tuple of Score)`` a set.

    An arm or a set that fails is named and left out; the others go on. Features are found again in the cache, so that
    a run that was stopped goes on.

    Parameters
    ----------
    arms : sequence of Arm
    sets : sequence of JudgedSet
    baseline : str
        The arm that the others are measured against; where it is not among them, there are no differences.
    options : JudgeOptions, optional
    cache : Path, optional
        The cache's root; without one features are computed anew.
    allow_overlap : bool
        Judge an arm on what it was trained on: every such figure is marked.
    failures : sequence of Failure
        What failed before: goes into the result.

    Raises
    ------
    DataError
        No arm, no set, two arms of one name, or an arm that has seen tiles it would be judged on.
    """
    options = options or JudgeOptions()
    run = _Judgement(tuple(arms), baseline, options, cache, allow_overlap)
    run.failures.extend(failures)
    run.check(sets)
    start = time.monotonic()
    for arm in arms:
        if arm.warning:
            yield Warn(arm.warning)
    for judged in sets:
        yield from run.one_set(judged)
    if not run.measured:
        first = run.failures[-1].message if run.failures else "nothing could be measured"
        raise DataError(f"no set could be judged: {first}", do="see the warnings")
    return run.result({"all": time.monotonic() - start})


@dataclass(frozen=True)
class _Prepared:
    """One set, ready for every arm."""

    sample: Sample
    labelled: Labelled | None
    placed: Placed | None
    stained: Stained | None


class _Judgement:
    """What is known so far."""

    def __init__(
        self, arms: tuple[Arm, ...], baseline: str, options: JudgeOptions, cache: Path | None, allow_overlap: bool
    ) -> None:
        self.arms, self.baseline, self.options, self.cache = arms, baseline, options, cache
        self.allow_overlap = allow_overlap
        self.overlap: dict[tuple[str, str], str] = {}
        self.failures: list[Failure] = []
        self.facts: list[SetFacts] = []
        self.measured: list[SetMeasured] = []
        self.scores: list[Score] = []
        self.timed: set[str] = set()

    def check(self, sets: Sequence[JudgedSet]) -> None:
        """Refuse what cannot be judged, or must not be."""
        names = [arm.name for arm in self.arms]
        if not names or not sets:
            raise DataError("nothing to compare", do="give arms and tiles")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise DataError(f"the arm {twice[0]} is named twice")
        if len({one.name for one in sets}) != len(sets):
            raise DataError("two sets have one name", do="rename one of the files")
        for judged in sets:
            rows = np.arange(len(judged.data.table)) if judged.test is None else judged.test
            for arm in self.arms:
                if found := overlap_words(arm.training, judged.data.table, rows):
                    self.overlap[judged.name, arm.name] = found
        if self.overlap and not self.allow_overlap:
            (name, arm_name), found = next(iter(self.overlap.items()))
            raise DataError(
                f"{arm_name} was trained on part of {name}: {found}",
                do="judge on tiles it has not seen (--split), or --allow-overlap, which marks every figure",
            )

    def one_set(self, judged: JudgedSet) -> Job[None]:
        """Judge every arm on a set."""
        try:
            prepared = yield from self._prepare(judged)
        except (SlnPredictError, OSError, MemoryError) as error:
            yield from self._fail(judged.name, judged.name, error)
            return
        measured: SetMeasured = {}
        for arm in self.arms:
            try:
                found = yield from self._one_arm(arm, prepared)
            except Exception as error:  # noqa: BLE001  (whatever an arm throws, the others go on; it is named)
                yield from self._fail(arm.name, judged.name, error)
                continue
            seen = self.overlap.get((judged.name, arm.name), "")
            for figure, one in found.items():
                mark = f"OVERLAP: trained on {seen}" if seen and figure not in COSTS else ""
                text = "; ".join(part for part in (mark, one.note) if part)
                measured.setdefault(figure, {})[arm.name] = dataclasses.replace(one, note=text)
        prepared.sample.forget()
        if measured:
            self.measured.append(measured)
            scores = scores_of(judged.name, measured, self.baseline)
            self.scores += scores
            yield Partial("scores", tuple(scores))

    def _fail(self, name: str, where: str, error: Exception) -> Job[None]:
        if isinstance(error, Cancelled):
            raise error
        message = one_line(error, 300) or type(error).__name__
        self.failures.append(Failure(name, where, type(error).__name__, message))
        yield Warn(f"{name} left out on {where}: {message}" if name != where else f"{name} left out: {message}")

    def _prepare(self, judged: JudgedSet) -> Job[_Prepared]:
        options = self.options
        yield Stage("tiles", f"{judged.name}: reading tiles", len(judged.data.table), "tiles")
        pairs, why_not = pairs_of(judged, options)
        beside = None if pairs is None else np.union1d(pairs.first, pairs.second)
        sample = Sample(judged, tiles=options.tiles, folds=options.folds, seed=options.seed, beside=beside)
        yield Stage("tiles", f"{judged.name}: reading tiles", len(sample), "tiles")
        meter, tell = Meter(len(sample)), Throttle()
        for _, _, pixels in sample.chunks():
            meter.done += len(pixels)
            if tell():
                yield meter.progress()
        labelled = labelled_of(sample, options)
        placed = placed_of(sample, pairs, options) if pairs is not None else None
        stained = (yield from stained_of(sample, options)) if options.stain_tiles else None
        notes = [judged.note, why_not, *getattr(judged.data, "notes", ())]
        if sample.grouping in ("files", "tiles"):
            notes.append("slides and patients are not known: tiles of one slide may stand on both sides")
        if labelled is None:
            notes.append("no figures by label: too few classes or groups with labels")
        if options.stain_tiles and stained is None:
            notes.append("no figures by stain: hardly any tile shows two stains")
        if not sample.split and len(sample) < len(judged.data.table):
            notes.append(f"{len(sample)} of {len(judged.data.table)} tiles, spread over classes and {sample.grouping}")
        self.facts.append(_facts(sample, labelled, tuple(note for note in notes if note)))
        return _Prepared(sample, labelled, placed, stained)

    def _one_arm(self, arm: Arm, prepared: _Prepared) -> Job[dict[str, Measured]]:
        sample, options = prepared.sample, self.options
        features = yield from sample_features(arm, sample, self.cache)
        yield Stage("judge", f"{sample.name}: judging {arm.name}")
        found: dict[str, Measured] = {}
        if prepared.labelled is not None:
            found |= label_figures(arm, features, sample, prepared.labelled, options)
            found |= site_figure(arm, features, sample, prepared.labelled, options)
        if prepared.placed is not None:
            found |= place_figures(arm, features, sample, prepared.placed)
        if prepared.stained is not None:
            seen = yield from stained_features(arm, prepared.stained, sample, self.cache)
            found |= stain_figures(arm, features, seen, prepared.stained, sample, options)
        ms = None
        if options.timed and arm.name not in self.timed:
            ms = time_arm(arm, sample)
            self.timed.add(arm.name)
        return found | cost_figures(arm, ms, len(sample))

    def result(self, seconds: dict[str, float]) -> Comparison:
        """Return everything found."""
        survived = [arm for arm in self.arms if any(score.arm == arm.name for score in self.scores)]
        whole = [arm.name for arm in survived if all(_has(one, arm.name) for one in self.measured)]
        pooled = mean_of_sets(self.measured, whole) if len(self.measured) > 1 else {}
        return Comparison(
            tuple(ArmFacts(arm.name, arm.digest, arm.width, arm.licence, arm.notice, arm.warning) for arm in survived),
            tuple(self.facts),
            self.baseline,
            (*self.scores, *scores_of(ALL_SETS, pooled, self.baseline)),
            tuple(self.failures),
            {**dataclasses.asdict(self.options), "allow_overlap": self.allow_overlap},
            seconds,
        )


def _has(measured: SetMeasured, arm: str) -> bool:
    return any(arm in by_arm for by_arm in measured.values())


def _facts(sample: Sample, labelled: Labelled | None, notes: tuple[str, ...]) -> SetFacts:
    asked = sample.asked
    groups = len(np.unique(sample.table.group[asked]))
    known = len(sample) - len(asked)
    split = f"fitted on {known}, judged on {len(asked)} tiles" if sample.split else f"{len(sample.rounds)} folds"
    return SetFacts(
        sample.name,
        len(asked),
        groups,
        sample.grouping,
        sample.own_words,
        split,
        sample.tile_px,
        sample.mpp,
        class_counts(sample, labelled),
        notes,
    )
