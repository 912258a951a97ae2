"""One slide of many: where it lies, and what it is called in every output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_slnpredict.errors import one_line


@dataclass(frozen=True)
class Input:
    """One slide to work on.

    Attributes
    ----------
    path : Path
    mpp : float or None
        um per level-0 px where a table gives one.
    name : str
        What a table calls the slide; "": its file's stem.
    source : str
        Where a table names it ("line 7 of cohort.csv"), for messages.
    patient, label : str
        What a table says; "" where it does not.
    """

    path: Path
    mpp: float | None = None
    name: str = ""
    source: str = ""
    patient: str = ""
    label: str = ""

    @property
    def stem(self) -> str:
        """The name the outputs get unless it collides."""
        return one_line(self.name or (self.path.name if self.path.is_dir() else self.path.stem), 120)


@dataclass(frozen=True)
class Label:
    """What one slide is called in outputs and messages; small, so that it can travel to another machine.

    Attributes
    ----------
    stem : str
    crowded : bool
        Another slide of the list has this stem.
    taken : str
        Content id of the slide that the output folder already holds under this stem, or "".
    number : int
        Place in the whole list, from 1: what a log says where names must not stand.
    pseudonym : bool
        Put content ids where file names would stand.
    """

    stem: str
    shown: str
    crowded: bool = False
    taken: str = ""
    number: int = 1
    pseudonym: bool = False

    def name(self, content_id: str) -> str:
        """Return the name of the slide with this content."""
        if self.pseudonym:
            return content_id
        other = self.taken not in ("", content_id)
        return f"{self.stem}-{content_id[:8]}" if other or self.crowded else self.stem

    def hide(self, path: Path, error: Exception) -> str:
        """Return an error's message, without the file's name where a pseudonym is wanted."""
        message = one_line(error, 900) if str(error) else type(error).__name__
        if self.pseudonym:
            for told in (str(path), path.name):
                message = message.replace(told, self.shown)
        return message


@dataclass(frozen=True)
class Named:
    """A slide with its label."""

    item: Input
    label: Label


def name_all(inputs: Sequence[Input], taken: Mapping[str, str], pseudonym: bool = False) -> list[Named]:
    """Give every slide of a list its label; to be done before a shard is cut from the list.

    A stem that two slides of the list share, or that the output folder holds for another slide, gets a suffix from
    the content id. Case is ignored: on many file systems A.svs and a.svs would share a folder.

    Parameters
    ----------
    taken : mapping of str to str
        Content ids of slides that the output folder already holds, by name.
    """
    stems = [item.stem for item in inputs]
    count = Counter(stem.casefold() for stem in stems)
    held = {name.casefold(): content for name, content in taken.items()}
    named = []
    for number, (item, stem) in enumerate(zip(inputs, stems, strict=True), 1):
        shown = f"slide {number}" if pseudonym else one_line(item.path.name, 120)
        key = stem.casefold()
        named.append(Named(item, Label(stem, shown, count[key] > 1, held.get(key, ""), number, pseudonym)))
    return named
