"""The way to a GPU: what can be known without one, and what must be tried on one."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from napari_slnpredict.encode.encoder import load_encoder
from napari_slnpredict.encode.engines import Device, choose_device, gpu, make_engine, pytorch
from napari_slnpredict.encode.engines.device import single_devices
from napari_slnpredict.settings import Settings
from napari_slnpredict.torch_door import import_torch

PX = 64


class FakeStream:
    """Writes down what is asked of it."""

    def __init__(self, log: list[str], name: str) -> None:
        self.log, self.name = log, name

    def wait_stream(self, other: FakeStream) -> None:
        self.log.append(f"{self.name} waits for {other.name}")


class FakeTorch:
    """torch on the CPU, with streams and events that only tell."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self._torch = import_torch()
        outer = self

        class Event:
            def record(self, stream: FakeStream) -> None:
                outer.log.append(f"recorded on {stream.name}")

            def synchronize(self) -> None:
                outer.log.append("waited")

        class Cuda:
            def __init__(self) -> None:
                self.Event = Event
                self.main = FakeStream(outer.log, "main")

            def Stream(self, device: str) -> FakeStream:
                return FakeStream(outer.log, "copies")

            def current_stream(self, device: str) -> FakeStream:
                return self.main

            @contextlib.contextmanager
            def stream(self, stream: FakeStream) -> Iterator[None]:
                outer.log.append(f"on {stream.name}")
                yield

        self.cuda = Cuda()

    def zeros(self, *shape: Any, pin_memory: bool = False, **options: Any) -> Any:
        assert pin_memory, "copies from pageable memory wait for the GPU"
        return _There(self._torch.zeros(*shape, **options), self.log)

    def empty(self, *shape: Any, pin_memory: bool = False, **options: Any) -> Any:
        assert pin_memory, "copies into pageable memory wait for the GPU"
        return self._torch.empty(*shape, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._torch, name)


class _There:
    """A tensor in pinned memory whose copy to the device is told."""

    def __init__(self, tensor: Any, log: list[str]) -> None:
        self.tensor, self.log = tensor, log

    def numpy(self) -> Any:
        return self.tensor.numpy()

    def to(self, device: str, non_blocking: bool = False) -> Any:
        assert non_blocking, "the thread would wait for the copy"
        self.log.append(f"copied to {device}")
        copied = self.tensor.clone()
        copied.record_stream = lambda stream: self.log.append(f"kept for {stream.name}")
        return copied


def test_a_batch_goes_there_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles would be computed before they have arrived, freed before they are read, or features fetched too early."""
    torch = FakeTorch()
    monkeypatch.setattr(gpu, "import_torch", lambda: torch)
    lane = gpu.GpuLane("cuda:0", 4, 8, 3)
    tiles = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)
    lock = threading.Lock()

    def compute(pixels: Any) -> Any:
        assert lock.locked(), "switches of the library are the whole process's"
        assert pixels.shape == (4, 3, 8, 8)
        torch.log.append("computed")
        return pixels.float().mean(dim=(2, 3))

    features = lane.run(tiles, compute, lock)
    assert not lock.locked()
    np.testing.assert_allclose(features, tiles.mean(axis=(1, 2)), rtol=1e-5)
    assert torch.log == [
        "on copies", "copied to cuda:0", "main waits for copies", "kept for main", "computed", "recorded on main",
        "waited",
    ]  # fmt: skip
    again = lane.run(tiles[:1], compute, lock)
    assert not np.shares_memory(again, features), "the next batch would overwrite features nobody has fetched yet"


def test_several_gpus_share_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second GPU would idle."""
    device = Device("cuda:0+1", "2 GPUs, as asked")
    assert [one.name for one in single_devices(device)] == ["cuda:0", "cuda:1"]
    assert (device.kind, device.first) == ("cuda", "cuda:0")

    def put(self: Any, network: Any, device: Device) -> Any:
        return pytorch._Place(device, network, None, None)

    seen: list[str] = []

    def forward(self: Any, place: Any, tiles: Any, batch: int) -> Any:
        seen.append(place.device.name)
        return np.zeros((len(tiles), self.dim), np.float32)

    monkeypatch.setattr(pytorch.TorchEngine, "_put", put)
    monkeypatch.setattr(pytorch.TorchEngine, "_forward", forward)
    engine = pytorch.TorchEngine(load_encoder("random:test_resnet"), device, 4, 3, PX)
    assert engine.streams == 4, "a thread that waits for a GPU leaves its core to another"
    assert str(engine.device) == "cuda:0+1, torch float32 (2 GPUs, as asked)"
    places = engine._places
    assert places[0].network is not places[1].network
    for _ in range(4):
        thread = threading.Thread(target=lambda: engine(np.zeros((2, PX, PX, 3), np.uint8)))
        thread.start()
        thread.join()
    assert sorted(seen) == ["cuda:0", "cuda:0", "cuda:1", "cuda:1"]


def test_all_gpus_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of eight GPUs would be taken whole by whoever asks for one, or could not be."""
    torch = import_torch()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: f"GPU {number}")
    assert choose_device("cuda:all").name == "cuda:0+1+2"
    assert choose_device("auto").name == "cuda:0"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert choose_device("cuda:all").name == "cuda:0"


@pytest.mark.gpu
@pytest.mark.parametrize("wanted", ["float32", "bfloat16"])
def test_features_of_a_gpu_do_not_depend_on_their_batch(wanted: str, tmp_path: Any) -> None:
    """A resumed run on a GPU would end with other features than an uninterrupted one."""
    settings = Settings(cache=str(tmp_path), engine=wanted)
    engine = make_engine(load_encoder("random:test_resnet"), choose_device("cuda"), settings=settings, tile_px=PX)
    tiles = np.random.default_rng(0).integers(0, 256, (150, PX, PX, 3)).astype(np.uint8)
    whole, found = engine(tiles), {}

    def work(part: int) -> None:
        found[part] = engine(tiles[part::3])

    threads = [threading.Thread(target=work, args=(part,)) for part in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for part in range(3):
        np.testing.assert_array_equal(found[part], whole[part::3])
