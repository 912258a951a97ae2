"""Public sets of slides as cohorts, from the folders they come in.

==============  ==============================================================================================
Camelyon16      ``training/{normal,tumor}/*.tif``, ``testing/images/*.tif`` with ``testing/reference.csv``; or
                all in ``images/`` as in the public bucket. Outlines: ``*.xml`` of the same name anywhere below.
BRACS slides    ``{train,val,test}/Group_*/Type_*/BRACS_*.svs``
==============  ==============================================================================================
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from napari_slnpredict.errors import DataError, one_line

from .slide_folders import ENDINGS
from .table import Cohort, Row
from .tasks import TASKS

#: Columns of the cohorts made here.
COLUMNS = ("path", "slide", "patient", "label", "split", "outline")
NORMAL, TUMOR = "normal", "tumor"
_SLIDE = re.compile(r"(normal|tumor|test)_\d+", re.IGNORECASE)


def camelyon16_cohort(folder: Path) -> Cohort:
    """Return Camelyon16's slides: label normal or tumor, split train or test, ``outline`` the XML file or "".

    A patient has one slide there, as far as is known; so slides are the groups.

    Raises
    ------
    DataError
        No slides, or a test slide that the reference does not name.
    """
    folder = Path(folder)
    # Masks lie beside the slides with names that go on: tumor_001_mask.tif.
    slides = sorted(path for path in folder.rglob("*.tif") if _SLIDE.fullmatch(path.stem))
    if not slides:
        raise DataError(
            "holds no slide normal_*.tif, tumor_*.tif or test_*.tif", file=folder, do="give Camelyon16's top folder"
        )
    reference = _reference(folder)
    outlines = {path.stem.lower(): path for path in sorted(folder.rglob("*.xml"))}
    rows = []
    for line, path in enumerate(slides, 1):
        name = path.stem.lower()
        kind = name.partition("_")[0]
        label = reference.get(name, "") if kind == "test" else kind
        if not label and reference:
            raise DataError(f"{one_line(path.name, 80)} is not in the reference", file="reference.csv", do="fetch both")
        rows.append(
            Row(
                line,
                path,
                slide=path.stem,
                label=label,
                split="test" if kind == "test" else "train",
                other=MappingProxyType({"outline": str(outlines.get(name, ""))}),
            )
        )
    return Cohort(folder, COLUMNS, tuple(rows))


def _reference(folder: Path) -> Mapping[str, str]:
    """Return the test slides' labels: lines ``test_001,Tumor,IDC,Macro``."""
    files = sorted(folder.rglob("reference.csv"))
    if not files:
        return {}
    try:
        with files[0].open(newline="", encoding="utf-8-sig") as source:
            lines = [[cell.strip() for cell in line] for line in csv.reader(source)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot be read ({one_line(error, 120)})", file=files[0], do="fetch it again") from error
    found = {}
    for number, line in enumerate(lines, 1):
        if len(line) < 2 or not line[0].lower().startswith("test_"):
            continue  # a header, or an empty line
        label = line[1].lower()
        if label not in (NORMAL, TUMOR):
            raise DataError(f"line {number}: {one_line(line[1], 40)!r} is neither", file=files[0], do="fetch it again")
        found[Path(line[0]).stem.lower()] = label
    return found


def bracs_cohort(folder: Path) -> Cohort:
    """Return BRACS' slides: label one of seven subtypes, split train, val or test by the folder they lie in.

    Raises
    ------
    DataError
        No slides below a folder ``Type_*``.
    """
    folder, task = Path(folder), TASKS["subtype"]
    rows: list[Row] = []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        label = next((found for part in parts[:-1] if (found := task.answer(part))), None)
        if path.suffix.lower() not in ENDINGS or not path.is_file() or label is None:
            continue
        split = next((part for part in parts if part in ("train", "val", "test")), "")
        rows.append(Row(len(rows) + 1, path, slide=path.stem, label=label, split=split))
    if not rows:
        raise DataError("holds no slide below a folder Type_*", file=folder, do="give the folder BRACS_WSI")
    return Cohort(folder, COLUMNS, tuple(rows))
