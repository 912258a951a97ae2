"""`slnpredict pretrain`: each method as a user runs it, what it leaves, and what it says of bad input."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encode.made_cohort import tissue_slide
from PIL import Image

from napari_slnpredict.cli import devices
from napari_slnpredict.cli import pretrain as pretrain_module
from napari_slnpredict.cli.app import main
from napari_slnpredict.encode.encoder import load_encoder
from napari_slnpredict.encode.features import read_features
from napari_slnpredict.encode.listing import list_encoders
from napari_slnpredict.encode.methods import METHODS
from napari_slnpredict.encode.option import options_of
from napari_slnpredict.encode.training import Training, TrainingOptions
from napari_slnpredict.settings import load_settings

HERE = Path(__file__).resolve()
#: Small enough for a second; the slides are 640 um wide.
SMALL = ("--start", "random:test_resnet", "--tile-px", "32", "--mpp", "1", "--device", "cpu", "--threads", "1",
         "--steps", "4", "--batch", "8")  # fmt: skip
NEAR_FAR = ("--near-um", "70", "--far-um", "200")
OWN = {"similarity": NEAR_FAR, "stain-invariant": ("--mode", "joint")}


def leave(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return int(left.value.code or 0)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two slides to train on, one of another split, one that is no slide, one all glass, one much too coarse."""
    folder = tmp_path_factory.mktemp("cohort")
    tissue_slide(folder / "a.svs", 1)
    (folder / "broken.svs").write_bytes(b"II*\0" + bytes(2000))
    tissue_slide(folder / "b.svs", 2, mpp="0.8")
    tissue_slide(folder / "glass.svs", 3, glass=True)
    tissue_slide(folder / "coarse.svs", 4, mpp="4.0")
    tissue_slide(folder / "tested.svs", 5)
    rows = ["path,patient,label,split", "a.svs,p1,x,train", "broken.svs,p2,x,train", "b.svs,p3,y,train",
            "glass.svs,p4,y,train", "coarse.svs,p5,y,train", "tested.svs,p6,x,test"]  # fmt: skip
    (folder / "cohort.csv").write_text("\n".join(rows) + "\n")
    (folder / "good.csv").write_text("\n".join([rows[0], rows[1], rows[3]]) + "\n")
    return folder


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of labelled tiles of 40 px."""
    folder = tmp_path_factory.mktemp("tiles")
    rng = np.random.default_rng(0)
    for label, colour in (("normal", (220, 150, 190)), ("tumour", (120, 60, 140))):
        (folder / label).mkdir()
        for k in range(8):
            noise = rng.integers(-30, 30, (40, 40, 3))
            pixels = np.clip(np.asarray(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{k}.png")
    return folder


def test_a_cohort_with_bad_slides_is_trained_on_the_good_ones(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One broken file of a thousand would end the night, or be left out without a word."""
    out = tmp_path / "Mine"
    arguments = ("pretrain", "simclr", cohort / "cohort.csv", "--out", out, *SMALL, "--probe-every", "2", "--json")
    assert leave(*arguments) == 1
    told = capsys.readouterr()
    facts = json.loads(told.out)
    assert facts["slides"] == 2
    assert {row["slide"] for row in facts["failures"]} == {"broken.svs", "glass.svs", "coarse.svs"}
    for words in ("left out: broken.svs", "only 'train'", "random weights", "slnpredict embed",
                  "3 slides were left out"):  # fmt: skip
        assert words in told.err, words
    failures = (out / "failures.csv").read_text()
    assert all(name in failures for name in ("broken.svs", "glass.svs", "coarse.svs"))
    assert load_encoder(f"local:{out}").digest == facts["digest"]
    bundle = json.loads((out / "bundle.json").read_text())
    assert bundle["name"] == "mine"
    assert bundle["training"]["patients"] == ["p1", "p3"]
    assert bundle["training"]["settings"]["steps"] == 4
    assert (bundle["grid"]["tile_px"], bundle["grid"]["mpp"]) == (32, 1.0)
    assert not (out / "training").exists()
    settings = load_settings()
    shutil.copytree(out, settings.models_dir / "mine")  # a MIL model names its encoder ``local:mine``
    assert load_encoder("local:mine", settings).digest == facts["digest"]
    assert "mine" in {row.name for row in list_encoders(settings)}
    assert leave("embed", cohort / "a.svs", "--encoder", "local:mine", "--device", "cpu", "--out", tmp_path) == 0
    assert read_features(tmp_path / "a.h5").encoder_digest == facts["digest"]
    assert leave(*arguments) == 1
    assert json.loads(capsys.readouterr().out)["already"]
    assert leave(*arguments, "--temperature", "0.5") == 1
    assert "temperature 0.2, asked is 0.5" in capsys.readouterr().err


def test_labelled_tiles_in_a_folder(tiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tiles that others have cut could not be used; or their resolution would be guessed in silence."""
    out = tmp_path / "tumour"
    arguments = ("pretrain", "supervised", tiles, "--out", out, "--start", "random:test_resnet", "--steps", "3",
                 "--batch", "8", "--probe", tiles, "--probe-every", "3")  # fmt: skip
    assert leave(*arguments) == 1
    assert "Ask for tiles of at most 40 px" in capsys.readouterr().err
    assert leave(*arguments, "--tile-px", "40") == 0
    told = capsys.readouterr().err
    assert "taken to be at 0.5 µm/px" in told
    assert "kNN accuracy" in told
    assert load_encoder(f"local:{out}").tile_px == 40
    assert json.loads((out / "bundle.json").read_text())["task"]["classes"] == ["normal", "tumour"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("simclr", "{cohort}/cohort.csv", "--batch", "1"), 2, "--batch"),
        (("stain-invariant", "{cohort}/cohort.csv", "--normaliser", "ink"), 2, "macenko, vahadane, reinhard"),
        (("barlow", "{cohort}/cohort.csv"), 2, "barlow"),
        (("simclr", "{cohort}/glass.svs"), 1, "none of 1 slides gave a tile"),
        (("simclr", "{cohort}/nothing.csv"), 1, "is not there"),
        (("simclr", "{cohort}/cohort.csv", "--split", "val"), 1, "no slide of split 'val'"),
        (("stain-invariant", "{cohort}/a.svs"), 1, "whose own stain teaches nothing"),
        (("similarity", "{cohort}/good.csv"), 1, "Lower --far-um"),
        (("similarity", "{tiles}"), 1, "no tile lies on a slide"),
        (("supervised", "{cohort}/a.svs"), 1, "fewer than two classes"),
        (("simclr", "{cohort}/good.csv", "--start", "uni"), 3, "weights"),
    ],
    ids=lambda value: value[1].rsplit("/", 1)[-1] + "-" + value[0] if isinstance(value, tuple) else None,
)
def test_bad_input_is_named(
    arguments: tuple[str, ...], code: int, said: str, cohort: Path, tiles: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A training of hours would begin with what cannot be trained on, or end in a traceback."""
    method, *rest = (text.format(cohort=cohort, tiles=tiles) for text in arguments)
    wanted = SMALL if "--start" not in rest else SMALL[2:]
    wanted = wanted if "--batch" not in rest else wanted[:-2]
    assert leave("pretrain", method, *rest, "--out", tmp_path / "out", *wanted) == code
    told = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert said in told
    assert "Traceback" not in told


def test_one_slide_is_enough_for_views_of_it(cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A laboratory's first slide could not even be tried."""
    assert leave("pretrain", "simclr", cohort / "a.svs", "--out", tmp_path / "one", *SMALL) == 0
    near_far = (*NEAR_FAR, "--probe-every", "2")
    assert leave("pretrain", "similarity", cohort / "a.svs", "--out", tmp_path / "two", *SMALL, *near_far) == 0
    assert "step 4: near/far AUC" in capsys.readouterr().err


def test_a_folder_with_other_files_is_left_alone(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bundle takes the folder's place: somebody's thesis in it would be gone."""
    (tmp_path / "thesis.tex").write_text("years")
    assert leave("pretrain", "simclr", cohort / "good.csv", "--out", tmp_path, *SMALL) == 1
    assert "thesis.tex for one" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").read_text() == "years"


def test_ctrl_c_keeps_the_work(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopping would cost what was learned, or look like success."""
    out = tmp_path / "stopped"
    monkeypatch.setattr("napari_slnpredict.cli.stop.Stop.__call__", lambda self: kept(out))
    arguments = ("pretrain", "simclr", cohort / "good.csv", "--out", out, *SMALL, "--checkpoint-minutes", "0",
                 "--probe-every", "1")  # fmt: skip
    assert leave(*arguments) == 130
    assert "the same command continues" in capsys.readouterr().err
    monkeypatch.undo()
    assert leave(*arguments) == 0
    assert "goes on from step" in capsys.readouterr().err


def kept(out: Path) -> bool:
    return (out / "training" / "checkpoint.safetensors").exists()


@pytest.mark.parametrize("name", METHODS)
def test_a_copied_command_asks_for_the_same_training(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The viewer's *Copy as command* would start another training than its form."""
    row = METHODS[name]
    groups = [_other(kind) for kind in (TrainingOptions, row.settings)]
    wanted = Training(name, ("a.csv", "b c.zip"), tmp_path / "out", *groups)
    asked: list[Training] = []
    monkeypatch.setattr(pretrain_module, "train", lambda training, *rest: asked.append(training))
    words = shlex.split(wanted.command())
    assert words[:2] == ["slnpredict", "pretrain"]
    assert leave(*words[1:]) == 0
    assert asked == [wanted]


def _other(kind: type) -> Any:
    """Return settings of which none is the default."""
    values: dict[str, Any] = {}
    for one in options_of(kind):
        if one.choices:
            values[one.name] = one.choices[-1] if one.choices[-1] != one.default else one.choices[0]
        elif one.kind is bool:
            values[one.name] = not one.default
        elif one.kind is str:
            values[one.name] = f"{one.default} x"
        else:
            values[one.name] = one.kind(one.default + 1 if one.high is None else (one.default + one.high) / 2)
    return dataclasses.replace(kind(), **values)


def test_help_names_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    """A setting that exists only in a dock cannot be run overnight."""
    assert leave("pretrain", "--help") == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in METHODS)
    assert leave("pretrain", "similarity", "--help") == 0
    shown = capsys.readouterr().out
    for flag in ("--near-um", "--far-um", "--start", "--probe", "--steps", "--devices"):
        assert flag in shown


#: Runs a list of commands, each in a process of its own that has nothing to import any more; told how many steps it may
#: take before it is killed, a process kills itself.
DRIVER = """
import json, os, signal, sys
import torch
torch.set_num_threads(1)
import napari_slnpredict.encode.training
from napari_slnpredict.cli.app import main
from napari_slnpredict.encode import pretrain

step = pretrain._Run.step

def one(arguments, most):
    def stepping(self, number, *rest):
        if number == most:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, number, *rest)
    pretrain._Run.step = stepping
    try:
        main(arguments)
    except SystemExit as left:
        os._exit(left.code or 0)

codes = []
for arguments, most in json.loads(sys.argv[1]):
    child = os.fork()
    if not child:
        one(arguments, most)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(codes))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no kill -9 on this system")
def test_killed_and_resumed_each_method_ends_with_the_same_weights(cohort: Path, tmp_path: Path) -> None:
    """Kill -9 (or a power failure) would cost the night, or leave an encoder that its settings do not describe."""
    runs = []
    for name in METHODS:
        common = ["pretrain", name, str(cohort / "good.csv"), *SMALL, *OWN.get(name, ()), "--checkpoint-minutes", "0"]
        for folder, most in (("whole", -1), ("cut", 2), ("cut", -1)):
            runs.append([[*common, "--out", str(tmp_path / folder / name)], most])
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(runs)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [0, -signal.SIGKILL, 0] * len(METHODS), done.stderr
    assert done.stderr.count("goes on from step 2") == len(METHODS)
    for name in METHODS:
        whole, cut = (tmp_path / folder / name / "weights.safetensors" for folder in ("whole", "cut"))
        assert whole.read_bytes() == cut.read_bytes(), name


def test_several_processes_meet_and_the_first_one_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU would idle; or the command would wait for ever for a process that died."""
    real, script = subprocess.Popen, ""

    def spawned(command: list[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
        assert env["WORLD_SIZE"] == "2"
        return real([sys.executable, "-c", f"import sys, time; first = {env['RANK']} == 0; {script}"], env=env)

    monkeypatch.setattr(devices.subprocess, "Popen", spawned)
    script = "sys.exit(130 if first else 0)"
    assert devices.lead(["pretrain"], 2) == 130
    script = "sys.exit(0)"
    assert devices.lead(["pretrain"], 2) == 0
    monkeypatch.setattr(devices, "_GRACE_SECONDS", 0.2)
    script = "time.sleep(60) if first else sys.exit(1)"
    assert devices.lead(["pretrain"], 2) == 1
