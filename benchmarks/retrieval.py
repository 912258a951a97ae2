"""Similar tiles among a million: our exact search against torch's own half-precision scan, in turns in one run.

    python benchmarks/retrieval.py [--rounds 20]

Prints the ratio of medians (bar: 1.1), the share of the true twenty nearest found (bar: 1), and the memory of what a
search reads against single precision (bar: half). The descriptors are clustered, as those of tissue are; the questions
are tiles of the index, a little changed.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from napari_slnpredict.retrieval import Page, question, search
from napari_slnpredict.torch_door import import_torch

TILES, WIDTH, TOP, CLUSTERS = 1_000_000, 128, 20, 2000


def main() -> None:
    """Make an index in memory, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    torch = import_torch()
    rng = np.random.default_rng(0)
    page = a_page(rng)
    half = torch.from_numpy(page.coarse)
    ours, theirs, single, found = [], [], [], 0
    for _ in range(rounds):
        near = page.exact[rng.integers(TILES)] + 0.02 * rng.standard_normal(WIDTH)
        wanted = question(near[None].astype(np.float32))
        began = time.perf_counter()
        hits = search([page], wanted, TOP)
        ours.append(time.perf_counter() - began)
        asked = torch.from_numpy(wanted.astype(np.float16))
        began = time.perf_counter()
        torch.topk(torch.mv(half, asked), TOP)
        theirs.append(time.perf_counter() - began)
        began = time.perf_counter()
        cosines = page.exact @ wanted
        best = np.argpartition(-cosines, TOP)[:TOP]
        single.append(time.perf_counter() - began)
        found += len(set(best.tolist()) & {hit.row for hit in hits})
    a, b, c = (1e3 * statistics.median(times) for times in (ours, theirs, single))
    print(f"search {a:.1f} ms, torch half-precision scan {b:.1f} ms: ratio {a / b:.2f} (bar 1.1); medians of {rounds}")
    print(f"numpy single precision {c:.1f} ms")
    print(
        f"recall {found / (TOP * rounds):.4f} (bar 1); read {page.coarse.nbytes / page.exact.nbytes:.2f} of its bytes"
    )


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
