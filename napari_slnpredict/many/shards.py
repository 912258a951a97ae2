"""A share of a list of slides, for job arrays: the same on every machine, without any word between them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from napari_slnpredict.files import digest_json

from .slides import Named


@dataclass(frozen=True)
class Shard:
    """Share `index` (from 1) of `count`."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def stem(self) -> str:
        """The shard as a part of a file's name."""
        return f"{self.index}of{self.count}"

    def cut(self, slides: Sequence[Named]) -> list[Named]:
        """Return this shard's slides: every `count`-th of the list sorted by path.

        Sizes differ by one slide at most, and neighbours (of one scanner, one size) go to different shards.
        """
        ordered = sorted(slides, key=lambda slide: slide.item.path.absolute().as_posix())
        return ordered[self.index - 1 :: self.count]


WHOLE = Shard(1, 1)


def parse_shard(text: str) -> Shard:
    """Read "I/N", 1 <= I <= N.

    Raises
    ------
    ValueError
        Says what was expected.
    """
    found = re.fullmatch(r"\s*(\d{1,6})\s*/\s*(\d{1,6})\s*", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError(f"{text!r} is not I/N with I from 1 to N, as 3/20")
    return Shard(int(found[1]), int(found[2]))


def list_digest(slides: Sequence[Named]) -> str:
    """Return what tells two lists apart: shards of one run must have cut the same list.

    Names and folders' names count, the folders above do not: machines may mount one share in different places.
    """
    return digest_json(sorted("/".join(slide.item.path.parts[-2:]) for slide in slides))[:16]
