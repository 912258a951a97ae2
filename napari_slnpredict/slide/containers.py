"""What kind of file this is, by its content; and slides made of several files: DICOM, MRXS, VMS.

A name is no proof: the log-in page of a download portal is saved under the slide's name as readily as the slide.
"""

from __future__ import annotations

import configparser
import io
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from napari_slnpredict.errors import CorruptSlide, SlideError, UnsupportedSlide, one_line

from .dicom_scan import DicomImage, scan_dicom
from .limits import LIMITS
from .raw_file import COPY_AGAIN, RawFile, open_regular

_TIFF: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_VMS_HEADS: Final = (b"[Virtual Microscope Specimen]", b"[Uncompressed Virtual Microscope Specimen]")
_VMS_FILES: Final = re.compile(r"(imagefile|mapfile|optimisationfile|macroimage)(\(.*\))?$")
#: Content that people rename or download as a slide: (how it begins, what to call it).
_OTHERS: Final = (
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x89PNG", "a PNG picture"),
    (b"GIF8", "a GIF picture"),
    (b"BM", "a BMP picture"),
    (b"PK\x03\x04", "a zip archive"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"%PDF", "a PDF document"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (b"\x93NUMPY", "a numpy array"),
    (b"MZ", "a Windows program"),
    (b"\x7fELF", "a program"),
    (b"version https://git-lfs", "a Git LFS pointer (the slide itself was never downloaded)"),
)
#: Kinds that only OpenSlide reads and that have no table of contents we could check.
_OPENSLIDE_ONLY: Final = ((b"SQLite format 3\0", ".svslide"), (b"ZISRAWFILE", ".czi"))
_GET_SLIDE = "choose the slide file itself, or download it again"


def kind_of(file: RawFile) -> str:
    """Return "tiff", "dicom", "mrxs", "vms" or "other".

    Raises
    ------
    UnsupportedSlide
        Naming what the file is instead.
    """
    head = file.read(0, 1024)
    suffix = file.path.suffix.lower()
    if suffix == ".mrxs":
        return "mrxs"
    if head[:4] in _TIFF:
        return "tiff"
    if head[128:132] == b"DICM":
        return "dicom"
    if head.startswith(_VMS_HEADS) or (suffix in (".vms", ".vmu") and head.lstrip()[:1] == b"["):
        return "vms"
    if any(head.startswith(magic) and suffix == ending for magic, ending in _OPENSLIDE_ONLY):
        return "other"
    raise UnsupportedSlide(f"this is {_what_else(file, head)}, not a slide", file=file.path, do=_GET_SLIDE)


def _what_else(file: RawFile, head: bytes) -> str:
    """Name content that is no slide."""
    for magic, words in _OTHERS:
        if head.startswith(magic):
            return words
    if not head.strip(b"\0"):
        middle = file.read(file.size // 2, 1024)
        return "a file of zeros" if not middle.strip(b"\0") else "a file that begins with zeros"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<!-- html")) or b"<html" in start[:512]:
        return "a web page"
    if start.startswith((b"<?xml", b"<!doctype")):
        return "an XML file"
    # Bytes above 127 may be letters; control characters other than space are in no text.
    control = sum(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in head)
    return "a text file" if control == 0 else "a file of an unknown kind"


def dicom_file(file: RawFile, real: Path) -> tuple[tuple[Path, ...], list[str]]:
    """Scan a DICOM file and the others of its slide; return the others and warnings.

    OpenSlide looks into every file of the folder, so a damaged one of another slide would harm it too.
    """
    own = scan_dicom(file)
    others, warnings = [], list(own.warnings)
    for path, image in _dicom_images(real.parent, but=real):
        if image.series == own.series:
            others.append(path)
            warnings.extend(image.warnings)
    return tuple(others), warnings


def dicom_folder(folder: Path) -> tuple[tuple[Path, ...], list[str]]:
    """Return the files of the DICOM slide in a folder, its levels first, and warnings.

    Raises
    ------
    UnsupportedSlide
        There is none, or more than one.
    """
    found = _dicom_images(folder)
    if not found:
        raise UnsupportedSlide(
            "is a folder without DICOM slide files, not a slide", file=folder, do="choose the slide file inside it"
        )
    if len({image.series for _, image in found}) > 1:
        raise UnsupportedSlide(
            "is a folder of several DICOM slides", file=folder, do="choose one file of the slide you want"
        )
    # A level first: that is the file a library is pointed at.
    found.sort(key=lambda each: (each[1].role != "VOLUME", -each[1].width))
    return tuple(path for path, _ in found), [text for _, image in found for text in image.warnings]


def _dicom_images(folder: Path, but: Path | None = None) -> list[tuple[Path, DicomImage]]:
    """Scan every whole-slide DICOM file of a folder but one, in name order."""
    found = []
    for path in _regular_files(folder):
        if path == but:
            continue
        try:
            descriptor = open_regular(path)
        except SlideError:
            continue  # an empty or unreadable file beside the slide's own is nobody's fault
        try:
            file = RawFile(descriptor, path)
            if file.read(128, 4) == b"DICM":
                found.append((path, scan_dicom(file)))
        except UnsupportedSlide:
            continue  # a DICOM file of another kind
        finally:
            os.close(descriptor)
    return found


def _regular_files(folder: Path) -> list[Path]:
    """List a folder's files; a pipe among them would stop OpenSlide, which opens every one."""
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as cause:
        raise SlideError("the folder cannot be listed", file=folder, do="ask for permission to read it") from cause
    if len(names) > LIMITS.members:
        raise UnsupportedSlide(
            f"is in a folder of {len(names):,} files", file=folder, do="put the slide's files into one of their own"
        )
    files = []
    for name in names:
        try:
            mode = (folder / name).stat().st_mode
        except OSError:
            continue  # a dangling link
        if stat.S_ISREG(mode):
            files.append(folder / name)
        elif not stat.S_ISDIR(mode):
            raise UnsupportedSlide(
                f"its folder holds {one_line(name, 80)}, which is no regular file", file=folder, do="remove it"
            )
    return files


def check_mrxs(path: Path) -> tuple[Path, ...]:
    """Check the folder that belongs to an MRXS; return the files its index names."""
    folder = path.with_suffix("")
    if not folder.is_dir():
        raise CorruptSlide(
            f"the folder {one_line(folder.name, 80)} that belongs beside it is missing",
            file=path,
            do="copy the .mrxs file together with its folder",
        )
    ini = _inside(folder, "Slidedat.ini", path)
    parser = configparser.ConfigParser(interpolation=None, strict=False, allow_no_value=True)
    try:
        parser.read_string(_small_text(ini, path))
    except configparser.Error as cause:
        raise CorruptSlide("its Slidedat.ini is damaged", file=path, do=COPY_AGAIN) from cause
    names = [parser.get("HIERARCHICAL", "INDEXFILE", fallback="")]
    if parser.has_section("DATAFILE"):
        names += [value or "" for key, value in parser.items("DATAFILE") if re.fullmatch(r"file_\d+", key)]
    if not all(names) or len(names) < 2:
        raise CorruptSlide("its Slidedat.ini names no index or no data files", file=path, do=COPY_AGAIN)
    return (ini, *_all_inside(folder, names, path))


def check_vms(path: Path) -> tuple[Path, ...]:
    """Check the files that a VMS or VMU names; return them."""
    names = []
    for line in _small_text(path, path).splitlines():
        key, _, value = line.partition("=")
        if _VMS_FILES.match(key.strip().lower()) and value.strip():
            names.append(value.strip())
    if not names:
        raise CorruptSlide("names no image files (JPEG)", file=path, do=COPY_AGAIN)
    return _all_inside(path.parent, names, path)


def _all_inside(folder: Path, names: Iterable[str], slide: Path) -> tuple[Path, ...]:
    unique = list(dict.fromkeys(names))
    if len(unique) > LIMITS.members:
        raise CorruptSlide(f"refers to {len(unique):,} files", file=slide, do=COPY_AGAIN)
    return tuple(_inside(folder, name, slide) for name in unique)


def _inside(folder: Path, name: str, slide: Path) -> Path:
    """Resolve a file that a slide refers to; it must be a regular file inside the slide's own folder."""
    if re.search(r"[/\\\0]|^\.\.?$|^[A-Za-z]:", name):
        raise CorruptSlide(
            "refers to a file outside its own folder", file=slide, do="do not open it; ask where it comes from"
        )
    place = folder / name
    try:
        mode = place.stat().st_mode
        real = place.resolve(strict=True)
    except OSError as cause:
        raise CorruptSlide(
            f"the file {one_line(name, 80)} that it refers to is missing from its folder", file=slide, do=COPY_AGAIN
        ) from cause
    if not stat.S_ISREG(mode):
        raise CorruptSlide(f"refers to {one_line(name, 80)}, which is no regular file", file=slide, do=COPY_AGAIN)
    if not real.is_relative_to(folder.resolve()):
        raise CorruptSlide(
            "refers, by a link, to a file outside its own folder", file=slide, do="copy the slide's files themselves"
        )
    return place


def _small_text(path: Path, slide: Path) -> str:
    descriptor = open_regular(path)
    try:
        data = RawFile(descriptor, path).read(0, LIMITS.ini_bytes + 1)
    finally:
        os.close(descriptor)
    if len(data) > LIMITS.ini_bytes:
        raise CorruptSlide(f"{one_line(path.name, 80)} is too long to be its index", file=slide, do=COPY_AGAIN)
    try:
        return io.IncrementalNewlineDecoder(None, translate=True).decode(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return data.decode("latin-1")
