"""The tiles that `train_hne_small.py` learns from: 128 px at 1 um per pixel.

Of the labelled tile sets only the half called "train" in `tile_split.csv` is learned from; `judge_hne_small.py` reads
the other one. Of a cohort of slides only ``split=train`` is.
"""

from __future__ import annotations

import csv
import hashlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from make_tile_split import SPLIT, TRAIN
from numpy.typing import NDArray
from PIL import Image

from napari_slnpredict.cohort.table import read_cohort
from napari_slnpredict.encode.sampling import slide_tiles
from napari_slnpredict.events import run
from napari_slnpredict.phantom.scene import FIELD_UM, Tissue
from napari_slnpredict.phantom.tasks import make_slide
from napari_slnpredict.slide.blocks import plan_blocks, read_block
from napari_slnpredict.slide.grid import GridSpec, lay_grid
from napari_slnpredict.slide.slide import open_slide
from napari_slnpredict.slide.tissue import find_tissue

TILE_PX = 128
SPEC = GridSpec(TILE_PX, 1.0, 0, 0.5)
#: Side of a picture in px at about 1 um/px, as far as that is known, before it is cut or padded to 128 px tiles.
# CRC-VAL-HE-7K stays out: copies of it name different licences, and its own could not be read.
TILE_SETS = {"pcam_lymph_node": 96, "oral_tissue": 128, "osteosarcoma": 512}
MAJORITY = 0.6  # share of a tile one kind of tissue must cover to name it
#: Kinds of tissue a tile may be named by.
_NAMED = ("STROMA", "NEST", "ALTERED", "LYMPHOID", "PALE", "SINUS", "DEPOSIT", "FAT")
KINDS = tuple(int(Tissue[name]) for name in _NAMED)


@dataclass(frozen=True)
class TileSet:
    """Tiles of one source.

    Attributes
    ----------
    pixels : (n, 128, 128, 3) uint8
    labels : (n,) int64, -1 where there is none
    groups : (n,) str
        Slide, where one is known, else the file: never on both sides of a division.
    classes : tuple of str
    slides : tuple of str
        Content ids of the slides they come from; empty for tile sets.
    patients : tuple of str
    files : tuple of str
        Hashes of the names of the pictures they come from, as every training writes them; empty for slides.
    """

    name: str
    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    groups: NDArray[np.str_]
    classes: tuple[str, ...]
    slides: tuple[str, ...] = ()
    patients: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    def part(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> TileSet:
        """Return some of the tiles."""
        return TileSet(
            self.name, self.pixels[rows], self.labels[rows], self.groups[rows], self.classes, self.slides,
            self.patients, self.files,
        )  # fmt: skip


def training_half(folder: Path, name: str) -> TileSet:
    """Return the tiles of a set that training may see."""
    return read_half(folder, name, TRAIN)


def read_half(folder: Path, name: str, half: str, split: Path = SPLIT) -> TileSet:
    """Read one half of a zipped tile set; every picture must be the one the division names."""
    with split.open(newline="", encoding="utf-8") as source:
        wanted = {
            row["file"]: row["sha256"] for row in csv.DictReader(source) if (row["set"], row["split"]) == (name, half)
        }
    with (folder / f"{name}.csv").open(newline="", encoding="utf-8") as source:
        table = list(csv.DictReader(source))
    classes = tuple(sorted({row["label"] for row in table}))
    pixels, labels, groups = [], [], []
    with zipfile.ZipFile(folder / f"{name}.zip") as archive:
        members = {Path(member).name: member for member in archive.namelist()}
        for row in (row for row in table if row["file"] in wanted):
            data = archive.read(members[row["file"]])
            if hashlib.sha256(data).hexdigest() != wanted[row["file"]]:
                raise SystemExit(f"{name}/{row['file']} is not the picture that was divided")
            picture = Image.open(io.BytesIO(data)).convert("RGB")
            for tile in _tiles_of(picture, TILE_SETS[name]):
                pixels.append(tile)
                labels.append(classes.index(row["label"]))
                groups.append(row["slide"] or row["file"])
    files = tuple(sorted(hashlib.sha256(file.encode()).hexdigest()[:16] for file in wanted))
    return TileSet(name, np.stack(pixels), np.asarray(labels), np.asarray(groups), classes, files=files)


def _tiles_of(picture: Image.Image, side: int) -> Iterator[NDArray[np.uint8]]:
    if picture.width != side:
        picture = picture.resize(
            (side, side), Image.Resampling.BOX if side < picture.width else Image.Resampling.BICUBIC
        )
    array = np.asarray(picture)
    missing = max(0, TILE_PX - side)
    if missing:
        array = np.pad(array, ((missing // 2, missing - missing // 2),) * 2 + ((0, 0),), mode="reflect")
    for top in range(0, array.shape[0] - TILE_PX + 1, TILE_PX):
        for left in range(0, array.shape[1] - TILE_PX + 1, TILE_PX):
            yield array[top : top + TILE_PX, left : left + TILE_PX]


def read_phantoms(folder: Path, split: str, per_kind: int, seed: int) -> TileSet:
    """Read tiles named by the truth from the slides of one split of a phantom cohort, `per_kind` a slide at most."""
    pixels, labels, groups, slides, patients = [], [], [], [], []
    rng = np.random.default_rng(seed)
    for row in read_cohort(folder / "cohort.csv").rows:
        if row.split != split or row.stain != "HE":
            continue
        truth = np.asarray(Image.open(folder / "truth" / f"{row.slide}.png"))
        with open_slide(row.path) as slide:
            grid = lay_grid(slide, find_tissue(slide), SPEC)
            kinds = np.array([majority(truth, *place) for place in grid.locations])
            chosen = _balanced(rng, kinds, per_kind)
            for block in plan_blocks(grid, chosen):
                tiles = read_block(slide, grid, block)
                pixels.append(tiles.pixels)
                labels.append(kinds[tiles.indices])
                groups += [f"{row.site}:{row.slide}"] * len(tiles.indices)
            slides.append(slide.content_id)
            patients.append(row.patient)
    codes = np.concatenate(labels)
    names = tuple(Tissue(code).name.lower() for code in KINDS)
    places = np.array([KINDS.index(code) for code in codes])
    return TileSet("phantom", np.concatenate(pixels), places, np.asarray(groups), names, tuple(slides), tuple(patients))


def make_node_phantoms(count: int, seed: int, per_kind: int) -> TileSet:
    """Make lymph-node phantoms in memory and take tiles from them: kinds of tissue the sln task does not hold."""
    pixels, labels, groups = [], [], []
    rng = np.random.default_rng(seed)
    for index in range(count):
        label = ("positive", "negative")[index % 2]
        slide = make_slide("metastasis", label, seed + index, "ABC"[index // 2 % 3], size=2.2)
        height, width = (side // TILE_PX for side in slide.pixels.shape[:2])
        corners = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).reshape(-1, 2) * TILE_PX
        kinds = np.array([majority(slide.truth, *corner) for corner in corners])
        for k in _balanced(rng, kinds, per_kind):
            x, y = corners[k]
            pixels.append(slide.pixels[y : y + TILE_PX, x : x + TILE_PX])
            labels.append(KINDS.index(int(kinds[k])))
            groups.append(f"{slide.lab}:node{slide.seed}")
    names = tuple(Tissue(code).name.lower() for code in KINDS)
    return TileSet("phantom nodes", np.stack(pixels), np.asarray(labels), np.asarray(groups), names)


def majority(truth: NDArray[np.uint8], x: int, y: int) -> int:
    """Return the kind of tissue that covers most of a tile, 0 where none does or it has no name here."""
    part = truth[y // FIELD_UM : (y + TILE_PX) // FIELD_UM, x // FIELD_UM : (x + TILE_PX) // FIELD_UM]
    count = np.bincount(part.ravel(), minlength=len(Tissue))
    best = int(count.argmax())
    return best if best in KINDS and count[best] >= MAJORITY * part.size else 0


def _balanced(rng: np.random.Generator, kinds: NDArray[np.int64], per_kind: int) -> NDArray[np.int64]:
    chosen = [rng.permutation(np.flatnonzero(kinds == kind))[:per_kind] for kind in KINDS]
    return np.sort(np.concatenate(chosen))


def slide_set(folder: Path, split: str, per_slide: int) -> TileSet:
    """Return tiles of one split's H&E slides, spread over each slide, with the slide's label; coarser ones enlarged."""
    rows = [row for row in read_cohort(folder / "cohort.csv").rows if (row.split, row.stain) == (split, "HE")]
    with run(slide_tiles(rows, SPEC, most=per_slide)) as data:
        table = data.table
        pixels = data.read(np.arange(len(table)))
    ids = np.array([facts.slide_id for facts in table.slides])
    contents = tuple(facts.content_id for facts in table.slides)
    return TileSet("real slides", pixels, table.label, ids[table.slide], table.classes, contents, table.patients)
