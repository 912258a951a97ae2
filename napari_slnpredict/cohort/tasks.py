"""What may be asked of a slide besides its column ``label``: any column, and tasks whose answers are known by name.

A cohort table may hold several answers a slide, a column each; `for_task` makes one of them the label. For tasks that
have a published set of classes the cells are checked against it, whatever way of writing the data came with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from napari_slnpredict.errors import DataError, one_line

from .table import Cohort

LABEL = "label"


@dataclass(frozen=True)
class SlideTask:
    """A question with a fixed set of answers.

    Attributes
    ----------
    name : str
        Also the column that holds the answers.
    classes : tuple of str
        In their order, where they have one.
    ordered : bool
    positive : str
        The class a score speaks for, "" with more than two.
    source : str
    aliases : mapping of str to str
        Other ways of writing a class, in lower case.
    """

    name: str
    classes: tuple[str, ...]
    ordered: bool
    positive: str
    source: str
    aliases: Mapping[str, str] = field(default_factory=dict)

    def answer(self, cell: str) -> str | None:
        """Return the class a cell means, None where it means none."""
        known = {name.lower(): name for name in self.classes} | dict(self.aliases)
        return known.get(cell.strip().lower())


#: The seven classes of BRACS, from harmless to invasive.
BRACS_CLASSES = ("N", "PB", "UDH", "FEA", "ADH", "DCIS", "IC")

TASKS = {
    task.name: task
    for task in (
        SlideTask(
            "subtype",
            BRACS_CLASSES,
            ordered=True,
            positive="",
            source="BRACS (Brancati et al. 2022); used by Tiard et al., arXiv 2211.07590",
            aliases={
                **{f"{number}_{name}".lower(): name for number, name in enumerate(BRACS_CLASSES)},
                **{f"type_{name}".lower(): name for name in BRACS_CLASSES},
                "normal": "N",
                "pathological benign": "PB",
                "usual ductal hyperplasia": "UDH",
                "flat epithelial atypia": "FEA",
                "atypical ductal hyperplasia": "ADH",
                "ductal carcinoma in situ": "DCIS",
                "invasive carcinoma": "IC",
            },
        ),
        SlideTask(
            "response",
            ("no", "yes"),
            ordered=False,
            positive="yes",
            source="response to treatment: Tiard et al., arXiv 2211.07590",
            aliases={
                **dict.fromkeys(("0", "false", "non-responder", "nonresponder", "non-pcr", "rd"), "no"),
                **dict.fromkeys(("1", "true", "responder", "pcr", "cr"), "yes"),
            },
        ),
    )
}


def for_task(cohort: Cohort, task: str) -> Cohort:
    """Return a cohort whose labels are the answers to a task: those of the column of that name.

    An empty cell stays without a label.

    Raises
    ------
    DataError
        No such column, or a cell that is none of the task's classes; the line is named.
    """
    if task == LABEL:
        return cohort
    if task not in cohort.columns:
        raise DataError(
            f"line 1: no column {one_line(task, 40)!r}",
            file=cohort.file,
            do="name the column of the answers as the task, or choose another --task",
        )
    known = TASKS.get(task)
    rows = []
    for row in cohort.rows:
        cell = row.other.get(task, "") or str(getattr(row, task, "") or "")
        answer = known.answer(cell) if known and cell else cell
        if known and answer is None:
            raise DataError(
                f"line {row.line}: {task} is {one_line(cell, 40)!r}",
                file=cohort.file,
                do=f"write one of {', '.join(known.classes)}",
            )
        rows.append(replace(row, label=answer or ""))
    return replace(cohort, rows=tuple(rows))
