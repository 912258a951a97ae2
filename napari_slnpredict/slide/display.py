"""What a screen gets of a slide: arrays that answer at once, and say when they can answer better.

`Slide.levels()` is for computing: exact, or raising. A window asks for a rectangle inside its paint event and may not
wait: an array here returns within `BUDGET`, with the tiles that are there and the enlarged coarser picture for the
others, which a few threads load meanwhile (`loading`). When they are there `on_arrival` is called, the window asks
again, and gets the pixels of a direct read. The coarsest levels never leave memory, so there is always a picture.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from . import screen
from .ahead import Trend, from_centre
from .cache import Shelf
from .display_level import DisplayLevel
from .display_look import AsStored, Look
from .loading import Loader
from .pages import pages
from .pyramid import Pyramid
from .screen import Key, ScreenLevel, halved_tile, hatched, screen_levels
from .sketch import sketch
from .source import WHITE, Tile
from .spread import spread

#: Longest wait for tiles within one request, seconds. A redraw takes about as long.
BUDGET = 0.014
#: Levels up to this side stay in memory as long as the slide is shown; at least two do.
RESIDENT_PX = 1400
#: Resident levels made of more stored tiles than this are made in the background, a rough picture standing in.
DEAR_TILES = 600
#: From this many halvings on a tile is made of so many others that these are loaded one by one.
STEPWISE = 3
#: How long the rough picture may take; seconds.
SKETCH_SECONDS = 0.25
Rectangle = tuple[int, int, int, int]


class SlideLeft(Exception):
    """Nobody looks any more."""


def _nothing(*_: object) -> None:
    pass


class DisplayPyramid:
    """The levels of one slide for one layer.

    Parameters
    ----------
    tiles : Pyramid
    damaged : callable
        Rectangles met so far that cannot be decoded: `Slide.damaged`.
    look : Look, optional
        By default pixels are shown as stored.
    hold : callable
        Returns a function that lets go again, None when the slide is leaving: nothing is read then, all is white.

    Attributes
    ----------
    levels : list of DisplayLevel
    on_arrival : callable
        Called from a thread when the picture asked for last can be shown better; once, until it is asked for again.
    on_silence : callable
        Called from a thread with True when a read hangs, with False when it came back.
    """

    def __init__(
        self,
        tiles: Pyramid,
        damaged: Callable[[], Sequence[tuple[int, int, int, int, int]]] = tuple,
        look: Look | None = None,
        hold: Callable[[], Callable[[], None] | None] = lambda: _nothing,
    ) -> None:
        self._tiles, self._damaged, self._look, self._hold = tiles, damaged, look or AsStored(), hold
        self.plan = screen_levels([level for level in tiles.levels if level.depth == 0])
        self._resident = _resident_from(self.plan)
        self._pinned: dict[Key, Tile] = {}
        self._rough: NDArray[np.uint8] | None = None
        self._rough_shown: tuple[Hashable, NDArray[np.uint8]] | None = None
        self._ended = False
        self._trend = Trend()
        self.on_arrival: Callable[[], None] = _nothing
        self.on_silence: Callable[[bool], None] = _nothing
        self._loader = Loader(
            self._make, self._before, lambda: self.on_arrival(), lambda silent: self.on_silence(silent)
        )
        self.levels = [DisplayLevel(self, number) for number in range(len(self.plan))]

    # --- life --------------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Load what stays in memory; a slide without small levels gets a rough picture, and the true one in time."""
        # Finest first: the coarser ones are made of them.
        levels = [self._keys_of(level) for level in range(self._resident, len(self.plan))]
        if self.plan[self._resident].stored_tiles <= DEAR_TILES:
            for keys in levels:
                spread(self._make, keys)
        else:
            stored = self.plan[self._resident - self.plan[self._resident].halvings]
            self._rough = sketch(self._tiles, stored, SKETCH_SECONDS)
            self._loader.errands(key for keys in levels for key in keys)

    def twin(self, look: Look) -> DisplayPyramid:
        """Return the same slide in another look, ready to be shown beside this one: small levels are painted now.

        Stored tiles, and what stays in memory of them, are shared.
        """
        other = DisplayPyramid(self._tiles, self._damaged, look, self._hold)
        other._pinned, other._rough = self._pinned, self._rough
        spread(other._make, [key for key in self._pinned.copy() if other._shown(key) is None])
        return other

    def close(self) -> None:
        """End the threads; whoever still asks gets white."""
        self._ended = True
        self._loader.close()
        self._pinned = {}  # not cleared: a twin may show them still
        self._rough = self._rough_shown = None

    def is_resident(self, level: int) -> bool:
        """Whether a level stays in memory."""
        return level >= self._resident

    @property
    def is_silent(self) -> bool:
        """Whether the drive does not answer."""
        return self._loader.is_silent

    @property
    def idle(self) -> bool:
        """Whether nothing is being loaded."""
        return self._loader.idle

    def overview(self, max_px: int) -> NDArray[np.uint8]:
        """Return the whole slide with its longer side at most `max_px`, from what stays in memory: (h, w, 3) uint8."""
        from PIL import Image

        sides = [max(level.width, level.height) for level in self.plan]
        level = max((number for number, side in enumerate(sides) if side >= max_px), default=0)
        level = max(level, self._resident)
        shape = self.plan[level]
        scale = min(1.0, max_px / sides[level])
        size = max(1, round(shape.width * scale)), max(1, round(shape.height * scale))
        picture = self.picture(level, 0, shape.height, 0, shape.width)
        return np.array(Image.fromarray(picture).resize(size, Image.Resampling.BOX))

    # --- the answer --------------------------------------------------------------------------------------------------

    def picture(self, level: int, y: int, y_end: int, x: int, x_end: int) -> NDArray[np.uint8]:
        """Return a rectangle of a level within `BUDGET`, as good as it can be by then: (h, w, 3) uint8."""
        started = time.monotonic()
        out = pages(max(y_end - y, 0), max(x_end - x, 0), 3)
        if not out.size:
            return out
        release = None if self._ended else self._hold()
        if release is None:
            out[:] = WHITE
            return out
        try:
            shape = self.plan[level]
            columns = range(x // shape.tile_width, -(-x_end // shape.tile_width))
            rows = range(y // shape.tile_height, -(-y_end // shape.tile_height))
            there, lacking = self._find([(level, column, row) for row in rows for column in columns])
            ahead = self._trend.ahead(self.plan, level, columns, rows, self._remembered)
            if lacking or ahead:
                self._loader.load(from_centre(lacking, columns, rows), ahead, started + BUDGET)
            if lacking:
                more, lacking = self._find(lacking)
                there.update(more)
            self._paste(out, level, there, lacking, (x, y))
            self._loader.shown(lacking)
        finally:
            release()
        return out

    def exact(self, level: int, y: int, y_end: int, x: int, x_end: int) -> NDArray[np.uint8]:
        """Return a rectangle as it is in the end, however long that takes: the direct read."""
        out = np.full((max(y_end - y, 0), max(x_end - x, 0), 3), WHITE, np.uint8)
        release = self._hold() if out.size and not self._ended else None
        if release is None:
            return out
        try:
            shape = self.plan[level]
            there = {}
            for row in range(y // shape.tile_height, -(-y_end // shape.tile_height)):
                for column in range(x // shape.tile_width, -(-x_end // shape.tile_width)):
                    key = (level, column, row)
                    there[key] = self._painted(key, self._raw(key)).pixels
            self._paste(out, level, there, [], (x, y))
        finally:
            release()
        return out

    def _paste(
        self,
        out: NDArray[np.uint8],
        level: int,
        there: dict[Key, NDArray[np.uint8]],
        lacking: Sequence[Key],
        corner: tuple[int, int],
    ) -> None:
        """Put tiles into a rectangle of a level; `corner` is its x and y."""
        shape, (x0, y0) = self.plan[level], corner
        height, width = out.shape[:2]
        if lacking:
            boxes = [shape.box(column, row) for _, column, row in lacking]
            left, top = max(min(box[0] for box in boxes), x0), max(min(box[1] for box in boxes), y0)
            right = min(max(box[0] + box[2] for box in boxes), x0 + width)
            bottom = min(max(box[1] + box[3] for box in boxes), y0 + height)
            part = out[top - y0 : bottom - y0, left - x0 : right - x0]
            self._stand_in(part, level, (left, top))
        for (_, column, row), pixels in there.items():
            x, y = column * shape.tile_width - x0, row * shape.tile_height - y0
            cut = pixels[max(-y, 0) : height - y, max(-x, 0) : width - x]
            out[max(y, 0) : max(y, 0) + cut.shape[0], max(x, 0) : max(x, 0) + cut.shape[1]] = cut

    def _stand_in(self, out: NDArray[np.uint8], level: int, corner: tuple[int, int]) -> None:
        """Fill a rectangle with an enlarged coarser picture, in one piece: the finest one that is there whole."""
        height, width = out.shape[:2]
        here = self.plan[level]
        for coarser in range(level + 1, len(self.plan)):
            there = self.plan[coarser]
            columns = _enlarged(corner[0], width, here.width, there.width)
            rows = _enlarged(corner[1], height, here.height, there.height)
            picture = self._whole(coarser, columns, rows)
            if picture is not None:
                small = pages(picture.shape[0], width, 3)
                np.take(picture, columns - columns[0], axis=1, out=small, mode="clip")
                np.take(small, rows - rows[0], axis=0, out=out, mode="clip")
                return
        if self._rough is None:
            out[:] = WHITE
            return
        rough = self._painted_rough(self._rough)
        columns = _enlarged(corner[0], width, here.width, rough.shape[1])
        rows = _enlarged(corner[1], height, here.height, rough.shape[0])
        np.take(rough.take(columns, axis=1), rows, axis=0, out=out, mode="clip")

    def _painted_rough(self, rough: NDArray[np.uint8]) -> NDArray[np.uint8]:
        key = self._look.key
        if key is None:
            return rough
        if self._rough_shown is None or self._rough_shown[0] != key:
            self._rough_shown = key, self._look(rough)
        return self._rough_shown[1]

    def _whole(self, level: int, columns: NDArray[np.intp], rows: NDArray[np.intp]) -> NDArray[np.uint8] | None:
        """Return a rectangle of a level if all its tiles are in memory."""
        shape = self.plan[level]
        x, y, x_end, y_end = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
        keys = [
            (level, column, row)
            for row in range(y // shape.tile_height, -(-y_end // shape.tile_height))
            for column in range(x // shape.tile_width, -(-x_end // shape.tile_width))
        ]
        there, lacking = self._find(keys, whole=True)
        if lacking:
            return None
        out = pages(y_end - y, x_end - x, 3)
        self._paste(out, level, there, [], (x, y))
        return out

    # --- tiles -------------------------------------------------------------------------------------------------------

    def _keys_of(self, level: int) -> list[Key]:
        shape = self.plan[level]
        columns, rows = range(shape.across), range(shape.down)
        return from_centre([(level, column, row) for row in rows for column in columns], columns, rows)

    def _find(self, keys: Sequence[Key], *, whole: bool = False) -> tuple[dict[Key, NDArray[np.uint8]], list[Key]]:
        """Return the tiles in memory as they are shown, and which are not there; none when `whole` and one is not."""
        there: dict[Key, NDArray[np.uint8]] = {}
        lacking: list[Key] = []
        for key in keys:
            pixels = self._shown(key)
            if pixels is not None:
                there[key] = pixels
            elif whole:
                return {}, [key]
            else:
                lacking.append(key)
        return there, lacking

    def _shown(self, key: Key) -> NDArray[np.uint8] | None:
        look = self._look.key
        if look is not None:
            painted: Tile | None = self._tiles.cache.get((*key, look))
            small = self._pinned.get(key) if painted is None else None
            if small is not None:  # converted on the spot: a change of colours must not leave the screen white
                painted = self._painted(key, small)
            return None if painted is None else painted.pixels
        tile = self._known(key)
        return None if tile is None else self._hatched(key, tile)

    def _remembered(self, key: Key) -> Tile | None:
        """Return a tile that need not be loaded to be shown."""
        look = self._look.key
        if look is None or key in self._pinned:
            return self._known(key)
        painted: Tile | None = self._tiles.cache.get((*key, look))
        return painted

    def _known(self, key: Key) -> Tile | None:
        """Return a tile as stored (or halved) that is in memory."""
        level, column, row = key
        shape = self.plan[level]
        if level >= self._resident:
            return self._pinned.get(key)
        if shape.halvings:
            found: Tile | None = self._tiles.cache.get((*self._name(shape), column, row))
            return found
        return self._tiles.cached(shape.stored, column, row)

    @staticmethod
    def _name(shape: ScreenLevel) -> tuple[Hashable, ...]:
        return "halved", shape.stored, shape.halvings

    def _before(self, key: Key) -> list[Key]:
        """Which tiles must be there before a tile is made."""
        if self.plan[key[0]].halvings < STEPWISE or self._known(key) is not None:
            return []
        return [part for part in screen.parts(self.plan, key) if self._known(part) is None]

    def _make(self, key: Key) -> bool:
        release = self._hold()
        if release is None:
            return False
        try:
            tile = self._raw(key)
            if self._look.key is not None:
                self._painted(key, tile)
        finally:
            release()
        return True

    def _raw(self, key: Key, *, passing: bool = False) -> Tile:
        """Return a tile as stored or halved, from memory or made now; one only passing through is not remembered."""
        tile = self._known(key)
        if tile is not None:
            return tile
        if self._ended:  # a coarse tile is made of hundreds: its thread must not outlive the slide by seconds
            raise SlideLeft
        level, column, row = key
        shape = self.plan[level]
        if not shape.halvings:
            tile = self._tiles.tile(shape.stored, column, row, passing=passing)
        else:
            # The stored tiles of the first halving are what zooming in needs next; those of further ones are too many.
            deep = passing or shape.halvings > 1
            tile = halved_tile(self.plan, key, lambda part: self._raw(part, passing=deep))
            if not passing:
                shelf = Shelf.DEAR if shape.halvings >= STEPWISE else Shelf.COMMON
                self._tiles.cache.put((*self._name(shape), column, row), tile, shelf)
        if level >= self._resident:
            self._pinned[key] = tile
        return tile

    def _hatched(self, key: Key, tile: Tile) -> NDArray[np.uint8]:
        if not tile.fault:
            return tile.pixels
        shape = self.plan[key[0]]
        x, y, _, _ = shape.box(key[1], key[2])
        return hatched(tile, x, y, shape.downsample, self._damaged())

    def _painted(self, key: Key, tile: Tile) -> Tile:
        """Return a tile in the present look and remember it; hatching is a sign, not tissue, and keeps its colours."""
        look = self._look.key
        if look is None:
            return Tile(self._hatched(key, tile))
        pixels = self._look(np.ascontiguousarray(tile.pixels))
        painted = Tile(self._hatched(key, replace(tile, pixels=pixels)))
        self._tiles.cache.put((*key, look), painted, Shelf.DEAR if self.is_resident(key[0]) else Shelf.COMMON)
        return painted


def _enlarged(start: int, length: int, here: int, there: int) -> NDArray[np.intp]:
    """Return which pixels of `there` lie under `length` pixels of `here`, from `start` on."""
    return np.minimum(np.arange(start, start + length) * there // here, there - 1)


def _resident_from(plan: Sequence[ScreenLevel]) -> int:
    small = [number for number, level in enumerate(plan) if max(level.width, level.height) <= RESIDENT_PX]
    return min([*small, max(len(plan) - 2, 0)])
