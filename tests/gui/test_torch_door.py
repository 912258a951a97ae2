"""The one door of the torch stack, in processes of their own: this one may have imported torch long ago."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

DRAW = """
import sys, warnings
warnings.simplefilter("ignore")
import numpy as np, napari
viewer = napari.Viewer(show=True)
viewer.add_image(np.zeros((64, 64), np.float32))
picture = viewer.screenshot(canvas_only=True, flash=False)
assert picture.size, "the canvas did not draw"
with open("/proc/self/maps") as maps:
    mapped = "libLLVM" in maps.read()
assert not any(name in sys.modules for name in ("torch", "torchvision", "timm", "triton")), "torch came in already"
"""
EMBED = """
from napari_slnpredict.torch_door import import_timm, import_torch, import_torchvision
timm, torch = import_timm(), import_torch()
import_torchvision()
torch.set_num_threads(1)
network = timm.create_model("test_resnet", num_classes=0).eval()
with torch.inference_mode():
    features = network(torch.zeros(1, 3, 64, 64))
assert bool(torch.isfinite(features).all())
again = viewer.screenshot(canvas_only=True, flash=False)
assert again.shape == picture.shape
print("FEATURES", tuple(features.shape), "LLVM", mapped, flush=True)
import os
os._exit(0)
"""
STEP = """
from napari_slnpredict.torch_door import import_torch
torch = import_torch()
torch.set_num_threads(1)
layer = torch.nn.Linear(4, 2)
loss = layer(torch.ones(3, 4)).square().sum()
loss.backward()
torch.optim.AdamW(layer.parameters()).step()
print("STEP", float(loss) >= 0, flush=True)
import os
os._exit(0)
"""
OPENVINO = """
import os
from napari_slnpredict.encode.encoder import load_encoder
from napari_slnpredict.encode.engines import Device, plan_engine
from napari_slnpredict.settings import Settings
encoder = load_encoder("random:test_resnet")
settings = Settings(cache=os.environ["SLNPREDICT_CACHE"], engine="openvino-float32")
plan = plan_engine(encoder, Device("cpu", "test"), settings=settings, threads=1, tile_px=64, nice=10)
job = plan.ready()
while True:  # as the viewer does: the window draws while the job goes on in its thread
    try:
        next(job)
    except StopIteration as end:
        engine = end.value
        break
    again = viewer.screenshot(canvas_only=True, flash=False)
features = engine(np.zeros((3, 64, 64, 3), np.uint8))
assert np.isfinite(features).all()
again = viewer.screenshot(canvas_only=True, flash=False)
assert again.shape == picture.shape
print("OPENVINO", features.shape, engine.precision, "LLVM", mapped, flush=True)
os._exit(0)
"""


BEFORE = """
from napari_slnpredict.torch_door import import_torch
import_torch()
"""
CHILDREN = {
    "embed": DRAW + EMBED,
    "openvino": DRAW + OPENVINO,
    "torch before": BEFORE + DRAW.replace('"torch", "torchvision", "timm", "triton"', '"timm",') + STEP,
    "step": DRAW + STEP,
}
on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the crash is one of Linux and Mesa")
needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed")


@pytest.fixture(scope="module")
def said_by(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """Start the children of all tests, beside each other; return what one said, which must have ended well."""
    cache = str(tmp_path_factory.mktemp("door"))
    environment = {**os.environ, "PYTHONFAULTHANDLER": "1", "HF_HUB_OFFLINE": "1", "SLNPREDICT_CACHE": cache}
    environment["NAPARI_CONFIG"] = f"{cache}/napari.yaml"
    children = {
        name: subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        for name, code in CHILDREN.items()
    }

    def said(name: str) -> str:
        out, trouble = children[name].communicate(timeout=300)
        assert children[name].returncode == 0, f"exit {children[name].returncode}\n{trouble[-3000:]}"
        return out

    yield said
    for child in children.values():
        child.kill()
        child.communicate()


@on_linux
def test_the_torch_stack_comes_in_after_the_canvas_has_drawn(said_by: Callable[[str], str]) -> None:
    """Importing timm beside a window drawn by Mesa would be a segmentation fault."""
    said = said_by("embed")
    assert "FEATURES (1, 96)" in said
    # Where Mesa draws without LLVM there is nothing to guard against, and this test proves less.
    if "LLVM False" in said:
        pytest.skip("this GL does not use LLVM")


@needs_openvino
def test_openvino_comes_in_after_the_canvas_has_drawn(said_by: Callable[[str], str]) -> None:
    """A library with a compiler of its own beside Mesa's would crash the window, as triton does."""
    assert "OPENVINO (3, 96) openvino-float32" in said_by("openvino")


@on_linux
def test_torch_before_the_canvas_and_the_rest_after_it(said_by: Callable[[str], str]) -> None:
    """Torch that came in before the window drew would bring triton in after it, at the first optimiser step."""
    assert "STEP True" in said_by("torch before")


@on_linux
def test_a_training_step_runs_beside_the_window(said_by: Callable[[str], str]) -> None:
    """A door that lets inference through and breaks autograd would make the Train dock useless."""
    assert "STEP True" in said_by("step")
