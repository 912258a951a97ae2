"""What a window will probably ask for next."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .screen import Key, ScreenLevel
from .source import Tile


class Trend:
    """What will probably be asked for next: the tiles around, before them those of the level the user zooms to."""

    def __init__(self) -> None:
        self._last: tuple[int, range, range] | None = None
        self._step = -1  # who opens a slide zooms in

    def ahead(
        self,
        plan: Sequence[ScreenLevel],
        level: int,
        columns: range,
        rows: range,
        known: Callable[[Key], Tile | None],
    ) -> list[Key]:
        """Return tiles to load when those in view are there, most likely first."""
        now = (level, columns, rows)
        if self._last is not None and self._last != now:
            self._step = level - self._last[0]
        self._last = now
        near = _around(plan, level, columns, rows)
        if self._step and 0 <= level + np.sign(self._step) < len(plan):
            near = _zoomed(plan, level, level + int(np.sign(self._step)), columns, rows) + near
        return [key for key in near if known(key) is None]


def _around(plan: Sequence[ScreenLevel], level: int, columns: range, rows: range) -> list[Key]:
    """Return the tiles one step outside a view."""
    shape = plan[level]
    wide = range(max(columns.start - 1, 0), min(columns.stop + 1, shape.across))
    high = range(max(rows.start - 1, 0), min(rows.stop + 1, shape.down))
    ring = [(level, column, row) for row in high for column in wide if column not in columns or row not in rows]
    return from_centre(ring, columns, rows)


def _zoomed(plan: Sequence[ScreenLevel], level: int, to: int, columns: range, rows: range) -> list[Key]:
    """Return the tiles of another level that show the middle of a view as large on the screen."""
    here, there = plan[level], plan[to]
    factor = here.downsample / there.downsample

    def span(part: range, side: int, to_side: int, most: int) -> range:
        middle, half = (part.start + part.stop) / 2 * side * factor, len(part) * side / 2
        return range(max(int((middle - half) // to_side), 0), min(int(-(-(middle + half) // to_side)), most))

    wide = span(columns, here.tile_width, there.tile_width, there.across)
    high = span(rows, here.tile_height, there.tile_height, there.down)
    return from_centre([(to, column, row) for row in high for column in wide], wide, high)


def from_centre(keys: Sequence[Key], columns: range, rows: range) -> list[Key]:
    """Return tiles in the order of their distance from a view's centre."""
    x, y = columns.start + columns.stop - 1, rows.start + rows.stop - 1
    return sorted(keys, key=lambda key: (2 * key[1] - x) ** 2 + (2 * key[2] - y) ** 2)
