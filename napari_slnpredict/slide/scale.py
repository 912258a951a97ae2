"""Micrometres per pixel, from whatever a file says, believed only within reason.

Libraries pass on what stands in the file: 0, infinity, "0,499", or 352.8 um from a printer's 72 dpi. A wrong scale is
worse than none: it moves every tile and every model's answer, and nobody sees it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from xml.parsers import expat

from napari_slnpredict.errors import MissingScale, UnsupportedSlide

from .directory import Directory

#: Believable pixels, um.
LOW, HIGH = 0.05, 20.0
#: Largest difference of x and y, and of two statements that mean the same.
SQUARE = 0.02
#: Objective power times um per pixel, usual: 20x is 0.5, 40x is 0.25.
POWER_TIMES_MPP = 10.0
#: Scanners differ by their cameras; beyond this factor, power and pixel size contradict each other.
POWER_TOLERANCE = 1.7

XML_LIMIT = 16 * 2**20
XML_DEPTH = 100

_UM = {
    "µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "nm": 1e-3, "pm": 1e-6, "å": 1e-4, "mm": 1e3, "cm": 1e4,
    "dm": 1e5, "m": 1e6, "in": 25400.0, "in.": 25400.0,
}  # fmt: skip
_INCH, _CENTIMETRE = 2, 3
_PRINT_DPI = (72, 96, 100, 120, 150, 200, 240, 300, 360, 400, 600, 1200)


@dataclass(frozen=True)
class Scale:
    """The pixel size of level 0.

    Attributes
    ----------
    mpp : float or None
        um per pixel.
    source : str
        Where it comes from; when it is None, why there is none.
    warnings : tuple of str
    """

    mpp: float | None
    source: str
    warnings: tuple[str, ...] = ()


def given_scale(mpp: float, found: Scale) -> Scale:
    """Return the scale the user states, checked against the file's.

    Raises
    ------
    MissingScale
        The number is not believable.
    """
    if not (math.isfinite(mpp) and LOW <= mpp <= HIGH):
        raise MissingScale(f"a pixel size of {mpp:g} um is not believable", do=f"give {LOW:g} to {HIGH:g} um per pixel")
    differs = found.mpp is not None and abs(mpp / found.mpp - 1) > SQUARE
    note = (f"the pixel size given ({mpp:g} um) replaces the file's ({found.mpp:g} um)",) if differs else ()
    return Scale(float(mpp), "given", note)


def tiff_scale(main: Directory, vendor: str) -> Scale:
    """Return the scale of a TIFF slide: the vendor's own words first, then the resolution tags."""
    first, power = Scale(None, ""), None
    if vendor == "aperio":
        first, power = _aperio_scale(main.description), _aperio_power(main.description)
    elif vendor == "ome":
        first = ome_scale(main.description, (main.width, main.height))
    elif vendor == "hamamatsu":
        power = main.source_lens
    scale = first
    if scale.mpp is None:
        scale = _from_tags(main, first)
    return _checked_against_power(scale, power)


def _from_tags(main: Directory, first: Scale) -> Scale:
    """Return the tags' scale where the vendor's words gave none, saying what was wrong with those."""
    tags = _tag_scale(main)
    if tags.mpp is None:
        return Scale(None, first.source or tags.source, first.warnings)
    rejected = (first.source,) if first.source and " names no " not in first.source else ()
    return Scale(tags.mpp, tags.source, (*first.warnings, *rejected))


def property_scale(properties: Mapping[str, str], prefix: str = "openslide") -> Scale:
    """Return the scale a library found in a vendor's own metadata (never one it made from resolution tags)."""
    x, y = (parse_number(str(properties.get(f"{prefix}.mpp-{axis}") or "")) for axis in "xy")
    if x is None or y is None:
        return Scale(None, "the file names no pixel size")
    power = parse_number(str(properties.get(f"{prefix}.objective-power") or ""))
    return _checked_against_power(_believed(x, y, "file"), power)


def parse_number(text: str) -> float | None:
    """Return a finite number written with a point or a comma; None for anything else."""
    text = text.strip()
    if text.count(",") == 1 and "." not in text:
        text = text.replace(",", ".")
    if not re.fullmatch(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", text, re.ASCII):
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def _believed(x: float, y: float, source: str) -> Scale:
    for value in (x, y):
        if not (math.isfinite(value) and LOW <= value <= HIGH):
            return Scale(None, f"the pixel size in the {source} ({value:.4g} um) is not believable")
    if abs(x / y - 1) > SQUARE:
        return Scale(None, f"the pixels are not square: {x:.4g} by {y:.4g} um (mpp differs in x and y)")
    return Scale((x + y) / 2, source)


def _checked_against_power(scale: Scale, power: float | None) -> Scale:
    if scale.mpp is None or power is None or power <= 0:
        return scale
    ratio = scale.mpp * power / POWER_TIMES_MPP
    if 1 / POWER_TOLERANCE <= ratio <= POWER_TOLERANCE:
        return scale
    note = f"the pixel size ({scale.mpp:.4g} um) contradicts the magnification ({power:g}x); check the mpp"
    return Scale(scale.mpp, scale.source, (*scale.warnings, note))


def aperio_values(description: str, key: str) -> list[str]:
    """Return every value of a key of an Aperio description, in order."""
    parts = (part.partition("=") for part in description.split("|")[1:])
    return [value.split("\n")[0].strip() for name, _, value in parts if name.strip() == key]


def _aperio_power(description: str) -> float | None:
    values = aperio_values(description, "AppMag")
    return parse_number(values[0]) if values else None


def _aperio_scale(description: str) -> Scale:
    values = aperio_values(description, "MPP")
    if not values:
        return Scale(None, "the file names no pixel size (no MPP)")
    numbers = [parse_number(value) for value in values]
    known = [number for number in numbers if number is not None]
    if len(known) < len(numbers):
        # The words themselves are not repeated: a description may hold anything.
        return Scale(None, "the file's MPP is not a number")
    if len(known) > 1 and max(known) - min(known) > SQUARE * abs(min(known)):
        return Scale(None, f"the file names two pixel sizes (MPP {known[0]:g} and {known[-1]:g} um)")
    return _believed(known[0], known[0], "file")


def _tag_scale(main: Directory) -> Scale:
    if main.resolution is None:
        return Scale(None, "the file names no pixel size")
    x, y, unit = main.resolution
    if unit not in (_INCH, _CENTIMETRE):
        return Scale(None, "the file's resolution has no unit, so the pixel size (mpp) is unknown")
    if not (x > 0 and y > 0 and math.isfinite(x) and math.isfinite(y)):
        return Scale(None, "the file's resolution is not a positive number, so the pixel size (mpp) is unknown")
    um = 25400.0 if unit == _INCH else 10000.0
    dpi = 25400.0 / (um / x)
    if any(abs(dpi / known - 1) < 0.005 for known in _PRINT_DPI):
        return Scale(None, f"{dpi:.0f} dpi is a print setting, no pixel size (mpp)")
    return _believed(um / x, um / y, "resolution tags")


def ome_scale(xml: str, size: tuple[int, int]) -> Scale:
    """Return PhysicalSizeX and Y of the image of this size in an OME-XML text.

    Raises
    ------
    UnsupportedSlide
        The text declares a document type or entities, is too large or nested too deep: the tricks of hostile XML.
    """
    images, damaged = _ome_pixels(xml)
    note = ("the OME-XML metadata are damaged",) if damaged else ()
    wanted = [image for image in images if (image.get("SizeX"), image.get("SizeY")) == (str(size[0]), str(size[1]))]
    image = (wanted or images or [{}])[0]
    x, y = (_length_um(image, axis) for axis in "XY")
    if x is None or y is None:
        return Scale(None, "the OME-XML names no pixel size (mpp)", note)
    found = _believed(x, y, "OME-XML")
    return Scale(found.mpp, found.source, note)


def _length_um(image: Mapping[str, str], axis: str) -> float | None:
    number = parse_number(image.get(f"PhysicalSize{axis}", ""))
    factor = _UM.get(image.get(f"PhysicalSize{axis}Unit", "µm").strip().lower())
    return None if number is None or factor is None else number * factor


class _Enough(Exception):
    """Ends the parse early."""


def _ome_pixels(xml: str) -> tuple[list[dict[str, str]], bool]:
    """Return the attributes of every Pixels element, and whether the text is damaged."""
    if len(xml) > XML_LIMIT:
        raise UnsupportedSlide("its XML metadata are larger than 16 MB", do="export it again")
    if "<!DOCTYPE" in xml or "<!ENTITY" in xml:
        raise _hostile()
    found: list[dict[str, str]] = []
    depth = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > XML_DEPTH:
            raise UnsupportedSlide("its XML metadata are nested too deep", do="export it again")
        if name.rpartition(":")[2] == "Pixels":
            found.append(attributes)
            if len(found) >= 1000:
                raise _Enough

    def end(_name: str) -> None:
        nonlocal depth
        depth -= 1

    def declared(*_: object) -> None:
        raise _hostile()

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    # Also in encodings in which the words above read differently.
    parser.StartDoctypeDeclHandler = declared
    parser.EntityDeclHandler = declared
    try:
        parser.Parse(re.sub(r"^\s*<\?xml[^>]*\?>", "", xml.rstrip("\0")), True)
    except _Enough:
        return found, False
    except expat.ExpatError:
        return found, True
    return found, False


def _hostile() -> UnsupportedSlide:
    return UnsupportedSlide(
        "its XML metadata declare a document type or entities, which have no place there", do="export it again"
    )
