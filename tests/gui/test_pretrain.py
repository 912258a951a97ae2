"""The dock "Train encoder": what it asks for, how it follows a training, how it ends one."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from napari_slnpredict.encode.methods import METHODS
from napari_slnpredict.encode.option import options_of
from napari_slnpredict.encode.pretrain import Step
from napari_slnpredict.encode.training import Training, TrainingOptions
from napari_slnpredict.errors import DataError
from napari_slnpredict.events import Job, Partial, Progress, Stage, Warn
from napari_slnpredict.plugin import pretrain_runs
from napari_slnpredict.plugin.pretrain_dock import PretrainDock
from napari_slnpredict.plugin.pretrain_form import NumberField


class FakeTraining:
    """A training of some steps; remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[Training] = []
        self.steps, self.seconds, self.closed = 20, 0.0, 0
        self.fail: Exception | None = None

    def __call__(self, training: Training, options: Any) -> Job[Any]:
        self.asked.append(training)
        yield Stage("pretrain", "Training", self.steps, "steps")
        yield Partial("note", "100 tiles of 2 slides")
        yield Warn("left out: broken.svs")
        try:
            for number in range(1, self.steps + 1):
                time.sleep(self.seconds)
                yield Progress(number, self.steps, 2.0, 3.0)
                yield Partial("step", Step(number, {"loss": 4 / number}))
                if number % 5 == 0:
                    yield Partial("probe", Step(number, {"near/far AUC": 0.6, "far/near distance ratio": 1.1}))
                if self.fail is not None:
                    raise self.fail
        finally:
            self.closed += 1
        bundle = SimpleNamespace(name=training.name, folder=training.out)
        return SimpleNamespace(bundle=bundle, already=False)


@pytest.fixture
def dock(make_viewer: Any, monkeypatch: pytest.MonkeyPatch, wait: Any) -> Any:
    """The dock in a viewer; its trainings are stand-ins."""
    fake = FakeTraining()

    def starts_job(options: Any) -> Job[Any]:
        yield Stage("encoders", "")
        return [("hne-small", "hne-small · shipped"), ("mine", "mine · your models folder")]

    monkeypatch.setattr(pretrain_runs, "training_job", lambda *args: fake(*args))
    monkeypatch.setattr(pretrain_runs, "starts_job", starts_job)
    viewer = make_viewer()
    widget = PretrainDock(viewer)
    viewer.window.add_dock_widget(widget, name="Train encoder", area="right")
    wait(lambda: widget.trainings.starts)
    return SimpleNamespace(widget=widget, fake=fake, trainings=widget.trainings)


def test_the_form_is_made_of_the_settings_and_asks_for_what_it_shows(dock: Any, wait: Any, tmp_path: Path) -> None:
    """A field would be missing, or change nothing."""
    widget = dock.widget
    assert not widget.run.button.isEnabled()
    table = tmp_path / "cohort.csv"
    (tmp_path / "a.svs").write_bytes(b"x")
    table.write_text("path,split,stain\na.svs,train,HE\n")
    widget.tiles.choose(str(table))
    wait(lambda: "1 slides" in widget.tiles.facts.said)
    for name, row in METHODS.items():
        widget.method.choose(name)
        assert set(widget.method.form.fields) == {one.name for one in options_of(row.settings)}
        assert widget.training.settings == row.settings()
    assert widget.name.text() == "my-supervised"
    widget.method.choose("similarity")
    widget.method.form.set_value("near_um", 300.0)
    widget.method.form.set_value("steps", 50)
    rate = widget.method.form.fields["rate"]
    assert isinstance(rate, NumberField)
    rate.setText("1e-3")
    rate.setText("1e-3x")  # half typed: the last sound value counts, and the field is framed
    assert rate.styleSheet()
    widget.options.set_value("stain", "HE")
    widget.start.choice.setCurrentText("mine")
    training = widget.training
    wanted = METHODS["similarity"].settings
    assert training.settings == wanted(near_um=300.0, steps=50, rate=1e-3)  # type: ignore[call-arg]
    assert training.options == TrainingOptions(start="mine", stain="HE")
    assert training.out.name == "my-similarity"
    widget.copy.click()
    from qtpy.QtWidgets import QApplication

    words = shlex.split(QApplication.clipboard().text())
    assert words[:4] == ["slnpredict", "pretrain", "similarity", str(table)]
    assert "--near-um" in words


def test_a_training_is_followed_stopped_and_resumed(dock: Any, wait: Any, tmp_path: Path) -> None:
    """The window would show nothing for an hour, or lose the work on Cancel."""
    widget, trainings, fake = dock.widget, dock.trainings, dock.fake
    widget.tiles.choose(str(tmp_path))
    fake.steps, fake.seconds = 500, 0.01
    widget.run.button.click()
    assert not widget.method.isEnabled()
    wait(lambda: trainings.probes)
    assert widget.run.button.text() == "Cancel"
    assert widget.loss.isVisibleTo(widget)
    assert [line.name for line in widget.looks.lines] == ["near/far AUC"]
    assert "broken.svs" in widget.run.notes.said
    checkpoint = widget.training.out / "training" / "checkpoint.safetensors"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"")
    widget.run.button.click()
    wait(lambda: not trainings.running)
    assert fake.closed == 1
    assert "steps are kept" in widget.run.line.said
    assert widget.run.button.text() == "Resume"
    folders: list[Path] = []
    trainings.finished.connect(folders.append)
    fake.steps, fake.seconds = 20, 0.0
    widget.run.button.click()
    wait(lambda: folders)
    assert folders == [widget.training.out]
    assert "in your list of encoders" in widget.run.line.said
    assert widget.loss.grab().toImage().pixelColor(0, 0).isValid()  # painted without an error


def test_a_collapse_is_told_in_the_dock(dock: Any, wait: Any, tmp_path: Path) -> None:
    """The curve would just stop."""
    widget, fake = dock.widget, dock.fake
    widget.tiles.choose(str(tmp_path))
    fake.fail = DataError("training collapsed by step 40: all tiles get nearly the same vector", do="lower the rate")
    widget.run.button.click()
    wait(lambda: widget.problem.isVisibleTo(widget))
    assert "collapsed by step 40" in widget.problem.text.said
    widget.problem.away.click()
    assert not widget.problem.isVisibleTo(widget)
    assert widget.run.button.text() == "Train"
