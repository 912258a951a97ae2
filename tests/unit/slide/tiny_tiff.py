"""TIFFs of a few hundred bytes, made tag by tag, so that a test can bend any one of them."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from functools import cache

import numpy as np

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 11: 4, 12: 8, 13: 4, 16: 8}
LETTERS = {1: "B", 3: "H", 4: "I", 5: "I", 11: "f", 12: "d", 13: "I", 16: "Q"}
Value = tuple[int, tuple[int | float, ...] | bytes]


@cache
def jpeg(width: int = 16, height: int = 16, seed: int = 0, colour: str = "RGB", subsampling: str = "444") -> bytes:
    """Return a JPEG of smooth noise; `colour` "GRAY" gives one component."""
    import simplejpeg

    shape = (height, width, 1 if colour == "GRAY" else 3)
    pixels = np.random.default_rng(seed).integers(120, 240, shape, dtype=np.uint8)
    return bytes(
        simplejpeg.encode_jpeg(
            pixels, 75, colorspace=colour, colorsubsampling="Gray" if colour == "GRAY" else subsampling
        )
    )


@dataclass
class Image:
    """One directory. `tags` adds to, replaces or (with None) drops what the fields give: tag -> (type, values)."""

    width: int = 40
    height: int = 24
    tile: tuple[int, int] | None = (16, 16)
    blocks: list[bytes] | None = None
    compression: int = 7
    tags: dict[int, Value | None] = field(default_factory=dict)
    below: list[Image] = field(default_factory=list)

    def stored(self) -> list[bytes]:
        if self.blocks is not None:
            return self.blocks
        if self.tile is None:
            return [jpeg(self.width, self.height)]
        across, down = -(-self.width // self.tile[0]), -(-self.height // self.tile[1])
        return [jpeg(*self.tile, seed=k) for k in range(across * down)]

    def lawful(self, places: list[int], lengths: list[int]) -> dict[int, Value]:
        tags: dict[int, Value] = {
            256: (4, (self.width,)), 257: (4, (self.height,)), 258: (3, (8, 8, 8)), 259: (3, (self.compression,)),
            262: (3, (6,)), 277: (3, (3,)), 284: (3, (1,)), 530: (3, (1, 1)),
        }  # fmt: skip
        if self.tile:
            tags |= {
                322: (4, (self.tile[0],)),
                323: (4, (self.tile[1],)),
                324: (16, tuple(places)),
                325: (4, tuple(lengths)),
            }
        else:
            tags |= {273: (16, tuple(places)), 278: (4, (self.height,)), 279: (4, tuple(lengths))}
        return tags


class Writer:
    """Lays images out one after the other: blocks, values, directory."""

    def __init__(self, big: bool = False, order: str = "<") -> None:
        self.big, self.order = big, order
        mark = b"II" if order == "<" else b"MM"
        head = struct.pack(order + "HHHQ", 43, 8, 0, 0) if big else struct.pack(order + "HI", 42, 0)
        self.out = bytearray(mark + head)
        self.link = len(self.out) - (8 if big else 4)
        self.place = "Q" if big else "I"

    def add(self, image: Image, chained: bool = True) -> int:
        """Append an image; return the offset of its directory."""
        places, lengths = [], []
        for block in image.stored():
            places.append(len(self.out))
            lengths.append(len(block))
            self.out += block + b"\0" * (len(block) % 2)
        tags = {**image.lawful(places, lengths)}
        if image.below:
            tags[330] = (13, tuple(self.add(sub, chained=False) for sub in image.below))
        for tag, value in image.tags.items():
            if value is None:
                tags.pop(tag, None)
            else:
                tags[tag] = value
        return self.directory(tags, chained)

    def directory(self, tags: dict[int, Value], chained: bool) -> int:
        inline, lines = (8 if self.big else 4), []
        for tag in sorted(tags):
            kind, values = tags[tag]
            if kind == 16 and not self.big:
                kind = 4
            raw = (
                values
                if isinstance(values, bytes)
                else struct.pack(f"{self.order}{len(values)}{LETTERS[kind]}", *values)
            )
            count = len(raw) // SIZES.get(kind, 1)
            line = struct.pack(self.order + "HH" + self.place, tag, kind, count)
            if len(raw) <= inline:
                line += raw.ljust(inline, b"\0")
            else:
                line += struct.pack(self.order + self.place, len(self.out))
                self.out += raw + b"\0" * (len(raw) % 2)
            lines.append(line)
        at = len(self.out)
        self.out += struct.pack(self.order + ("Q" if self.big else "H"), len(lines)) + b"".join(lines)
        if chained:
            struct.pack_into(self.order + self.place, self.out, self.link, at)
            self.link = len(self.out)
        self.out += bytes(8 if self.big else 4)
        return at


def tiff(*images: Image, big: bool = False, order: str = "<") -> bytes:
    """Return a TIFF file of these images (of one lawful image by default)."""
    writer = Writer(big, order)
    for image in images or (Image(),):
        writer.add(image)
    return bytes(writer.out)
