"""The tiles that `train_hne_small.py` learns from and is judged on: 128 px at 1 um per pixel.

Nothing that is judged is seen in training: PCam is divided by the hash of the file's name, phantoms by slide.
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
from numpy.typing import NDArray
from PIL import Image

from napari_slnpredict.phantom.scene import FIELD_UM, Tissue
from napari_slnpredict.phantom.tasks import make_slide
from napari_slnpredict.slide.blocks import plan_blocks, read_block
from napari_slnpredict.slide.grid import GridSpec, lay_grid
from napari_slnpredict.slide.slide import open_slide
from napari_slnpredict.slide.tissue import find_tissue

TILE_PX = 128
SPEC = GridSpec(TILE_PX, 1.0, 0, 0.5)
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
    groups : (n,) str, slide or file
    classes : tuple of str
    slides : tuple of str
        Content ids of the slides they come from; empty for tile sets.
    patients : tuple of str
    """

    name: str
    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    groups: NDArray[np.str_]
    classes: tuple[str, ...]
    slides: tuple[str, ...] = ()
    patients: tuple[str, ...] = ()

    def part(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> TileSet:
        """Return some of the tiles."""
        return TileSet(
            self.name, self.pixels[rows], self.labels[rows], self.groups[rows], self.classes, self.slides, self.patients
        )


def held_out(name: str, share: float = 0.4) -> bool:
    """Whether a file is never seen in training; decided by its name alone."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 16**8 < share


def read_tile_set(folder: Path, name: str, side: int) -> TileSet:
    """Read one of the zipped tile sets; pictures are brought to `side` px, cut or mirrored to 128 px tiles."""
    with (folder / f"{name}.csv").open(newline="", encoding="utf-8") as source:
        rows = list(csv.DictReader(source))
    classes = tuple(sorted({row["label"] for row in rows}))
    pixels, labels, groups = [], [], []
    with zipfile.ZipFile(folder / f"{name}.zip") as archive:
        members = {Path(member).name: member for member in archive.namelist()}
        for row in rows:
            picture = Image.open(io.BytesIO(archive.read(members[row["file"]]))).convert("RGB")
            for tile in _tiles_of(picture, side):
                pixels.append(tile)
                labels.append(classes.index(row["label"]))
                groups.append(row["file"])
    return TileSet(name, np.stack(pixels), np.asarray(labels), np.asarray(groups), classes)


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
    for row in _rows(folder / "cohort.csv"):
        if row["split"] != split or row["stain"] != "HE":
            continue
        truth = np.asarray(Image.open(folder / "truth" / f"{row['slide']}.png"))
        with open_slide(folder / row["path"]) as slide:
            grid = lay_grid(slide, find_tissue(slide), SPEC)
            kinds = np.array([majority(truth, *place) for place in grid.locations])
            chosen = _balanced(rng, kinds, per_kind)
            for block in plan_blocks(grid, chosen):
                tiles = read_block(slide, grid, block)
                pixels.append(tiles.pixels)
                labels.append(kinds[tiles.indices])
                groups += [f"{row['site']}:{row['slide']}"] * len(tiles.indices)
            slides.append(slide.content_id)
            patients.append(row["patient"])
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


def read_real_slides(folder: Path, per_slide: int, seed: int) -> TileSet:
    """Read tiles of the cohort's H&E training slides, spread over each slide; coarser slides are enlarged."""
    rng = np.random.default_rng(seed)
    pixels, groups, slides, patients = [], [], [], []
    for row in _rows(folder / "cohort.csv"):
        if row["split"] != "train" or row["stain"] != "HE":
            continue
        with open_slide(folder / row["path"]) as slide:
            grid = lay_grid(slide, find_tissue(slide), SPEC)
            chosen = np.sort(rng.permutation(len(grid))[:per_slide])
            for block in plan_blocks(grid, chosen):
                pixels.append(read_block(slide, grid, block).pixels)
                groups += [row["slide"]] * len(block)
            slides.append(slide.content_id)
            patients.append(row["patient"])
    tiles = np.concatenate(pixels)
    none = np.full(len(tiles), -1)
    return TileSet("real slides", tiles, none, np.asarray(groups), (), tuple(slides), tuple(sorted(set(patients))))


def _rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8-sig") as source:
        return list(csv.DictReader(source))
