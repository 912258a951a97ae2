"""What each tile looks like: the classifier kept in an encoder's bundle, in every file and answer."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tell_fakes import ENCODER_DIGEST, make_bundle, write_slide

from napari_slnpredict.bundles.bundle import Bundle, save_bundle, tensor_bytes
from napari_slnpredict.encode.encoder import encoder_from_bundle, load_encoder
from napari_slnpredict.encode.trained import CLASS_NAMES, HEADS, network_tensors
from napari_slnpredict.errors import BundleMismatch, UnsafeFile
from napari_slnpredict.events import Event, Partial, run
from napari_slnpredict.export import Sheet, predictions_csv, tiles_csv, write_prediction
from napari_slnpredict.export_qupath import tiles_geojson
from napari_slnpredict.pipeline import Prediction, answer_click, answer_so_far, encoder_of, predict_slide
from napari_slnpredict.settings import Settings
from napari_slnpredict.slide.grid import GridSpec, TileGrid
from napari_slnpredict.slide.slide import Slide, open_slide
from napari_slnpredict.tile_classes import (
    RunningClasses,
    TileClasses,
    TileHead,
    class_words,
    judge_of,
    kept_by,
    load_model,
    load_tile_head,
    per_cent,
)

CLASSES = ("normal", "tumour", "fat")
PX = 64


def save_classifier(folder: Path, **changes: Any) -> Bundle:
    """Write the bundle `pretrain supervised` would: a tiny network and a classifier of three classes."""
    start = load_encoder("random:test_resnet")
    rng = np.random.default_rng(4)
    heads = {
        "classes.weight": rng.normal(size=(len(CLASSES), start.dim)).astype(np.float32) * 3,
        "classes.bias": rng.normal(size=len(CLASSES)).astype(np.float32),
        CLASS_NAMES: np.frombuffer(json.dumps(list(CLASSES)).encode(), np.uint8),
    }
    heads |= changes.pop("heads", {})
    facts = {
        "task": {"name": "tile classes", "classes": list(CLASSES)},
        "extra_files": {HEADS: tensor_bytes(heads)},
    } | changes
    return save_bundle(
        folder,
        name=folder.name,
        kind="encoder",
        model={"type": "timm", "parameters": {"timm": "test_resnet", "mpp": [1.0, 1.0], "dim": start.dim}},
        grid={"tile_px": PX, "mpp": 1.0, "overlap_px": 0, "min_tissue": 0.25},
        tensors=network_tensors(start.build()),
        card="# tiny\n",
        licence="BSD-3-Clause",
        **facts,
    )


@dataclass(frozen=True)
class Seen:
    """A slide and what a classifier of tiles made of it."""

    slide: Slide
    bundle: Bundle
    head: TileHead
    prediction: Prediction
    events: list[Event]
    settings: Settings


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """One small slide, really embedded, once for all."""
    folder = tmp_path_factory.mktemp("classes")
    bundle = save_classifier(folder / "tiny-tiles")
    head = load_model(bundle)
    assert isinstance(head, TileHead)
    settings, events = Settings(cache=str(folder / "cache"), engine="torch"), list[Event]()
    with open_slide(write_slide(folder / "one.svs")) as slide:
        prediction = run(predict_slide(slide, bundle, settings=settings, threads=1), events.append)
        yield Seen(slide, bundle, head, prediction, events, settings)


def test_predict_tells_classes_and_no_verdict(seen: Seen) -> None:
    """A classifier of tiles would be passed off as an answer about the slide."""
    found, prediction = seen.prediction.tile_classes, seen.prediction
    assert prediction.verdict is None
    assert prediction.reason == "tile classes only"
    assert found is not None
    assert found.classes == CLASSES
    assert prediction.bag is not None
    logits = prediction.bag.features.astype(float) @ seen.head.weight.T.astype(float) + seen.head.bias
    wanted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.probabilities, wanted, atol=1e-5)
    assert found.fractions.sum() == pytest.approx(1)
    assert "of the tissue looks most like" in prediction.answer
    assert prediction.answer == found.sentence()


def test_it_is_painted_while_it_runs(seen: Seen) -> None:
    """The window would stay empty until the last tile."""
    painted = [event.data for event in seen.events if isinstance(event, Partial) and event.kind == "classes"]
    assert painted
    assert isinstance(painted[0], TileClasses)
    assert not [event for event in seen.events if isinstance(event, Partial) and event.kind == "attention"]


def test_every_file_tells_the_classes(seen: Seen, tmp_path: Path) -> None:
    """A file would say nothing, or something else than the others."""
    found = seen.prediction.tile_classes
    assert found is not None
    record = write_prediction(seen.slide, seen.prediction, tmp_path / "one", Sheet("one"))
    told = json.loads((tmp_path / "one" / "prediction.json").read_text())["tile_classes"]
    assert record["tile_classes"] == told
    assert (record["reason"], record["interval"]) == ("tile classes only", None)
    assert set(record["probabilities"].values()) == {1 / 3}, "nothing is known of the slide as a whole"
    assert told["fractions"] == pytest.approx(dict(zip(CLASSES, found.fractions, strict=True)), abs=1e-6)
    assert told["interval"] is None
    assert "no interval" in told["counted"]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "one" / "tiles.csv").read_text())))
    assert [row["tile_class"] for row in rows] == [CLASSES[k] for k in found.best]
    assert [float(row["class_fat"]) for row in rows] == pytest.approx(found.probabilities[:, 2].tolist(), abs=1e-6)
    feature = json.loads((tmp_path / "one" / "tiles.geojson").read_text())["features"][0]["properties"]
    assert feature["classification"]["name"] == CLASSES[found.best[0]]
    assert feature["measurements"]["Tile class: fat"] == pytest.approx(found.probabilities[0, 2], abs=1e-6)
    report = (tmp_path / "one" / "report.html").read_text()
    assert "What the tissue looks like" in report
    assert "there is no interval" in report
    table = next(csv.DictReader(io.StringIO(predictions_csv([record]))))
    assert float(table["tissue_tumour"]) == pytest.approx(told["fractions"]["tumour"])
    assert table["probability_tumour"] == ""


def test_the_map_is_an_image_of_each_class(seen: Seen, tmp_path: Path) -> None:
    """Other programs would get planes without a value."""
    import tifffile

    from napari_slnpredict.export_pictures import map_ome_tiff

    map_ome_tiff(tmp_path / "m.ome.tif", seen.slide, seen.prediction, Sheet("one"))
    planes = tifffile.imread(tmp_path / "m.ome.tif")
    found, cells = seen.prediction.tile_classes, seen.prediction.grid.cells
    assert found is not None
    np.testing.assert_array_equal(planes[:, cells[:, 0], cells[:, 1]].T, found.probabilities)


def test_a_click_tells_the_tiles_classes(seen: Seen) -> None:
    """The user could not ask why a tile has its colour."""
    grid, found = seen.prediction.grid, seen.prediction.tile_classes
    assert found is not None
    x, y = (grid.locations[3] + grid.size_level0 / 2).tolist()
    answer = answer_click(seen.slide, seen.head, seen.prediction, (x, y))
    assert (answer.tile, answer.reason, answer.share) == (3, "", None)
    assert answer.classes == pytest.approx(found.named(3))


def test_a_click_before_any_run_too(seen: Seen) -> None:
    """A place would be answered in attention, which there is none of, or not at all."""
    from napari_slnpredict.encode.engines import choose_device, plan_engine
    from napari_slnpredict.pipeline import lay_out

    encoder = encoder_of(seen.bundle, seen.settings)
    planned = plan_engine(encoder, choose_device("cpu"), settings=seen.settings, tile_px=PX, threads=1)
    so_far = run(lay_out(seen.slide, seen.head))
    x, y = (so_far.grid.locations[3] + so_far.grid.size_level0 / 2).tolist()
    answer = answer_so_far(seen.slide, so_far, run(planned.ready()), (x, y))
    found = seen.prediction.tile_classes
    assert found is not None
    assert answer.classes is not None
    assert answer.classes == pytest.approx(found.named(3), abs=1e-4)
    assert isinstance(so_far.running, RunningClasses)
    assert so_far.running.tiles_seen == 1


def test_a_slide_model_on_such_an_encoder_gets_the_map_too(
    tmp_path: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The joint encoder's head would be lost as soon as a slide model was trained on it."""
    encoder = encoder_from_bundle(seen.bundle)
    kept = kept_by(encoder)
    assert kept is not None
    assert kept.encoder_digest == encoder.digest
    assert kept_by(replace(encoder, digest="0" * 64)) is None, "a head of other weights"
    assert kept_by(load_encoder("random:test_resnet")) is None
    assert kept_by(replace(encoder, weights=tmp_path / "weights.safetensors")) is None


def grid_of(tissue: list[float], overlap: int = 0) -> TileGrid:
    n = len(tissue)
    cells = np.stack([np.zeros(n), np.arange(n)], axis=1).astype(np.int32)
    spec = GridSpec(100, 1.0, overlap_px=overlap)
    step = 100 - overlap
    return TileGrid(
        spec=spec, slide_id="s", slide_mpp=1.0, extent=(100 * n, 100), size_level0=100.0,
        locations=cells[:, ::-1].astype(np.int64) * step, tissue=np.asarray(tissue, np.float32),
        component=np.ones(n, np.int32), cells=cells, shape=(1, n),
    )  # fmt: skip


def test_shares_are_of_tissue_and_of_what_was_seen() -> None:
    """A rim tile would count as much as a full one, an unread one as some class, overlapping tissue twice."""
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [np.nan, np.nan]], np.float32)
    found = TileClasses(grid_of([1.0, 0.5, 0.5, 1.0]), ("a", "b"), p, "m", "d")
    assert found.best.tolist() == [0, 1, 0, -1]
    assert found.fractions.tolist() == [0.75, 0.25]
    assert found.area_mm2.tolist() == pytest.approx([0.015, 0.005])
    assert found.seen == 3
    assert found.named(3) is None
    assert found.sentence() == "75 % of the tissue looks most like a, 25 % like b."
    many = np.tile(np.array([[0.3, 0.2, 0.2, 0.1, 0.1, 0.1]], np.float32), (8, 1))
    many[np.arange(8), [0, 0, 1, 2, 3, 4, 5, 5]] = 0.9
    six = TileClasses(grid_of([1.0] * 8), tuple("abcdef"), many, "m", "d")
    assert six.sentence().startswith("25 % of the tissue looks most like ")
    assert six.sentence().endswith(", the rest like others.")
    half = TileClasses(grid_of([1.0, 0.5, 0.5, 1.0], overlap=50), ("a", "b"), p, "m", "d")
    assert half.area_mm2.sum() == pytest.approx(found.area_mm2.sum() / 4)
    nothing = TileClasses(grid_of([1.0]), ("a", "b"), np.full((1, 2), np.nan, np.float32), "m", "d")
    assert nothing.fractions.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("share", "told"), [(0, "0 %"), (0.004, "below 1 %"), (0.5, "50 %"), (0.996, "above 99 %"), (1, "100 %")]
)
def test_shares_in_words(share: float, told: str) -> None:
    """A class that is there would be told as 0 %, one that is not as there."""
    assert per_cent(share) == told


def test_a_tile_in_words() -> None:
    """A list of classes that it is not would bury the one that it is."""
    assert class_words({"a": 0.005, "b": 0.98, "c": 0.015}) == ["b 0.98", "c 0.01"]


def test_damaged_tiles_have_no_class(seen: Seen) -> None:
    """Zeros in place of features would be told as tissue of some class."""
    bag = seen.prediction.bag
    assert bag is not None
    damaged = bag.damaged.copy()
    damaged[:2] = True
    found = seen.head.of(replace(bag, damaged=damaged))
    assert (found.best[:2] == -1).all()
    assert found.seen == len(bag.grid) - 2
    broken = replace(seen.prediction, tile_classes=found)
    rows = list(csv.DictReader(io.StringIO(tiles_csv(broken))))
    assert (rows[0]["tile_class"], rows[0]["class_fat"]) == ("", "")
    first = json.loads(tiles_geojson(seen.slide, broken, "one"))["features"][0]["properties"]
    assert "classification" not in first
    assert first["measurements"]["Tile class: fat"] == "NaN"
    with pytest.raises(BundleMismatch):
        seen.head.of(replace(bag, encoder_digest=ENCODER_DIGEST))


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"heads": {CLASS_NAMES: np.frombuffer(b'["tumour", "normal", "fat"]', np.uint8)}}, BundleMismatch, "order"),
        ({"heads": {"classes.bias": np.zeros(2, np.float32)}}, BundleMismatch, "classifier"),
        ({"heads": {"classes.weight": np.zeros((3, 5), np.float32)}}, BundleMismatch, "features"),
        ({"heads": {"classes.bias": np.array([0, np.nan, 0], np.float32)}}, UnsafeFile, "finite"),
        ({"task": {}}, BundleMismatch, "0 classes"),
    ],
    ids=["order", "bias", "width", "nan", "no names"],
)
def test_parts_that_do_not_belong_together(
    changes: dict[str, Any], error: type[Exception], words: str, tmp_path: Path
) -> None:
    """Tumour would be told as normal, or a program end in a matrix product."""
    with pytest.raises(error, match=words):
        load_tile_head(save_classifier(tmp_path / "bad", **changes))


def test_other_bundles(tmp_path: Path) -> None:
    """An encoder without classes would be run as a model; a slide model would lose its way in."""
    plain = save_classifier(tmp_path / "plain", extra_files={}, task={})
    assert load_tile_head(plain) is None
    with pytest.raises(BundleMismatch, match="keeps no tile classes"):
        load_model(plain)
    slide_model = load_model(make_bundle(tmp_path / "mil"))
    assert not isinstance(slide_model, TileHead)
    assert judge_of(slide_model) is not None


def test_other_precisions_are_judged_by_the_classes(seen: Seen) -> None:
    """A precision that turns classes round would pass the gate."""
    judge = judge_of(seen.head)
    assert judge is not None
    features = np.random.default_rng(0).normal(size=(7, seen.head.weight.shape[1])).astype(np.float32)
    np.testing.assert_allclose(judge(features), seen.head.probabilities(features).mean(axis=0))
