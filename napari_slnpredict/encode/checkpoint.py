"""A training that was killed goes on where it was: everything it needs, in one safetensors file, whole or absent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from napari_slnpredict.bundles.bundle import tensor_bytes
from napari_slnpredict.bundles.weights import read_tensors
from napari_slnpredict.errors import DataError
from napari_slnpredict.files import write_file
from napari_slnpredict.torch_door import import_torch

FILE = "checkpoint.safetensors"
#: Where a training works inside the folder of its encoder.
WORK = "training"


def save_checkpoint(folder: Path, module: Any, optimiser: Any, facts: dict[str, Any]) -> None:
    """Write weights, the optimiser's moments and `facts` (JSON) of a training."""
    tensors = {f"module.{name}": value.detach().cpu().numpy() for name, value in module.state_dict().items()}
    for number, moments in optimiser.state_dict()["state"].items():
        for name, value in moments.items():
            tensors[f"optimiser.{number}.{name}"] = np.asarray(value.detach().cpu().numpy())
    tensors["facts"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    write_file(folder / FILE, tensor_bytes(tensors))


def refuse_other(theirs: Mapping[str, Any], identity: Mapping[str, Any], folder: Path) -> None:
    """Raise `DataError` when a folder belongs to another training; the first difference is named, both ways."""
    for name in identity:
        if theirs.get(name) != identity[name]:
            raise DataError(
                f"this folder holds a training with {name} {theirs.get(name)!r}, asked is {identity[name]!r}",
                file=folder.parent if folder.name == WORK else folder,
                do="choose another --out, or remove that folder to begin anew",
            )


def load_checkpoint(folder: Path, module: Any, optimiser: Any, identity: dict[str, Any]) -> dict[str, Any] | None:
    """Put a checkpoint's values in place; return its facts, None when there is no checkpoint.

    Parameters
    ----------
    identity : dict
        What must be the same: method, settings, start, tiles. Kept in the facts under ``identity``.

    Raises
    ------
    DataError
        It belongs to another training; the first difference is named, both ways.
    """
    path = folder / FILE
    if not path.exists():
        return None
    tensors = read_tensors(path)
    try:
        facts: dict[str, Any] = json.loads(bytes(tensors.pop("facts")))
        theirs = facts["identity"]
    except (KeyError, ValueError, TypeError) as error:
        raise DataError("is not a training's checkpoint", file=path, do="choose another --out") from error
    refuse_other(theirs, identity, folder)
    torch = import_torch()
    own = module.state_dict()
    module.load_state_dict({name: torch.from_numpy(np.array(tensors[f"module.{name}"])).to(own[name]) for name in own})
    state = optimiser.state_dict()
    for key, value in tensors.items():
        if key.startswith("optimiser."):
            _, number, name = key.split(".")
            state["state"].setdefault(int(number), {})[name] = torch.from_numpy(np.array(value))
    optimiser.load_state_dict(state)
    return facts
