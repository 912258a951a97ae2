"""What a claim comes to: figures with intervals, differences on the same drawn patients, and a verdict by the interval.

Two things are drawn anew in every repetition: patients (or slides) with all their tiles, and the trainings' seeds.
Arms are compared on the same draw. The verdict is mechanical: *supported* when the whole interval lies above the bar,
*not supported* when it lies below, *undecided at this size* otherwise, and always when fewer than ten groups were there
to draw from, because an interval from so few is narrower than the truth.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_slnpredict.files import write_file, write_json
from napari_slnpredict.metrics.draws import Draws, draw
from napari_slnpredict.provenance import now, versions

DRAWS, FEWEST_GROUPS = 2000, 10
SUPPORTED, NOT_SUPPORTED, UNDECIDED = "supported", "not supported", "undecided at this size"

#: What arms say of the cases, (n, ...), one array a seed.
Said: TypeAlias = Mapping[str, Sequence[NDArray[Any]]]
#: A figure of every draw: drawn groups, labels (n,), what an arm says of the cases (n, ...) -> (1 + draws,).
Metric = Callable[[Draws, NDArray[Any], NDArray[Any]], NDArray[np.float64]]


@dataclass(frozen=True)
class Figure:
    """One measure of one arm, mean over its seeds."""

    measure: str
    arm: str
    value: float
    low: float
    high: float
    seeds: tuple[float, ...]


@dataclass(frozen=True)
class Finding:
    """One arm against another.

    Attributes
    ----------
    part : str
        Of the claim: what would be supported.
    least : float
        The bar: 0 for "is better", -0.02 for "loses no more than 0.02".
    """

    part: str
    measure: str
    ours: str
    baseline: str
    gain: float
    low: float
    high: float
    verdict: str
    groups: int
    least: float = 0.0


class Measured:
    """One measure of several arms on the same cases.

    Parameters
    ----------
    name : str
    metric : callable
    labels : (n,)
    groups : (n,)
        Patient or slide of each case.
    said : mapping of str to sequence of (n, ...)
        Of each arm, one array a seed.
    """

    def __init__(
        self,
        name: str,
        metric: Metric,
        labels: ArrayLike,
        groups: ArrayLike,
        said: Mapping[str, Sequence[NDArray[Any]]],
    ) -> None:
        truth = np.asarray(labels)
        drawn = draw(groups, truth, draws=DRAWS)
        self.name, self.groups = name, drawn.groups
        most = max(len(seeds) for seeds in said.values())
        chosen = np.random.default_rng(1).integers(most, size=(DRAWS, most))
        self._points: dict[str, NDArray[np.float64]] = {}
        self._drawn: dict[str, NDArray[np.float64]] = {}
        for arm, seeds in said.items():
            values = np.stack([metric(drawn, truth, one) for one in seeds], axis=1)  # (1 + draws, seeds)
            self._points[arm] = values[0]
            # Seed k of one arm and seed k of another are drawn together; an arm of fewer seeds repeats them.
            self._drawn[arm] = np.take_along_axis(values[1:], chosen % len(seeds), axis=1).mean(axis=1)

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms measured."""
        return tuple(self._points)

    def figure(self, arm: str) -> Figure:
        """Return an arm's figure with its interval."""
        points = self._points[arm]
        low, high = _ends(self._drawn[arm])
        return Figure(self.name, arm, float(points.mean()), low, high, tuple(float(value) for value in points))

    def finding(self, part: str, ours: str, baseline: str, least: float = 0.0, *, lower: bool = False) -> Finding:
        """Return whether `ours` beats `baseline` by more than `least`; `lower`: the smaller figure is the better."""
        sign = -1.0 if lower else 1.0
        low, high = _ends(sign * (self._drawn[ours] - self._drawn[baseline]))
        gain = sign * float(self._points[ours].mean() - self._points[baseline].mean())
        said = verdict(low, high, least, self.groups)
        name = f"{self.name} (less is better)" if lower else self.name
        return Finding(part, name, ours, baseline, gain, low, high, said, self.groups, least)


def mean(drawn: Draws, _: NDArray[Any], said: NDArray[Any]) -> NDArray[np.float64]:
    """Return the mean of what is said, (n,) or (n, columns); NaN is left out."""
    return _over_columns(drawn.mean, said)


def auc(drawn: Draws, labels: NDArray[Any], said: NDArray[Any]) -> NDArray[np.float64]:
    """Return the AUC of scores, (n,) or (n, columns): of columns the mean."""
    return _over_columns(lambda column: drawn.auc(labels == 1, column), said)


def accuracy(drawn: Draws, labels: NDArray[Any], said: NDArray[Any]) -> NDArray[np.float64]:
    """Return the balanced accuracy at one half of probabilities, (n,) or (n, columns): of columns the mean."""
    return _over_columns(lambda column: drawn.class_mean((column >= 0.5) == (labels == 1), labels), said)


def ratio(drawn: Draws, labels: NDArray[Any], said: NDArray[Any]) -> NDArray[np.float64]:
    """Return the mean over cases of label 1 over the mean over those of label 0."""
    return drawn.ratio(*(np.where(labels == one, said, np.nan) for one in (1, 0)))


def _over_columns(one: Callable[[NDArray[Any]], NDArray[np.float64]], said: NDArray[Any]) -> NDArray[np.float64]:
    columns = said if said.ndim == 2 else said[:, None]
    return np.mean([one(column) for column in columns.T], axis=0)


def _ends(values: NDArray[np.float64]) -> tuple[float, float]:
    usable = values[np.isfinite(values)]
    if not len(usable):
        return float("nan"), float("nan")
    low, high = np.percentile(usable, [2.5, 97.5])
    return float(low), float(high)


def verdict(low: float, high: float, least: float, groups: int) -> str:
    """Return what an interval of a difference says about "more than `least`"."""
    if groups < FEWEST_GROUPS or low != low:  # NaN: no draw had every class
        return UNDECIDED
    return SUPPORTED if low > least else NOT_SUPPORTED if high < least else UNDECIDED


@dataclass
class Report:
    """Everything a script has to say.

    Attributes
    ----------
    claim, paper : str
    conditions : dict
        Data, sizes, seeds, settings.
    public : str
        The command for the data set the paper used.
    """

    claim: str
    paper: str
    conditions: dict[str, Any]
    public: str
    figures: list[Figure] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, measured: Measured) -> Measured:
        """Note the figures of every arm."""
        self.figures += [measured.figure(arm) for arm in measured.arms]
        return measured

    def text(self) -> str:
        """Return it as Markdown."""
        lines = [f"## {self.claim}", "", f"Paper: {self.paper}", "", "Conditions: " + _words(self.conditions), ""]
        measures = list(dict.fromkeys(one.measure for one in self.figures))
        arms = list(dict.fromkeys(one.arm for one in self.figures))
        found = {(one.measure, one.arm): one for one in self.figures}
        lines += ["| arm | " + " | ".join(measures) + " |", "| --- " * (len(measures) + 1) + "|"]
        for arm in arms:
            cells = [_cell(found[one, arm]) if (one, arm) in found else "" for one in measures]
            lines.append(f"| {arm} | " + " | ".join(cells) + " |")
        lines += ["", "| claim | measure | ours against | gain (95 %) | verdict |", "| --- | --- | --- | --- | --- |"]
        for one in self.findings:
            bar = f" (bar {one.least:+.2f})" if one.least else ""
            lines.append(
                f"| {one.part} | {one.measure} | {one.ours} against {one.baseline} | {one.gain:+.3f} "
                f"({one.low:+.3f} to {one.high:+.3f}){bar}, {one.groups} groups | **{one.verdict}** |"
            )
        lines += ["", *(f"- {note}" for note in self.notes), "", "On public data:", "", "```", self.public, "```", ""]
        return "\n".join(lines)

    def save(self, folder: Path) -> None:
        """Write ``result.json`` and ``result.md``."""
        facts = asdict(self) | {"date": now(), "versions": versions()}
        write_json(Path(folder) / "result.json", facts)
        write_file(Path(folder) / "result.md", self.text())


def show(report: Report, folder: Path, *, final: bool) -> None:
    """Save a report; print it on stdout when it is the last, else a line on stderr."""
    report.save(folder)
    if final:
        print(report.text())
        return
    said = "; ".join(f"{one.part}: {one.gain:+.3f} ({one.low:+.3f} to {one.high:+.3f})" for one in report.findings)
    print(f"so far: {said}", file=sys.stderr, flush=True)


def _words(conditions: Mapping[str, Any]) -> str:
    return "; ".join(f"{key} {value}" for key, value in conditions.items())


def _cell(one: Figure) -> str:
    seeds = f" [{min(one.seeds):.3f}, {max(one.seeds):.3f}]" if len(one.seeds) > 1 else ""
    return f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f}){seeds}"
