"""`slnpredict info`: what a slide is, as this program sees it, and whether two readers agree about its pixels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_slnpredict.errors import SlnPredictError, one_line

from .options import AsJson, Mpp, Reader

if TYPE_CHECKING:
    from napari_slnpredict.slide.slide import Slide

#: Tiles compared, their side in level-0 px, and the largest difference of two decoders of one JPEG.
COMPARED, SIDE, TOLERANCE = 3, 256, 2
OTHERS = ("tiffslide", "openslide")


def info(
    slide: Annotated[Path, typer.Argument(metavar="SLIDE", help="A slide.", show_default=False)],
    mpp: Mpp = None,
    reader: Reader = None,
    as_json: AsJson = False,
) -> None:
    """Say what a slide is: reader, size, scale and its source, levels, warnings; compare two readers on its tissue."""
    from napari_slnpredict.slide.slide import open_slide

    from .console import print_json

    with open_slide(slide, mpp, reader=reader) as opened:
        facts = describe(opened)
        facts["readers"] = compare_readers(opened)
    if as_json:
        print_json({"format": 1, "command": "info", **facts})
    else:
        _print(facts)


def describe(slide: Slide) -> dict[str, Any]:
    """Return what is known of an opened slide; no folder, no property that could name a patient."""
    return {
        "slide_id": slide.slide_id,
        "content_id": slide.content_id,
        "reader": slide.reader,
        "width": int(slide.dimensions[0]),
        "height": int(slide.dimensions[1]),
        "mpp": slide.mpp,
        "mpp_source": slide.mpp_source,
        "brightfield": slide.brightfield,
        "not_brightfield": slide.not_brightfield,
        "bounds": [int(value) for value in slide.bounds],
        "levels": [
            {"width": int(w), "height": int(h), "downsample": round(float(d), 4)}
            for (w, h), d in zip(slide.level_dimensions, slide.level_downsamples, strict=True)
        ],
        "stored_levels": int(slide.stored_level_count),
        "properties": dict(slide.properties),
        "warnings": list(slide.warnings),
    }


def compare_readers(slide: Slide) -> list[dict[str, Any]]:
    """Read a few tissue tiles with the other readers too and say how far their pixels differ."""
    from napari_slnpredict.slide.slide import open_slide

    places = _tissue_places(slide)
    rows = []
    for name in OTHERS:
        if name == slide.reader:
            continue
        try:
            with open_slide(slide.path, slide.mpp, reader=name) as other:
                worst = max(_difference(slide, other, place) for place in places)
        except SlnPredictError as error:
            rows.append({"reader": name, "opens": False, "message": error.what})
        else:
            rows.append({"reader": name, "opens": True, "largest_difference": worst, "agrees": worst <= TOLERANCE})
    return rows


def _tissue_places(slide: Slide) -> list[tuple[int, int]]:
    """Return the corners of the squares with most colour, spread over the slide, level-0 px."""
    import numpy as np

    small = slide.thumbnail(512).astype(np.int16)
    colour = small.max(axis=2) - small.min(axis=2)
    scale = slide.dimensions[0] / small.shape[1]
    places: list[tuple[int, int]] = []
    for strip in np.array_split(np.arange(small.shape[0]), COMPARED):
        if not strip.size:
            continue
        row, column = np.unravel_index(int(np.argmax(colour[strip])), colour[strip].shape)
        x = int(np.clip(column * scale - SIDE / 2, 0, max(0, slide.dimensions[0] - SIDE)))
        y = int(np.clip((row + strip[0]) * scale - SIDE / 2, 0, max(0, slide.dimensions[1] - SIDE)))
        places.append((x, y))
    return places


def _difference(one: Slide, other: Slide, place: tuple[int, int]) -> int:
    size = (min(SIDE, one.dimensions[0]), min(SIDE, one.dimensions[1]))
    mine = one.read_region(place, 0, size).astype("int16")
    theirs = other.read_region(place, 0, size).astype("int16")
    return int(abs(mine - theirs).max())


def _print(facts: dict[str, Any]) -> None:
    scale = f"{facts['mpp']:.4g} µm/px ({facts['mpp_source']})" if facts["mpp"] else facts["mpp_source"]
    rows = [
        ("Slide", facts["slide_id"]),
        ("Content id", facts["content_id"]),
        ("Reader", facts["reader"]),
        ("Size", f"{facts['width']:,} × {facts['height']:,} px"),
        ("Scale", scale if facts["mpp"] else f"{scale}; give it with --mpp"),
        ("Brightfield", "yes" if facts["brightfield"] else f"no: {facts['not_brightfield']}"),
        ("Bounds", "x {}, y {}, {:,} × {:,} px".format(*facts["bounds"])),
    ]
    for k, level in enumerate(facts["levels"]):
        made = "" if k < facts["stored_levels"] else ", made from the level before"
        rows.append((f"Level {k}", f"{level['width']:,} × {level['height']:,} px, 1/{level['downsample']:g}{made}"))
    rows += [(f"  {name}", str(value)) for name, value in facts["properties"].items()]
    rows += [(f"By {row['reader']}", _agreement(row)) for row in facts["readers"]]
    rows += [("Warning", text) for text in facts["warnings"]]
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        typer.echo(f"{name:<{width}}  {one_line(text, 300)}")


def _agreement(row: dict[str, Any]) -> str:
    if not row["opens"]:
        return f"cannot open it ({row['message']})"
    if row["agrees"]:
        return f"same pixels in {COMPARED} tiles (largest difference {row['largest_difference']})"
    return f"DIFFERENT pixels: up to {row['largest_difference']} grey levels. Look at both; --reader chooses one."
