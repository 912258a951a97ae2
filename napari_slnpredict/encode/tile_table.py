"""Which tiles a training may draw, and what is known of each: plain arrays, so that planning a batch costs nothing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class SlideFacts:
    """One slide tiles are drawn from; "" where nothing is known."""

    slide_id: str
    content_id: str
    patient: str = ""
    site: str = ""


@dataclass(frozen=True)
class TileTable:
    """Tiles that may be drawn.

    Attributes
    ----------
    slide : (n,) int64
        Index into `slides`; -1 for tiles that came without a slide.
    group : (n,) int64
        What must never be on both sides of a split: the patient, else the slide, else the file.
    site : (n,) int64
        Laboratory or hospital; 0 where nobody said.
    centre_um : (n, 2) float64
        From the slide's corner, x then y; NaN where unknown.
    component : (n,) int32
        Piece of tissue, 0 where unknown.
    label : (n,) int64
        Index into `classes`; -1 where there is none.
    slides : tuple of SlideFacts
    classes : tuple of str
    names : tuple of str
        The file each tile was cut from; empty where slides say it all.
    """

    slide: NDArray[np.int64] = field(repr=False)
    group: NDArray[np.int64] = field(repr=False)
    site: NDArray[np.int64] = field(repr=False)
    centre_um: NDArray[np.float64] = field(repr=False)
    component: NDArray[np.int32] = field(repr=False)
    label: NDArray[np.int64] = field(repr=False)
    slides: tuple[SlideFacts, ...] = ()
    classes: tuple[str, ...] = ()
    names: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        lengths = {len(column) for column in (self.slide, self.group, self.site, self.component, self.label)}
        lengths |= {len(self.names)} if self.names else set()
        if lengths != {len(self.centre_um)} or self.centre_um.shape != (len(self.slide), 2):
            raise ValueError("the columns of a tile table have different lengths")

    def __len__(self) -> int:
        return len(self.slide)

    @property
    def patients(self) -> tuple[str, ...]:
        """The patients that are named."""
        return tuple(sorted({facts.patient for facts in self.slides if facts.patient}))

    @property
    def sources(self) -> tuple[str, ...]:
        """What each tile was cut from: the name of its file, else the slide's; "" where nobody said."""
        ids = (*(facts.slide_id for facts in self.slides), "")  # -1 is the last
        names = self.names or ("",) * len(self)
        return tuple(name or ids[slide] for name, slide in zip(names, self.slide.tolist(), strict=True))

    def take(self, rows: NDArray[np.int64]) -> TileTable:
        """Return some rows as a table; slides and classes keep their numbers."""
        columns = {
            name: getattr(self, name)[rows] for name in ("slide", "group", "site", "centre_um", "component", "label")
        }
        names = tuple(self.names[row] for row in rows.tolist()) if self.names else ()
        return replace(self, **columns, names=names)


class TileData(Protocol):
    """Tiles to train on, wherever they come from."""

    @property
    def table(self) -> TileTable:
        """What may be drawn."""

    @property
    def tile_px(self) -> int:
        """Side of a tile, px."""

    @property
    def mpp(self) -> float | None:
        """Resolution, um/px; None where nobody said."""

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return tiles (k, p, p, 3); may be called from several threads."""
