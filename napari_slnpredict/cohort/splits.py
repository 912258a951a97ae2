"""Which slides teach, which choose, which judge: by patient always, so that no figure is better than the truth.

Two slides of one patient share tissue, staining and scanner: with one on each side, a model is tested on what it has
seen. The same holds for one file under two names, which only its content tells.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import DataError, one_line
from napari_slnpredict.metrics.folds import grouped_folds

from .table import Cohort, Row

#: The sides of a given split, and other words for them.
SIDES = ("train", "val", "test")
_WORDS = {
    "train": 0,
    "training": 0,
    "val": 1,
    "valid": 1,
    "validation": 1,
    "dev": 1,
    "tune": 1,
    "test": 2,
    "testing": 2,
}
_SHOWN = 5


@dataclass(frozen=True)
class Fold:
    """One division of a cohort; numbers of rows.

    Attributes
    ----------
    training : (k,) int64
        Teach.
    validation : (v,) int64
        Choose the epoch, the threshold, the temperature; may be empty.
    test : (t,) int64
        Judge; touched once. May be empty.
    number, repeat : int
        Which fold of which repetition, from 0.
    """

    training: NDArray[np.int64] = field(repr=False)
    validation: NDArray[np.int64] = field(repr=False)
    test: NDArray[np.int64] = field(repr=False)
    number: int = 0
    repeat: int = 0


def plan_folds(
    rows: Sequence[Row],
    *,
    folds: int = 5,
    repeats: int = 1,
    seed: int = 0,
    sites_apart: bool = False,
) -> tuple[Fold, ...]:
    """Divide a cohort into folds that keep patients whole and balance labels, and sites within labels.

    Each patient is tested once in a repetition. Of the others, those of the next fold are for validation.

    Parameters
    ----------
    rows : sequence of Row
        Patient and label on each.
    folds : int
        At least 3: one to test, one to validate, the rest to train.
    repeats : int
        Repetitions with other draws.
    seed : int
    sites_apart : bool
        Keep whole sites on one side: how well does a model do in a laboratory it has never seen?

    Raises
    ------
    DataError
        Fewer patients (sites) than folds, or a training side without one of the classes: the class is named.
    """
    whole = [row.site if sites_apart else row.patient for row in rows]
    what = "sites" if sites_apart else "patients"
    count = len(set(whole))
    if folds < 3 or count < folds:
        do = "ask for fewer folds (at least 3), or give a column `split`"
        raise DataError(f"{count} {what} cannot be divided into {folds} folds", do=do)
    strata = [f"{row.label}\0{'' if sites_apart else row.site}" for row in rows]
    found = []
    for repeat in range(repeats):
        part = grouped_folds(strata, whole, folds, seed=int(np.random.default_rng([seed, repeat]).integers(2**31)))
        for number in range(folds):
            test, validation = part == number, part == (number + 1) % folds
            training, validating, testing = (_rows(side) for side in (~test & ~validation, validation, test))
            found.append(Fold(training, validating, testing, number, repeat))
    for fold in found:
        _refuse_missing_class(rows, fold)
    return tuple(found)


def given_fold(cohort: Cohort) -> Fold:
    """Return the division that a cohort's column ``split`` states: train, val (or dev), test; other rows are left out.

    Raises
    ------
    DataError
        No row to train on, a class missing there, or a patient on two sides: the patients are named.
    """
    sides: tuple[list[int], list[int], list[int]] = ([], [], [])
    for number, row in enumerate(cohort.rows):
        word = row.split.strip().lower()
        if word in _WORDS:
            sides[_WORDS[word]].append(number)
        elif word:
            do = f"write one of {', '.join(SIDES)}, or leave the cell empty"
            raise DataError(f"line {row.line}: split is {one_line(row.split, 40)!r}", file=cohort.file, do=do)
    training, validation, test = (np.array(side, np.int64) for side in sides)
    fold = Fold(training, validation, test)
    if not len(fold.training):
        do = "write train, val and test into the column `split`, or ask for folds"
        raise DataError("no row has the split 'train'", file=cohort.file, do=do)
    refuse_shared_patients(cohort, fold)
    _refuse_missing_class(cohort.rows, fold)
    return fold


def refuse_shared_patients(cohort: Cohort, fold: Fold) -> None:
    """Raise a `DataError` that names the patients with slides on two sides."""
    seen: dict[str, set[str]] = defaultdict(set)
    for name, side in zip(SIDES, (fold.training, fold.validation, fold.test), strict=True):
        for number in side.tolist():
            seen[cohort.rows[number].patient or cohort.rows[number].slide].add(name)
    shared = [
        f"{one_line(patient, 40)} ({' and '.join(sorted(on))})" for patient, on in sorted(seen.items()) if len(on) > 1
    ]
    if shared:
        raise DataError(
            f"{len(shared)} patients are on two sides of the split: {_some(shared)}",
            file=cohort.file,
            do="put all slides of a patient on one side: a model looks too good on patients it has seen",
        )


def check_contents(cohort: Cohort, contents: Sequence[str]) -> list[str]:
    """Find slides that are the same file under two names.

    Parameters
    ----------
    cohort : Cohort
    contents : sequence of str
        Each row's content id (`Slide.content_id`); "" where it is unknown.

    Returns
    -------
    list of str
        A warning for each content that comes twice with one patient and one label: it counts as two slides.

    Raises
    ------
    DataError
        Twice with two patients or two labels: it would be on both sides, or teach both answers. Rows are named.
    """
    by_content: dict[str, list[Row]] = defaultdict(list)
    for row, content in zip(cohort.rows, contents, strict=True):
        if content:
            by_content[content].append(row)
    warnings = []
    for same in (rows for rows in by_content.values() if len(rows) > 1):
        names = _some([f"{one_line(row.path.name, 60)} (line {row.line})" for row in same])
        for what, values in (("patients", {row.patient for row in same}), ("labels", {row.label for row in same})):
            if len(values) > 1:
                listed = " and ".join(one_line(value, 40) or "none" for value in sorted(values))
                raise DataError(
                    f"the same slide stands under several names with different {what} ({listed}): {names}",
                    file=cohort.file,
                    do="keep one of the lines",
                )
        warnings.append(f"The same slide stands under several names and counts as often: {names}")
    return warnings


def _rows(side: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.flatnonzero(side).astype(np.int64)


def _refuse_missing_class(rows: Sequence[Row], fold: Fold) -> None:
    labels = {row.label for row in rows if row.label}
    missing = sorted(labels - {rows[number].label for number in fold.training.tolist()})
    if missing:
        raise DataError(
            f"no slide of class {one_line(missing[0], 40)!r} is left to train on",
            do="ask for other folds, or add patients of that class",
        )


def _some(items: Sequence[str]) -> str:
    more = len(items) - _SHOWN
    return ", ".join(items[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
