"""Divisions of a cohort: no patient, no slide on two sides."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_slnpredict.cohort.splits import check_contents, given_fold, plan_folds, refuse_shared_patients
from napari_slnpredict.cohort.table import Cohort, Row
from napari_slnpredict.errors import DataError


def rows_of(patients: list[str], labels: list[str], sites: list[str] | None = None, split: str = "") -> tuple[Row, ...]:
    sites = sites or [""] * len(patients)
    return tuple(
        Row(line=i + 2, path=Path(f"slide{i}.svs"), patient=patient, label=label, site=site, split=split)
        for i, (patient, label, site) in enumerate(zip(patients, labels, sites, strict=True))
    )


def cohort_of(rows: tuple[Row, ...]) -> Cohort:
    return Cohort(Path("cohort.csv"), ("path", "patient", "label", "split"), rows)


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 6), st.integers(0, 10_000))
def test_no_patient_is_on_two_sides_and_each_is_tested_once(folds: int, seed: int) -> None:
    """Every figure would be too good."""
    random = np.random.default_rng(seed)
    patients = [f"p{i}" for i in range(30) for _ in range(random.integers(1, 4))]
    labels = {f"p{i}": str(i % 2) for i in range(30)}
    rows = rows_of(patients, [labels[patient] for patient in patients])
    plan = plan_folds(rows, folds=folds, seed=seed)
    tested: Counter[int] = Counter()
    for fold in plan:
        sides = [{patients[i] for i in side} for side in (fold.training, fold.validation, fold.test)]
        assert not sides[0] & sides[1]
        assert not sides[0] & sides[2]
        assert not sides[1] & sides[2]
        assert sum(map(len, (fold.training, fold.validation, fold.test))) == len(rows)
        tested.update(fold.test.tolist())
        refuse_shared_patients(cohort_of(rows), fold)
    assert set(tested.values()) == {1}
    assert len(tested) == len(rows)


def test_classes_and_sites_are_balanced_and_repeats_differ() -> None:
    """A fold without a class cannot be judged; the same folds twice tell nothing new."""
    patients = [f"p{i}" for i in range(60)]
    labels = ["yes" if i % 3 == 0 else "no" for i in range(60)]
    sites = ["A" if i % 2 else "B" for i in range(60)]
    plan = plan_folds(rows_of(patients, labels, sites), folds=5, repeats=2, seed=3)
    assert len(plan) == 10
    for fold in plan:
        assert Counter(labels[i] for i in fold.test) == {"yes": 4, "no": 8}
        assert Counter(sites[i] for i in fold.test) == {"A": 6, "B": 6}
    assert plan[0].test.tolist() != plan[5].test.tolist()
    again = plan_folds(rows_of(patients, labels, sites), folds=5, repeats=2, seed=3)
    assert [fold.test.tolist() for fold in again] == [fold.test.tolist() for fold in plan]


def test_sites_can_be_kept_apart() -> None:
    """A figure "in an unseen laboratory" would come from a seen one."""
    sites = [f"s{i % 4}" for i in range(40)]
    plan = plan_folds(
        rows_of([f"p{i}" for i in range(40)], [str(i // 4 % 2) for i in range(40)], sites), folds=4, sites_apart=True
    )
    for fold in plan:
        assert not {sites[i] for i in fold.test} & {sites[i] for i in (*fold.training, *fold.validation)}
        assert not {sites[i] for i in fold.validation} & {sites[i] for i in fold.training}


def test_too_few_are_refused() -> None:
    """A fold without test cases would be averaged in as a perfect one."""
    with pytest.raises(DataError, match="3 patients cannot be divided into 5"):
        plan_folds(rows_of(["a", "b", "c", "a"], ["0", "1", "0", "0"]), folds=5)
    with pytest.raises(DataError, match="class 'rare'"):
        plan_folds(rows_of(list("abcdefg"), ["common"] * 6 + ["rare"]), folds=3)


def test_a_given_split_is_respected() -> None:
    """The table's own division would be overruled."""
    rows = tuple(
        Row(line=i + 2, path=Path(f"{i}.svs"), patient=f"p{i}", label=str(i % 2), split=split)
        for i, split in enumerate(["train", "Train", "dev", "test", "", "validation"])
    )
    fold = given_fold(cohort_of(rows))
    assert (fold.training.tolist(), fold.validation.tolist(), fold.test.tolist()) == ([0, 1], [2, 5], [3])


def test_a_patient_on_both_sides_is_named() -> None:
    """The most common mistake of published figures would go through."""
    rows = tuple(
        Row(line=i + 2, path=Path(f"{i}.svs"), patient=patient, label=str(i % 2), split=split)
        for i, (patient, split) in enumerate([("anna", "train"), ("bert", "train"), ("anna", "test"), ("carl", "val")])
    )
    with pytest.raises(DataError, match=r"1 patients .* anna \(test and train\)"):
        given_fold(cohort_of(rows))


@pytest.mark.parametrize(
    ("splits", "message"), [(["", "test"], "no row has the split"), (["train", "tost"], "line 3: split is 'tost'")]
)
def test_a_split_that_says_nothing_is_refused(splits: list[str], message: str) -> None:
    """A typing error would silently leave slides out."""
    rows = tuple(
        Row(line=i + 2, path=Path(f"{i}.svs"), patient=f"p{i}", label="0", split=s) for i, s in enumerate(splits)
    )
    with pytest.raises(DataError, match=message):
        given_fold(cohort_of(rows))


def test_a_renamed_copy_is_found() -> None:
    """One slide under two names would teach and test."""
    rows = rows_of(["p0", "p1", "p1"], ["0", "0", "0"])
    with pytest.raises(
        DataError, match=r"different patients \(p0 and p1\): slide0.svs \(line 2\), slide2.svs \(line 4\)"
    ):
        check_contents(cohort_of(rows), ["x", "y", "x"])
    assert check_contents(cohort_of(rows), ["x", "y", "y"]) == [
        "The same slide stands under several names and counts as often: slide1.svs (line 3), slide2.svs (line 4)"
    ]
    assert check_contents(cohort_of(rows), ["", "", ""]) == []
    twice = rows_of(["p1", "p1"], ["0", "1"])
    with pytest.raises(DataError, match="different labels"):
        check_contents(cohort_of(twice), ["x", "x"])
