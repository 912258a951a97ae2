"""The safety scan: every slide passes here before any library may read it (promise R2).

Why: libraries cannot be trusted with damaged files. Of random mutants of a good slide each of them shows wrong pixels
without an error, some hang, some ask for gigabytes. Comparing the file's tables with each other and with its size, by
a few small reads and without decoding anything, refuses nearly all of those in about a millisecond.

The limits stand in `limits.LIMITS`; the steps: `raw_file` opens, `containers` names the kind, `tiff_scan` reads the
directories, `tiff_checks` and `frames` judge them.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from .codestream import jpeg_frame
from .containers import check_mrxs, check_vms, dicom_file, dicom_folder, kind_of
from .directory import Directory, Identity, Inspection
from .limits import LIMITS, Limits
from .raw_file import RawFile, open_regular, stat_slide
from .tiff_checks import check_tiff
from .tiff_scan import scan_tiff

__all__ = ["LIMITS", "Directory", "Identity", "Inspection", "Limits", "inspect", "jpeg_frame", "open_regular"]


def inspect(path: Path | str, *, fd: int | None = None, allow_incomplete: bool = False) -> Inspection:
    """Scan a slide without decoding it.

    Parameters
    ----------
    path : path
        A file, or a folder of DICOM files.
    fd : int, optional
        Descriptor of the file if it is open already (as by `open_regular`); stays open.
    allow_incomplete : bool
        Let a file that was cut off pass with warnings, to be looked at only.

    Returns
    -------
    Inspection

    Raises
    ------
    SlideError
        Not found, not readable; `CorruptSlide`, `UnsupportedSlide`, `NotBrightfield` as the case is.
    """
    path = Path(path)
    if fd is not None:
        return _inspect_file(RawFile(fd, path), allow_incomplete)
    status = stat_slide(path)
    if stat.S_ISDIR(status.st_mode):
        identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        members, notes = dicom_folder(path)
        return Inspection(
            path, path.resolve(), "dicom-folder", identity, members=members, warnings=tuple(dict.fromkeys(notes))
        )
    descriptor = open_regular(path)
    try:
        return _inspect_file(RawFile(descriptor, path), allow_incomplete)
    finally:
        os.close(descriptor)


def _inspect_file(file: RawFile, allow_incomplete: bool) -> Inspection:
    """Scan an open file by its kind."""
    kind, path, real = kind_of(file), file.path, file.path.resolve()
    members: tuple[Path, ...] = ()
    notes: list[str] = []
    if kind == "tiff":
        return _inspect_tiff(file, real, allow_incomplete)
    if kind == "dicom":
        members, notes = dicom_file(file, real)
    elif kind == "mrxs":
        members = check_mrxs(real)
    elif kind == "vms":
        members = check_vms(real)
    return Inspection(path, real, kind, file.identity, members=members, warnings=tuple(dict.fromkeys(notes)))


def _inspect_tiff(file: RawFile, real: Path, allow_incomplete: bool) -> Inspection:
    chain = scan_tiff(file, allow_incomplete=allow_incomplete)
    directories = check_tiff(file, chain, allow_incomplete=allow_incomplete)
    return Inspection(
        file.path,
        real,
        "tiff",
        file.identity,
        big=chain.dialect.big,
        byteorder=chain.dialect.order,
        ndpi=chain.dialect.ndpi,
        directories=directories,
        warnings=tuple(dict.fromkeys(chain.warnings)),
    )
