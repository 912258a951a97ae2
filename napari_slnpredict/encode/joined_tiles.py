"""Tiles of several sources as one: slides and folders, say, in one training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import DataError

from .tile_table import TileData, TileTable

#: Resolutions that differ by less than this are one, and numbers of sites kept apart by this.
_SAME_SCALE, _SITES = 1.1, 1000


def joined(parts: Sequence[TileData]) -> JoinedTiles:
    """Return several sources as one: groups of the same patient stay one group, classes of the same name one class."""
    sizes = {part.tile_px for part in parts}
    scales = {part.mpp for part in parts if part.mpp is not None}
    if len(sizes) != 1 or (scales and max(scales) > _SAME_SCALE * min(scales)):
        shown = ", ".join(f"{part.tile_px} px at {part.mpp or '?'} um/px" for part in parts)
        raise DataError(
            f"these tiles do not belong into one training: {shown or 'none'}", do="give all one --tile and --mpp"
        )
    return JoinedTiles(tuple(parts))


class JoinedTiles:
    """Several sources as one; a context manager."""

    def __init__(self, parts: tuple[TileData, ...]) -> None:
        self.parts = parts
        self.tile_px = parts[0].tile_px
        self.mpp = next((part.mpp for part in parts if part.mpp is not None), None)
        self._firsts = np.cumsum([0, *(len(part.table) for part in parts)])
        self.table = _joined_table([part.table for part in parts])

    @property
    def notes(self) -> tuple[str, ...]:
        """What went wrong while reading."""
        return tuple(note for part in self.parts for note in getattr(part, "notes", ()))

    @property
    def left_out(self) -> tuple[tuple[str, str, str], ...]:
        """Name, kind of error and message of each slide that could not be used."""
        return tuple(one for part in self.parts for one in getattr(part, "left_out", ()))

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return tiles (k, p, p, 3)."""
        wanted = np.asarray(rows, np.int64).reshape(-1)
        pixels = np.empty((len(wanted), self.tile_px, self.tile_px, 3), np.uint8)
        owner = np.searchsorted(self._firsts, wanted, side="right") - 1
        for k in np.unique(owner).tolist():
            at = np.flatnonzero(owner == k)
            pixels[at] = self.parts[k].read(wanted[at] - self._firsts[k])
        return pixels

    def close(self) -> None:
        """Close what the sources hold open."""
        for part in self.parts:
            getattr(part, "close", lambda: None)()

    def __enter__(self) -> JoinedTiles:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _joined_table(tables: Sequence[TileTable]) -> TileTable:
    classes = tuple(sorted({name for table in tables for name in table.classes}))
    firsts = np.cumsum([0, *(len(table.slides) for table in tables)]).tolist()
    slides, labels, groups, sites = [], [], [], []
    known: dict[tuple[int | str, ...], int] = {}
    for k, (table, first) in enumerate(zip(tables, firsts, strict=False)):
        slides.append(np.where(table.slide >= 0, table.slide + first, -1))
        turned = np.array([*(classes.index(name) for name in table.classes), -1], np.int64)
        labels.append(turned[table.label])
        groups.append(_numbered(_names_of_groups(table, k), table.group, known))
        # Sites of different sources are different: nobody said that they are one.
        sites.append(np.where(table.site > 0, table.site + _SITES * k, 0))
    return TileTable(
        slide=np.concatenate(slides),
        group=np.concatenate(groups),
        site=np.concatenate(sites),
        centre_um=np.concatenate([table.centre_um for table in tables]),
        component=np.concatenate([table.component for table in tables]),
        label=np.concatenate(labels),
        slides=tuple(facts for table in tables for facts in table.slides),
        classes=classes,
        names=_joined_names(tables),
    )


def _joined_names(tables: Sequence[TileTable]) -> tuple[str, ...]:
    if not any(table.names for table in tables):
        return ()
    return tuple(name for table in tables for name in (table.names or ("",) * len(table)))


def _names_of_groups(table: TileTable, part: int) -> dict[int, tuple[int | str, ...]]:
    """Return a name for each group: the patient where one is named."""
    names: dict[int, tuple[int | str, ...]] = {}
    unique, at = np.unique(table.group, return_index=True)
    for group, row in zip(unique.tolist(), at.tolist(), strict=True):
        slide = int(table.slide[row])
        patient = table.slides[slide].patient if slide >= 0 else ""
        names[group] = ("patient", patient) if patient else (part, group)
    return names


def _numbered(
    names: dict[int, tuple[int | str, ...]], groups: NDArray[np.int64], known: dict[tuple[int | str, ...], int]
) -> NDArray[np.int64]:
    unique, inverse = np.unique(groups, return_inverse=True)
    numbers = np.array([known.setdefault(names[group], len(known)) for group in unique.tolist()], np.int64)
    return np.asarray(numbers[inverse.reshape(-1)], np.int64)
