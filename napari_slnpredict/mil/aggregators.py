"""The table of MIL aggregators, and how one is built from plain JSON.

An aggregator turns the features of a slide's tiles into class logits. Adding one is a module with a class and a line
here. This module loads no torch; the classes are found when first asked for.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from napari_slnpredict.errors import BundleMismatch

if TYPE_CHECKING:
    from torch import Tensor

    from .base import Aggregator

#: Name in ``bundle.json`` -> module and class in this package.
AGGREGATORS: dict[str, str] = {
    "mean": "pooling:MeanPooling",
    "max": "pooling:MaxPooling",
    "attention": "pooling:AttentionPooling",
    "gated": "pooling:GatedPooling",
    "additive": "pooling:AdditivePooling",
    "self-attention": "self_attention:SelfAttention",
}


@dataclass(frozen=True)
class Output:
    """What a forward pass over one bag gives; tensors that carry gradients while training.

    Attributes
    ----------
    logits : (c,) float32
    attention : (n,) float32 or None
        Sums to 1.
    scores : (n,) float32 or None
        Attention before the softmax.
    instance_logits : (n, c) float32 or None
        What the linear head says of each tile alone.
    """

    logits: Tensor
    attention: Tensor | None = None
    scores: Tensor | None = None
    instance_logits: Tensor | None = None


def aggregator_class(kind: str) -> type[Aggregator]:
    """Return the class behind a name of the table."""
    if kind not in AGGREGATORS:
        raise BundleMismatch(
            f"unknown aggregator {kind!r}", do=f"known ones are {', '.join(AGGREGATORS)}; a newer version may know more"
        )
    module, name = AGGREGATORS[kind].split(":")
    found = getattr(importlib.import_module(f".{module}", __package__), name)
    return cast("type[Aggregator]", found)


def build_aggregator(kind: str, parameters: Mapping[str, Any], dim: int, classes: int) -> Aggregator:
    """Build an untrained aggregator.

    Parameters
    ----------
    kind : str
        A name of `AGGREGATORS`.
    parameters : mapping
        Plain JSON; what is absent takes its default, what is unknown is an error.
    dim : int
        Feature length d.
    classes : int
        Number of classes c, at least 2 (a binary task has two logits and a softmax).
    """
    if dim < 1 or classes < 2:
        raise BundleMismatch(f"a head needs features and at least two classes, not {dim} and {classes}")
    found = aggregator_class(kind)
    return found(read_parameters(found.Parameters, parameters), dim, classes)


P = TypeVar("P")


def allowed(default: Any, low: float = -math.inf, high: float = math.inf, choices: tuple[Any, ...] = ()) -> Any:
    """Declare a parameter with its default and the values it may take (bounds included)."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high, "choices": choices})


def read_parameters(kind: type[P], given: Mapping[str, Any]) -> P:
    """Read a dataclass of parameters declared by `allowed` from plain JSON, strictly.

    The bounds are there for safety too: a bundle that asks for a layer of 10^9 units must not be built.
    """
    fields = {field.name: field for field in dataclasses.fields(cast("Any", kind))}
    unknown = sorted(set(given) - set(fields))
    if unknown:
        raise BundleMismatch(f"unknown model parameters {', '.join(map(repr, unknown))}", do="use a newer version")
    return kind(**{name: _read_one(fields[name], value) for name, value in given.items()})


def _read_one(field: dataclasses.Field[Any], value: Any) -> Any:
    kind = type(field.default)
    if kind is float and type(value) is int:
        value = float(value)
    choices = field.metadata["choices"]
    right = type(value) is kind and (
        value in choices if choices else kind is bool or field.metadata["low"] <= value <= field.metadata["high"]
    )
    if not right:
        wanted = f"one of {choices}" if choices else f"{field.metadata['low']} to {field.metadata['high']}"
        raise BundleMismatch(f"model parameter {field.name} is {value!r}, must be {wanted}")
    return value
