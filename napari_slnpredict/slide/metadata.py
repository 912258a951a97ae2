"""XML in a slide, looked through before any library parses it: no entities, no endless nesting, no other files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.parsers import expat

from napari_slnpredict.errors import UnsupportedSlide

from .limits import LIMITS

_MARKS = (b"<", b"\xef\xbb\xbf<", b"\xff\xfe<\0", b"\xfe\xff\0<")
_UNREADABLE = "its XML metadata are damaged: pixel size and other properties may be missing"
_EXPORT = "open the slide in the scanner's software and export it again"


def looks_like_xml(beginning: bytes) -> bool:
    """Tell whether a description starts as XML does."""
    return beginning.lstrip(b" \t\r\n\0").startswith(_MARKS)


def check_xml(data: bytes, path: Path) -> list[str]:
    """Look through XML; return warnings.

    Raises
    ------
    UnsupportedSlide
        A DOCTYPE (the door of entity bombs and of files read from this machine), absurd depth or length, or a
        reference to a file outside the slide's folder.
    """
    if len(data) > LIMITS.xml_bytes:
        raise UnsupportedSlide(f"holds more than {LIMITS.xml_bytes >> 20} MiB of XML", file=path, do=_EXPORT)
    look = _Look(path)
    try:
        look.parser.Parse(data.strip(b" \t\r\n\0"), True)
    except expat.ExpatError:
        return [*look.warnings(), _UNREADABLE]
    return look.warnings()


class _Look:
    """Counts depth and elements and collects the files named."""

    def __init__(self, path: Path) -> None:
        self.path, self.depth, self.elements = path, 0, 0
        self.own_uuid, self.named, self.text = "", "", ""
        self.files: dict[str, str] = {}
        self.parser = expat.ParserCreate()
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.characters
        self.parser.StartDoctypeDeclHandler = self.refuse_doctype
        self.parser.EntityDeclHandler = self.refuse_doctype

    def refuse_doctype(self, *_: Any) -> None:
        raise UnsupportedSlide(
            "its XML metadata declare a DOCTYPE or entities, which have no place in a slide", file=self.path, do=_EXPORT
        )

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.depth += 1
        self.elements += 1
        if self.depth > LIMITS.xml_depth or self.elements > LIMITS.xml_elements:
            raise UnsupportedSlide("its XML metadata are nested too deep or endless", file=self.path, do=_EXPORT)
        if self.depth == 1:
            self.own_uuid = attributes.get("UUID", "")
        if name.rpartition(":")[2] == "UUID" and "FileName" in attributes:
            self.named, self.text = attributes["FileName"], ""

    def characters(self, text: str) -> None:
        if self.named:
            self.text += text[:200]

    def end(self, name: str) -> None:
        self.depth -= 1
        if self.named:
            self.files[self.named] = self.text.strip()
            self.named = ""

    def warnings(self) -> list[str]:
        """Judge the files named: the slide itself under an old name is common, a set of files is not a slide."""
        others = [name for name, uuid in self.files.items() if not self.own_uuid or uuid != self.own_uuid]
        others = [name for name in others if name != self.path.name]
        if any(re.search(r"[/\\:\0]|^\.\.?$", name) for name in others):
            raise UnsupportedSlide(
                "its OME-XML refers to another file outside its folder", file=self.path, do="export it as a single file"
            )
        if others:
            return [f"its OME-XML names {len(others)} other file(s) of a set: only what is in this file is shown"]
        return []
