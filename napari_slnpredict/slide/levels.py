"""Which images of a TIFF are the levels of the slide, who wrote it, and whether it can be brightfield."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .directory import Directory, Inspection

#: Aperio writes what an extra image is on the second line of its description.
_BESIDE = re.compile(r"^(label|macro)\b", re.IGNORECASE | re.MULTILINE)
_VENTANA_LEVEL = re.compile(r"^level=\d+ mag=")
_CROP = re.compile(r"\[\d+,\d+ (\d{1,8})x(\d{1,8})\]")
_REDUCED_TO = re.compile(r"-> (\d{1,8})x(\d{1,8})")
_SIZE = re.compile(r"\s*(\d{1,8})x(\d{1,8})")
_REDUCED = 1
#: A level's two downsamples may differ by rounding of its size, and by padding of old writers; a thumbnail of another
#: shape differs by more.
_ASPECT_TOLERANCE = 0.05


def vendor_of(inspection: Inspection) -> str:
    """Return who wrote the file, in OpenSlide's words ("aperio", "hamamatsu", "generic-tiff", ...); "ome" for OME-TIFF.

    What is not a TIFF is called by its kind.
    """
    if not inspection.directories:
        return {"dicom-folder": "dicom", "mrxs": "mirax", "vms": "hamamatsu"}.get(inspection.kind, inspection.kind)
    first = inspection.directories[0]
    text = first.description
    if inspection.ndpi:
        return "hamamatsu"
    if text.startswith("Aperio"):
        return "aperio"
    if "<scn" in text[:2000] and "leica" in text[:2000].lower():
        return "leica"
    if "philips" in (first.make + first.software).lower() or "DPUfsImport" in text[:4000]:
        return "philips"
    if any(_VENTANA_LEVEL.match(directory.description) for directory in inspection.directories):
        return "ventana"
    if first.software.startswith("MedScan"):
        return "trestle"
    if "<OME" in text[:4000]:
        return "ome"
    return "generic-tiff"


def levels_of(directories: Sequence[Directory], vendor: str) -> tuple[tuple[Directory, ...], tuple[str, ...]]:
    """Return the pyramid levels, finest first, and what is worth a warning.

    An Aperio level is a tiled image, whatever its NewSubfileType says (some writers mark levels as reduced images,
    and tifffile then loses them); thumbnail, label and macro are stored in strips. Elsewhere a level is a tiled image
    marked as reduced, or a sub-directory of the first image. A list of one is a slide without a pyramid.
    """
    if not directories:
        return (), ()
    first = directories[0]
    if not first.tiled:
        return (first,), ()
    if vendor == "aperio":
        others = [d for d in directories[1:] if d.tiled and not _BESIDE.search(d.description)]
    elif first.subifds:
        others = [d for d in first.subifds if d.tiled]
    else:
        others = [d for d in directories[1:] if d.tiled and d.subfile_type & _REDUCED]
    levels = [first]
    notes = []
    for directory in sorted((d for d in others if not d.fault), key=lambda d: -d.width):
        if (directory.width, directory.height) == (levels[-1].width, levels[-1].height):
            notes.append("the file holds several focus planes; only the first is read")
        elif _is_reduction(first, directory) and _is_alike(first, directory):
            levels.append(directory)
    return tuple(levels), tuple(dict.fromkeys(notes))


def stated_size_differs(main: Directory) -> str:
    """Return a warning when an Aperio description names another size than the image has; empty otherwise.

    A flipped bit in the size tag shows a slide a few rows shorter and is noticed by nothing else.
    """
    line = main.description[:4000].partition("\n")[2].partition("|")[0]
    found = _CROP.search(line) or _REDUCED_TO.search(line) or _SIZE.match(line)
    if not found or (int(found[1]), int(found[2])) == (main.width, main.height):
        return ""
    return (
        f"the image is {main.width} x {main.height} px, but its description says {found[1]} x {found[2]}: "
        "the file may be damaged"
    )


def _is_reduction(first: Directory, other: Directory) -> bool:
    if other.width > first.width or other.height > first.height:
        return False
    # Compared in pixels of the smaller image: a level of 3 x 2 px is allowed its rounding.
    expected = first.height * other.width / first.width
    return abs(expected - other.height) <= max(1.5, _ASPECT_TOLERANCE * expected)


def _is_alike(first: Directory, other: Directory) -> bool:
    return (first.samples, first.bits, first.sample_format) == (other.samples, other.bits, other.sample_format)


def why_not_brightfield(directory: Directory) -> str:
    """Return why an image's kind of pixels cannot be stained tissue in bright light; empty when it can."""
    if directory.sample_format == 3:
        return "its samples are floating point numbers, not 8-bit colours"
    if directory.sample_format != 1:
        return "its samples are signed or complex numbers, not 8-bit colours"
    if directory.samples > 4 or directory.samples == 2:
        return f"it has {directory.samples} channels ({max(directory.bits)} bit), not red, green and blue"
    if any(bits > 8 for bits in directory.bits):
        return f"it has {max(directory.bits)} bits a sample, not 8"
    if directory.photometric == 5:
        return "its colours are CMYK inks, not red, green and blue"
    if directory.samples == 1 or directory.photometric in (0, 1, 3, 4):
        return "it has one grey channel, not red, green and blue"
    if any(bits < 8 for bits in directory.bits):
        return f"it has {min(directory.bits)} bits a sample, not 8"
    return ""
