"""A set of tiles to be judged on: which tiles, what is fitted on which, and what counts as one witness."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.encode.tile_table import TileData, TileTable
from napari_slnpredict.errors import DataError
from napari_slnpredict.files import digest_bytes
from napari_slnpredict.metrics.folds import grouped_folds

#: Tiles read and embedded at a time, and bytes of them kept in memory for the next arm.
CHUNK, KEPT_BYTES = 256, 1 << 30


@dataclass(frozen=True)
class JudgedSet:
    """Tiles and how they are divided.

    Attributes
    ----------
    name : str
    data : TileData
    train, test : (m,) and (k,) int64, or None
        Rows: probes, neighbours and principal components are fitted on the first, figures are of the second. Without
        both, folds that keep groups whole take turns.
    note : str
        What must stand beside its figures.
    """

    name: str
    data: TileData = field(repr=False)
    train: NDArray[np.int64] | None = field(default=None, repr=False)
    test: NDArray[np.int64] | None = field(default=None, repr=False)
    note: str = ""

    def __post_init__(self) -> None:
        if (self.train is None) != (self.test is None):
            raise DataError(f"{self.name}: rows to train on and rows to test on go together")


@dataclass(frozen=True)
class Round:
    """One fit: places in a `Sample`.

    Attributes
    ----------
    known : (m,) int64
        Fitted on.
    asked : (q,) int64
        Judged on.
    """

    known: NDArray[np.int64] = field(repr=False)
    asked: NDArray[np.int64] = field(repr=False)


class Sample:
    """The tiles of a set that are looked at, at most so many, and the rounds they are judged in.

    Attributes
    ----------
    name, note : str
    table : TileTable
        Of the tiles looked at.
    rounds : tuple of Round
    split : bool
        Whether train and test were given.
    labelled : (n,) bool
        Tiles whose labels are used: those drawn evenly, not those that only stand beside another one.

    Parameters
    ----------
    judged : JudgedSet
    tiles : int
        At most, spread over classes and groups.
    folds, seed : int
    beside : (m,) int64, optional
        Rows that are looked at as well, for their place.
    """

    def __init__(
        self, judged: JudgedSet, *, tiles: int, folds: int, seed: int, beside: NDArray[np.int64] | None = None
    ) -> None:
        self.name, self.note, self._data = judged.name, judged.note, judged.data
        table, self.split = judged.data.table, judged.train is not None
        more = np.empty(0, np.int64) if beside is None else beside
        if judged.train is not None and judged.test is not None:
            if not len(judged.train) or not len(judged.test) or len(np.intersect1d(judged.train, judged.test)):
                raise DataError(f"{self.name}: no tiles to train on, none to test on, or some in both")
            known = spread_rows(table, judged.train, tiles // 2, seed)
            drawn = spread_rows(table, judged.test, tiles // 2, seed)
            self._rows = np.concatenate([known, np.union1d(drawn, more)])
            drawn = np.concatenate([known, drawn])
        else:
            known = drawn = spread_rows(table, np.arange(len(table)), tiles, seed)
            self._rows = np.union1d(drawn, more)
        self.table: TileTable = table.take(self._rows)
        self.labelled = np.isin(self._rows, drawn) & (self.table.label >= 0)
        self.rounds: tuple[Round, ...]
        if self.split:
            places = np.arange(len(self._rows))
            self.rounds = (Round(places[: len(known)], places[len(known) :]),)
        else:
            fold = grouped_folds(self.table.label, self.table.group, folds, seed)
            self.rounds = tuple(
                Round(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(int(fold.max(initial=0)) + 1)
            )
        self.digests: list[str] = []
        self._kept: dict[int, NDArray[np.uint8]] = {}

    def places(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where rows of the data, which must be in the sample, stand in it."""
        order = np.argsort(self._rows, kind="stable")
        return np.asarray(order[np.searchsorted(self._rows, rows, sorter=order)], np.int64)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def mpp(self) -> float | None:
        """Resolution, um/px; None where nobody said."""
        return self._data.mpp

    @property
    def tile_px(self) -> int:
        """Side of a tile, px."""
        return self._data.tile_px

    @property
    def asked(self) -> NDArray[np.int64]:
        """Places judged in one round or another, in order."""
        return np.sort(np.concatenate([one.asked for one in self.rounds]))

    @property
    def own(self) -> NDArray[np.int64]:
        """What a question's answers must not come from, (n,): its slide, where none is known its group."""
        table = self.table
        return np.where(table.slide >= 0, table.slide, len(table.slides) + table.group)

    @property
    def grouping(self) -> str:
        """What the groups are."""
        if self.table.patients:
            return "patients"
        return {"own slide": "slides", "own file": "files", "itself": "tiles"}.get(self.own_words, "groups")

    @property
    def own_words(self) -> str:
        """What retrieval leaves out."""
        table = self.table
        if (table.slide >= 0).all():
            return "own slide"
        groups = len(np.unique(table.group))
        if (table.slide < 0).all() and groups in (len(set(table.names)), len(table)):
            return "own file" if table.names else "itself"
        return "own group"

    def chunks(self) -> Iterator[tuple[int, slice, NDArray[np.uint8]]]:
        """Yield some tiles after the other: number, places, pixels; digests are kept the first time."""
        room = KEPT_BYTES // max(1, CHUNK * self.tile_px**2 * 3)
        for number, start in enumerate(range(0, len(self), CHUNK)):
            places = slice(start, min(start + CHUNK, len(self)))
            pixels = self._kept.get(number)
            if pixels is None:
                pixels = self._data.read(self._rows[places])
            if number < room:
                self._kept[number] = pixels
            if number == len(self.digests):
                self.digests.append(
                    digest_bytes(repr((pixels.shape, self.mpp)), np.ascontiguousarray(pixels).tobytes())
                )
            yield number, places, pixels

    def pixels(self, places: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return tiles (k, p, p, 3)."""
        return self._data.read(self._rows[places])

    def forget(self) -> None:
        """Let go of the pixels."""
        self._kept.clear()


def pixels_digest(pixels: NDArray[np.uint8], mpp: float | None) -> str:
    """Return the SHA-256 of tiles (k, p, p, 3) and their um/px."""
    return digest_bytes(repr((pixels.shape, mpp)), np.ascontiguousarray(pixels).tobytes())


def spread_rows(table: TileTable, rows: NDArray[np.int64], most: int, seed: int) -> NDArray[np.int64]:
    """Return at most so many rows, in order: of every class and group alike as long as there are some."""
    if len(rows) <= most:
        return np.sort(rows)
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(rows)
    # The k-th tile of its group within its class; then the k-th group of that class with as many.
    turn = _turns(np.stack([table.label[shuffled], table.group[shuffled]], axis=1))
    second = _turns(np.stack([table.label[shuffled], turn], axis=1))
    return np.sort(shuffled[np.lexsort((second, turn))[:most]])


def _turns(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many earlier rows have the same key, (n,)."""
    _, which = np.unique(keys, axis=0, return_inverse=True)
    which = which.ravel()
    order = np.argsort(which, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(which[order]) != 0))
    first = np.repeat(starts, np.diff(np.append(starts, len(order))))
    turn = np.empty(len(order), np.int64)
    turn[order] = np.arange(len(order)) - first
    return turn
