"""Similar tiles among a million: our exact search against torch's own half-precision scan, and the way of a click.

    python benchmarks/retrieval.py [--rounds 20] [--slide SLIDE] [--encoder hne-small]

Three figures:

- the search against torch's scan in turns in one run, over one page and over a thousand (a cohort): ratio of medians
  (bar: 1.1); the share of the true twenty nearest found (bar: 1);
- the memory of what a search reads, against single precision (bar: half);
- a click's way to its first result (bar: 150 ms): the tile is read from the slide, embedded alone, described and
  searched for among the million. Places are new each time, so that their file tiles are decoded. The window adds one
  event from thread to thread. An encoder that brings no 128-d descriptor gets a random one of that width.

The descriptors are clustered, as those of tissue are; the questions are tiles of the index, a little changed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from napari_slnpredict.encode.descriptor import Projection
from napari_slnpredict.encode.encoder import load_encoder
from napari_slnpredict.encode.engines import choose_device, make_engine
from napari_slnpredict.events import run
from napari_slnpredict.many.work import tile_spec
from napari_slnpredict.retrieval import Describer, Page, ask_place, lay_tiles, make_describer, question, search
from napari_slnpredict.slide.slide import open_slide
from napari_slnpredict.torch_door import import_torch

TILES, WIDTH, TOP, CLUSTERS, PAGES = 1_000_000, 128, 20, 2000, 1000
#: Seconds before each scan: threads of the one before go on spinning for a while, at the cost of whoever follows.
REST = 0.1
SAMPLE = Path(__file__).parents[1] / "napari_slnpredict" / "sample_data"


def main() -> None:
    """Make an index in memory, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--slide", type=Path, default=next(SAMPLE.glob("*.svs"), None))
    parser.add_argument("--encoder", default="hne-small")
    chosen = parser.parse_args()
    rng = np.random.default_rng(0)
    page = a_page(rng)
    parts = np.array_split(np.arange(TILES), PAGES)
    cohort = [
        replace(page, content_id=str(at), places=page.places[rows], coarse=page.coarse[rows], exact=page.exact[rows])
        for at, rows in enumerate(parts)
    ]
    compare_scans("one page", [page], page, chosen.rounds, rng)
    compare_scans(f"{PAGES} pages", cohort, page, chosen.rounds, rng)
    print(f"a search reads {page.coarse.nbytes / page.exact.nbytes:.2f} of the bytes of single precision (bar 0.5)")
    clicks(chosen.slide, chosen.encoder, cohort, chosen.rounds, rng)


def compare_scans(name: str, pages: list[Page], whole: Page, rounds: int, rng: np.random.Generator) -> None:
    """Search, scan with torch, scan with numpy in single precision: in turns, the same questions."""
    torch = import_torch()
    half = torch.from_numpy(whole.coarse)
    ours, theirs, single, found = [], [], [], 0
    for _ in range(rounds):
        wanted = a_question(whole, rng)
        time.sleep(REST)
        began = time.perf_counter()
        hits = search(pages, wanted, TOP)
        ours.append(time.perf_counter() - began)
        asked = torch.from_numpy(wanted.astype(np.float16))
        time.sleep(REST)
        began = time.perf_counter()
        torch.topk(torch.mv(half, asked), TOP)
        theirs.append(time.perf_counter() - began)
        began = time.perf_counter()
        cosines = whole.exact @ wanted
        best = np.argpartition(-cosines, TOP)[:TOP]
        single.append(time.perf_counter() - began)
        least = float(cosines[best].min())
        found += sum(hit.cosine >= least - 1e-6 for hit in hits)
    a, b, c = (1e3 * statistics.median(times) for times in (ours, theirs, single))
    print(f"{name}: search {a:.1f} ms, torch half-precision scan {b:.1f} ms: ratio {a / b:.2f} (bar 1.1)", end="; ")
    print(f"numpy single precision {c:.1f} ms; recall {found / (TOP * rounds):.4f} (bar 1); medians of {rounds}")


def clicks(slide_path: Path, encoder_name: str, pages: list[Page], rounds: int, rng: np.random.Generator) -> None:
    """Time clicks on new places of a slide, part by part."""
    encoder = load_encoder(encoder_name)
    describer = make_describer(encoder, tile_spec(encoder))
    if describer.projection is None or len(describer.projection.weight) != WIDTH:
        random = rng.standard_normal((WIDTH, encoder.dim)).astype(np.float32)
        describer = Describer(encoder, Projection(random, np.zeros(WIDTH, np.float32)), describer.spec)
    engine = make_engine(encoder, choose_device(), tile_px=describer.spec.tile_px)
    spent: list[Click] = []
    with open_slide(slide_path) as slide:
        laid = run(lay_tiles(slide, describer.spec))
        half = laid.grid.size_level0 / 2
        order = rng.permutation(len(laid.grid))[: rounds + 2]
        for tile in order:
            x, y = laid.grid.locations[tile] + half
            began = time.perf_counter()
            asked = ask_place(slide, describer, laid, engine, float(x), float(y))
            described = time.perf_counter()
            search(pages, question(asked.descriptor[None]), TOP)
            spent.append(Click(described - began, time.perf_counter() - described))
    spent = spent[2:]  # the first calls of an engine prepare it
    whole = sorted(1e3 * (click.tile + click.search) for click in spent)
    tile, found = (1e3 * statistics.median(getattr(click, part) for click in spent) for part in ("tile", "search"))
    print(
        f"click on {slide_path.name} with {encoder.name} ({engine.precision}): first result after "
        f"{statistics.median(whole):.0f} ms, at most {whole[-1]:.0f} (bar 150): tile read and embedded {tile:.0f} ms, "
        f"search among {sum(len(page) for page in pages):,} {found:.0f} ms; medians of {len(spent)}"
    )


@dataclass(frozen=True)
class Click:
    """Seconds of a click: until its tile is described, and of the search."""

    tile: float
    search: float


def a_question(page: Page, rng: np.random.Generator) -> np.ndarray:
    """Return a tile of the index, a little changed."""
    near = page.exact[rng.integers(TILES)] + 0.02 * rng.standard_normal(WIDTH)
    return question(near[None].astype(np.float32))


def a_page(rng: np.random.Generator) -> Page:
    """Return a page of clustered unit vectors."""
    centres = rng.standard_normal((CLUSTERS, WIDTH)).astype(np.float32)
    exact = centres[rng.integers(0, CLUSTERS, TILES)]
    exact += 0.5 * rng.standard_normal((TILES, WIDTH)).astype(np.float32)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    places = np.zeros((TILES, 2), np.int64)
    return Page("", "", "", "", "", "", "", "float32", 128, 1.0, 128.0, places, exact.astype(np.float16), exact)


if __name__ == "__main__":
    main()
