"""What the scan knows of a file: plain records, filled by `tiff_scan` and `inspect`, read by everything above."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

#: (device, inode, size in bytes, mtime in ns): equal as long as the file is the one that was opened.
Identity = tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class Directory:
    """One image of a TIFF file, checked.

    Attributes
    ----------
    index : int
        Place in the chain of directories (or in the parent's list, for a sub-directory), 0-based.
    offset : int
        Byte of the file where the directory starts.
    width, height : int
        Pixels.
    tiled : bool
        False: strips; then `tile_width` is `width` and `tile_height` the rows per strip.
    tile_width, tile_height : int
        Pixels of one stored block.
    offsets, byte_counts : (k,) uint64
        Where each block lies and how long it is; row by row, with `planar` 2 plane after plane. A count of 0 is a
        block that was never written (legal); a block may also reach outside the file: see `outside`.
    compression, photometric, samples, sample_format, planar, predictor : int
        As in the file; `sample_format` 1 is unsigned integer.
    bits : tuple of int
        Bits of each sample.
    jpeg_tables : bytes or None
        Tables shared by all JPEG blocks.
    description : str
        At most 1 MiB. Never shown or exported: it names patients.
    subfile_type : int
        Tag 254; bit 0 is "reduced image".
    resolution : (float, float, int) or None
        Pixels per unit in x and y, and the unit (1 none, 2 inch, 3 centimetre).
    icc : (int, int) or None
        Offset and length of the colour profile, bytes.
    subifds : tuple of Directory
        Lower levels stored below this one.
    fault : str
        Why this image must not be decoded; empty when it is sound. Only images beside the slide (label, macro,
        thumbnail) may have one: a fault in the slide itself is an error.
    """

    index: int
    offset: int
    width: int
    height: int
    tiled: bool
    tile_width: int
    tile_height: int
    offsets: NDArray[np.uint64] = field(repr=False)
    byte_counts: NDArray[np.uint64] = field(repr=False)
    compression: int
    photometric: int
    samples: int
    bits: tuple[int, ...]
    sample_format: int = 1
    planar: int = 1
    predictor: int = 1
    extra_samples: tuple[int, ...] = ()
    subsampling: tuple[int, int] | None = None
    orientation: int = 1
    jpeg_tables: bytes | None = field(default=None, repr=False)
    description: str = field(default="", repr=False)
    subfile_type: int = 0
    resolution: tuple[float, float, int] | None = None
    icc: tuple[int, int] | None = None
    subifds: tuple[Directory, ...] = ()
    make: str = ""
    model: str = ""
    software: str = ""
    source_lens: float | None = None
    fault: str = ""

    @property
    def across(self) -> int:
        """Blocks in a row."""
        return -(-self.width // self.tile_width)

    @property
    def down(self) -> int:
        """Rows of blocks."""
        return -(-self.height // self.tile_height)

    @property
    def raw_block_bytes(self) -> int:
        """Bytes of one block once decoded."""
        samples = 1 if self.planar == 2 else self.samples
        return -(-self.tile_width * self.tile_height * samples * max(self.bits, default=8) // 8)

    def outside(self, file_size: int) -> NDArray[np.bool_]:
        """Return which blocks claim bytes that the file does not have, (k,) bool."""
        # Compared by subtraction: offset + count may wrap around 2^64 in a hostile BigTIFF.
        size = np.uint64(file_size)
        beyond = (self.byte_counts > size) | (self.offsets > size - np.minimum(self.byte_counts, size))
        used: NDArray[np.bool_] = self.byte_counts > 0
        return used & (beyond | (self.offsets < 8))


@dataclass(frozen=True, eq=False)
class Inspection:
    """The result of `inspect`: the file is of a kind we open and survived every check.

    Attributes
    ----------
    path : Path
        As given.
    real : Path
        Links resolved: what a library that insists on a path must be given.
    kind : str
        "tiff", "dicom", "dicom-folder", "mrxs", "vms" or "other" (a kind that only OpenSlide reads).
    big, byteorder, ndpi
        Only of a TIFF: BigTIFF; "<" or ">"; Hamamatsu's dialect.
    directories : tuple of Directory
        The chain of a TIFF, in file order; sub-directories hang below their parent.
    members : tuple of Path
        The files of a DICOM folder, of an MRXS or a VMS, beside `real`.
    warnings : tuple of str
        What a user should know before trusting this slide.
    identity : (int, int, int, int)
        Device, inode, size and mtime_ns at the time of the scan.
    """

    path: Path
    real: Path
    kind: str
    identity: Identity
    big: bool = False
    byteorder: str = "<"
    ndpi: bool = False
    directories: tuple[Directory, ...] = ()
    members: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.identity[2]
