"""The files of a prediction: tables, places, picture, report, provenance.

Everything goes through `files.write_file`, so each file is whole or absent; ``prediction.json`` comes last, so a folder
that has one is complete.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import provenance
from .errors import one_line
from .export_classes import class_columns, classes_record
from .export_qupath import tiles_geojson
from .files import write_file, write_json
from .pipeline import Prediction

if TYPE_CHECKING:
    from .slide.slide import Slide

FORMAT = 1
#: What `seconds` in run.json always names (TRIDENT#183: a slow run must say which part was slow).
PARTS = ("read", "decode", "encode", "write")


@dataclass(frozen=True)
class Sheet:
    """How one result is written.

    Attributes
    ----------
    name : str
        The slide's name in every file: its stem, with a suffix where two collide, or the content id.
    origin : str
        ``qupath`` or ``level0``, for places in tiles.geojson and map.ome.tif.
    settings : mapping
        What was asked for, without paths; goes to run.json.
    """

    name: str
    origin: str = "qupath"
    settings: Mapping[str, Any] = field(default_factory=dict)


def write_prediction(slide: Slide, prediction: Prediction, folder: Path, sheet: Sheet) -> dict[str, Any]:
    """Write every file of one slide's prediction into `folder`.

    Returns
    -------
    The content of prediction.json.

    Raises
    ------
    ResourceError
        No space, no rights.
    """
    from .export_pictures import map_ome_tiff, overlay_png
    from .report import report_html

    folder = Path(folder)
    watch = provenance.Stopwatch(dict(prediction.seconds))
    with watch("write"):
        record = prediction_record(slide, prediction, sheet)
        write_file(folder / "tiles.csv", tiles_csv(prediction))
        write_file(folder / "tiles.geojson", tiles_geojson(slide, prediction, sheet.name, sheet.origin))
        write_file(folder / "overlay.png", overlay_png(slide, prediction))
        write_file(folder / "map.ome.tif", lambda part: map_ome_tiff(part, slide, prediction, sheet))
        write_file(folder / "report.html", report_html(slide, prediction, record))
    record["seconds"] = rounded(watch.seconds)
    write_json(folder / "run.json", run_record(slide, prediction, sheet, watch.seconds))
    write_json(folder / "prediction.json", record)
    return record


def prediction_record(slide: Slide, prediction: Prediction, sheet: Sheet) -> dict[str, Any]:
    """Return the content of prediction.json.

    Without a verdict (no tissue, too much damage, a classifier of tiles alone) every class is equally possible: the
    probabilities say just that, and `reason` says why. predictions.csv leaves the cells empty.
    """
    verdict, bundle, encoder = prediction.verdict, prediction.bundle, prediction.encoder
    classes = list(bundle.classes)
    belief = verdict.probabilities.tolist() if verdict is not None else [1 / len(classes)] * len(classes)
    return {
        "format": FORMAT,
        "slide_id": sheet.name,
        "content_id": prediction.content_id,
        "classes": classes,
        "probabilities": dict(zip(classes, belief, strict=True)),
        "interval": _plain(verdict.interval) if verdict is not None else None,
        "set": _plain(verdict.conformal) if verdict is not None else None,
        "out_of_domain": _plain(verdict.out_of_domain) if verdict is not None else None,
        "answer": prediction.answer,
        "sure": prediction.sure,
        "reason": prediction.reason,
        "tile_classes": classes_record(prediction),
        "model": {
            "name": bundle.name,
            "digest": bundle.digest,
            "task": str(bundle.task.get("name", "")),
            "type": str(bundle.model.get("type", "")),
            "licence": bundle.licence,
            "notice": bundle.notice,
        },
        "encoder": {
            "name": encoder.name,
            "digest": encoder.digest,
            "precision": prediction.bag.precision if prediction.bag is not None else None,
            "licence": encoder.licence,
            "notice": encoder.notice,
        },
        "device": prediction.device,
        "tiles": len(prediction.grid),
        "tissue_mm2": round(float(prediction.tissue.area_mm2), 4),
        "seconds": rounded(prediction.seconds),
        "warnings": [hide_name(text, slide, sheet.name) for text in prediction.warnings],
    }


def run_record(slide: Slide, prediction: Prediction, sheet: Sheet, seconds: Mapping[str, float]) -> dict[str, Any]:
    """Return the content of run.json: what ran, on what, with what, for how long. No path, no host, no user."""
    spec = prediction.grid.spec
    return {
        "format": FORMAT,
        "slide_id": sheet.name,
        "content_id": prediction.content_id,
        "finished": provenance.now(),
        "versions": provenance.versions(),
        "machine": provenance.machine(),
        "device": prediction.device,
        "slide": {
            "reader": slide.reader,
            "mpp": slide.mpp,
            "mpp_source": slide.mpp_source,
            "width": int(slide.dimensions[0]),
            "height": int(slide.dimensions[1]),
            "levels": int(slide.level_count),
            "bounds": [int(v) for v in slide.bounds],
            "colours": "as stored; the slide's ICC profile is not applied",
        },
        "grid": {
            "tile_px": spec.tile_px,
            "mpp": spec.mpp,
            "overlap_px": spec.overlap_px,
            "min_tissue": spec.min_tissue,
            "digest": prediction.grid.digest,
            "tiles": len(prediction.grid),
        },
        "model": {
            "name": prediction.bundle.name,
            "digest": prediction.bundle_digest,
            "licence": prediction.bundle.licence,
        },
        "encoder": {
            "name": prediction.encoder.name,
            "digest": prediction.encoder.digest,
            "interpolation": prediction.encoder.interpolation,
            "licence": prediction.encoder.licence,
            "precision": prediction.bag.precision if prediction.bag is not None else None,
        },
        "settings": {"origin": sheet.origin, **sheet.settings},
        "seconds": rounded({**dict.fromkeys(PARTS, 0.0), **seconds}),
    }


def tiles_csv(prediction: Prediction) -> str:
    """Return tiles.csv: one row a tile, in the order of the grid."""
    grid, verdict = prediction.grid, prediction.verdict
    attention = verdict.attention if verdict is not None else None
    evidence = verdict.evidence if verdict is not None else None
    classes = prediction.bundle.classes
    header = ["x", "y", "size", "tissue", "attention", "share", "rank", *(f"evidence_{c}" for c in classes)]
    rank = verdict.rank() if verdict is not None else np.arange(1, len(grid) + 1)
    damaged = prediction.bag.damaged if prediction.bag is not None else np.zeros(len(grid), bool)
    class_names, looks = class_columns(prediction)
    rows = []
    for k, (x, y) in enumerate(grid.locations.tolist()):
        weight = None if attention is None else float(attention[k])
        speaks = [None] * len(classes) if evidence is None else [_or_none(v) for v in evidence[k].tolist()]
        share = None if weight is None else weight * len(grid)
        row = [x, y, round(grid.size_level0, 3), float(grid.tissue[k]), weight, share, int(rank[k]), *speaks]
        rows.append([*row, None, int(damaged[k]), *looks[k]])
    return csv_text([*header, "anomaly", "damaged", *class_names], rows)


def predictions_csv(records: Iterable[Mapping[str, Any]]) -> str:
    """Return predictions.csv, one row a slide, from the contents of prediction.json."""
    records = sorted(records, key=lambda record: str(record["slide_id"]))
    classes = list(dict.fromkeys(name for record in records for name in record["classes"]))
    header = ["slide_id", "content_id", "answer", "sure", "reason", *(f"probability_{c}" for c in classes)]
    header += [f"{end}_{c}" for c in classes for end in ("low", "high")]
    header += ["out_of_domain", "tiles", "tissue_mm2", "model", "model_digest", "encoder", "precision", "device"]
    looks = list(dict.fromkeys(name for record in records for name in _fractions(record)))
    header += ["seconds", "warnings", "notice", *(f"tissue_{name}" for name in looks)]
    rows = [[*_summary(record, classes), *(_fractions(record).get(name) for name in looks)] for record in records]
    return csv_text(header, rows)


def _fractions(record: Mapping[str, Any]) -> Mapping[str, float]:
    """Return the shares of tissue by tile class of a prediction.json; older ones have none."""
    return (record.get("tile_classes") or {}).get("fractions", {})  # type: ignore[no-any-return]


def _summary(record: Mapping[str, Any], classes: Sequence[str]) -> list[Any]:
    judged = not record.get("reason")
    belief = record["probabilities"] if judged else {}
    interval = record.get("interval") or {}
    ends = [end for name in classes for end in interval.get(name, (None, None))]
    domain = record.get("out_of_domain") or {}
    return [
        record["slide_id"], record["content_id"], record["answer"], "yes" if record.get("sure") else "no",
        record.get("reason", ""), *(belief.get(name) for name in classes), *ends, domain.get("percentile"),
        record["tiles"], record.get("tissue_mm2"), record["model"]["name"], record["model"]["digest"],
        record["encoder"]["name"], record["encoder"].get("precision"), record["device"],
        record["seconds"].get("total", round(sum(record["seconds"].get(s, 0) for s in STAGES), 3)),
        " | ".join(record["warnings"]), record["model"].get("notice", ""),
    ]  # fmt: skip


#: Stages that follow one another; the parts lie inside them.
STAGES = ("model", "tissue", "grid", "embed", "judge", "write")


def failures_csv(failures: Iterable[tuple[str, str, str]]) -> str:
    """Return failures.csv from (slide, kind of error, message)."""
    return csv_text(["slide", "error", "message"], failures)


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a CSV table; text that a spreadsheet would take for a formula is quoted."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow([safe_cell(name) for name in header])
    writer.writerows([safe_cell(value) for value in row] for row in rows)
    return table.getvalue()


def safe_cell(value: Any) -> Any:
    """Return what to put into a CSV cell: numbers short, nothing for None, formulas disarmed by an apostrophe."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.9g}" if math.isfinite(value) else ""
    if isinstance(value, str):
        text = one_line(value, 2000)
        return f"'{text}" if text[:1] in "=+-@" and text else text
    return value


def hide_name(text: str, slide: Slide, name: str) -> str:
    """Return a message with the slide's file name replaced when its content id stands for it."""
    if name != slide.content_id:
        return text
    return re.sub(rf"(?<!\w){re.escape(slide.path.stem)}({re.escape(slide.path.suffix)})?(?!\w)", name, text)


def rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    """Return seconds to the millisecond."""
    return {name: round(float(value), 3) for name, value in seconds.items()}


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _plain(value: Any) -> Any:
    """Return numpy numbers and tuples as JSON knows them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value
