"""What a network is, in plain values, and how it is built from them: never by evaluating somebody's text."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import BundleMismatch, ModelError, UnsafeFile
from napari_slnpredict.torch_door import import_timm, import_torch

POOLINGS = ("network", "last stage", "class+mean")
PROJECTION = "projection."
_COUNTER = "num_batches_tracked"
#: Arguments of timm's factory that reach the network or the disk (a checkpoint path is a pickle).
_FORBIDDEN = re.compile(r"pretrained|checkpoint|cache_dir|path|url|hf_hub|scriptable|exportable")
#: Shapes alone take no memory, but a million layers do: no network has numbers such as these.
_DEEP, _DEEPEST, _LARGEST = re.compile(r"depth|layers|blocks|stages|repeat"), 256, 1 << 20
#: Layers that presets and cards name; their arguments take classes, which JSON cannot hold.
_LAYERS = ("mlp_layer", "act_layer", "norm_layer")


@dataclass(frozen=True)
class Architecture:
    """A timm network and what is done to its output.

    Attributes
    ----------
    timm : str
        Name of the network in timm, a tag allowed (``resnet18.a1_in1k``).
    kwargs : dict
        Arguments of ``timm.create_model``, plain JSON values; layers by name (``"mlp_layer": "SwiGLUPacked"``).
    pooling : str
        ``network`` (its own, num_classes=0), ``last stage`` (mean over places of a features_only network's last
        output), ``class+mean`` (class token beside the mean of the patch tokens).
    stride_in_conv1 : bool
        The original ResNet strides in the first 1 x 1 convolution of a stage; timm's in the 3 x 3. A strict load
        cannot notice, the features are wrong.
    projection : int or None
        Width of a linear layer after pooling (tensors ``projection.weight``, ``projection.bias``).
    """

    timm: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    pooling: str = "network"
    stride_in_conv1: bool = False
    projection: int | None = None

    def plain(self) -> dict[str, Any]:
        """Return the values as JSON knows them: what the encoder's digest covers."""
        plain = asdict(self)
        plain["timm"] = self.timm.partition(".")[0]
        return plain


def check_architecture(architecture: Architecture) -> None:
    """Refuse names and arguments that could reach the network, the disk, or run code.

    Raises
    ------
    UnsafeFile, ModelError
    """
    if not re.fullmatch(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?", architecture.timm):
        raise UnsafeFile(f"{architecture.timm!r} is not the name of a timm network", do="give a plain timm name")
    if not import_timm().is_model(architecture.timm.partition(".")[0]):
        raise ModelError(
            f"this timm knows no network {architecture.timm!r}",
            do="check the name with timm.list_models, or update timm",
        )
    for name, value in architecture.kwargs.items():
        if not name.isidentifier() or _FORBIDDEN.search(name):
            raise UnsafeFile(f"argument {name!r} of a network is not allowed", do="check the model's source")
        if not _is_plain(value, _DEEPEST if _DEEP.search(name) else _LARGEST):
            raise UnsafeFile(f"argument {name!r} of a network is not a plain value", do="check the model's source")
    if architecture.pooling not in POOLINGS:
        raise ModelError(f"pooling {architecture.pooling!r} is not known", do=f"known are {', '.join(POOLINGS)}")


def _is_plain(value: object, largest: int) -> bool:
    if isinstance(value, (list, tuple)):
        return len(value) <= 64 and all(_is_plain(part, largest) for part in value)
    if isinstance(value, (int, float)):
        return abs(value) <= largest
    return value is None or isinstance(value, str)


def build_network(architecture: Architecture, device: str = "cpu") -> Any:
    """Return the network as an nn.Module in evaluation mode, its weights random.

    Parameters
    ----------
    device : str
        ``meta`` builds shapes alone: how the width of an encoder is found without its weights.
    """
    check_architecture(architecture)
    torch, timm = import_torch(), import_timm()
    kwargs = dict(architecture.kwargs)
    if architecture.pooling == "last stage":
        kwargs.update(features_only=True)
    else:
        kwargs["num_classes"] = 0
    if architecture.pooling == "class+mean":
        kwargs["global_pool"] = ""
    kwargs.update({name: _layer(kwargs[name]) for name in _LAYERS if isinstance(kwargs.get(name), str)})
    try:
        with torch.device(device):
            net = timm.create_model(architecture.timm, pretrained=False, **kwargs)
            if architecture.pooling == "class+mean" and not getattr(net, "has_class_token", False):
                raise ValueError("it has no class token")
            if architecture.stride_in_conv1:
                _stride_in_conv1(net)
            return tile_network(net, architecture).eval()
    except (TypeError, ValueError, RuntimeError, KeyError, AssertionError) as error:
        raise ModelError(
            f"timm cannot build {architecture.timm} with these arguments ({error})", do="check the model's card"
        ) from error


def _layer(name: str) -> Any:
    torch, timm = import_torch(), import_timm()
    known = {"SwiGLUPacked": timm.layers.SwiGLUPacked, "SiLU": torch.nn.SiLU, "GELU": torch.nn.GELU}
    if name not in known:
        raise ModelError(f"layer {name!r} is not known here", do=f"known are {', '.join(known)}")
    return known[name]


def _stride_in_conv1(net: Any) -> None:
    for stage in ("layer2", "layer3", "layer4"):
        layer = getattr(net, stage, None)
        if layer is None:
            continue
        first = layer[0]
        if not hasattr(first, "conv3"):
            raise ModelError("a stride can be moved in bottleneck networks only", do="check the model's card")
        first.conv1.stride, first.conv2.stride = (2, 2), (1, 1)


def tile_network(net: Any, architecture: Architecture) -> Any:
    """Wrap a timm network: (b, 3, h, w) float32, normalised -> (b, d) float32."""
    torch = import_torch()

    class TileNetwork(torch.nn.Module):  # type: ignore[misc,name-defined]
        """A network, its pooling and perhaps a projection."""

        def __init__(self) -> None:
            super().__init__()
            self.net = net
            #: Networks with folded normalisation have no batch statistics to update: see `load_tensors`.
            self.frozen = False
            width = architecture.projection
            self.projection = None if width is None else torch.nn.Linear(_pooled_width(net, architecture), width)

        def forward(self, x: Any) -> Any:
            pooled = _pool(self.net, self.net(x), architecture.pooling)  # (b, d)
            return pooled if self.projection is None else self.projection(pooled)

        def train(self, mode: bool = True) -> Any:
            return super().train(mode and not self.frozen)

    return TileNetwork()


def _pool(net: Any, output: Any, pooling: str) -> Any:
    if pooling == "last stage":
        last = output[-1]  # (b, d, h, w)
        return last.mean(dim=(2, 3))
    if pooling == "class+mean":
        # Registers lie between the class token and the patches: their number comes from the network, never a constant.
        torch, prefix = import_torch(), int(net.num_prefix_tokens)
        return torch.cat([output[:, 0], output[:, prefix:].mean(dim=1)], dim=1)  # (b, 2 d)
    return output


def _pooled_width(net: Any, architecture: Architecture) -> int:
    if architecture.pooling == "last stage":
        return int(net.feature_info.channels()[-1])
    width = int(getattr(net, "head_hidden_size", None) or net.num_features)
    return 2 * width if architecture.pooling == "class+mean" else width


def output_width(architecture: Architecture, tile_px: int) -> int:
    """Return the length of a feature, found on shapes alone (no weights, no arithmetic)."""
    torch = import_torch()
    network = build_network(architecture, "meta")
    try:
        with torch.inference_mode():
            width = network(torch.zeros(1, 3, tile_px, tile_px, device="meta")).shape
    except (RuntimeError, AssertionError, ValueError) as error:
        raise BundleMismatch(
            f"{architecture.timm} does not take tiles of {tile_px} px ({error})", do="use the tile size it was made for"
        ) from error
    if len(width) != 2:
        raise ModelError(f"{architecture.timm} gives no vector per tile", do="choose a pooling for it")
    return int(width[1])


def load_tensors(network: Any, tensors: Mapping[str, NDArray[Any]], file: str = "") -> None:
    """Put tensors into a network from `build_network`, strictly: every name, every shape.

    Stored half precision becomes float32. Names are timm's, or ``projection.*``.

    Raises
    ------
    BundleMismatch
        A tensor too many, too few, or of another shape, named.
    """
    torch = import_torch()
    own = network.state_dict()
    given = {name if name.startswith(PROJECTION) else f"net.{name}": value for name, value in tensors.items()}
    check_shapes(network, {name: value.shape for name, value in tensors.items()}, file)
    with torch.no_grad():
        # One tensor at a time: a giant's weights are in memory twice then (the file's and the network's), not thrice.
        for name, value in given.items():
            own[name].copy_(torch.from_numpy(np.array(value)))
    network.frozen = has_folded_norm(tensors)
    network.eval()


def check_shapes(network: Any, shapes: Mapping[str, tuple[int, ...]], file: str = "") -> None:
    """Compare the tensors of a file with those of a network from `build_network` (on any device, meta too).

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        By timm's names, or ``projection.*``.

    Raises
    ------
    BundleMismatch
        A tensor too many, too few, or of another shape, named.
    """
    own = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    given = {name if name.startswith(PROJECTION) else f"net.{name}": tuple(shape) for name, shape in shapes.items()}
    # A counter of training steps that plays no part in a forward pass; files made without torch often lack it.
    missing = sorted(name for name in set(own) - set(given) if not name.endswith(_COUNTER))
    unknown = sorted(set(given) - set(own))
    if missing or unknown:
        what = f"lacks {_some(missing)}" if missing else f"holds {_some(unknown)}, unknown to the network"
        raise BundleMismatch(f"the weights do not fit the network: it {what}", file=file or None, do=_WRONG_WEIGHTS)
    for name, shape in given.items():
        if shape != own[name]:
            wrong = f"tensor {_bare(name)} has shape {shape} instead of {own[name]}"
            raise BundleMismatch(wrong, file=file or None, do=_WRONG_WEIGHTS)


_WRONG_WEIGHTS = "check that these weights were made for this network"


def _bare(name: str) -> str:
    return name.removeprefix("net.")


def _some(names: list[str]) -> str:
    shown = ", ".join(_bare(name) for name in names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def has_folded_norm(tensors: Mapping[str, NDArray[Any]]) -> bool:
    """Whether batch normalisation was folded away: means all 0, so that batch statistics would ruin the network."""
    means = [value for name, value in tensors.items() if name.endswith("running_mean")]
    return bool(means) and not any(value.any() for value in means)


def parse_create_model(text: str) -> Architecture:
    """Read ``create_model('name', key=value, ...)`` from a card as data; nothing in it is evaluated.

    The one remark that is understood after the call is that the stride must be moved.

    Raises
    ------
    UnsafeFile
        Anything but one call of literals.
    """
    call, rest = _leading_call(text)
    try:
        args = [ast.literal_eval(arg) for arg in call.args]
        kwargs = {str(pair.arg): ast.literal_eval(pair.value) for pair in call.keywords}
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise UnsafeFile("its card's create_model call holds more than plain values", do="check its source") from error
    if len(args) != 1 or not isinstance(args[0], str) or "None" in kwargs:
        raise UnsafeFile("its card's create_model call names no network", do="check its source")
    features_only = bool(kwargs.pop("features_only", False))
    kwargs.pop("num_classes", None)
    moves = bool(re.search(r"\bmove\w*\s+(the\s+)?strides?\b", rest))
    if rest.strip() and not moves:
        raise UnsafeFile(f"its card asks for more than create_model: {rest.strip()!r}", do="make a bundle of it")
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in kwargs.items()}
    architecture = Architecture(args[0], plain, "last stage" if features_only else "network", stride_in_conv1=moves)
    check_architecture(architecture)
    return architecture


def _leading_call(text: str) -> tuple[ast.Call, str]:
    """Split a text after its leading call; the shortest prefix that parses is the call."""
    for match in re.finditer(r"\)", text[:2000]):
        try:
            tree = ast.parse(text[: match.end()], mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id == "create_model":
            return tree, text[match.end() :]
        break
    raise UnsafeFile("its card says no create_model('name', ...)", do="check its source")
