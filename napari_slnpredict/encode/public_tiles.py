"""Public sets of tiles in the folders they come in: CAMELYON17-WILDS, BRACS' regions, tiles of Camelyon16's slides.

Each says its classes by name, its splits as its authors made them, and the groups that must stay together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from napari_slnpredict.cohort.outlines import read_outlines
from napari_slnpredict.cohort.public import NORMAL, TUMOR, camelyon16_cohort
from napari_slnpredict.cohort.tasks import TASKS
from napari_slnpredict.errors import DataError, one_line
from napari_slnpredict.events import Job, Warn
from napari_slnpredict.slide.grid import GridSpec

from .sampling import SlideTiles, slide_tiles
from .tile_files import MOST_PX, PICTURES, Picture, PictureTiles, csv_lines, gather_pictures, of_split

#: CAMELYON17-WILDS: side of a patch and of its labelled middle, px; um/px; the centres held out, counted from 0.
WILDS_PX, WILDS_MIDDLE, WILDS_MPP = 96, 32, 0.972
WILDS_VALIDATION, WILDS_TEST = 1, 2
_WILDS_SPLITS = {"0": "train", "1": "id_val", "2": "test", "3": "val"}
_WILDS_COLUMNS = ("patient", "node", "x_coord", "y_coord", "tumor", "center", "split")
#: um/px of BRACS' regions.
BRACS_MPP = 0.25


def wilds_tiles(folder: Path, *, split: str | None = None, mpp: float | None = None) -> PictureTiles:
    """Return the patches of CAMELYON17-WILDS, in the order of its table.

    ``metadata.csv`` and ``patches/patient_P_node_N/patch_patient_P_node_N_x_X_y_Y.png``. Classes normal and tumor (any
    tumour in the middle 32 px). Splits are the official ones (Koh et al. 2021): of the centres counted from 0 number 2
    is ``test`` and number 1 ``val`` whatever the table's column says; the others are ``train`` and ``id_val``.

    Parameters
    ----------
    folder : Path
    split : str, optional
        One of train, id_val, val, test.
    mpp : float, optional
        By default 0.972.

    Raises
    ------
    DataError
        A column is missing, a value makes no sense; the line is named.
    """
    folder = Path(folder)
    table = folder / "metadata.csv"
    lines = csv_lines(table, "patient")
    lacking = [name for name in _WILDS_COLUMNS if not lines or name not in lines[0]]
    if lacking:
        raise DataError(f"no column {', '.join(lacking)}", file=table, do="give the folder camelyon17_v1.0")
    scale = mpp or WILDS_MPP
    pictures = of_split([_wilds_picture(line, k, table, scale) for k, line in enumerate(lines, 2)], split, table)

    def load(name: str) -> bytes:
        try:
            return (folder / name).read_bytes()
        except OSError as error:
            raise DataError("is not there", file=name, do="fetch CAMELYON17-WILDS again") from error

    return PictureTiles(pictures, [(WILDS_PX, WILDS_PX)] * len(pictures), load, WILDS_PX, scale)


def _wilds_picture(line: Mapping[str, str], number: int, table: Path, mpp: float) -> Picture:
    try:
        patient, node, centre = line["patient"].strip(), int(line["node"]), int(line["center"])
        x, y, tumor = int(line["x_coord"]), int(line["y_coord"]), int(line["tumor"])
        if tumor not in (0, 1) or not re.fullmatch(r"\w+", patient):
            raise ValueError(f"tumor {tumor}, patient {patient}")
        split = {WILDS_TEST: "test", WILDS_VALIDATION: "val"}.get(centre) or _WILDS_SPLITS[line["split"].strip()]
    except (TypeError, ValueError, KeyError) as error:
        raise DataError(f"line {number}: {one_line(error, 80)}", file=table, do="fetch the table again") from error
    slide = f"patient_{patient}_node_{node}"
    middle = WILDS_MIDDLE / 2  # the table's places are corners of the labelled middle, level-2 px
    return Picture(
        f"patches/{slide}/patch_{slide}_x_{x}_y_{y}.png",
        TUMOR if tumor else NORMAL,
        group=f"patient_{patient}",
        slide=slide,
        site=f"centre {centre}",
        split=split,
        centre_um=((x + middle) * mpp, (y + middle) * mpp),
    )


def bracs_tiles(
    folder: Path, *, tile_px: int | None = None, mpp: float | None = None, split: str | None = None
) -> Job[PictureTiles]:
    """Return tiles of BRACS' regions: seven classes, splits as published, one group a slide.

    ``{train,val,test}/{0_N,...,6_IC}/BRACS_1234_N_1.png``. Its table of patients is a spreadsheet apart, so that two
    slides of one patient are two groups here. Regions smaller than a tile are left out and counted.

    Parameters
    ----------
    folder : Path
        ``BRACS_RoI``, or the folder in it that holds the splits.
    tile_px : int, optional
        By default 512: 128 um.
    mpp : float, optional
        By default 0.25.
    split : str, optional
        One of train, val, test.
    """
    from PIL import Image

    folder, task, side = Path(folder), TASKS["subtype"], tile_px or 512
    pictures = []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        label = next((found for part in parts[:-1] if (found := task.answer(part))), None)
        if path.suffix.lower() not in PICTURES or label is None:
            continue
        part = next((part for part in parts if part in ("train", "val", "test")), "")
        slide = re.match(r"BRACS_\d+", path.stem)
        name = "/".join(parts)
        pictures.append(Picture(name, label, slide=slide[0] if slide else path.stem, split=part))
    pictures = of_split(pictures, split, folder)
    kept = []
    for picture in pictures:
        try:
            with Image.open(folder / picture.name) as image:  # the header alone
                size = image.size
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            said = one_line(error, 120)
            raise DataError(f"is no picture ({said})", file=picture.name, do="fetch it again") from error
        if min(size) >= side and size[0] * size[1] <= MOST_PX:
            kept.append(picture)
    if len(kept) < len(pictures):
        yield Warn(f"{len(pictures) - len(kept)} of {len(pictures)} regions are smaller than a tile of {side} px")
    return (yield from gather_pictures(kept, lambda name: (folder / name).read_bytes(), side, mpp or BRACS_MPP, folder))


def camelyon16_tiles(
    folder: Path, spec: GridSpec, *, split: str | None = None, most: int | None = None
) -> Job[SlideTiles]:
    """Return tiles of Camelyon16's slides, each labelled by its middle: tumor inside an outline, else normal.

    Tiles of a tumour slide without an outlines file stay without a label.

    Parameters
    ----------
    folder : Path
    spec : GridSpec
    split : str, optional
        train or test.
    most : int, optional
        Tiles of one slide at most.
    """
    cohort = camelyon16_cohort(folder)
    rows = [row for row in cohort.rows if split is None or row.split == split]
    if not rows:
        raise DataError(f"no slide of split {split!r}", file=folder, do="there are: train, test")
    tiles = yield from slide_tiles(rows, spec, most=most)
    outline = {row.path: row.other["outline"] for row in rows}
    label = tiles.table.label.copy()
    names = (NORMAL, TUMOR)
    for k, source in enumerate(tiles.sources):
        own = np.flatnonzero(tiles.table.slide == k)
        row_label = tiles.table.classes[label[own[0]]] if label[own[0]] >= 0 else ""
        if path := outline[source.path]:
            middle = source.grid.locations + source.grid.size_level0 / 2
            label[own] = read_outlines(Path(path)).covers(middle).astype(np.int64)
        else:
            label[own] = names.index(NORMAL) if row_label == NORMAL else -1
    tiles.table = replace(tiles.table, label=label, classes=names)
    return tiles
