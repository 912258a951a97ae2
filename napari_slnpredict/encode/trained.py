"""From a finished training to a bundle that `load_encoder`, the viewer's list and every command accept."""

from __future__ import annotations

import datetime
import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.bundles.bundle import Bundle, save_bundle, tensor_bytes
from napari_slnpredict.bundles.terms import inherit
from napari_slnpredict.torch_door import import_timm, import_torch

from .descriptor import Projection
from .method import Method
from .pretrain import Pretrained, Step
from .record import Encoder

if TYPE_CHECKING:
    from .tile_table import TileTable

#: What a method leaves behind beside the encoder itself: the descriptors' layer, a tile classifier.
HEADS = "heads.safetensors"
#: In it: the classifier's names as UTF-8 JSON, so that the hash of the weights covers their order.
CLASS_NAMES = "classes.names"
_CURVE, _MOST_PICTURES = 200, 50_000


def save_pretrained(
    folder: Path,
    name: str,
    start: Encoder,
    trained: Pretrained,
    method: Method,
    table: TileTable,
    *,
    tile_px: int,
    mpp: float,
    half: bool = False,
    check_tiles: NDArray[np.uint8] | None = None,
    notice: str = "",
) -> Bundle:
    """Write an encoder's bundle: weights, what the method keeps, what was seen, how it went.

    Parameters
    ----------
    folder : Path
    name : str
    start : Encoder
        Licence and architecture are inherited from it.
    tile_px : int
    mpp : float
        Of the tiles, um/px.
    half : bool
        Store matrices in half precision: half the size, and slightly other features than the training ended with.
    check_tiles : (m, p, p, 3) uint8, optional
        Reference tiles by which other precisions are judged.
    """
    kept = {key: _array(value, half) for key, value in method.kept(trained.heads).items()}
    classes = list(table.classes) if "classes.weight" in kept else []
    if classes:
        kept[CLASS_NAMES] = np.frombuffer(json.dumps(classes).encode(), np.uint8)
    extra = {HEADS: tensor_bytes(kept)} if kept else {}
    if check_tiles is not None:
        extra["check/tiles.safetensors"] = tensor_bytes({"tiles": check_tiles})
    return save_bundle(
        folder,
        name=name,
        kind="encoder",
        # Whoever has the head needs the names of its outputs.
        task={"name": "tile classes", "classes": classes} if classes else None,
        model={"type": "timm", "parameters": _parameters(start, mpp)},
        grid={"tile_px": tile_px, "mpp": mpp, "overlap_px": 0, "min_tissue": 0.25},
        tensors=network_tensors(trained.network, half),
        training=training_facts(start, trained, method, table),
        card=card(name, start, method, table, tile_px, mpp),
        licence=start.licence,
        # Changed weights stay under the start's terms, whatever they are: `terms.inherit` says so in the notice.
        notice=inherit(start.entry(), start.licence, notice)[1],
        extra_files=extra,
    )


def load_projection(bundle: Bundle) -> Projection | None:
    """Return the layer from a bundle's features to descriptors, None where it has none."""
    if HEADS not in bundle.files:
        return None
    tensors = bundle.tensors(HEADS)
    if "descriptor.weight" not in tensors:
        return None
    return Projection(*(np.asarray(tensors[f"descriptor.{part}"], np.float32) for part in ("weight", "bias")))


def network_tensors(network: Any, half: bool = False) -> dict[str, NDArray[Any]]:
    """Return a tile network's tensors under the names a bundle uses."""
    return {
        name.removeprefix("net."): _array(value, half)
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def _array(value: Any, half: bool) -> NDArray[Any]:
    array: NDArray[Any] = value.detach().cpu().contiguous().numpy()
    # Means, variances and biases stay whole: they are few, and half precision shifts them visibly.
    return array.astype(np.float16 if half and array.ndim > 1 else np.float32)


def _parameters(start: Encoder, mpp: float) -> dict[str, Any]:
    plain = start.architecture.plain()
    return {
        "timm": plain["timm"],
        "kwargs": dict(plain["kwargs"]),
        "pooling": plain["pooling"],
        "stride_in_conv1": plain["stride_in_conv1"],
        "projection": plain["projection"],
        "mean": list(start.mean),
        "std": list(start.std),
        "mpp": [mpp, mpp],
        "dim": start.dim,
    }


def training_facts(start: Encoder, trained: Pretrained, method: Method, table: TileTable) -> dict[str, Any]:
    """Return what a bundle says of its training: what it saw above all, so that nobody tests on it."""
    return {
        "method": method.name,
        "identity": dict(trained.identity),
        "settings": asdict(method.settings),
        "start": {**start.entry(), "warning": start.warning},
        "slides": sorted({facts.content_id or facts.slide_id for facts in table.slides}),
        **_pictures(table),
        "patients": list(table.patients),
        "tiles": len(table),
        "curve": _thinned(trained.curve),
        "probes": _thinned(trained.probes),
        "ended_early": trained.early,
        "notes": list(trained.notes),
        "date": datetime.date.today().isoformat(),
        "versions": {
            "python": platform.python_version(), "torch": import_torch().__version__,
            "timm": import_timm().__version__,
        },
    }  # fmt: skip


def _pictures(table: TileTable) -> dict[str, list[str]]:
    """Return the pictures that were seen, by hashes of their names; nothing where they are too many for a record."""
    names = sorted({hashlib.sha256(name.encode()).hexdigest()[:16] for name in set(table.names) if name})
    return {"files": names} if 0 < len(names) <= _MOST_PICTURES else {}


def _thinned(steps: tuple[Step, ...]) -> list[Mapping[str, float]]:
    every = max(1, len(steps) // _CURVE)
    return [
        {"step": step.number} | {key: round(value, 5) for key, value in step.figures.items()} for step in steps[::every]
    ]


def card(name: str, start: Encoder, method: Method, table: TileTable, tile_px: int, mpp: float) -> str:
    """Return the card's text."""
    settings = "\n".join(f"- {key}: {value}" for key, value in asdict(method.settings).items())
    slides = len(table.slides)
    return (
        f"# {name}\n\nAn encoder of tiles of {tile_px} px at {mpp:g} um/px, trained from {start.name} by "
        f"`slnpredict pretrain {method.name}` on {len(table)} tiles of {slides} slides and "
        f"{len(table.patients)} named patients.\n\nFor research; it tells nothing about a patient. It was not judged "
        f"yet: `slnpredict compare encoders` does that.\n\n## Settings\n{settings}\n"
    )
