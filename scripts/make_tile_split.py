"""Write `tile_split.csv`: which half of each labelled tile set training may see, and which no training ever does.

    python scripts/make_tile_split.py --data DATA

Made once; a test compares it with what this script makes. PatchCamelyon and the oral set name neither slide nor
patient, so their pictures are divided within each class (and magnification) by the hash of the file's name.
Osteosarcoma is divided by slide: the first shuffle in which both halves hold every class about equally often, from at
least three slides each. Its four patients stand on both sides, as its classes hardly exist in two of them.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import random
from collections import Counter, defaultdict
from pathlib import Path

SPLIT = Path(__file__).with_name("tile_split.csv")
TRAIN, HELD_OUT = "train", "test"
SETS = ("pcam_lymph_node", "oral_tissue", "osteosarcoma")


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with tiles/")
    SPLIT.write_text(table_text(parser.parse_args().data / "tiles"), encoding="utf-8")


def table_text(folder: Path) -> str:
    """Return the table for the tile sets in a folder."""
    lines = ["set,file,split,sha256"]
    for name in SETS:
        with (folder / f"{name}.csv").open(newline="", encoding="utf-8") as source:
            rows = list(csv.DictReader(source))
        away = _slides_away(rows) if rows[0]["slide"] else _files_away(rows)
        for row in rows:
            half = HELD_OUT if (row["slide"] or row["file"]) in away else TRAIN
            lines.append(f"{name},{row['file']},{half},{row['sha256']}")
    return "\n".join(lines) + "\n"


def _files_away(rows: list[dict[str, str]]) -> set[str]:
    strata: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in rows:
        strata[row["label"], row["magnification"]].append(row["file"])
    away: set[str] = set()
    for files in strata.values():
        files.sort(key=lambda file: hashlib.sha256(file.encode()).hexdigest())
        away.update(files[: len(files) // 2])
    return away


def _slides_away(rows: list[dict[str, str]]) -> set[str]:
    slides = sorted({row["slide"] for row in rows})
    for seed in range(10_000):
        away = set(random.Random(seed).sample(slides, len(slides) // 2))
        if all(_fair(rows, label, away) for label in {row["label"] for row in rows}):
            return away
    raise SystemExit("no fair division of the slides found")


def _fair(rows: list[dict[str, str]], label: str, away: set[str]) -> bool:
    count = Counter(row["slide"] for row in rows if row["label"] == label)
    there = {slide: number for slide, number in count.items() if slide in away}
    apart = abs(2 * sum(there.values()) - sum(count.values()))
    return apart <= 1 and min(len(there), len(count) - len(there)) >= 3


if __name__ == "__main__":
    main()
