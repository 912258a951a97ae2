"""What of a file's metadata leaves this package: an allow-list, each value checked for its form.

Descriptions, titles, file names, dates and free text name patients; they are read for the scale and go no further.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from .directory import Directory
from .scale import aperio_values, parse_number

_COMPRESSIONS = {
    1: "none", 5: "LZW", 6: "old JPEG", 7: "JPEG", 8: "deflate", 32946: "deflate", 33003: "JPEG 2000",
    33005: "JPEG 2000", 50000: "zstd",
}  # fmt: skip
_VENDORS = frozenset({
    "aperio", "dicom", "generic-tiff", "hamamatsu", "leica", "mirax", "ome", "philips", "sakura", "trestle", "ventana",
    "zeiss",
})  # fmt: skip
#: A scanner's model: a short word with digits, no sentence and no name.
_MODEL = re.compile(r"(?=.*\d)[A-Za-z0-9][A-Za-z0-9 ._-]{0,23}")


def safe_properties(vendor: str, main: Directory | None, raw: Mapping[str, str]) -> dict[str, str]:
    """Return vendor, objective, scanner and compression, where the file has them in a believable form.

    Parameters
    ----------
    vendor : str
    main : Directory, optional
        The image of level 0.
    raw : mapping
        A library's properties.
    """
    found = {"vendor": vendor if vendor in _VENDORS else _checked_vendor(raw)}
    power = _objective(vendor, main, raw)
    if power is not None and 0 < power <= 400:
        found["objective"] = f"{power:g}"
    model = (main.model if main is not None else "") or raw.get("tiff.Model", "") or raw.get("hamamatsu.Model", "")
    if _MODEL.fullmatch(model.strip()):
        found["scanner"] = model.strip()
    if main is not None and main.compression in _COMPRESSIONS:
        found["compression"] = _COMPRESSIONS[main.compression]
    return found


def _checked_vendor(raw: Mapping[str, str]) -> str:
    named = raw.get("openslide.vendor", "")
    return named if named in _VENDORS else "other"


def _objective(vendor: str, main: Directory | None, raw: Mapping[str, str]) -> float | None:
    if main is not None and vendor == "aperio":
        values = aperio_values(main.description, "AppMag")
        return parse_number(values[0]) if values else None
    for prefix in ("openslide", "tiffslide"):
        if text := raw.get(f"{prefix}.objective-power"):
            return parse_number(text)
    return None


def slide_bounds(raw: Mapping[str, str], dimensions: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return x, y, width, height of what was scanned, level-0 px; the whole slide where the file states nothing."""
    numbers = [parse_number(raw.get(f"openslide.bounds-{key}", "")) for key in ("x", "y", "width", "height")]
    width, height = dimensions
    if any(number is None for number in numbers):
        return 0, 0, width, height
    x, y, w, h = (int(number or 0) for number in numbers)
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
    return (left, top, right - left, bottom - top) if right > left and bottom > top else (0, 0, width, height)
