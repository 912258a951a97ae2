"""DICOM slides of a few kilobytes, made element by element."""

from __future__ import annotations

import struct

from .tiny_tiff import jpeg

WSI = "1.2.840.10008.5.1.4.1.1.77.1.6"
JPEG_SYNTAX, EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
Elements = dict[int, tuple[str, bytes]]


def element(tag: int, form: str, value: bytes, *, implicit: bool = False, length: int | None = None) -> bytes:
    value += b" " * (len(value) % 2)
    count = len(value) if length is None else length
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    if implicit:
        return head + struct.pack("<I", count) + value
    if form in ("OB", "OW", "SQ", "UN", "OV"):
        return head + form.encode() + struct.pack("<HI", 0, count) + value
    return head + form.encode() + struct.pack("<H", count) + value


def item(value: bytes, tag: int = 0xE000, length: int | None = None) -> bytes:
    return struct.pack("<HHI", 0xFFFE, tag, len(value) if length is None else length) + value


def number(value: int, wide: bool = False) -> bytes:
    return struct.pack("<I" if wide else "<H", value)


def lawful(frames: int) -> Elements:
    """Return the elements of a level of 40 x 24 px in tiles of 16, below the pixels."""
    return {
        0x00080008: ("CS", b"ORIGINAL\\PRIMARY\\VOLUME\\NONE"),
        0x00080016: ("UI", WSI.encode()),
        0x0020000E: ("UI", b"1.2.3"),
        0x00209311: ("CS", b"TILED_FULL"),
        0x00280002: ("US", number(3)),
        0x00280004: ("CS", b"YBR_FULL_422"),
        0x00280008: ("IS", str(frames).encode()),
        0x00280010: ("US", number(16)),
        0x00280011: ("US", number(16)),
        0x00280100: ("US", number(8)),
        0x00400555: ("SQ", item(element(0x00080100, "SH", b"x") + element(0x00400560, "SQ", item(b"")))),
        0x00480006: ("UL", number(40, wide=True)),
        0x00480007: ("UL", number(24, wide=True)),
    }


def pixel_data(frames: list[bytes], table: bool = True, shift: dict[int, int] | None = None) -> bytes:
    """Return the encapsulated pixels; `shift` moves entries of the table of frames."""
    offsets, body = [], b""
    for k, frame in enumerate(frames):
        offsets.append(len(body) + (shift or {}).get(k, 0))
        body += item(frame + b"\0" * (len(frame) % 2))
    listed = struct.pack(f"<{len(offsets)}I", *(at & 0xFFFFFFFF for at in offsets)) if table else b""
    return element(0x7FE00010, "OB", b"", length=0xFFFFFFFF) + item(listed) + body + item(b"", 0xE0DD)


def dicom(
    changes: dict[int, tuple[str, bytes] | None] | None = None,
    pixels: bytes | None = None,
    syntax: str = JPEG_SYNTAX,
    sop_class: str = WSI,
    frames: int = 6,
) -> bytes:
    """Return a DICOM file; `changes` replaces, adds or (None) drops elements."""
    meta = element(0x00020002, "UI", sop_class.encode()) + element(0x00020010, "UI", syntax.encode())
    elements: dict[int, tuple[str, bytes] | None] = {**lawful(frames), **(changes or {})}
    body = b"".join(
        element(tag, *value, implicit=syntax == IMPLICIT)
        for tag, value in sorted(elements.items())
        if value is not None
    )
    if pixels is None:
        pixels = pixel_data([jpeg(seed=k) for k in range(frames)])
    return bytes(128) + b"DICM" + element(0x00020000, "UL", number(len(meta), wide=True)) + meta + body + pixels
