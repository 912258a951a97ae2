"""Stand-ins for what takes seconds: a slide in memory, a model that answers at once, a job that takes its time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.events import Job, Partial, Progress, Stage
from napari_slnpredict.explanation import SoFar
from napari_slnpredict.mil.verdict import Verdict
from napari_slnpredict.plugin.jobs import Answered, place_job
from napari_slnpredict.slide.cache import TileCache
from napari_slnpredict.slide.grid import GridSpec, TileGrid, map_tiles
from napari_slnpredict.slide.pyramid import Pyramid
from napari_slnpredict.slide.source import Tile

TILE_PX, MODEL_MPP = 64, 1.0


@lru_cache
def round_piece(side: int) -> NDArray[np.uint8]:
    """Return a picture of a round piece of tissue."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side - 0.5
    inside = (x**2 + y**2 < 0.16)[..., None]
    texture = ((np.sin(x * 90) * np.cos(y * 70) + 1) * 20)[..., None]
    return np.where(inside, np.array([205, 130, 185]) - texture, np.array([243, 242, 244])).astype(np.uint8)


class FakeSource:
    """The tiles of a slide in memory."""

    reader = "fake"
    raw_properties: Mapping[str, str] = {}

    def __init__(self, slide: FakeSlide) -> None:
        self._slide = slide
        self.level_dimensions, self.tile_sizes = slide.level_dimensions, slide.level_tile_sizes

    def tile(self, level: int, column: int, row: int) -> Tile:
        assert not self._slide.closed, "read after close"
        return Tile(self._slide.pictures[level][row * 256 : row * 256 + 256, column * 256 : column * 256 + 256])

    def close(self) -> None:
        pass


@dataclass
class FakeSlide:
    """A round piece of tissue on glass, with the attributes of `Slide` that the plugin uses."""

    path: Path = Path("fake.svs")
    side: int = 2048
    mpp: float | None = 0.5
    mpp_source: str = "file"
    reader: str = "fake"
    closed: bool = False
    content_id: str = "0" * 64
    warnings: tuple[str, ...] = ()
    damaged: tuple[tuple[int, int, int, int, int], ...] = ()
    stored_level_count: int = 2
    pictures_beside: tuple[str, ...] = ("label", "macro", "thumbnail")
    properties: dict[str, str] = field(default_factory=dict)

    @property
    def slide_id(self) -> str:
        return self.path.stem

    @property
    def dimensions(self) -> tuple[int, int]:
        return self.side, self.side

    @property
    def pictures(self) -> list[NDArray[np.uint8]]:
        return [round_piece(self.side), round_piece(self.side // 4)]

    @property
    def level_dimensions(self) -> tuple[tuple[int, int], ...]:
        return (self.side, self.side), (self.side // 4, self.side // 4)

    @property
    def level_downsamples(self) -> tuple[float, ...]:
        return 1.0, 4.0

    @property
    def level_tile_sizes(self) -> tuple[tuple[int, int], ...]:
        return (256, 256), (256, 256)

    @cached_property
    def tiles(self) -> Pyramid:
        return Pyramid(FakeSource(self), TileCache(64 << 20))

    def best_level(self, downsample: float) -> int:
        return int(downsample >= 4)

    def icc_profile(self) -> bytes | None:
        return None

    def associated_names(self) -> tuple[str, ...]:
        return self.pictures_beside

    def read_level(
        self, level: int, x: int, y: int, w: int, h: int, *, passing: bool = False
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        assert not self.closed, "read after close"
        whole = self.pictures[level]
        pixels = np.full((h, w, 3), 255, np.uint8)
        top, left = max(y, 0), max(x, 0)
        part = whole[top : y + h, left : x + w]
        pixels[top - y : top - y + part.shape[0], left - x : left - x + part.shape[1]] = part
        return pixels, np.ones((h, w), bool)

    def thumbnail(self, max_px: int) -> NDArray[np.uint8]:
        return round_piece(max_px)

    def close(self) -> None:
        self.closed = True


def fake_grid(slide: FakeSlide, *, tiles: int | None = None) -> TileGrid:
    """Return the tiles of the round piece; `tiles` asks for a full square of about so many, whatever the slide."""
    mpp = slide.mpp or 1.0
    size = TILE_PX * MODEL_MPP / mpp
    count = int(slide.side / size) if tiles is None else int(np.ceil(np.sqrt(tiles)))
    rows, columns = np.mgrid[0:count, 0:count]
    centre = (count - 1) / 2
    reach = 0.4 * count if tiles is None else 2 * count
    keep = (rows - centre) ** 2 + (columns - centre) ** 2 < reach**2
    cells = np.stack([rows[keep], columns[keep]], axis=1).astype(np.int32)
    return TileGrid(
        spec=GridSpec(TILE_PX, MODEL_MPP),
        slide_id=slide.slide_id,
        slide_mpp=mpp,
        extent=slide.dimensions,
        size_level0=size,
        locations=np.rint(cells[:, ::-1] * size).astype(np.int64),
        tissue=np.ones(len(cells), np.float32),
        component=np.ones(len(cells), np.int32),
        cells=cells,
        shape=(count, count),
    )


def fake_answer(slide: FakeSlide, grid: TileGrid, *, interval: bool = True) -> Answered:
    """Return a prediction that looks hardest at the lower right."""
    n = len(grid)
    weights = np.exp(grid.cells.sum(axis=1) / 4.0)
    attention = weights / weights.sum()
    evidence = np.stack([-attention, attention], axis=1) * np.where(grid.cells[:, 0] % 3 == 0, -1, 1)[:, None]
    verdict = Verdict(
        logits=np.array([-0.8, 0.8]),
        probabilities=np.array([0.17, 0.83]),
        classes=("negative", "positive"),
        attention=attention,
        evidence=evidence,
        interval={"positive": [0.71, 0.91], "negative": [0.09, 0.29]} if interval else None,
        conformal=["positive"] if interval else None,
        out_of_domain={"inside": True, "percentile": 41} if interval else None,
        kept=np.arange(n),
        n_tiles=n,
    )
    bundle = SimpleNamespace(
        name="demo-sln",
        digest="d" * 64,
        classes=("negative", "positive"),
        model={"type": "gated", "parameters": {}},
        task={"name": "sln", "positive": "positive"},
        calibration={"coverage": 0.9, "threshold": 0.5},
        notice="Demonstration model trained on synthetic slides. Not for diagnosis.",
    )
    prediction = SimpleNamespace(
        slide_id=slide.slide_id, content_id=slide.content_id, bundle_digest=bundle.digest, bundle=bundle, encoder=None,
        grid=grid, bag=SimpleNamespace(damaged=np.zeros(n, bool)), verdict=verdict,
        tissue=SimpleNamespace(mask=np.ones((4, 4), bool), mpp=8.0), seconds={"tissue": 0.4, "embed": 33.0},
        warnings=(), device="cpu", answer="SLN positive: probability 0.83 (0.71 to 0.91).", sure=True, anomaly=None,
        tile_classes=None,
    )  # fmt: skip
    return Answered(prediction, SimpleNamespace(bundle=bundle))  # type: ignore[arg-type]


def tissue_and_grid(slide: Any) -> tuple[Any, TileGrid]:
    """Return the round piece's tissue and tiles, or those of a real slide."""
    if not isinstance(slide, FakeSlide):
        from napari_slnpredict.slide.grid import lay_grid
        from napari_slnpredict.slide.tissue import find_tissue

        tissue = find_tissue(slide)
        return tissue, lay_grid(slide, tissue, GridSpec(224, MODEL_MPP))
    side = slide.side * (slide.mpp or 1.0) / 8
    y, x = np.mgrid[0:side, 0:side] / side - 0.5
    return SimpleNamespace(mask=x**2 + y**2 < 0.16, mpp=8.0), fake_grid(slide)


@dataclass
class FakeEngine:
    """A network that takes its time; remembers in which threads it was called."""

    seconds: float = 0.0
    calls: list[str] = field(default_factory=list)

    def enter_thread(self) -> None:
        pass

    def release(self) -> None:
        pass

    def __call__(self, tiles: NDArray[np.uint8], *, fill: bool = True) -> NDArray[np.float32]:
        self.calls.append(threading.current_thread().name)
        time.sleep(self.seconds)
        return np.asarray(tiles.mean(axis=(1, 2)), np.float32)


class FakeRunning:
    """The tiles seen so far, all of them equal."""

    available = True

    def __init__(self, n: int) -> None:
        self.seen = np.zeros(n, bool)

    @property
    def tiles_seen(self) -> int:
        return int(self.seen.sum())

    def take(self, indices: NDArray[np.int64], features: Any) -> None:
        self.seen[indices] = True

    def share(self) -> NDArray[np.float32]:
        return np.where(self.seen, 1.0, np.nan).astype(np.float32)

    def explain(self, feature: Any, tile: int | None = None) -> Any:
        others = self.tiles_seen - int(tile is not None and self.seen[tile])
        alone = others == 0
        return SimpleNamespace(
            tiles=others + 1, share=None if alone else 2.5, evidence=None if alone else np.array([-0.02, 0.02])
        )


def fake_so_far(slide: Any, grid: TileGrid, tissue: Any, *, edited: bool = False) -> SoFar:
    """Return what clicks ask before there is a verdict."""
    bundle = SimpleNamespace(task={"positive": "positive"}, classes=("negative", "positive"))
    head = SimpleNamespace(bundle=bundle, classes=bundle.classes, closed_form=True)
    return SoFar(head, grid, tissue, edited, FakeRunning(len(grid)))  # type: ignore[arg-type]


@dataclass
class FakeRun:
    """A predict job of `steps` steps, each `seconds` long; remembers how it was called and whether it was closed."""

    steps: int = 20
    seconds: float = 0.02
    fail: BaseException | None = None
    calls: list[dict[str, Any]] = field(default_factory=list)
    closed: int = 0
    engine: FakeEngine = field(default_factory=FakeEngine)

    def first_click(
        self, slide: Any, model: str, options: Any, warm: Any, edit: Any, point_um: tuple[float, float]
    ) -> Job[Any]:
        """A click before any run."""
        yield Partial("ready", SimpleNamespace(engine=self.engine))
        tissue, grid = tissue_and_grid(slide)
        so_far = fake_so_far(slide, grid, tissue)
        yield Partial("grid", grid)
        yield Partial("so_far", so_far)
        return (yield from place_job(slide, so_far, self.engine, point_um))

    def __call__(
        self, slide: Any, model: str, options: Any, warm: Any, order: Callable[..., Any], moving: Any, mask: Any
    ) -> Job[Answered]:
        self.calls.append({"slide": slide, "model": model, "mask": mask})
        try:
            yield Partial("ready", SimpleNamespace(engine=self.engine))
            yield Stage("tissue", "Finding tissue")
            tissue, grid = tissue_and_grid(slide)
            so_far = fake_so_far(slide, grid, tissue)
            yield Partial("tissue", tissue)
            yield Partial("grid", grid)
            yield Partial("so_far", so_far)
            remaining = order(grid, np.arange(len(grid)))
            values = np.full(len(grid), np.nan, np.float32)
            share = fake_answer(slide, grid).prediction.verdict.attention * len(grid)
            yield Stage("embed", "Looking at tiles", len(grid), "tiles")
            for chunk in np.array_split(remaining, self.steps):
                time.sleep(self.seconds)
                if self.fail is not None:
                    raise self.fail
                values[chunk] = share[chunk]
                so_far.running.take(chunk, np.zeros((len(chunk), 3)))
                done = int(np.isfinite(values).sum())
                yield Progress(done, len(grid), 38.0, (len(grid) - done) / 38.0)
                yield Partial("attention", map_tiles(grid, values.copy(), "attention", "× mean"))
            return fake_answer(slide, grid)
        finally:
            self.closed += 1


@contextmanager
def timed(most: float) -> Iterator[None]:
    """Fail when the block takes longer than `most` seconds."""
    start = time.perf_counter()
    yield
    spent = time.perf_counter() - start
    assert spent < most, f"took {spent:.2f} s, allowed {most:.2f}"
