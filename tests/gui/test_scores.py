"""Anyone's scores in the viewer: dropped, placed, asked about, clicked, forgotten."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import made_scores as made
import numpy as np
import pytest
from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent

from napari_slnpredict.foreign.explain import ScoreAnswer
from napari_slnpredict.plugin.layers import ROLE_KEY

SIDE, MPP = 2048, 0.5  # of the stand-in slide


def drop(dock: Any, *paths: Path) -> None:
    """Drop files on the dock."""
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    event = QDropEvent(
        QPointF(10, 10), Qt.DropAction.CopyAction, data, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    )
    dock.dropEvent(event)
    assert event.isAccepted()


def score_layers(viewer: Any) -> list[Any]:
    return [layer for layer in viewer.layers if layer.metadata.get(ROLE_KEY) == "scores"]


def corners_px(layer: Any) -> np.ndarray[Any, Any]:
    """Return where a layer begins and ends on the slide, level-0 px, x before y."""
    extent = np.asarray(layer.extent.world) + np.array([[-0.5], [0.5]]) * layer.scale
    return np.asarray(extent / MPP + 0.5)[:, ::-1]


def value_at(layer: Any, x: float, y: float) -> float:
    """Return what a layer shows at a place of the slide, level-0 px."""
    world = (np.array([y, x]) - 0.5) * MPP
    row, column = np.rint((world - layer.translate) / layer.scale).astype(int)
    return float(layer.data[row, column])


def ask(opened: Any, wait: Any, x: float, y: float) -> Any:
    """Click on a place, level-0 px."""
    asks = opened.controller.asks
    asks.here, asks.message = None, ""
    opened.controller.ask_at((x - 0.5) * MPP, (y - 0.5) * MPP)
    wait(lambda: asks.here is not None or asks.message)
    return asks.here


SQUARE = made.square(6, 5, 200, 300, 500)
WEIGHTS = made.attention(30)


def made_file(kind: str, folder: Path) -> Path:
    """One file of each program, on the stand-in slide."""
    rising = np.linspace(0, 1, 30)
    if kind == "clam":
        return made.clam_patches(
            folder / "fake.h5", SQUARE, patch_size=50, level=1, downsample=4.0, level_dim=(512, 512), scores=WEIGHTS
        )
    if kind == "trident":
        return made.trident(
            folder / "fake.h5", SQUARE, size_level0=200, extent=(SIDE, SIDE), scores={"attention": WEIGHTS}, features=80
        )
    if kind == "stamp":
        return made.stamp(folder / "fake.h5", SQUARE * MPP, tile_um=100.0, scores={"attention": WEIGHTS})
    if kind == "wsinfer":
        return made.wsinfer(folder / "fake.csv", SQUARE, 200, {"tumor": rising, "other": 1 - rising})
    columns = {"x_um": SQUARE[:, 0] * MPP, "y_um": SQUARE[:, 1] * MPP, "size_um": [100.0] * 30, "score": WEIGHTS}
    return made.table(folder / "fake.txt", columns, "\t")


def test_dropped_scores_lie_in_their_place(opened: Any, wait: Any, tmp_path: Path) -> None:
    """Somebody's map would lie beside its tissue, or show other values than the file's."""
    controller, dock = opened.controller, opened.dock
    for kind in ("clam", "trident", "stamp", "wsinfer", "table"):
        drop(dock, made_file(kind, tmp_path))
        wait(lambda: controller.scores.file is not None or controller.problem is not None)
        assert (controller.problem, controller.note) == (None, ""), kind
        (layer,) = score_layers(opened.viewer)
        np.testing.assert_allclose(corners_px(layer), [[300, 500], [1500, 1500]], atol=0.5, err_msg=kind)
        values = np.linspace(0, 1, 30) if kind == "wsinfer" else WEIGHTS * 30
        for tile, (x, y) in enumerate(SQUARE):
            assert value_at(layer, x + 3, y + 3) == pytest.approx(values[tile], rel=1e-5), kind
            assert value_at(layer, x + 197, y + 197) == pytest.approx(values[tile], rel=1e-5), kind
        assert dock.map.isVisibleTo(dock)
        assert ("0 to 1 probability" if kind == "wsinfer" else "× mean") in dock.map.range.said
        assert "30 tiles of 200 px" in dock.map.notes.said
        best = int(np.argmax(values))
        answer = ask(opened, wait, *(SQUARE[best] + 100))
        assert (answer.tile, answer.rank, answer.of) == (best, 1, 30)
        assert answer.picture.shape == (200, 200, 3)
        assert "rank 1 of 30" in dock.here.lines.said
        assert ("× mean" in dock.here.lines.said) == (kind != "wsinfer")
        assert controller.asks.outline.layer is not None
        assert ask(opened, wait, 100, 100).reason == "no tile here"
        assert dock.here.lines.said == "No tile here."
        opened.viewer.layers.remove(layer)
        assert controller.scores.files == {}
        assert not dock.map.isVisibleTo(dock)


def test_missing_size_is_asked_and_then_shown(opened: Any, wait: Any, tmp_path: Path) -> None:
    """A block map would be drawn at a guessed size, or not at all."""
    drop(opened.dock, made.clam_blockmap(tmp_path / "fake_blockmap.h5", SQUARE, np.linspace(-7, 3, 30)))
    question = opened.dock.score_question
    wait(lambda: question.isVisibleTo(opened.dock))
    assert score_layers(opened.viewer) == []
    assert "fake_blockmap.h5: does not say how large its tiles are" in question.text.said
    assert "their distance, 200." in question.hint.said
    assert question.size.value() == 200
    assert not question.unit.isVisibleTo(opened.dock)
    question.size.setValue(100)
    question.use.click()
    wait(lambda: opened.controller.scores.file is not None)
    assert not question.isVisibleTo(opened.dock)
    places = opened.controller.scores.file.scores.places
    assert places.size_level0 == 100
    assert opened.controller.command().endswith("fake_blockmap.h5 --scores-size 100")
    (layer,) = score_layers(opened.viewer)
    assert np.isnan(value_at(layer, 300 + 150, 500 + 50))  # tiles of 100 px that lie 200 apart
    assert value_at(layer, 300 + 99, 500 + 99) == -7
    threshold = opened.dock.map.threshold
    assert opened.controller.scores.state.tiles == 30
    threshold.setValue(threshold.maximum() // 2)
    assert opened.controller.scores.state.tiles == 15
    assert int(np.isfinite(layer.data).sum()) == 15
    opened.viewer.layers.remove(layer)
    # A file without a unit: um taken for pixels would draw the map at half its size.
    columns = {"x": SQUARE[:, 0] * 0.25, "y": SQUARE[:, 1] * 0.25, "score": WEIGHTS}
    drop(opened.dock, made.table(tmp_path / "t.csv", columns))
    wait(lambda: question.isVisibleTo(opened.dock))
    assert question.unit.isVisibleTo(opened.dock)
    question.unit.setCurrentIndex(2)
    assert question.um.isVisibleTo(opened.dock)
    question.um.setValue(2.0)
    question.size.setValue(50)
    question.use.click()
    wait(lambda: opened.controller.scores.file is not None)
    np.testing.assert_allclose(corners_px(score_layers(opened.viewer)[0]), [[300, 500], [1500, 1500]], atol=0.5)
    # A file opened by mistake can be left.
    opened.controller.scores.open([tmp_path / "fake_blockmap.h5"])
    wait(lambda: opened.controller.scores.questions)
    question.leave.click()
    assert not question.isVisibleTo(opened.dock)
    assert len(opened.controller.scores.files) == 1


def test_several_files_stand_beside_each_other(opened: Any, wait: Any, tmp_path: Path) -> None:
    """A second file would replace the first, or both would lie over each other unreadably."""
    scores, combo = opened.controller.scores, opened.dock.map.scale
    (tmp_path / "a").mkdir()
    drop(opened.dock, made_file("wsinfer", tmp_path), made_file("trident", tmp_path / "a"))
    wait(lambda: len(scores.files) == 2)
    listed = [combo.itemText(row) for row in range(combo.count())]
    assert listed == [
        "the model's map (press Run)",
        "prob_tumor · fake.csv", "prob_tumor, rank · fake.csv", "prob_other · fake.csv", "prob_other, rank · fake.csv",
        "attention, × mean · fake.h5", "attention · fake.h5", "attention, rank · fake.h5",
    ]  # fmt: skip
    assert combo.currentIndex() == 5
    first, second = score_layers(opened.viewer)
    assert (first.visible, second.visible) == (False, True)
    ask(opened, wait, 400, 600)
    assert "attention" in opened.dock.here.lines.said
    combo.setCurrentIndex(3)
    combo.activated.emit(3)
    assert (first.visible, second.visible) == (True, False)
    assert value_at(first, 310, 510) == 1.0
    # The place that was asked about is answered by what is shown now.
    wait(lambda: "prob_other 1 probability" in opened.dock.here.lines.said)
    assert "prob_tumor 0" in opened.dock.here.lines.said
    opened.viewer.layers.remove(first)
    assert list(scores.files) == [2]
    assert second.visible
    opened.viewer.layers.remove(second)
    assert scores.file is None
    assert scores.files == {}
    assert not opened.dock.map.isVisibleTo(opened.dock)
    assert opened.controller.asks.here is None


def test_scores_beside_a_models_map(opened: Any, wait: Any, tmp_path: Path) -> None:
    """The model's answer would be told by somebody's scores, or the reverse."""
    controller, combo = opened.controller, opened.dock.map.scale
    drop(opened.dock, made_file("wsinfer", tmp_path))
    wait(lambda: controller.scores.file is not None)
    (layer,) = score_layers(opened.viewer)
    controller.run()
    wait(lambda: controller.answered is not None)
    assert controller.scores.file is None
    assert not layer.visible
    assert controller.maps.layer("attention").visible
    assert combo.itemData(combo.currentIndex()) == "share"
    combo.activated.emit(combo.count() - 4)
    assert controller.scores.file is not None
    assert layer.visible
    assert not controller.maps.layer("attention").visible
    assert not opened.dock.map.strip.isVisibleTo(opened.dock)
    assert ask(opened, wait, 400, 600).name == "prob_tumor"
    controller.step_tile(1)
    wait(lambda: getattr(controller.asks.here, "rank", 0) == 1)
    combo.activated.emit(0)
    assert controller.scores.file is None
    assert controller.maps.layer("attention").visible
    assert controller.asks.here is None  # it was said by the scores
    assert not isinstance(ask(opened, wait, 1024, 1024), ScoreAnswer)
    assert opened.dock.map.strip.isVisibleTo(opened.dock)


def test_errors_are_told_in_the_dock(opened: Any, wait: Any, tmp_path: Path) -> None:
    """A table with a mistake would end in a traceback, or in nothing."""
    bad = tmp_path / "bad.csv"
    bad.write_text("minx,miny,width,height,prob_a\n0,0,9,9,0.1\n0,oops,9,9,0.1\n")
    far = made.wsinfer(tmp_path / "far.csv", SQUARE * 40, 200, {"a": WEIGHTS})
    drop(opened.dock, bad)
    wait(lambda: opened.controller.problem is not None)
    assert opened.dock.problem.title.said == "These scores cannot be shown"
    assert opened.dock.problem.text.said == "bad.csv: line 3: miny is not a number: 'oops'. Mend the line."
    opened.controller.show_problem(None)
    drop(opened.dock, far)
    wait(lambda: opened.controller.problem is not None)
    assert "These scores belong to another slide" in opened.dock.problem.text.said
    assert score_layers(opened.viewer) == []


def test_another_slide_forgets_scores_and_the_same_brings_them_back(opened: Any, wait: Any, tmp_path: Path) -> None:
    """Scores of one slide would lie on the next."""
    controller = opened.controller
    drop(opened.dock, made_file("trident", tmp_path))
    wait(lambda: controller.scores.file is not None)
    before = controller.slides.current
    controller.give_mpp(0.25)
    wait(lambda: controller.slides.current not in (None, before) and controller.scores.file is not None)
    assert controller.scores.file.scores.places.slide_mpp == 0.25
    controller.open(tmp_path / "other.svs")
    wait(lambda: controller.slides.current is not None and controller.slides.current.slide.slide_id == "other")
    assert controller.scores.files == {}
    assert score_layers(opened.viewer) == []
    time.sleep(0.05)
    assert controller.scores._queue == []


def test_slide_and_scores_given_together(make_viewer: Any, fake_world: Any, wait: Any, tmp_path: Path) -> None:
    """`slnpredict view slide.svs --scores F` would show the one without the other."""
    from napari_slnpredict.plugin import launch
    from napari_slnpredict.plugin.controller import controller_for

    fake_world.mpp = None  # and the slide has no scale
    viewer = make_viewer()
    block_map = made.clam_blockmap(tmp_path / "map.h5", SQUARE, WEIGHTS)
    launch.open_viewer(["fake.svs"], viewer=viewer, scores=[block_map], scores_size=200)
    controller = controller_for(viewer)
    wait(lambda: controller.slides.current is not None)
    wait(lambda: "pixel size" in controller.note)
    assert controller.scores.files == {}
    controller.give_mpp(MPP)
    wait(lambda: controller.scores.file is not None)
    np.testing.assert_allclose(corners_px(score_layers(viewer)[0]), [[300, 500], [1500, 1500]], atol=0.5)


def test_closing_the_window_while_scores_are_read(opened: Any, tmp_path: Path) -> None:
    """The reader's process, or its thread, would outlive the window."""
    drop(opened.dock, made_file("trident", tmp_path))
    opened.controller.scores.open([tmp_path / "fake.h5"])


def test_a_dropped_slide_is_a_slide(opened: Any, wait: Any, tmp_path: Path) -> None:
    """A slide dropped beside its scores would not be opened, or opened as a table."""
    slide = tmp_path / "dropped.svs"
    slide.write_bytes(b"II*\x00" + bytes(64))
    drop(opened.dock, made_file("wsinfer", tmp_path), slide)
    wait(lambda: opened.controller.slides.current is not None)
    wait(lambda: opened.controller.slides.current.slide.slide_id == "dropped")
    wait(lambda: opened.controller.scores.file is not None)
