"""Tiles for the claims: phantoms made by code with their truth, PatchCamelyon's from a zip, slides of a cohort.

All are held in memory, so that every arm sees the same pixels and no arm waits for a file.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.cohort.outlines import inside
from napari_slnpredict.cohort.table import Row, read_cohort
from napari_slnpredict.encode.sampling import slide_tiles
from napari_slnpredict.encode.tile_table import TileData, TileTable
from napari_slnpredict.events import Event, Job, Warn, run
from napari_slnpredict.files import digest_bytes, digest_json
from napari_slnpredict.phantom.labs import LABS, unit
from napari_slnpredict.phantom.scene import FIELD_UM, Artefact, Tissue
from napari_slnpredict.phantom.tasks import make_cohort
from napari_slnpredict.slide.grid import GridSpec

_READ = 256
PCAM, SPLIT = "pcam_lymph_node", Path(__file__).resolve().parents[2] / "scripts" / "tile_split.csv"


@dataclass(frozen=True)
class Tiles:
    """Tiles in memory: a `TileData`.

    Attributes
    ----------
    table : TileTable
    pixels : (n, p, p, 3) uint8
    mpp : float or None
    kinds : (n, kinds of tissue) float32 or None
        Share of each tile's area by the phantom's truth, in the order of `Tissue`.
    artefact : (n,) float32 or None
        Share that is an artefact.
    """

    table: TileTable
    pixels: NDArray[np.uint8] = field(repr=False)
    mpp: float | None = None
    kinds: NDArray[np.float32] | None = field(default=None, repr=False)
    artefact: NDArray[np.float32] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def tile_px(self) -> int:
        """Side of a tile, px."""
        return int(self.pixels.shape[1])

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the pixels."""
        return digest_bytes(np.ascontiguousarray(self.pixels).tobytes())

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return tiles (k, p, p, 3)."""
        return self.pixels[rows]

    def take(self, rows: NDArray[np.int64]) -> Tiles:
        """Return some of the tiles."""
        parts = [None if part is None else part[rows] for part in (self.kinds, self.artefact)]
        return Tiles(self.table.take(rows), self.pixels[rows], self.mpp, *parts)

    def share(self, *kinds: Tissue) -> NDArray[np.float32]:
        """Return the share of each tile that is one of these tissues, (n,)."""
        assert self.kinds is not None
        return self.kinds[:, [int(kind) for kind in kinds]].sum(axis=1)


def in_memory(data: TileData, rows: NDArray[np.int64] | None = None) -> Tiles:
    """Read tiles, all or some, block by block."""
    chosen = np.arange(len(data.table)) if rows is None else np.asarray(rows)
    blocks = [data.read(chosen[start : start + _READ]) for start in range(0, len(chosen), _READ)]
    return Tiles(data.table.take(chosen), np.concatenate(blocks), data.mpp)


def joined_tiles(parts: Sequence[Tiles]) -> Tiles:
    """Return several sets as one, each group of each set a group of its own."""
    from napari_slnpredict.encode.joined_tiles import joined

    whole = joined(parts)
    return Tiles(whole.table, np.concatenate([part.pixels for part in parts]), whole.mpp)


def tell(event: Event) -> None:
    """Show warnings of a job."""
    if isinstance(event, Warn):
        print(event.message, file=sys.stderr)


def do(job: Job[Any]) -> Any:
    """Drive a job; its warnings go to stderr."""
    return run(job, tell)


@dataclass(frozen=True)
class Part:
    """Phantom slides of one split: so many, from this seed, of these laboratories in turn."""

    split: str
    count: int
    seed: int
    labs: str = "A,B,C"


def phantoms(
    folder: Path, task: str, parts: Sequence[Part], spec: GridSpec, *, size_mm: float, most: int
) -> dict[str, Tiles]:
    """Return the tiles of each split, with the truth; slides that are in the folder already are kept.

    Parameters
    ----------
    size_mm : float
        Width of a slide.
    most : int
        Tiles of one slide, spread evenly over it.
    """
    what = digest_json([task, size_mm, *(dataclasses.asdict(part) for part in parts)])
    home = Path(folder) / f"{task}-{what[:8]}"
    for part in parts:
        do(make_cohort(task, part.count, part.seed, part.labs, home, split=part.split, size=size_mm))
    rows = read_cohort(home / "cohort.csv").rows
    found = {}
    for part in parts:
        found[part.split] = _with_truth(home, [row for row in rows if row.split == part.split], spec, most)
    return found


def _with_truth(home: Path, rows: Sequence[Row], spec: GridSpec, most: int) -> Tiles:
    tiles = slides(rows, spec, most)
    kinds = np.zeros((len(tiles), len(Tissue)), np.float32)
    artefact = np.zeros(len(tiles), np.float32)
    side = round(spec.tile_um / FIELD_UM)
    corner = np.round((tiles.table.centre_um - spec.tile_um / 2) / FIELD_UM).astype(int)
    for number, facts in enumerate(tiles.table.slides):
        truth, dirt = (_codes(home / "truth" / f"{facts.slide_id}{end}.png") for end in ("", "_artefacts"))
        for row in np.flatnonzero(tiles.table.slide == number):
            x, y = corner[row]
            place = slice(y, y + side), slice(x, x + side)
            kinds[row] = np.bincount(truth[place].ravel(), minlength=len(Tissue)) / side**2
            artefact[row] = (dirt[place] != Artefact.NONE).sum() / side**2
    return dataclasses.replace(tiles, kinds=kinds, artefact=artefact)


def _codes(path: Path) -> NDArray[np.uint8]:
    from PIL import Image

    return np.asarray(Image.open(path))  # palette values are the codes


def slides(rows: Sequence[Row], spec: GridSpec, most: int) -> Tiles:
    """Return the tiles of slides, `most` of each."""
    with do(slide_tiles(rows, spec, most=most)) as source:
        return in_memory(source)


def cohort_rows(table: Path) -> list[Row]:
    """Return the H&E slides of a cohort table; IHC sections stay out."""
    return [row for row in read_cohort(table).rows if row.stain in ("", "HE")]


def lymph_node_tiles(data: Path, side: int) -> tuple[Tiles, Tiles]:
    """Return the PatchCamelyon tiles of the repository's fixed division: those to learn from, those to ask about.

    Which slide a tile comes from is not known: the halves may share slides, and an interval over tiles is too narrow.
    """
    from napari_slnpredict.encode.tile_files import zip_tiles

    with SPLIT.open(newline="", encoding="utf-8") as table:
        part = {line["file"]: line["split"] for line in csv.DictReader(table) if line["set"] == PCAM}
    with do(zip_tiles(Path(data) / "tiles" / f"{PCAM}.zip", tile_px=side, mpp=0.972)) as source:
        whole = in_memory(source)
    said = np.array([part.get(name, "") for name in whole.table.sources])
    return whole.take(np.flatnonzero(said == "train")), whole.take(np.flatnonzero(said == "test"))


def in_groups(tiles: Tiles, count: int) -> Tiles:
    """Return tiles in `count` groups: tiles without a patient would else be drawn as often as whole slides."""
    table = dataclasses.replace(tiles.table, group=np.arange(len(tiles), dtype=np.int64) % count)
    return dataclasses.replace(tiles, table=table)


def in_stain_of(tiles: NDArray[np.uint8], lab: str) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Stain tiles as a phantom laboratory would: its dyes and its amounts relative to laboratory A.

    Returns
    -------
    (n, p, p, 3) uint8
    (n,) bool
        Whether a tile's own stain could be found; else it is returned as it is.
    """
    from napari_slnpredict.slide.stain import FitSpec, fit_macenko, restain
    from napari_slnpredict.torch_door import import_torch

    torch, room = import_torch(), LABS[lab]
    given = torch.from_numpy(np.ascontiguousarray(tiles))
    fit = fit_macenko(given, FitSpec(least_px=100))
    dyes = torch.from_numpy(np.stack([unit(room.haematoxylin), unit(room.eosin)])).expand(len(tiles), 2, 3)
    amounts = torch.tensor(room.strength) * room.thickness
    made = restain(given, fit, dataclasses.replace(fit, stains=dyes, strength=fit.strength * amounts))
    return made.numpy(), fit.usable.numpy()


def outlined(tiles: Tiles, rows: Sequence[Row], regions: Path) -> NDArray[np.int64]:
    """Return what outlines say of each tile's centre: 1 tumour, 0 normal, -1 unmarked.

    Parameters
    ----------
    rows : sequence of Row
        Of the cohort; they give the slides' um per px.
    regions : Path
        Folder of ``<slide>.geojson``, polygons in level-0 px with the classes Tumor and Normal.
    """
    said = np.full(len(tiles), -1, np.int64)
    scale = {row.slide or row.path.stem: row.mpp for row in rows}
    for number, facts in enumerate(tiles.table.slides):
        path = Path(regions) / f"{facts.slide_id}.geojson"
        if not path.is_file():
            continue
        mine = np.flatnonzero(tiles.table.slide == number)
        centres = tiles.table.centre_um[mine] / (scale[facts.slide_id] or 1.0)
        for feature in json.loads(path.read_text(encoding="utf-8"))["features"]:
            polygon = np.array(feature["geometry"]["coordinates"][0], np.float64)
            said[mine[inside(polygon, centres)]] = int(feature["properties"]["classification"]["name"] == "Tumor")
    return said
