"""OpenVINO beside torch: the same features, chosen where they stay, torch wherever anything goes wrong."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_slnpredict.encode.embed import embed
from napari_slnpredict.encode.encoder import load_encoder
from napari_slnpredict.encode.engines import (
    Device,
    Engine,
    PlannedEngine,
    candidates,
    choice,
    conversion,
    device,
    has_bfloat16,
    make_engine,
    openvino_door,
    plan_engine,
)
from napari_slnpredict.encode.gate import Gate, check_tiles, gate_path, read_gate, write_gate
from napari_slnpredict.encode.record import Encoder
from napari_slnpredict.errors import DataError, ModelError, ResourceError
from napari_slnpredict.events import run
from napari_slnpredict.settings import Settings
from napari_slnpredict.slide.blocks import Tiles

from .made import Slide, make_encoder, make_grid

CPU = Device("cpu", "test")
PX = 64
needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed")


def some_tiles(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, PX, PX, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("random:test_resnet")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that keeps its conversion from test to test."""
    return tmp_path_factory.mktemp("engines")


def made(encoder: Encoder, cache: Path, wanted: str, **options: Any) -> Engine:
    options.setdefault("threads", 2)
    return make_engine(encoder, CPU, settings=Settings(cache=str(cache), engine=wanted), tile_px=PX, **options)


# ---------------------------------------------------------------------------------------------------------- features


@needs_openvino
def test_the_numbers_are_torchs(encoder: Encoder, cache: Path) -> None:
    """Normalisation folded into the graph, or channels in another order, would give features of another encoder."""
    tiles = some_tiles(11)
    engine = made(encoder, cache, "openvino-float32")
    assert (engine.precision, engine.dim, engine.streams) == ("openvino-float32", encoder.dim, 2)
    assert str(engine.device) == "cpu, OpenVINO float32 (test)"
    wanted = made(encoder, cache, "float32", threads=1)(tiles)
    np.testing.assert_allclose(engine(tiles), wanted, rtol=1e-3, atol=1e-4 * float(np.abs(wanted).max()))
    assert engine(tiles[:0]).shape == (0, encoder.dim)


@needs_openvino
@pytest.mark.parametrize("precision", ["openvino-float32", "openvino-bfloat16"])
def test_a_feature_does_not_depend_on_batch_thread_or_streams(encoder: Encoder, cache: Path, precision: str) -> None:
    """A resumed run would end with other features than an uninterrupted one; so would the viewer."""
    if "bfloat16" in precision:
        if not has_bfloat16():
            pytest.skip("no bfloat16 here")
        open_gate(cache, encoder, precision)
    tiles, found = some_tiles(37), {}
    whole = made(encoder, cache, precision)(tiles)
    for streams in (1, 2, 3):
        engine = made(encoder, cache, precision, threads=streams)

        def work(part: int, engine: Engine = engine) -> None:
            found[part] = engine(tiles[part::4])

        threads = [threading.Thread(target=work, args=(part,)) for part in range(4)]  # more callers than streams
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for part in range(4):
            np.testing.assert_array_equal(found[part], whole[part::4])
        np.testing.assert_array_equal(engine(tiles[20:21], fill=False)[0], whole[20])


def open_gate(cache: Path, encoder: Encoder, precision: str) -> None:
    """Pretend that a precision was measured and is harmless."""
    tiles, features = check_tiles(encoder, PX), np.eye(4, encoder.dim, dtype=np.float32)
    maker = choice._Maker(encoder, CPU, cache, 0, 1, PX, None, 0)
    write_gate(
        gate_path(cache, encoder, precision, PX, tiles, maker._made_by()), encoder, Gate(precision, features, features)
    )


@needs_openvino
def test_resumed_equals_uninterrupted_to_the_bit(
    encoder: Encoder, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was stopped would answer a little differently (promise R6)."""
    slide, grid = Slide(), make_grid()

    def enlarged(slide: Any, grid: Any, indices: Any) -> Tiles:
        chosen = np.asarray(indices)
        return Tiles(chosen, np.stack([some_tiles(1, int(i))[0] for i in chosen]), np.zeros(len(chosen), bool))

    monkeypatch.setattr("napari_slnpredict.encode.workers.read_block", enlarged)
    fitting = dataclasses.replace(encoder, mpp=(0.5, 2.0))
    engine = made(encoder, cache, "openvino-float32")
    whole = run(embed(slide, grid, fitting, cache=tmp_path / "a", engine=engine))
    assert whole.precision == "openvino-float32"
    for stops in (2, 3):
        job = embed(slide, grid, fitting, cache=tmp_path / "b", engine=engine)
        for _ in range(stops):
            next(job)
        job.close()
    one_stream = made(encoder, cache, "openvino-float32", threads=1)
    resumed = run(embed(slide, grid, fitting, cache=tmp_path / "b", engine=one_stream))
    np.testing.assert_array_equal(resumed.features, whole.features)


# ------------------------------------------------------------------------------------------------------------ choice


def names(wanted: str, where: Device = CPU) -> list[str]:
    return [one.precision for one in candidates(wanted, where) if not one.why_not]


def test_what_is_tried_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """bfloat16 would be emulated, slower than what it replaces, or OpenVINO asked for where it is not."""
    monkeypatch.setattr(choice, "openvino_version", lambda: "2026.1")
    monkeypatch.setattr(choice, "has_bfloat16", lambda: True)
    assert names("auto") == ["openvino-bfloat16", "openvino-float32", "float32"]
    assert names("torch") == ["bfloat16", "float32"]
    assert names("openvino") == ["openvino-bfloat16", "openvino-float32"]
    assert names("openvino-float32") == ["openvino-float32"]
    assert names("auto", Device("mps", "")) == ["float32"]
    monkeypatch.setattr(choice, "has_bfloat16", lambda: False)
    assert names("auto") == ["openvino-float32", "float32"]
    assert names("bfloat16") == []
    monkeypatch.setattr(choice, "openvino_version", lambda: "")
    assert names("auto") == names("torch") == ["float32"]
    assert names("openvino") == []
    with pytest.raises(DataError, match="no engine 'fast'"):
        candidates("fast", CPU)


def test_bfloat16_is_what_the_processor_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Emulated bfloat16 is slower than float32 and no more exact."""
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr(device, "_CPUINFO", info)
    for flags, wanted in (("fpu avx512f avx512_vnni", False), ("fpu avx512_bf16", True), ("amx_bf16 amx_tile", True)):
        info.write_text(f"processor : 0\nmodel name : Some CPU\nflags : {flags}\n\nprocessor : 1\nflags : other\n")
        device.cpu_facts.cache_clear()
        assert has_bfloat16() is wanted
        assert device.cpu_facts()[0] == "Some CPU"
    info.unlink()
    device.cpu_facts.cache_clear()
    assert not has_bfloat16()
    device.cpu_facts.cache_clear()


def test_without_openvino_torch_runs(encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A base install would not run at all."""
    monkeypatch.setattr(choice, "openvino_version", lambda: "")
    monkeypatch.setattr(choice, "has_bfloat16", lambda: False)
    assert made(encoder, tmp_path, "auto").precision == "float32"
    with pytest.raises(ResourceError, match=r"not installed.*pip install"):
        made(encoder, tmp_path, "openvino")


@needs_openvino
def test_a_network_that_bfloat16_ruins_runs_in_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Speed would be paid for with features that no longer tell tiles apart; and asked for by name, in silence."""
    if not has_bfloat16():
        pytest.skip("no bfloat16 here")
    encoder = load_encoder("random:mobilenetv3_small_050")
    engine = made(encoder, tmp_path, "auto")
    assert engine.precision == "openvino-float32"
    with pytest.raises(ModelError, match=r"centred features agree to 0\.\d+"):
        made(encoder, tmp_path, "openvino-bfloat16")
    # What was measured is not measured again, and says so without the network.
    monkeypatch.setattr(conversion, "_CHILD", ("-c", "raise SystemExit(1)"))
    assert made(encoder, tmp_path, "auto").precision == "openvino-float32"


@needs_openvino
def test_the_model_has_a_say(encoder: Encoder, cache: Path) -> None:
    """Harmless to the features on the whole, a precision could still turn one model's answer."""
    open_gate(cache, encoder, "openvino-float32")
    calls: list[int] = []

    def judge(features: np.ndarray) -> np.ndarray:
        calls.append(1)
        return np.array([len(calls) % 2.0])

    assert made(encoder, cache, "auto", judge=judge).precision == "float32"
    assert calls


@needs_openvino
def test_an_encoder_of_another_package_runs_on_torch(encoder: Encoder, tmp_path: Path) -> None:
    """The child process would build another network than the package means."""

    class Theirs(Encoder):
        pass

    theirs = Theirs(**{field.name: getattr(encoder, field.name) for field in dataclasses.fields(encoder)})
    refused = [one.precision for one in candidates("auto", CPU, theirs) if "package" in one.why_not]
    assert refused == ["openvino-bfloat16", "openvino-float32"]
    assert made(theirs, tmp_path, "torch").precision in ("float32", "bfloat16")


# -------------------------------------------------------------------------------------------------------- conversion


def converted(cache: Path, encoder: Encoder) -> conversion.Conversion:
    return run(conversion.convert(cache, encoder, PX, check_tiles(encoder, PX)))


@needs_openvino
def test_a_spoiled_conversion_is_made_again(encoder: Encoder, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flipped bit in the cache would give every slide wrong features; another version a network it cannot read."""
    first = converted(cache, encoder)
    path = conversion.conversion_path(cache, encoder, PX, check_tiles(encoder, PX))
    children: list[Path] = []
    real = conversion._run_child

    def counted(path: Path, *arguments: Any) -> Any:
        children.append(path)
        return real(path, *arguments)

    monkeypatch.setattr(conversion, "_run_child", counted)
    assert np.array_equal(converted(cache, encoder).weights, first.weights)
    assert children == []
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)
    assert conversion.read_conversion(path, encoder, PX) is None
    assert np.array_equal(converted(cache, encoder).weights, first.weights)
    assert len(children) == 1
    monkeypatch.setattr(conversion, "openvino_version", lambda: "another")
    assert conversion.conversion_path(cache, encoder, PX, check_tiles(encoder, PX)) != path


def test_cancel_ends_the_conversion(encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The window's Cancel would wait for a quarter of a minute, or leave a process behind."""
    monkeypatch.setattr(conversion, "_CHILD", ("-c", "import time; time.sleep(60)"))
    children: list[Any] = []
    real = conversion.subprocess.Popen

    def popen(*arguments: Any, **options: Any) -> Any:
        children.append(real(*arguments, **options))
        return children[-1]

    monkeypatch.setattr(conversion.subprocess, "Popen", popen)
    monkeypatch.setattr(choice, "openvino_version", lambda: "2026.1")
    plan = plan_engine(encoder, CPU, settings=Settings(cache=str(tmp_path), engine="openvino-float32"), tile_px=PX)
    job = plan.ready()
    events = [next(job) for _ in range(3)]
    assert "only once" in events[-1].text  # type: ignore[union-attr]
    start = time.monotonic()
    job.close()
    assert time.monotonic() - start < 1.0
    assert children[0].returncode is not None
    assert not list(tmp_path.rglob("*.safetensors"))
    assert not list(tmp_path.rglob("*.lock"))


@pytest.mark.parametrize(("code", "remembered"), [(1, True), (2, False)])
def test_a_network_that_cannot_be_converted_runs_on_torch(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, remembered: bool
) -> None:
    """An operation OpenVINO does not know would end the run; or be tried for seconds at every start."""
    said = "import sys; sys.stdin.read(); sys.stderr.write('OpError: no such operation')"
    monkeypatch.setattr(conversion, "_CHILD", ("-c", f"{said}; sys.exit({code})"))
    monkeypatch.setattr(choice, "openvino_version", lambda: "2026.1")
    monkeypatch.setattr(choice, "has_bfloat16", lambda: False)
    assert made(encoder, tmp_path, "auto").precision == "float32"
    with pytest.raises(ModelError, match="no such operation"):
        made(encoder, tmp_path, "openvino")
    assert bool(list(tmp_path.rglob("openvino-*.safetensors"))) is remembered


@needs_openvino
def test_nothing_is_reported_to_anybody() -> None:
    """OpenVINO's converter tells a web service what it converts, by default (promise R9)."""
    openvino_door.import_openvino()
    assert sys.modules["openvino_telemetry"] is None


# ------------------------------------------------------------------------------------------------------------ planned


def test_a_planned_engine_is_made_once_and_late() -> None:
    """A batch that finds all features in the cache would load a network of a gigabyte for nothing, or one per slide."""
    count: list[int] = []

    class Inner:
        streams, batch = 3, 16

        def __call__(self, tiles: Any, *, fill: bool = True) -> Any:
            return tiles, fill

    def make() -> Any:
        count.append(1)
        yield from ()
        return Inner()

    planned: Any = PlannedEngine(make, lambda: ("float32",))
    assert planned.usable() == ("float32",)
    assert planned.made is None
    assert (planned.streams, planned.batch) == (3, 16)
    assert planned("tiles", fill=False) == ("tiles", False)
    assert run(planned.ready()) is planned.made
    assert count == [1]


def test_features_of_another_allowed_precision_are_found(tmp_path: Path) -> None:
    """Everything would be computed again when OpenVINO is installed, or bfloat16 be read by whom it harms."""
    slide, grid, encoder = Slide(), make_grid(), make_encoder()
    from .made import FakeEngine

    class Coarse(FakeEngine):
        precision = "openvino-bfloat16"

    coarse = run(embed(slide, grid, encoder, cache=tmp_path, engine=Coarse()))
    fine = FakeEngine()

    def make() -> Any:
        yield from ()
        return fine

    def plan() -> PlannedEngine:
        usable = choice.usable_precisions("auto", tmp_path, encoder)
        return PlannedEngine(make, lambda: usable)

    bag = run(embed(slide, grid, encoder, cache=tmp_path, engine=plan()))
    assert bag.precision == "float32", "an ungated precision was used"
    assert fine.count == len(grid)
    features = np.eye(4, encoder.dim, dtype=np.float32)
    path = gate_path(tmp_path, encoder, "openvino-bfloat16", 16, check_tiles(load_encoder("hne-small"), 128), "x")
    write_gate(path, encoder, Gate("openvino-bfloat16", features, features))
    assert read_gate(path, encoder) is not None
    assert bag.path is not None
    bag.path.unlink()
    bag = run(embed(slide, grid, encoder, cache=tmp_path, engine=plan()))
    assert bag.precision == "openvino-bfloat16"
    assert fine.count == len(grid)
    np.testing.assert_array_equal(bag.features, coarse.features)
