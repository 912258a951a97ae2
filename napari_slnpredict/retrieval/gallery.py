"""The files of a search: a table, a picture, a page that stands alone. ``hits.csv`` comes last."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict import __version__, provenance
from napari_slnpredict.export import csv_text
from napari_slnpredict.files import write_file

from .asking import Asked
from .nearest import Hit

COLUMNS = ("rank", "slide", "patient", "label", "x", "y", "size", "distance", "cosine", "content_id")
#: Tiles beside each other in the picture, and the side of one in inches.
_ACROSS, _INCH = 5, 1.7

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Found:
    """What a search found, and what it was asked.

    Attributes
    ----------
    hits : sequence of Hit
    like, unlike : sequence of Asked
    holds : str
        What the index holds, in words.
    tiles, slides : int
        How many were looked at.
    left_out : str
        What was not looked at, in words; "" for nothing.
    pictures : mapping of int to (p, p, 3) uint8
        Of the hits, as far as their slides are there.
    asked_pictures : sequence of (p, p, 3) uint8 or None
        Of `like`, then `unlike`.
    """

    hits: Sequence[Hit]
    like: Sequence[Asked]
    unlike: Sequence[Asked]
    holds: str
    tiles: int
    slides: int
    left_out: str = ""
    pictures: Mapping[int, Picture] = field(default_factory=dict, repr=False)
    asked_pictures: Sequence[Picture | None] = field(default=(), repr=False)

    @property
    def asked(self) -> list[Asked]:
        """All tiles that were asked with."""
        return [*self.like, *self.unlike]


def hit_row(rank: int, hit: Hit) -> dict[str, Any]:
    """Return what is told of a tile that was found; places and size in level-0 px."""
    page, (x, y) = hit.page, hit.location
    values = (rank, page.slide_id, page.patient, page.label, x, y, page.size_level0, hit.distance, hit.cosine,
              page.content_id)  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def hit_rows(hits: Sequence[Hit]) -> list[dict[str, Any]]:
    """Return what is told of each tile found, the nearest first."""
    return [hit_row(rank, hit) for rank, hit in enumerate(hits, 1)]


def asked_row(asked: Asked) -> dict[str, Any]:
    """Return what is told of a tile that was asked with."""
    x, y = asked.corner
    return {"slide": asked.slide_id, "content_id": asked.content_id, "x": x, "y": y, "size": asked.size_level0}


def write_gallery(folder: Path, found: Found) -> None:
    """Write ``gallery.png``, ``gallery.html`` and ``hits.csv`` into a folder."""
    write_file(folder / "gallery.png", gallery_png(found))
    write_file(folder / "gallery.html", gallery_html(found))
    write_file(folder / "hits.csv", csv_text(COLUMNS, [list(row.values()) for row in hit_rows(found.hits)]))


def gallery_html(found: Found) -> str:
    """Return a page with every tile; nothing is loaded from elsewhere, everything from a file is escaped."""
    asked = [
        {**asked_row(tile), "like": number < len(found.like), "url": _url(picture)}
        for number, (tile, picture) in enumerate(zip(found.asked, _asked_pictures(found), strict=True))
    ]
    hits = [{**row, "url": _url(found.pictures.get(number))} for number, row in enumerate(hit_rows(found.hits))]
    page = _template().render(found=found, asked=asked, hits=hits, made=provenance.now(), version=__version__)
    return str(page)


def _asked_pictures(found: Found) -> list[Picture | None]:
    return [*found.asked_pictures, *[None] * (len(found.asked) - len(found.asked_pictures))]


@cache
def _template() -> Any:
    import jinja2

    text = resources.files("napari_slnpredict").joinpath("templates", "similar.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(text)


def _url(picture: Picture | None) -> str:
    if picture is None:
        return ""
    import simplejpeg

    data: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(picture), quality=90, colorspace="RGB")
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


def gallery_png(found: Found) -> bytes:
    """Return one picture: the tiles asked with in the first row, the tiles found below, each with its distance."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    asked, hits = found.asked, found.hits
    first, below = math.ceil(len(asked) / _ACROSS), math.ceil(len(hits) / _ACROSS)
    rows, heading = first + below, 0.3
    high = rows * (_INCH + 0.42) + 2 * heading + 0.1
    figure = Figure(figsize=(_ACROSS * _INCH + 0.2, high), dpi=120, facecolor="white")

    def place(number: int, row: int, top: float) -> Any:
        x = 0.1 + (number % _ACROSS) * _INCH
        y = high - top - (row + 1) * (_INCH + 0.42)
        return figure.add_axes((x / (_ACROSS * _INCH + 0.2), y / high, (_INCH - 0.12) / (_ACROSS * _INCH + 0.2),
                                (_INCH - 0.12) / high))  # fmt: skip

    figure.text(0.012, 1 - 0.28 / high, "asked with", fontsize=11, weight="bold")
    for number, (tile, picture) in enumerate(zip(asked, _asked_pictures(found), strict=True)):
        sign = "like" if number < len(found.like) else "not like"
        _draw(place(number, number // _ACROSS, heading), picture, f"{sign}\n{_cut(tile.slide_id)}")
    top = heading + first * (_INCH + 0.42)
    title = f"the nearest of {found.tiles:,} tiles · {found.holds}"
    figure.text(0.012, 1 - (top + 0.28) / high, title, fontsize=11, weight="bold")
    for number, hit in enumerate(hits):
        words = f"{number + 1}.  {hit.distance:.3f}" + (f"  {_cut(hit.page.label, 12)}" if hit.page.label else "")
        axes = place(number, number // _ACROSS, top + heading)
        _draw(axes, found.pictures.get(number), f"{words}\n{_cut(hit.page.slide_id)}")
    target = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(target, format="png", dpi=120, metadata={"Software": None})
    return target.getvalue()


def _draw(axes: Any, picture: Picture | None, words: str) -> None:
    if picture is None:
        axes.set_facecolor("0.93")
        axes.text(0.5, 0.5, "slide\nnot there", ha="center", va="center", fontsize=8, color="0.35")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
    else:
        axes.imshow(picture, interpolation="antialiased")
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_color("0.7")
    axes.set_title(words, fontsize=8, loc="left", pad=3, parse_math=False)


def _cut(text: str, most: int = 24) -> str:
    """Return text short enough to stand over a tile."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
