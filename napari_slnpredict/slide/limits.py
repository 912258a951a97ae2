"""The one table of limits that a slide has to keep before any library may read it (promise R2).

Each limit lies well above anything seen from a scanner and well below what makes a reader hang or run out of memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Limits:
    """Largest and smallest lawful values; bytes, pixels or plain counts as the name says."""

    # TIFF directories
    directories: int = 256  # whole slides have 3 to 20, with focal planes some 150
    subifd_depth: int = 2
    entries: int = 1024  # entries of one directory; NDPI, the longest, has about 50
    side_px: int = 1 << 21
    samples: int = 32
    tile_px_step: int = 16  # the TIFF standard's own rule
    tile_px_min: int = 16
    tile_px_max: int = 4096
    blocks: int = 2 << 20  # tiles or strips of one directory; 370,000 px square at 256 px
    blocks_total: int = 4 << 20
    block_bytes_extra: int = 64 << 10  # a block may be this much longer than twice its decoded size

    # What is damaged enough to refuse, what only to mention
    share_outside: float = 0.01
    share_alike: float = 0.5
    share_bad_frames: float = 0.5
    slow_blocks: int = 1_000_000  # with tiles below `slow_tile_px`
    slow_tile_px: int = 128
    no_pyramid_px: int = 32_768  # above this side, coarse views without stored levels take minutes
    strips_px: int = 64_000_000  # pixels of a slide in strips: any view decodes all of it

    # Looks inside the blocks
    frames_checked: int = 256
    frames_lower: int = 64  # of them for the lower levels
    frame_head_bytes: int = 1024
    frame_head_bytes_long: int = 128 << 10  # a header with a colour profile in it
    jpeg_tables_bytes: int = 64 << 10

    # Words
    description_bytes: int = 1 << 20
    descriptions_total_bytes: int = 16 << 20
    short_text_bytes: int = 256
    xml_bytes: int = 16 << 20
    xml_depth: int = 64
    xml_elements: int = 500_000

    # DICOM
    dicom_elements: int = 2_000_000
    dicom_elements_looked_at: int = 20_000
    dicom_depth: int = 16
    dicom_frames_checked: int = 8192

    # Slides of several files
    ini_bytes: int = 8 << 20
    members: int = 10_000


LIMITS: Final = Limits()
