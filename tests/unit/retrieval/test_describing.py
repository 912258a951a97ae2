"""What makes descriptors: an encoder's own layer where its bundle brings one, else the features."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from napari_slnpredict.bundles.bundle import save_bundle, tensor_bytes
from napari_slnpredict.encode.trained import HEADS
from napari_slnpredict.errors import BundleMismatch
from napari_slnpredict.retrieval import Index, described_from_page, make_describer, page_of
from napari_slnpredict.retrieval.describing import projection_of
from napari_slnpredict.slide.grid import GridSpec, TileGrid

from .test_pages_and_search import a_page

DIM, WIDTH = 6, 3


def an_encoder(folder: Path, heads: dict[str, np.ndarray] | None) -> SimpleNamespace:
    """An encoder of a bundle that was saved with (or without) heads."""
    extra = {HEADS: tensor_bytes(heads)} if heads is not None else {}
    bundle = save_bundle(
        folder, name="enc", kind="encoder", model={"type": "timm", "parameters": {}},
        tensors={"a": np.zeros(2, np.float32)}, card="# x\n", grid={"tile_px": 64, "mpp": 1.0}, licence="MIT",
        extra_files=extra,
    )  # fmt: skip
    weights = bundle.folder / "weights.safetensors"
    return SimpleNamespace(
        name="enc", digest="d" * 64, dim=DIM, tile_px=64, weights=weights, check_grid=lambda spec: None
    )


def heads(width: int = DIM) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "descriptor.weight": rng.standard_normal((WIDTH, width)).astype(np.float32),
        "descriptor.bias": rng.standard_normal(WIDTH).astype(np.float32),
    }


def test_a_bundle_s_own_layer_makes_the_descriptors(tmp_path: Path) -> None:
    """An encoder trained for short descriptors would be searched by its long features."""
    given = heads()
    describer = make_describer(an_encoder(tmp_path / "enc", given), GridSpec(64, 1.0))  # type: ignore[arg-type]
    features = np.random.default_rng(1).standard_normal((4, DIM)).astype(np.float32)
    plain = features.astype(np.float64) @ given["descriptor.weight"].T + given["descriptor.bias"]
    plain /= np.linalg.norm(plain, axis=1, keepdims=True)
    np.testing.assert_allclose(describer(features), plain, atol=1e-6)
    assert describer.holds == "3-d projection of enc"
    assert describer.digest != "d" * 64


def test_without_one_the_features_are_the_descriptors_and_the_two_are_told_apart(tmp_path: Path) -> None:
    """An index of features would be searched with projections of the same encoder."""
    plain = make_describer(an_encoder(tmp_path / "plain", None), GridSpec(64, 1.0))  # type: ignore[arg-type]
    assert plain.projection is None
    assert (plain.holds, plain.digest) == ("6-d features of enc", "d" * 64)
    assert projection_of(SimpleNamespace(name="x")) is None  # type: ignore[arg-type]
    short = make_describer(an_encoder(tmp_path / "short", heads()), GridSpec(64, 1.0))  # type: ignore[arg-type]
    index = Index(tmp_path / "index")
    index.add(a_page(k=DIM, encoder="enc", encoder_digest=plain.digest, tile_px=64, mpp=1.0))
    with pytest.raises(BundleMismatch, match=r"6-d features of enc .* 3-d projection of enc"):
        index.require(short.digest, short.holds, (64, 1.0), "these")


def test_a_layer_of_another_width_is_refused(tmp_path: Path) -> None:
    """A projection copied from another bundle would give numbers without a meaning."""
    with pytest.raises(BundleMismatch, match="takes 9 features, its network gives 6"):
        projection_of(an_encoder(tmp_path / "enc", heads(9)))  # type: ignore[arg-type]


def a_grid(n: int = 5) -> TileGrid:
    """A row of tiles."""
    cells = np.stack([np.zeros(n, np.int32), np.arange(n, dtype=np.int32)], axis=1)
    return TileGrid(
        GridSpec(64, 1.0), "s", 0.5, (64 * 2 * n, 128), 128.0, cells[:, ::-1].astype(np.int64) * 128,
        np.ones(n, np.float32), np.ones(n, np.int32), cells, (1, n),
    )  # fmt: skip


def test_an_index_s_page_lies_on_the_slide_s_own_tiles() -> None:
    """A map made from an index would be painted on other tiles than those it describes."""
    grid = a_grid()
    places = grid.locations[[3, 0, 4]]
    page = dataclasses.replace(a_page(n=3), places=places, size_level0=128.0)
    described = described_from_page(page, grid)
    assert described is not None
    np.testing.assert_array_equal(described.tiles, [3, 0, 4])
    np.testing.assert_array_equal(
        described.on_grid(np.array([0.1, 0.2, 0.3], np.float32)),
        np.array([0.2, np.nan, np.nan, 0.1, 0.3], np.float32),
    )
    assert described_from_page(dataclasses.replace(page, places=places + 1), grid) is None
    assert described_from_page(dataclasses.replace(page, size_level0=64.0), grid) is None


def test_a_place_belongs_to_the_tile_that_covers_it() -> None:
    """A click near a tile's edge would ask with its neighbour, or with none."""
    page = dataclasses.replace(a_page(n=3), places=np.array([[0, 0], [128, 0], [512, 0]]), size_level0=128.0)
    assert [page.row_at(x, y) for x, y in ((1, 1), (127, 64), (129, 64), (300, 64), (600, 127), (600, 200))] == [
        0, 0, 1, None, 2, None,
    ]  # fmt: skip


def test_a_slide_without_tissue_has_a_page_of_its_own(tmp_path: Path) -> None:
    """An empty slide would be looked at again by every run, or break the index."""
    from napari_slnpredict.encode.features import Bag

    empty = Bag(a_grid(0), np.zeros((0, DIM), np.float32), "digest", "enc", "float32")
    Index(tmp_path).add(page_of(empty, "content"))
    again = Index(tmp_path)
    assert (len(again), len(again.pages), again.pages[0].width) == (0, 1, DIM)
