"""The child process that converts a network: ``python -m napari_slnpredict.encode.engines.child``, request on stdin.

It ends with 0 when the conversion is in the cache, with 1 and a reason as the last line on stderr when this network
cannot be converted, with 2 when it was the disk or the memory, and with anything else when it was killed.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.encode.architecture import Architecture
from napari_slnpredict.encode.gate import check_tiles
from napari_slnpredict.encode.record import Encoder
from napari_slnpredict.encode.sealed import write_sealed
from napari_slnpredict.errors import ResourceError, one_line
from napari_slnpredict.torch_door import import_torch

from .device import Device, step_back
from .openvino_door import import_openvino
from .pytorch import TorchEngine


def main() -> int:
    """Convert what stdin asks for."""
    request = json.loads(sys.stdin.buffer.read())
    warnings.simplefilter("ignore")
    try:
        _convert(request)
    except (ResourceError, MemoryError, OSError) as error:
        return _say(error, 2)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the reason
        return _say(error, 1)
    return 0


def _say(error: Exception, code: int) -> int:
    sys.stderr.write(f"\n{type(error).__name__}: {one_line(error, 300)}\n")
    return code


def _convert(request: dict[str, Any]) -> None:
    openvino = import_openvino()
    encoder, tile_px = encoder_from_plain(request["encoder"]), int(request["tile_px"])
    step_back(int(request["nice"]))
    torch = import_torch()
    torch.set_num_threads(max(1, int(request["threads"])))
    engine = TorchEngine(encoder, Device("cpu", "reference"), 0, 1, tile_px)
    reference = engine(check_tiles(encoder, tile_px).pixels)
    graph, weights = convert_network(openvino, encoder, engine.network, tile_px)
    header = {"encoder": encoder.digest, "tile_px": tile_px}
    write_sealed(Path(request["path"]), header, {"graph": graph, "weights": weights, "reference": reference})


def encoder_from_plain(plain: dict[str, Any]) -> Encoder:
    """Return the record that `conversion._plain` took apart."""
    fields = dict(plain)
    fields["architecture"] = Architecture(**fields["architecture"])
    for name in ("weights", "check"):
        fields[name] = None if fields[name] is None else Path(fields[name])
    for name in ("mean", "std", "mpp", "head"):
        fields[name] = tuple(fields[name])
    return Encoder(**fields)


def convert_network(
    openvino: Any, encoder: Encoder, network: Any, tile_px: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return graph and weights of a network that takes tiles as they are read: (b, p, p, 3) uint8."""
    from openvino.preprocess import PrePostProcessor

    _settle(network, tile_px)
    example = import_torch().zeros(2, 3, tile_px, tile_px)
    model = openvino.convert_model(network, example_input=example, input=[-1, 3, tile_px, tile_px])
    steps = PrePostProcessor(model)
    steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    # (x - 255 mean) / (255 std): float32 is asked for first, uint8 cannot be subtracted from.
    mean, std = ([255.0 * value for value in values] for values in (encoder.mean, encoder.std))
    steps.input().preprocess().convert_element_type(openvino.Type.f32).mean(mean).scale(std)
    steps.output().tensor().set_element_type(openvino.Type.f32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.xml"
        openvino.save_model(steps.build(), path, compress_to_fp16=False)
        return np.fromfile(path, np.uint8), np.fromfile(path.with_suffix(".bin"), np.uint8)


def _settle(network: Any, tile_px: int) -> None:
    """Bring a transformer's places of patches to this tile size now, with torch.

    Left in the graph it is done at every pass, and by another bicubic rule (features of 32 px tiles by places for
    64 px differed by 0.002).
    """
    inner: Any = getattr(network, "net", None)
    if getattr(inner, "dynamic_img_size", False) and hasattr(inner, "set_input_size"):
        with import_torch().no_grad():
            inner.set_input_size(img_size=(tile_px, tile_px))


if __name__ == "__main__":
    sys.exit(main())
