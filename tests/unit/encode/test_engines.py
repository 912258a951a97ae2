"""Engines: the numbers of the plain network, whatever the batch, the thread and the memory."""

from __future__ import annotations

import copy
import dataclasses
import threading
from typing import Any

import numpy as np
import pytest

from napari_slnpredict.encode.encoder import load_encoder
from napari_slnpredict.encode.engines import Device, TorchEngine, available_cores, choose_device, make_engine
from napari_slnpredict.encode.engines import device as devices
from napari_slnpredict.encode.engines import pytorch as module
from napari_slnpredict.encode.record import Encoder
from napari_slnpredict.errors import BundleMismatch, ResourceError
from napari_slnpredict.torch_door import import_torch

CPU = Device("cpu", "test")
PX = 64


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("random:test_resnet")


@pytest.fixture(scope="module")
def engine(encoder: Encoder) -> TorchEngine:
    return make_engine(encoder, CPU, batch=8, threads=1, tile_px=PX)


def some_tiles(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, PX, PX, 3)).astype(np.uint8)


def test_the_numbers_are_the_networks_own(encoder: Encoder, engine: TorchEngine) -> None:
    """Folding the normalisation into one step would change features."""
    torch = import_torch()
    tiles = some_tiles(5)
    pixels = torch.from_numpy(tiles.astype(np.float64) / 255).permute(0, 3, 1, 2)
    mean, std = (torch.tensor(value, dtype=torch.float64).reshape(1, 3, 1, 1) for value in (encoder.mean, encoder.std))
    with torch.inference_mode():
        wanted = encoder.build().double()((pixels - mean) / std).numpy()
    features = engine(tiles)
    assert features.dtype == np.float32
    assert features.shape == (5, encoder.dim)
    np.testing.assert_allclose(features, wanted, rtol=1e-4, atol=1e-5 * float(np.abs(wanted).max()))


@pytest.mark.parametrize("name", ["random:test_resnet", "random:mobilenetv3_small_050", "random:test_vit2"])
def test_a_feature_does_not_depend_on_its_batch(name: str) -> None:
    """A resumed run would end with other features than an uninterrupted one (promise R6)."""
    encoder = load_encoder(name)
    engine = make_engine(encoder, CPU, batch=8, threads=2, tile_px=PX)
    engine.enter_thread()
    tiles = some_tiles(19)
    whole = engine(tiles)
    order = np.random.default_rng(1).permutation(19)
    np.testing.assert_array_equal(engine(tiles[order]), whole[order])
    np.testing.assert_array_equal(np.concatenate([engine(tiles[:3]), engine(tiles[3:14]), engine(tiles[14:])]), whole)
    np.testing.assert_array_equal(engine(tiles[7:8])[0], whole[7])
    found: dict[int, Any] = {}

    def alone(part: int) -> None:
        engine.enter_thread()
        found[part] = engine(tiles[part::2])

    threads = [threading.Thread(target=alone, args=(part,)) for part in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.release()
    for part in (0, 1):
        np.testing.assert_array_equal(found[part], whole[part::2])


def test_one_tile_costs_one_tile(engine: TorchEngine) -> None:
    """A click on a new place would wait for a whole batch, or show other numbers than the map."""
    tile = some_tiles(1)
    np.testing.assert_allclose(engine(tile, fill=False), engine(tile), rtol=1e-3, atol=1e-4)


def test_no_tiles_give_no_features(engine: TorchEngine) -> None:
    """A block of damaged tiles alone would crash."""
    assert engine(some_tiles(0)).shape == (0, engine.dim)


def test_tiles_that_may_only_be_read_are_taken(engine: TorchEngine) -> None:
    """Torch would warn of undefined behaviour on the user's terminal: tiles from a file's memory are read-only."""
    tiles = some_tiles(8)
    wanted = engine(tiles)
    tiles.flags.writeable = False
    np.testing.assert_array_equal(engine(tiles), wanted)


@pytest.mark.parametrize("streams", [1, 2])
def test_threads_are_given_back(encoder: Encoder, streams: int) -> None:
    """After embedding, everything else in the process would run on one core for good."""
    torch = import_torch()
    before = torch.get_num_threads()
    engine = make_engine(encoder, CPU, threads=streams, tile_px=PX)
    seen: list[int] = []

    def work() -> None:
        engine.enter_thread()
        engine.enter_thread()
        seen.append(torch.get_num_threads())

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
        thread.join()
    engine.release()
    assert seen == [1, 1]
    assert torch.get_num_threads() == before
    later: list[int] = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [before]


def shrinking(engine: TorchEngine, room: dict[str, int]) -> TorchEngine:
    """Let an engine run out of memory above `room` tiles on each device."""
    real = engine._forward

    def forward(place: Any, tiles: Any, batch: int) -> Any:
        if max(batch, len(tiles)) > room[place.device.name]:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(place, tiles, batch)

    engine._forward = forward  # type: ignore[method-assign]
    return engine


def test_out_of_memory_halves_the_batch(encoder: Encoder) -> None:
    """A small GPU would end the run instead of taking longer (promise R13)."""
    engine = shrinking(make_engine(encoder, CPU, batch=16, threads=1, tile_px=PX), {"cpu": 4})
    features = engine(some_tiles(10))
    assert features.shape == (10, engine.dim)
    assert engine.batch == 4
    assert engine.take_notices() == [f"not enough memory on cpu: {n} tiles at a time now" for n in (8, 4)]
    assert engine.take_notices() == []


def test_no_room_for_one_tile_on_a_gpu_goes_on_with_the_cpu(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full GPU would end the run although the CPU could finish it."""
    engine = make_engine(encoder, CPU, batch=2, threads=1, tile_px=PX)
    wanted = engine(some_tiles(3))
    gpu = dataclasses.replace(engine._places[0], device=Device("cuda:0", "pretended"))
    engine._places = (gpu,)
    shrinking(engine, {"cuda:0": 0, "cpu": 16})
    np.testing.assert_allclose(engine(some_tiles(3)), wanted, rtol=1e-4, atol=1e-5)
    assert engine.device.name == "cpu"
    assert "ran out of memory" in engine.device.why
    assert engine.network is not gpu.network, "another thread may still be inside the one on the GPU"
    assert [notice.partition(":")[0] for notice in engine.take_notices()] == ["not enough memory on cuda", "cuda"]


def test_no_room_at_all_is_an_answer(encoder: Encoder) -> None:
    """Without memory the program would loop or crash."""
    engine = shrinking(make_engine(encoder, CPU, batch=4, threads=1, tile_px=PX), {"cpu": 0})
    with pytest.raises(ResourceError, match="memory"):
        engine(some_tiles(2))


def test_other_errors_are_not_taken_for_memory(encoder: Encoder) -> None:
    """A broken kernel would be answered by ever smaller batches."""
    engine = make_engine(encoder, CPU, batch=4, threads=1, tile_px=PX)

    def forward(*args: Any) -> Any:
        raise RuntimeError("an illegal instruction")

    engine._forward = forward  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="illegal"):
        engine(some_tiles(2))
    assert engine.batch == 4


def test_a_tile_size_the_network_does_not_take_is_told_at_once() -> None:
    """A vision transformer would fail after the first hour of another stage, with a shape in its message."""
    encoder = load_encoder("random:test_vit2")
    with pytest.raises(BundleMismatch, match=r"does not take tiles of 50 px.*Use tiles of 160 px"):
        make_engine(encoder, CPU, threads=1, tile_px=50)


def test_large_networks_take_small_batches() -> None:
    """Cancel would wait for sixteen tiles of a giant network."""

    class Sized:
        def __init__(self, millions: float) -> None:
            self.millions = millions

        def parameters(self) -> list[Any]:
            return [self]

        def numel(self) -> float:
            return self.millions * 1e6

    assert [module._default_batch(Sized(size), CPU) for size in (2, 86, 303)] == [16, 4, 1]
    assert module._default_batch(Sized(303), Device("cuda:0", "")) == 64


def test_devices_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user would wonder why it is slow."""
    torch = import_torch()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices, "_has_mps", lambda torch: False)
    assert choose_device("auto").name == "cpu"
    assert "CUDA" in choose_device("auto").why
    assert choose_device("cpu") == Device("cpu", "as asked")
    for wanted in ("cuda", "cuda:3", "mps", "tpu"):
        with pytest.raises(ResourceError, match="--device auto"):
            choose_device(wanted)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: f"GPU {number}")
    assert choose_device("auto") == Device("cuda:0", "GPU 0")
    assert choose_device("cuda:1") == Device("cuda:1", "GPU 1")
    assert str(choose_device("CUDA")) == "cuda:0 (GPU 0)"
    with pytest.raises(ResourceError):
        choose_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices, "_has_mps", lambda torch: True)
    assert choose_device("auto").name == choose_device("mps").name == "mps"


def test_cores_are_those_of_this_process() -> None:
    """On a cluster the program would start a thread for every core of the machine, not of the job."""
    assert available_cores() >= 1


@pytest.mark.gpu
def test_a_gpu_gives_the_same_features(encoder: Encoder, engine: TorchEngine) -> None:
    """Features of a GPU would not fit a model trained on a CPU's, or a resumed run would differ."""
    gpu = make_engine(encoder, choose_device("cuda"), tile_px=PX)
    tiles = some_tiles(70)
    features = gpu(tiles)
    np.testing.assert_allclose(features, engine(tiles), rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(gpu(tiles[60:]), features[60:])


def test_engines_can_be_copied_no_further_than_needed(engine: TorchEngine) -> None:
    """A deep copy of the network must compute the same: the way out of a full GPU depends on it."""
    torch = import_torch()
    pixels = torch.zeros(1, 3, PX, PX)
    with torch.inference_mode():
        assert torch.equal(copy.deepcopy(engine.network)(pixels), engine.network(pixels))
