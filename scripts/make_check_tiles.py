"""Put the reference tiles into `hne-small`: those by which engines and precisions are judged (`encode.gate`).

Twelve synthetic tiles, as the training script left them, twelve of PatchCamelyon and twelve of OpenSlide's CMU-1 (both
CC0). Synthetic tiles alone are too easy: a ResNet-18 in bfloat16 agreed with itself to 0.9998 on those and to 0.998 on
real ones. Weights, and with them the encoder's digest, stay as they are.

    python scripts/make_check_tiles.py --data DATA

`--data` holds ``tiles/`` and ``slides/CMU-1-Small-Region.svs``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from hne_small_tiles import SPEC, training_half
from numpy.typing import NDArray

from napari_slnpredict.bundles.bundle import SHIPPED, load_bundle, save_bundle, tensor_bytes
from napari_slnpredict.encode.gate import CHECK
from napari_slnpredict.slide.blocks import plan_blocks, read_block
from napari_slnpredict.slide.grid import lay_grid
from napari_slnpredict.slide.slide import open_slide
from napari_slnpredict.slide.tissue import find_tissue

EACH = 12


def main() -> None:
    """Read tiles, write the bundle again, show that its weights are the same."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with tiles/ and slides/")
    parser.add_argument("--bundle", type=Path, default=SHIPPED / "hne-small")
    options = parser.parse_args()
    data, folder = options.data, options.bundle
    bundle = load_bundle(folder)
    tiles = np.concatenate([bundle.tensors(CHECK)["tiles"][:EACH], nodes(data), skin(data)])
    others = [name for name in bundle.files if name not in (CHECK, "weights.safetensors", "README.md")]
    extra = {name: (folder / name).read_bytes() for name in others} | {CHECK: tensor_bytes({"tiles": tiles})}
    weights = bundle.files["weights.safetensors"]
    again = save_bundle(
        folder, name=bundle.name, kind=bundle.kind, model=bundle.model, tensors=bundle.tensors(), card=bundle.card,
        task=bundle.task, encoder=bundle.encoder, grid=bundle.grid, calibration=bundle.calibration,
        training=bundle.training, licence=bundle.licence, notice=bundle.notice, extra_files=extra,
    )  # fmt: skip
    if again.files["weights.safetensors"] != weights:
        sys.exit("the weights' file changed: put the old bundle back")
    print(f"{len(tiles)} reference tiles")


def nodes(data: Path) -> NDArray[np.uint8]:
    """Return tiles of PatchCamelyon, both classes, from the half that was trained on."""
    pcam = training_half(data / "tiles", "pcam_lymph_node")
    rows = np.concatenate([np.flatnonzero(pcam.labels == label)[: EACH // 2] for label in (0, 1)])
    return pcam.pixels[rows]


def skin(data: Path) -> NDArray[np.uint8]:
    """Return tiles of CMU-1's small region, spread over its tissue."""
    with open_slide(data / "slides" / "CMU-1-Small-Region.svs") as slide:
        grid = lay_grid(slide, find_tissue(slide), SPEC)
        rows = np.linspace(0, len(grid) - 1, EACH).astype(int)
        return np.concatenate([read_block(slide, grid, block).pixels for block in plan_blocks(grid, rows)])


if __name__ == "__main__":
    main()
