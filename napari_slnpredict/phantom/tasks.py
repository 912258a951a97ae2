"""Making synthetic slides: one, or a whole cohort with truth and table."""

from __future__ import annotations

import csv
import io
import zlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from napari_slnpredict.errors import DataError
from napari_slnpredict.events import Job, Meter, Stage
from napari_slnpredict.files import write_file

from .artefacts import soil
from .labs import find_lab
from .render import mix_stain, render, render_dab
from .rules import TASKS, Task, find_task
from .scene import Canvas, PhantomSlide, Streams
from .write import write_slide, write_truth

__all__ = ["TASKS", "make_cohort", "make_slide", "write_slide", "write_truth"]

COLUMNS = ("path", "slide", "patient", "label", "site", "split", "stain", "mpp", "task", "seed", "size_mm")


def make_slide(
    task: str, label: str, seed: int, lab: str = "A", *, size: float | None = None, stain: str = "HE"
) -> PhantomSlide:
    """Make one synthetic slide; the same arguments give the same pixels.

    Parameters
    ----------
    size : float, optional
        Width in mm (the height is three quarters of it); drawn between 3 and 5 when not given.
    stain : {"HE", "DAB"}
        ``DAB`` is the paired section of task ``her2``.
    """
    rules, room = find_task(task), find_lab(lab)
    if label not in rules.labels:
        raise DataError(f"task {task} has no label {label!r}", do=f"its labels are {', '.join(rules.labels)}")
    streams = Streams.of(seed, zlib.crc32(rules.name.encode()), zlib.crc32(lab.upper().encode()))
    drawn = float(streams.layout.uniform(3.0, 5.0))
    if stain == "DAB":  # the next section of the same block: other cells, same nests
        streams = replace(streams, cells=np.random.default_rng([seed, 1]), artefacts=np.random.default_rng([seed, 2]))
    scene = rules.build(streams, _canvas(size if size is not None else drawn), label)
    dirt = soil(streams.artefacts, scene)
    batch = mix_stain(streams.stain, room)
    draw = render if stain == "HE" else render_dab
    return PhantomSlide(
        task=rules.name,
        label=label,
        seed=seed,
        lab=lab.upper(),
        stain=stain,
        pixels=draw(scene, batch, dirt, streams.texture),
        truth=scene.truth,
        artefacts=scene.artefacts,
        instances=scene.instances,
        nuclei=len(scene.nuclei),
        quality=batch.quality,
    )


def _canvas(width_mm: float) -> Canvas:
    if not 0.3 <= width_mm <= 20:
        raise DataError(f"a phantom of {width_mm} mm", do="choose a width between 0.3 and 20 mm")
    width, height = (max(4, round(side * 1000 / 64)) * 64 for side in (width_mm, width_mm * 0.75))
    return Canvas(width, height)


def make_cohort(
    task: str,
    count: int,
    seed: int,
    lab: str,
    out: Path,
    *,
    balanced: bool = True,
    split: str = "",
    size: float | None = None,
) -> Job[Path]:
    """Write `count` slides with their truth and ``cohort.csv``; slides that are there already are kept.

    Parameters
    ----------
    lab : str
        A laboratory's letter, or several separated by commas, taken in turn.
    balanced : bool
        Every label equally often (within each run of as many slides as there are labels), in random order; else each
        slide's label is drawn on its own.
    split : str
        What the column ``split`` says: ``train``, ``val``, ``test`` or nothing. Rows of other slides already in
        ``cohort.csv`` stay, so that several calls fill one cohort.
    size : float, optional
        Width of the slides in mm; between 3 and 5 when not given.

    Returns
    -------
    Path
        The ``cohort.csv``. Every slide is a patient of its own.
    """
    rules, letters = find_task(task), [letter.strip().upper() for letter in lab.split(",")]
    for letter in letters:
        find_lab(letter)
    if count < 1:
        raise DataError(f"{count} slides asked for", do="ask for at least one")
    table, out = Path(out) / "cohort.csv", Path(out)
    rows = {row["slide"]: row for row in _read(table)}
    yield Stage("phantom", f"Making {count} synthetic slides", count, "slides")
    meter = Meter(count)
    for index, label in zip(range(count), _labels(rules, seed, balanced), strict=False):
        letter = letters[index % len(letters)]
        for row in _write_one(rules, label, seed * 100_000 + index, letter, out, split, size, rows):
            rows[row["slide"]] = row
        meter.done += 1
        write_file(table, _text(rows.values()))
        yield meter.progress()
    return table


def _labels(rules: Task, seed: int, balanced: bool) -> Iterable[str]:
    # Drawn block by block, so that a longer cohort begins with the shorter one.
    block = 0
    while True:
        rng = np.random.default_rng([seed, block, 5])
        order = rng.permutation(len(rules.labels)) if balanced else rng.integers(0, len(rules.labels), 1)
        yield from (rules.labels[k] for k in order)
        block += 1


def _write_one(
    rules: Task,
    label: str,
    seed: int,
    letter: str,
    out: Path,
    split: str,
    size: float | None,
    known: dict[str, dict[str, str]],
) -> list[dict[str, str]]:
    written = []
    patient = f"{rules.name}-{letter}{seed:07d}"
    for stain in ("HE", "DAB") if rules.name == "her2" else ("HE",):
        name = patient if stain == "HE" else f"{patient}-{stain}"
        row = {
            "path": f"slides/{name}.svs",
            "slide": name,
            "patient": patient,
            "label": label,
            "site": letter,
            "split": split,
            "stain": stain,
            "mpp": "1.0",
            "task": rules.name,
            "seed": str(seed),
            "size_mm": "" if size is None else f"{size:g}",
        }
        if known.get(name) != row or not (out / row["path"]).exists():
            slide = make_slide(rules.name, label, seed, letter, size=size, stain=stain)
            write_truth(slide, out / "truth", name)
            write_slide(slide, out / row["path"])
        written.append(row)
    return written


def _read(table: Path) -> list[dict[str, str]]:
    if not table.exists():
        return []
    with table.open(newline="", encoding="utf-8-sig") as source:
        reader = csv.DictReader(source)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise DataError("is not a phantom cohort", file=table, do="choose another --out folder")
        return list(reader)


def _text(rows: Iterable[dict[str, str]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
