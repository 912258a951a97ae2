"""Decoded tiles of all open slides under one bound of bytes.

One cache for the process: ten slides in a window share what one would take, and a closed slide gives its part back at
once. Tiles lie on three shelves. What is read once, in passing (embedding), may fill what nobody else uses but is the
first to go, so that a run over a huge slide never pushes out what the window shows. What is dear (a virtual tile made
of hundreds of stored ones) has a share that cheap tiles cannot take.
"""

from __future__ import annotations

import enum
import itertools
import threading
from collections import OrderedDict, deque
from collections.abc import Hashable

from napari_slnpredict.settings import load_settings

from .source import Tile

#: Bytes an entry costs beside its pixels.
ENTRY_BYTES = 500


class Shelf(enum.IntEnum):
    """Kinds of tiles; the first shelf over its share gives up its longest unused tile."""

    PASSING = 0
    COMMON = 1
    DEAR = 2


#: Part of the bound that is each shelf's own. They add up to one: whenever the bound is passed, one is over its share.
SHARES = {Shelf.PASSING: 0.125, Shelf.COMMON: 0.625, Shelf.DEAR: 0.25}

_Key = tuple[int, Hashable]


class TileCache:
    """Tiles of many slides up to a number of bytes. Thread-safe.

    Parameters
    ----------
    limit : int
        Bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._shelves: dict[Shelf, OrderedDict[_Key, Tile]] = {shelf: OrderedDict() for shelf in Shelf}
        self._used = dict.fromkeys(Shelf, 0)
        self._total = 0
        #: Tenant -> key -> shelf. Only who is listed may put: a read that outlasts its slide leaves nothing.
        self._places: dict[int, dict[Hashable, Shelf]] = {}
        self._numbers = itertools.count()
        self._abandoned: deque[int] = deque()
        self._lock = threading.Lock()

    def tenant(self) -> Tenant:
        """Return one slide's part of the cache."""
        number = next(self._numbers)
        with self._lock:
            self._places[number] = {}
        return Tenant(self, number)

    @property
    def limit(self) -> int:
        """Bytes held at most."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        with self._lock:
            self._limit = limit
            self._shrink()

    @property
    def used(self) -> int:
        """Bytes held."""
        return self._total

    def get(self, number: int, key: Hashable, touch: bool) -> Tile | None:
        """Return a tenant's tile; `touch` marks it used and takes it off the shelf of passing tiles."""
        with self._lock:
            places = self._places.get(number)
            shelf = places.get(key) if places is not None else None
            if places is None or shelf is None:
                return None
            whole = (number, key)
            tiles = self._shelves[shelf]
            if touch and shelf is Shelf.PASSING:
                tile = tiles.pop(whole)
                self._shelves[Shelf.COMMON][whole] = tile
                places[key] = Shelf.COMMON
                self._used[Shelf.PASSING] -= _cost(tile)
                self._used[Shelf.COMMON] += _cost(tile)
                return tile
            if touch:
                tiles.move_to_end(whole)
            return tiles[whole]

    def put(self, number: int, key: Hashable, tile: Tile, shelf: Shelf) -> None:
        """Keep a tenant's tile; one larger than the bound is not kept, nor one of a tenant that has left."""
        cost = _cost(tile)
        if cost > self._limit:
            return
        with self._lock:
            while self._abandoned:
                self._remove(self._abandoned.popleft())
            places = self._places.get(number)
            if places is None or key in places:
                return
            places[key] = shelf
            self._shelves[shelf][number, key] = tile
            self._used[shelf] += cost
            self._total += cost
            if self._total > self._limit:
                self._shrink()

    def leave(self, number: int) -> None:
        """Forget a tenant and all its tiles."""
        with self._lock:
            self._remove(number)

    def abandon(self, number: int) -> None:
        """Forget a tenant at the next chance; takes no lock, for the garbage collector may call it anywhere."""
        self._abandoned.append(number)

    def _remove(self, number: int) -> None:
        for key, shelf in self._places.pop(number, {}).items():
            self._count_out(shelf, self._shelves[shelf].pop((number, key)))

    def _count_out(self, shelf: Shelf, tile: Tile) -> None:
        cost = _cost(tile)
        self._used[shelf] -= cost
        self._total -= cost

    def _shrink(self) -> None:
        while self._total > self._limit:
            shelf = next((s for s in Shelf if self._used[s] > SHARES[s] * self._limit), None)
            if shelf is None:  # a bound of so few bytes that rounding decides
                shelf = max(Shelf, key=lambda s: self._used[s])
            (number, key), tile = self._shelves[shelf].popitem(last=False)
            del self._places[number][key]
            self._count_out(shelf, tile)


class Tenant:
    """One slide's part of a cache; its keys are its own.

    Parameters
    ----------
    cache : TileCache
    number : int
    """

    def __init__(self, cache: TileCache, number: int) -> None:
        self._cache, self.number = cache, number

    def get(self, key: Hashable, touch: bool = True) -> Tile | None:
        """Return a tile, None when it is not here. Who only passes by does not touch."""
        return self._cache.get(self.number, key, touch)

    def put(self, key: Hashable, tile: Tile, shelf: Shelf = Shelf.COMMON) -> None:
        """Keep a tile; after `close` nothing is kept."""
        self._cache.put(self.number, key, tile, shelf)

    def close(self) -> None:
        """Give everything back."""
        self._cache.leave(self.number)

    def __del__(self) -> None:
        self._cache.abandon(self.number)


def _cost(tile: Tile) -> int:
    return tile.nbytes + ENTRY_BYTES


_shared: TileCache | None = None
_making = threading.Lock()


def shared_cache(limit_mb: int | None = None) -> TileCache:
    """Return the cache of all slides open in this process.

    Parameters
    ----------
    limit_mb : int, optional
        Another bound from now on, MiB. Before the first one is given, the setting ``memory_mb`` holds.
    """
    global _shared
    with _making:
        if _shared is None:
            _shared = TileCache((limit_mb if limit_mb is not None else load_settings().memory_mb) << 20)
    if limit_mb is not None and limit_mb << 20 != _shared.limit:
        _shared.limit = limit_mb << 20
    return _shared
