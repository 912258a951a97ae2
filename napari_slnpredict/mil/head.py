"""A trained MIL head: loaded strictly from a bundle, and turned into what a bundle stores."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import BundleMismatch, UnsafeFile
from napari_slnpredict.torch_door import import_torch

from .aggregators import build_aggregator
from .doubt import Doubt, load_doubt
from .evidence import Floats, softmax

if TYPE_CHECKING:
    from napari_slnpredict.bundles.bundle import Bundle
    from napari_slnpredict.encode.features import Bag

    from .base import Aggregator

#: A tensor that is no weight: the class names as UTF-8 JSON. The hash of the weights covers it, so that classes
#: re-ordered in ``bundle.json`` do not turn answers round unnoticed.
CLASS_NAMES = "class_names"

#: A temperature outside this range is a broken calibration, not a soft one.
TEMPERATURES = (0.05, 20.0)


@dataclass(frozen=True)
class Head:
    """A MIL head ready to judge.

    Attributes
    ----------
    module : Aggregator
        In evaluation mode, without gradients.
    classes : tuple of str
        In the order of the logits.
    temperature : float
    encoder_digest : str
        Whose features it takes; empty: any (while training).
    device : str
    bundle : Bundle or None
    doubt : Doubt
        What it knows about its limits.
    """

    module: Aggregator = field(repr=False)
    classes: tuple[str, ...]
    temperature: float = 1.0
    encoder_digest: str = ""
    device: str = "cpu"
    bundle: Bundle | None = field(default=None, repr=False)
    doubt: Doubt = field(default_factory=Doubt, repr=False)

    @property
    def closed_form(self) -> bool:
        """Whether leaving tiles out is answered at once."""
        return bool(self.module.closed_form)

    def probabilities(self, logits: Floats) -> Floats:
        """Return calibrated probabilities, (..., c) float64, of logits (..., c)."""
        return softmax(np.asarray(logits, np.float64) / self.temperature)

    def require(self, bag: Bag) -> None:
        """Raise `BundleMismatch` unless the bag holds features this head was trained on."""
        if self.encoder_digest:
            bag.require(self.encoder_digest)
        if bag.features.ndim != 2 or bag.features.shape[1] != self.module.dim:
            raise BundleMismatch(
                f"features of shape {tuple(bag.features.shape)}, the model takes {self.module.dim} numbers a tile",
                do="embed the slide with the model's own encoder",
            )


def make_head(module: Aggregator, classes: tuple[str, ...], **fields: Any) -> Head:
    """Wrap a module for judging: evaluation mode, no gradients."""
    return Head(module.eval().requires_grad_(False), classes, **fields)


def load_head(bundle: Bundle, device: str = "cpu") -> Head:
    """Build the head of a bundle and check everything about it before the first forward pass (promise R8).

    Raises
    ------
    BundleMismatch
        The bundle is of another kind, or its description and its tensors do not belong together.
    UnsafeFile
        A tensor is not finite.
    """
    if bundle.kind != "mil":
        raise BundleMismatch(
            f"is a bundle of kind {bundle.kind!r}, not a slide model", file=bundle.folder, do="choose a MIL bundle"
        )
    tensors = dict(bundle.tensors())
    classes = _check_classes(bundle, tensors.pop(CLASS_NAMES, None))
    parameters = dict(bundle.model.get("parameters", {}))
    dim = parameters.pop("dim", None)
    if type(dim) is not int or not 1 <= dim <= 65_536:
        raise BundleMismatch("model parameter dim (the feature length) is missing or absurd", file=bundle.folder)
    module = _module(bundle, parameters, dim, len(classes))
    _load_strictly(module, tensors, bundle)
    return make_head(
        module.to(device),
        classes,
        temperature=_temperature(bundle),
        encoder_digest=str(bundle.encoder["digest"]),
        device=device,
        bundle=bundle,
        doubt=load_doubt(bundle, classes, dim),
    )


def _module(bundle: Bundle, parameters: Mapping[str, Any], dim: int, classes: int) -> Aggregator:
    """Build what a bundle describes, untrained: one aggregator, or an ensemble of several of one kind."""
    from .ensemble import MOST, Ensemble

    members = bundle.model.get("members")
    if members is None:
        return build_aggregator(str(bundle.model.get("type")), parameters, dim, classes)
    if type(members) is not int or not 1 <= members <= MOST:
        raise BundleMismatch(f"it says it has {members!r} members", file=bundle.folder, do="copy it again")
    kind = str(bundle.model.get("type"))
    return Ensemble([build_aggregator(kind, parameters, dim, classes) for _ in range(members)])


def head_parts(head: Head, kind: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the ``model`` entry and the tensors a bundle stores for a head; `load_head` is the inverse."""
    from .ensemble import Ensemble

    module = head.module
    model: dict[str, Any] = {"type": kind, "parameters": {"dim": module.dim, **asdict(module.options)}}
    if isinstance(module, Ensemble):
        model["members"] = len(module.members)
    tensors = {name: np.ascontiguousarray(value.detach().cpu().numpy()) for name, value in module.state_dict().items()}
    tensors[CLASS_NAMES] = np.frombuffer(json.dumps(list(head.classes)).encode(), np.uint8).copy()
    return model, tensors


def _check_classes(bundle: Bundle, stored: NDArray[Any] | None) -> tuple[str, ...]:
    classes = tuple(bundle.classes)
    if len(classes) < 2:
        raise BundleMismatch(f"its classes are {classes}: two are needed at least", file=bundle.folder)
    if stored is None:
        raise BundleMismatch(
            f"its weights lack the tensor {CLASS_NAMES}, which says the order of the classes", file=bundle.folder
        )
    if tuple(_names(stored)) != classes:
        raise BundleMismatch(
            "the classes in bundle.json are not those its weights were trained for, in that order",
            file=bundle.folder,
            do="copy the bundle again",
        )
    return classes


def _names(stored: NDArray[Any]) -> list[str]:
    try:
        names = json.loads(bytes(np.asarray(stored, np.uint8).ravel()[:65_536]))
    except ValueError:
        return []
    return [str(name) for name in names] if isinstance(names, list) else []


def _load_strictly(module: Aggregator, tensors: Mapping[str, NDArray[Any]], bundle: Bundle) -> None:
    wanted = module.state_dict()
    if set(wanted) != set(tensors):
        lacking, extra = sorted(set(wanted) - set(tensors)), sorted(set(tensors) - set(wanted))
        raise BundleMismatch(
            f"its tensors are not the model's (missing: {lacking[:3]}, unknown: {extra[:3]})",
            file=bundle.folder,
            do="copy the bundle again, or train it again",
        )
    for name, tensor in tensors.items():
        if tensor.shape != tuple(wanted[name].shape) or tensor.dtype.kind != "f":
            raise BundleMismatch(
                f"tensor {name} is {tensor.dtype} {tensor.shape}, must be float {tuple(wanted[name].shape)}",
                file=bundle.folder,
            )
        if not np.isfinite(tensor).all():
            raise UnsafeFile(f"tensor {name} holds numbers that are not finite", file=bundle.folder)
    scales = [tensor for name, tensor in tensors.items() if name.endswith("embed.0.scale")]
    if not all((scale > 0).all() for scale in scales):
        raise BundleMismatch("it divides features by numbers that are not positive", file=bundle.folder)
    torch = import_torch()
    weights = {name: torch.from_numpy(np.array(tensor, np.float32)) for name, tensor in tensors.items()}
    module.load_state_dict(weights, strict=True)


def _temperature(bundle: Bundle) -> float:
    given = bundle.calibration.get("temperature", 1.0) if bundle.calibration else 1.0
    low, high = TEMPERATURES
    if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given):
        raise BundleMismatch(f"its temperature is {given!r}", file=bundle.folder)
    if not low <= given <= high:
        raise BundleMismatch(f"its temperature is {given}, must be {low} to {high}", file=bundle.folder)
    return float(given)
