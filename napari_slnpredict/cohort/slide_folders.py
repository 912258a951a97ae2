"""The slides in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

#: Endings looked for in folders; a file named outright is tried whatever it is called.
ENDINGS = frozenset(
    (".svs", ".tif", ".tiff", ".ndpi", ".scn", ".mrxs", ".bif", ".svslide", ".vms", ".vmu", ".btf", ".qptiff")
)


def slides_in(folder: Path) -> Iterator[Path]:
    """Walk a folder; one with DICOM files is one slide, one with our own results holds none."""
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    if any(entry.suffix.lower() == ".dcm" for entry in entries):
        yield folder
        return
    if any(entry.name == "prediction.json" for entry in entries):
        return
    mirax = {entry.stem for entry in entries if entry.suffix.lower() == ".mrxs"}
    for entry in entries:
        if entry.is_dir():
            if entry.name not in mirax:  # slide.mrxs keeps its pixels in the folder slide/
                yield from slides_in(entry)
        elif entry.suffix.lower() in ENDINGS:
            yield entry
