"""report.html: one file that stands alone, on screen and on paper.

The template holds all words and layout; this module gathers what it shows. Everything that comes from a file or a model
is text to be escaped; pictures are inside the file; nothing is loaded from elsewhere.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import __version__, provenance
from .answer import belief_words
from .errors import SlideError
from .export_classes import class_rows
from .export_pictures import evidence_map, first_map, main_class, picture_of
from .pipeline import Prediction
from .tile_classes import HOW_COUNTED

if TYPE_CHECKING:
    from .slide.slide import Slide

#: Tiles shown for and against.
SHOWN = 8
_OVERVIEW_PX = 900


def report_html(slide: Slide, prediction: Prediction, record: Mapping[str, Any]) -> str:
    """Return the report of one slide.

    Parameters
    ----------
    record : mapping
        The content of prediction.json.
    """
    verdict = prediction.verdict
    return str(
        _template().render(
            record=record,
            judged=verdict is not None,
            classes=_class_rows(record) if verdict is not None else [],
            facts=_facts(slide, prediction),
            pictures=_pictures(slide, prediction),
            main=main_class(prediction),
            speakers=_speakers(slide, prediction),
            looks=class_rows(prediction),
            counted=HOW_COUNTED,
            versions=provenance.versions(),
            made=provenance.now(),
            version=__version__,
            grid=prediction.grid,
        )
    )


@cache
def _template() -> Any:
    import jinja2

    text = resources.files("napari_slnpredict").joinpath("templates", "report.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["sig"] = significant
    environment.filters["thin"] = thin
    environment.filters["belief"] = belief_words
    environment.filters["picture"] = picture_url
    return environment.from_string(text)


def significant(value: float | None, digits: int = 3) -> str:
    """Return a number as it is read: three significant digits, a true minus, thin thousands."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return thin(round(value, places), places).replace("-", "−")


def thin(value: float, places: int = 0) -> str:
    """Return a number with thin spaces between thousands."""
    return f"{value:,.{places}f}".replace(",", "\u2009")


def picture_url(picture: tuple[str, bytes]) -> str:
    """Return a picture, its kind and bytes, as a URL that holds it."""
    kind, data = picture
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _class_rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    interval = record["interval"] or {}
    rows = [
        {"name": name, "p": p, "low": interval.get(name, (None, None))[0], "high": interval.get(name, (None, None))[1]}
        for name, p in record["probabilities"].items()
    ]
    return sorted(rows, key=lambda row: -row["p"]) if len(rows) == 2 else rows


def _facts(slide: Slide, prediction: Prediction) -> list[tuple[str, str]]:
    width, height = slide.dimensions
    grid = prediction.grid
    facts = [("Size", f"{thin(width)} × {thin(height)} px")]
    if slide.mpp is not None:
        facts[0] = ("Size", f"{facts[0][1]}, {significant(width * slide.mpp / 1e3)} × "
                            f"{significant(height * slide.mpp / 1e3)} mm")  # fmt: skip
        facts.append(("Scale", f"{significant(slide.mpp)} µm/px ({slide.mpp_source})"))
    facts += [
        ("Reader", slide.reader),
        ("Tissue", f"{significant(float(prediction.tissue.area_mm2))} mm²"),
        ("Tiles", f"{thin(len(grid))} of {significant(grid.spec.tile_um)} µm, at {significant(grid.spec.mpp)} µm/px"),
        ("Device", prediction.device),
        ("Time", _time(prediction.seconds)),
    ]
    return facts


def _time(seconds: Mapping[str, float]) -> str:
    spent = [(name, seconds[name]) for name in ("tissue", "embed", "judge") if seconds.get(name, 0) >= 0.05]
    return ", ".join(f"{name} {significant(value, 2)} s" for name, value in spent) or "under 0.1 s"


def _pictures(slide: Slide, prediction: Prediction) -> dict[str, tuple[str, bytes] | None]:
    """Return the pictures of the whole slide; JPEG, since the photograph is most of them."""
    first, evidence = first_map(prediction), evidence_map(prediction)
    looks = prediction.tile_classes
    both = first is not None and evidence is not None and prediction.verdict is not None
    return {
        "slide": ("jpeg", picture_of(slide, prediction, None, "jpg", 1200)),
        "first": ("jpeg", picture_of(slide, prediction, first, "jpg", _OVERVIEW_PX, 1.3)) if first else None,
        "evidence": ("jpeg", picture_of(slide, prediction, evidence, "jpg", _OVERVIEW_PX, 1.3))
        if both and prediction.verdict is not None and prediction.verdict.attention is not None
        else None,
        "classes": ("jpeg", picture_of(slide, prediction, looks, "jpg", _OVERVIEW_PX, 1.3)) if looks else None,
    }


def _speakers(slide: Slide, prediction: Prediction) -> list[dict[str, Any]]:
    """Return the tiles that speak most for and most against the main class, or those looked at most."""
    verdict = prediction.verdict
    if verdict is None:
        return []
    if verdict.evidence is not None:
        values = verdict.evidence[:, prediction.bundle.classes.index(main_class(prediction))]
        sides = (("for", values), ("against", -values))
    elif verdict.attention is not None:
        sides = (("looked at most", verdict.attention),)  # type: ignore[assignment]
    else:
        return []
    groups = []
    for side, worth in sides:
        order = np.argsort(-np.nan_to_num(worth, nan=-np.inf), kind="stable")[:SHOWN]
        tiles = [_tile_card(slide, prediction, int(k)) for k in order if worth[k] > 0]
        groups.append({"side": side, "tiles": [tile for tile in tiles if tile is not None]})
    return groups


def _tile_card(slide: Slide, prediction: Prediction, tile: int) -> dict[str, Any] | None:
    """Return one tile's picture and numbers; None when its pixels cannot be read again."""
    from .slide.blocks import read_tile

    verdict, grid = prediction.verdict, prediction.grid
    assert verdict is not None
    try:
        pixels = read_tile(slide, grid, tile)
    except SlideError:
        return None
    attention, evidence = verdict.attention, verdict.evidence
    column = prediction.bundle.classes.index(main_class(prediction))
    return {
        "picture": ("jpeg", _jpeg(pixels)),
        "share": float(attention[tile]) * len(grid) if attention is not None else None,
        "rank": int(verdict.rank()[tile]),
        "evidence": float(evidence[tile, column]) if evidence is not None else None,
        "x": int(grid.locations[tile, 0]),
        "y": int(grid.locations[tile, 1]),
    }


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    import simplejpeg

    data: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=90, colorspace="RGB")
    return data
