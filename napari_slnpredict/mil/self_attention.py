"""Self-attention over all tiles of a slide, read by a class token. Loads torch: import it inside functions.

Pre-norm layers with exact scaled dot-product attention. Only the class token is read, so the last layer computes its
row alone. Exact attention is quadratic: inference takes queries in chunks (the same numbers, progress, and a place to
stop), holds three arrays of (n, width), and never an (n, n) one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import BundleMismatch
from napari_slnpredict.events import Job, Meter, Throttle
from napari_slnpredict.torch_door import import_torch

from .aggregators import Output, allowed
from .base import Aggregator, Standardise, Weighed
from .positions import CODE, sinusoids
from .tiles import BagTiles

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
else:
    torch = import_torch()
    nn = torch.nn

#: Query-key pairs computed between two events: about a fifth of a second on two cores at width 256.
PAIRS_AT_ONCE = 10_000_000


@dataclass(frozen=True)
class SelfAttentionParameters:
    """Parameters of the self-attention head.

    Attributes
    ----------
    width : int
        Length of a token; a multiple of `heads`.
    layers, heads : int
    mlp_ratio : float
        Width of the feed-forward part over `width`.
    dropout : float
        In training.
    positions : str
        ``"sinusoid"``: from um coordinates relative to the piece of tissue; ``"none"``: a set of tiles.
    """

    width: int = allowed(256, 8, 4096)
    layers: int = allowed(2, 1, 12)
    heads: int = allowed(8, 1, 64)
    mlp_ratio: float = allowed(2.0, 0.25, 8.0)
    dropout: float = allowed(0.25, 0.0, 0.9)
    positions: str = allowed("sinusoid", choices=("sinusoid", "none"))


class SelfAttention(Aggregator):
    """Class-token self-attention."""

    Parameters: ClassVar[type[Any]] = SelfAttentionParameters

    def __init__(self, parameters: SelfAttentionParameters, dim: int, classes: int) -> None:
        super().__init__(parameters, dim, classes)
        width = parameters.width
        if width % parameters.heads:
            raise BundleMismatch(f"width {width} is no multiple of {parameters.heads} heads")
        self.width = width
        self.embed = nn.Sequential(Standardise(dim), nn.Linear(dim, width), nn.ReLU(), nn.Dropout(parameters.dropout))
        self.positions: Positions | None = Positions(width) if parameters.positions == "sinusoid" else None
        self.token = nn.Parameter(0.02 * torch.randn(1, width))
        self.layers = nn.ModuleList(Layer(parameters) for _ in range(parameters.layers - 1))
        self.last = Layer(parameters)  # of this one only the class token's row is ever computed
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def look(self, features: Tensor, places: NDArray[np.float64] | None) -> Output:
        """Judge tiles held in memory; the attention is the class token's in the last layer, mean over heads."""
        x = torch.cat([self.token, self.tokens(features, places)])  # (1 + n, width)
        for layer in self.layers:
            x = layer(x)
        token, weights = self.last.class_row(x)
        return Output(self.head(self.norm(token)), _tile_attention(weights))

    def tokens(self, features: Tensor, places: NDArray[np.float64] | None) -> Tensor:
        """Return one token a tile, (n, width), from features (n, d) and places (n, 2) in um."""
        x: Tensor = self.embed(features)  # (n, width)
        if self.positions is None:
            return x
        if places is None:
            raise ValueError("this head needs the places of the tiles")
        shifted: Tensor = x + self.positions(torch.from_numpy(sinusoids(places)).to(x.device))
        return shifted

    def weigh(self, tiles: BagTiles) -> Job[Weighed]:
        """Judge any number of tiles exactly, with progress after every chunk of queries."""
        x = yield from self._embed_all(tiles)
        meter, due = Meter(len(self.layers) * len(x)), Throttle()
        for layer in cast("list[Layer]", list(self.layers)):
            for rows in layer.renew(x):
                meter.done += rows
                if due():
                    yield meter.progress()
        token, weights = self.last.class_row_of_many(x)
        with torch.inference_mode():
            logits = self.head(self.norm(token))
        return Weighed(logits.double().cpu().numpy(), _tile_attention(weights).cpu().numpy())

    def _embed_all(self, tiles: BagTiles) -> Job[Tensor]:
        x = torch.empty(1 + len(tiles), self.width, device=tiles.device)
        due = Throttle()
        with torch.inference_mode():
            x[0] = self.token[0]
        meter = Meter(len(tiles))
        for start, stop, features in tiles.chunks():
            with torch.inference_mode():
                x[1 + start : 1 + stop] = self.tokens(
                    features, None if tiles.places is None else tiles.places[start:stop]
                )
            meter.done = stop
            if due():
                yield meter.progress()
        return x


class Positions(nn.Module):
    """Sinusoids of a place, projected and scaled; the scale starts at 0, so that places count once they help."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(CODE, width, bias=False)
        self.scale = nn.Parameter(torch.zeros(1))

    def forward(self, codes: Tensor) -> Tensor:
        """Return (n, width) of sinusoids (n, 64)."""
        code: Tensor = self.scale * self.project(codes)
        return code


class Layer(nn.Module):
    """One pre-norm layer: attention, then a feed-forward part, each added to its input."""

    def __init__(self, parameters: SelfAttentionParameters) -> None:
        super().__init__()
        width, inner = parameters.width, round(parameters.width * parameters.mlp_ratio)
        self.heads, self.size = parameters.heads, parameters.width // parameters.heads
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))
        self.dropout = nn.Dropout(parameters.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return all rows, (n, width)."""
        y = self.before_attention(x)
        return self._finish(x, self._attend(self._split(self.query(y)), *self.keys_and_values(y)))

    def class_row(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the first row alone, (width,), and its attention weights (heads, n); others are not computed."""
        y = self.before_attention(x)
        keys, values = self.keys_and_values(y)  # (1, heads, n, size)
        scores = (self._split(self.query(y[:1])) @ keys.transpose(2, 3))[0, :, 0] / math.sqrt(self.size)  # (heads, n)
        weights = torch.softmax(scores, 1)
        found = (weights[:, None] @ values[0]).reshape(1, -1)  # (1, width)
        return self._finish(x[:1], found)[0], weights

    def renew(self, x: Tensor) -> Iterator[int]:
        """Replace every row of `x` by the layer's output, a chunk of queries at a time; yields the rows done."""
        with torch.inference_mode():
            shape = (1, self.heads, len(x), self.size)
            keys, values = x.new_empty(shape), x.new_empty(shape)
            for rows in _slices(len(x), 4096):
                keys[:, :, rows], values[:, :, rows] = self.keys_and_values(self.before_attention(x[rows]))
        # Keys and values of all rows are kept, so a row's input is needed by that row alone: overwrite it.
        for rows in _slices(len(x), max(64, min(1024, PAIRS_AT_ONCE // len(x)))):
            with torch.inference_mode():
                y = self.before_attention(x[rows])
                x[rows] = self._finish(x[rows], self._attend(self._split(self.query(y)), keys, values))
            yield rows.stop - rows.start

    def class_row_of_many(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `class_row` returns, without keys or values of all tiles; weights are float64.

        ``q · (K y + k) = (K' q) · y`` up to a constant that the softmax drops, and the weighted sum of values is the
        value of the weighted sum: two passes over `x` with one row a head.
        """
        with torch.inference_mode():
            query = self.query(self.before_attention(x[:1])).reshape(self.heads, 1, self.size)
            asked = (query @ self.key.weight.reshape(self.heads, self.size, -1))[:, 0]  # (heads, width)
            chunks = list(_slices(len(x), 8192))
            scores = torch.cat([asked @ self.before_attention(x[rows]).T for rows in chunks], 1)
            weights = torch.softmax(scores.double() / math.sqrt(self.size), 1)  # (heads, n)
            mixed = sum(weights[:, rows].float() @ self.before_attention(x[rows]) for rows in chunks)  # (heads, width)
            per_head = self.value.weight.reshape(self.heads, self.size, -1) @ torch.as_tensor(mixed)[:, :, None]
            found = per_head.reshape(1, -1) + self.value.bias
            return self._finish(x[:1], found)[0], weights

    def keys_and_values(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values, (1, heads, n, size) each, of normed rows (n, width)."""
        return self._split(self.key(y)), self._split(self.value(y))

    def _split(self, y: Tensor) -> Tensor:
        return y.reshape(1, len(y), self.heads, self.size).transpose(1, 2)  # (1, heads, n, size)

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        found = nn.functional.scaled_dot_product_attention(queries, keys, values)
        return found.transpose(1, 2).reshape(queries.shape[2], -1)  # (n, width)

    def _finish(self, x: Tensor, found: Tensor) -> Tensor:
        x = x + self.dropout(self.out(found))
        changed: Tensor = x + self.dropout(self.mlp(self.before_mlp(x)))
        return changed


def _tile_attention(weights: Tensor) -> Tensor:
    """Return the class token's attention to the tiles, (n,), sum 1: mean over heads, its own weight left out."""
    tiles = weights[:, 1:].mean(0)
    # A head may look at the class token alone; in float32 nothing may then be left for the tiles.
    return tiles / tiles.sum().clamp_min(torch.finfo(tiles.dtype).tiny)


def _slices(n: int, size: int) -> Iterator[slice]:
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))
