"""Tiles to train on from pictures: folders of them, or a zip with a table.

Pictures larger than a tile are cut into tiles side by side, smaller ones are refused: enlarging would invent detail.
Classes have the names of folders or labels, in alphabetical order; a number alone never says which class is meant.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import threading
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import DataError, one_line
from napari_slnpredict.events import Job, Meter, Stage, Throttle

from .tile_table import SlideFacts, TileTable

#: Endings of pictures that are tiles.
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
#: A picture larger than this is a slide, not a tile, px and bytes.
MOST_PX, MOST_BYTES = 100_000_000, 256 << 20


@dataclass(frozen=True)
class Picture:
    """One picture file.

    Attributes
    ----------
    name : str
        In its folder or zip.
    label : str
        "" where there is none.
    group, slide : str
        Patient and slide it comes from; "" where nobody said.
    sha256 : str
        Of the file; "" where nobody said.
    site, split : str
        Laboratory, and the part of the set it belongs to.
    centre_um : (float, float)
        Of a picture of one tile, from its slide's corner.
    """

    name: str
    label: str = ""
    group: str = ""
    slide: str = ""
    sha256: str = ""
    site: str = ""
    split: str = ""
    centre_um: tuple[float, float] = (math.nan, math.nan)


class PictureTiles:
    """Tiles cut out of pictures; made by `folder_tiles` and `zip_tiles`; thread-safe; a context manager.

    Attributes
    ----------
    table : TileTable
    tile_px : int
    mpp : float or None
    """

    def __init__(
        self,
        pictures: Sequence[Picture],
        sizes: Sequence[tuple[int, int]],
        load: Callable[[str], bytes],
        tile_px: int,
        mpp: float | None,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self.tile_px, self.mpp, self.close = tile_px, mpp, close
        self._pictures, self._load = pictures, load
        cuts = [_cuts(size, tile_px) for size in sizes]
        self._picture = np.repeat(np.arange(len(pictures)), [len(cut) for cut in cuts])
        self._corner = np.concatenate(cuts)
        self.table = _picture_table(pictures, self._picture)

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return tiles (k, p, p, 3); every picture is decoded once.

        Raises
        ------
        DataError
            A picture cannot be decoded, or is not the one the table's checksum names.
        """
        wanted = np.asarray(rows, np.int64).reshape(-1)
        side = self.tile_px
        pixels = np.empty((len(wanted), side, side, 3), np.uint8)
        owner = self._picture[wanted]
        for k in np.unique(owner).tolist():
            whole = _decoded(self._pictures[k], self._load)
            for at in np.flatnonzero(owner == k).tolist():
                x, y = self._corner[wanted[at]].tolist()
                part = whole[y : y + side, x : x + side]
                if part.shape != (side, side, 3):
                    raise DataError("changed while it was in use", file=self._pictures[k].name, do="start again")
                pixels[at] = part
        return pixels

    def __enter__(self) -> PictureTiles:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _cuts(size: tuple[int, int], tile_px: int) -> NDArray[np.int64]:
    """Corners (n, 2), x then y, of tiles side by side in the middle of a picture."""
    across, down = size[0] // tile_px, size[1] // tile_px
    left, top = (size[0] - across * tile_px) // 2, (size[1] - down * tile_px) // 2
    return np.array([(left + i * tile_px, top + j * tile_px) for j in range(down) for i in range(across)], np.int64)


def _picture_table(pictures: Sequence[Picture], owner: NDArray[np.int64]) -> TileTable:
    classes = {name: k for k, name in enumerate(sorted({picture.label for picture in pictures} - {""}))}
    sites = {name: k + 1 for k, name in enumerate(sorted({picture.site for picture in pictures} - {""}))}
    keys = [picture.group or picture.slide or picture.name for picture in pictures]
    groups = {key: k for k, key in enumerate(dict.fromkeys(keys))}
    slides = {p.slide: SlideFacts(p.slide, "", p.group, p.site) for p in pictures if p.slide}
    place = {name: k for k, name in enumerate(slides)}
    return TileTable(
        slide=np.array([place.get(picture.slide, -1) for picture in pictures], np.int64)[owner],
        group=np.array([groups[key] for key in keys], np.int64)[owner],
        site=np.array([sites.get(picture.site, 0) for picture in pictures], np.int64)[owner],
        centre_um=np.array([picture.centre_um for picture in pictures], np.float64)[owner],
        component=np.zeros(len(owner), np.int32),
        label=np.array([classes.get(picture.label, -1) for picture in pictures], np.int64)[owner],
        slides=tuple(slides.values()),
        classes=tuple(classes),
        names=tuple(pictures[k].name for k in owner.tolist()),
    )


def _opened(picture: Picture, data: bytes) -> Any:
    """Return PIL's picture, its header read and believed harmless."""
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(data))
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"is no picture ({one_line(error, 120)})", file=picture.name, do="delete it from the tiles"
        ) from error
    if image.width * image.height > MOST_PX:
        raise DataError(
            f"{image.width} x {image.height} px are a slide, not a tile", file=picture.name, do="train on it as a slide"
        )
    return image


def _decoded(picture: Picture, load: Callable[[str], bytes]) -> NDArray[np.uint8]:
    data = load(picture.name)
    if picture.sha256 and hashlib.sha256(data).hexdigest() != picture.sha256.lower():
        raise DataError("is not the picture its table names (other checksum)", file=picture.name, do="fetch it again")
    try:
        return np.asarray(_opened(picture, data).convert("RGB"), np.uint8)
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(
            f"cannot be decoded ({one_line(error, 120)})", file=picture.name, do="delete it from the tiles"
        ) from error


def gather_pictures(
    pictures: Sequence[Picture],
    load: Callable[[str], bytes],
    tile_px: int | None,
    mpp: float | None,
    where: Path,
    close: Callable[[], None] = lambda: None,
) -> Job[PictureTiles]:
    """Read the size of every picture and return their tiles."""
    if not pictures:
        raise DataError("holds no pictures", file=where, do=f"give {', '.join(sorted(PICTURES))} files")
    yield Stage("tiles", "Finding tiles", len(pictures), "pictures")
    meter, tell = Meter(len(pictures)), Throttle()
    sizes = []
    for picture in pictures:
        sizes.append(_opened(picture, load(picture.name)).size)
        meter.done += 1
        if tell():
            yield meter.progress()
    smallest = min(range(len(sizes)), key=lambda k: min(sizes[k]))
    side = tile_px or min(sizes[smallest])
    if min(sizes[smallest]) < side:
        raise DataError(
            f"{sizes[smallest][0]} x {sizes[smallest][1]} px are less than a tile of {side}",
            file=pictures[smallest].name,
            do=f"ask for tiles of at most {min(sizes[smallest])} px, or leave the small pictures out",
        )
    return PictureTiles(pictures, sizes, load, side, mpp, close)


def folder_tiles(folder: Path, *, tile_px: int | None = None, mpp: float | None = None) -> Job[PictureTiles]:
    """Return the pictures of a folder; each of its folders, where it has any, is a class.

    Parameters
    ----------
    folder : Path
    tile_px : int, optional
        By default the shorter side of the smallest picture.
    mpp : float, optional
        um/px, where it is known.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError("is no folder", file=folder, do="give the folder of tiles")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES and path.is_file())
    names = [path.relative_to(folder) for path in files]
    pictures = [Picture(name.as_posix(), name.parts[0] if len(name.parts) > 1 else "") for name in names]

    def load(name: str) -> bytes:
        return _bounded((folder / name).stat().st_size, name, (folder / name).read_bytes)

    return (yield from gather_pictures(pictures, load, tile_px, mpp, folder))


def zip_tiles(
    archive: Path,
    table: Path | None = None,
    *,
    tile_px: int | None = None,
    mpp: float | None = None,
    label: str = "label",
    split: str | None = None,
) -> Job[PictureTiles]:
    """Return the pictures of a zip; nothing is unpacked.

    Parameters
    ----------
    archive : Path
    table : Path, optional
        CSV with a column ``file`` and any of ``label``, ``group`` (patient), ``slide``, ``sha256``, ``site``,
        ``split``; by default the archive's name with .csv. Only pictures it names are used, and all must be there.
    tile_px, mpp
        As `folder_tiles`.
    label : str
        The column of the classes.
    split : str, optional
        Take the pictures of this split alone, where the table has splits.
    """
    archive = Path(archive)
    table = Path(table) if table else archive.with_suffix(".csv")
    pictures = of_split(_listed(table, label), split, table)
    try:
        opened = zipfile.ZipFile(archive)
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"is no zip file ({one_line(error, 120)})", file=archive, do="fetch it again") from error
    try:
        held = set(opened.namelist())
        missing = [picture.name for picture in pictures if picture.name not in held]
        if missing:
            raise DataError(
                f"{len(missing)} pictures of the table are not in it, {one_line(missing[0], 80)} for one",
                file=archive,
                do="fetch both again, they do not belong together",
            )
        return (yield from gather_pictures(pictures, _ZipReader(opened), tile_px, mpp, archive, opened.close))
    except BaseException:
        opened.close()
        raise


def _listed(table: Path, label: str) -> list[Picture]:
    lines = csv_lines(table, "file")
    for column in ("file", label) if label != "label" else ("file",):
        if lines and column not in lines[0]:
            raise DataError(f"line 1: no column {column!r}", file=table, do=f"name the column meant {column!r}")
    return [_listed_picture(line, label) for line in lines if line["file"]]


def _listed_picture(line: dict[str, str], label: str) -> Picture:
    cell = {key: (line.get(key) or "").strip() for key in (label, "group", "slide", "sha256", "site", "split")}
    return Picture(line["file"], cell[label], cell["group"], cell["slide"], cell["sha256"], cell["site"], cell["split"])


def of_split(pictures: Sequence[Picture], split: str | None, where: Path) -> list[Picture]:
    """Return the pictures of a split, all where nothing is split. Raises `DataError` where there are none of it."""
    known = sorted({picture.split for picture in pictures} - {""})
    if split is None or not known:
        return list(pictures)
    if split not in known:
        raise DataError(f"no picture of split {split!r}", file=where, do=f"there are: {', '.join(known)}")
    return [picture for picture in pictures if picture.split == split]


def csv_lines(path: Path, column: str) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"cannot be read ({one_line(error, 120)})", file=path, do=f"put a CSV with a column {column!r} there"
        ) from error


class _ZipReader:
    """Reads members of one open zip, one thread at a time: pictures are hardly packed, decoding them is the work."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive, self._lock = archive, threading.Lock()

    def __call__(self, name: str) -> bytes:
        """Return one member's bytes."""
        with self._lock:
            try:
                return _bounded(self._archive.getinfo(name).file_size, name, lambda: self._archive.read(name))
            except (OSError, zipfile.BadZipFile, RuntimeError, ValueError, zlib.error) as error:
                raise DataError(
                    f"cannot be read ({one_line(error, 120)})", file=name, do="fetch the zip again"
                ) from error


def _bounded(size: int, name: str, read: Callable[[], bytes]) -> bytes:
    if size > MOST_BYTES:
        raise DataError(f"{size >> 20} MB are no tile", file=name, do="leave it out")
    return read()
