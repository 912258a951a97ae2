"""Evidence of tiles: what the slide's logits would be without them, in closed form.

For a head whose logits are a weighted mean of what it says of each tile alone (attention, gated, mean),
``L = sum a_i l_i`` with ``l_i = W z_i + b``; leaving tile i out and sharing its weight among the others gives
``L(-i) = (L - a_i l_i) / (1 - a_i)``, so the evidence of tile i is ``L - L(-i) = a_i (l_i - L) / (1 - a_i)``: exact,
and O(n) for all tiles. For the maximum it follows from the second largest. Everything here is float64 and numpy.

Attention is not this: a tile may hold much attention and say what the slide says anyway.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


class ClosedForm(Protocol):
    """What a bag's tiles say together, and what they would say in part.

    Shapes: n tiles, c classes. `logits_without` and `logits_inside` return None where no tile would be left.
    """

    @property
    def instance_logits(self) -> Floats: ...
    @property
    def attention(self) -> Floats | None: ...
    @property
    def logits(self) -> Floats: ...
    def evidence(self) -> Floats: ...
    def logits_without(self, indices: Indices) -> Floats | None: ...
    def logits_inside(self, indices: Indices) -> Floats | None: ...


def softmax(values: Floats, axis: int = -1) -> Floats:
    """Return the softmax in float64, maximum subtracted first."""
    values = np.asarray(values, np.float64)
    powers = np.exp(values - values.max(axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis, keepdims=True))


@dataclass(frozen=True)
class WeightedMean:
    """Logits that are a softmax-weighted mean of instance logits; equal scores make the plain mean.

    Attributes
    ----------
    scores : (n,) float64
        Attention before the softmax.
    instance_logits : (n, c) float64
    """

    scores: Floats = field(repr=False)
    instance_logits: Floats = field(repr=False)

    @cached_property
    def attention(self) -> Floats:
        """Weights, (n,), sum 1."""
        return softmax(self.scores)

    @cached_property
    def logits(self) -> Floats:
        """Logits of the whole bag, (c,)."""
        return np.asarray(self.attention @ self.instance_logits)

    def evidence(self) -> Floats:
        """Return L - L(-i) for every tile, (n, c); NaN for a bag of one.

        Only the tile with the largest weight can hold more than half of it, so only there can 1 - a_i cancel: that
        one is answered from the weights of the others, all the rest by the closed form.
        """
        n = len(self.scores)
        if n == 1:
            return np.full_like(self.instance_logits, np.nan)
        top = int(np.argmax(self.scores))
        a = self.attention.copy()
        a[top] = 0.0
        evidence = (a / (1.0 - a))[:, None] * (self.instance_logits - self.logits)
        without = self.logits_without(np.array([top]))
        assert without is not None
        evidence[top] = self.logits - without
        return np.asarray(evidence)

    def logits_without(self, indices: Indices) -> Floats | None:
        """Return the logits of the bag without these tiles, (c,)."""
        stay = np.ones(len(self.scores), bool)
        stay[indices] = False
        return self._of(stay)

    def logits_inside(self, indices: Indices) -> Floats | None:
        """Return the logits of these tiles alone, (c,)."""
        inside = np.zeros(len(self.scores), bool)
        inside[indices] = True
        return self._of(inside)

    def _of(self, chosen: NDArray[np.bool_]) -> Floats | None:
        if not chosen.any():
            return None
        return np.asarray(softmax(self.scores[chosen]) @ self.instance_logits[chosen])


@dataclass(frozen=True)
class Largest:
    """Logits that are, class by class, the largest instance logit.

    Attributes
    ----------
    instance_logits : (n, c) float64
    """

    instance_logits: Floats = field(repr=False)

    @property
    def attention(self) -> None:
        """There is none: one tile decides each class."""
        return

    @cached_property
    def logits(self) -> Floats:
        """Logits of the whole bag, (c,)."""
        return np.asarray(self.instance_logits.max(0))

    def evidence(self) -> Floats:
        """Return L - L(-i), (n, c): the gap to the second largest at the tile that decides, 0 elsewhere."""
        n, c = self.instance_logits.shape
        if n == 1:
            return np.full((n, c), np.nan)
        evidence = np.zeros((n, c))
        largest_two = np.partition(self.instance_logits, n - 2, axis=0)[n - 2 :]  # (2, c)
        evidence[self.instance_logits.argmax(0), np.arange(c)] = largest_two[1] - largest_two[0]
        return evidence

    def logits_without(self, indices: Indices) -> Floats | None:
        """Return the logits of the bag without these tiles, (c,)."""
        stay = np.ones(len(self.instance_logits), bool)
        stay[indices] = False
        return np.asarray(self.instance_logits[stay].max(0)) if stay.any() else None

    def logits_inside(self, indices: Indices) -> Floats | None:
        """Return the logits of these tiles alone, (c,)."""
        inside = self.instance_logits[indices]
        return np.asarray(inside.max(0)) if len(inside) else None


def region_evidence(tiles: ClosedForm, indices: Indices) -> Floats | None:
    """Return what a region of tiles adds to the logits, (c,): L - L(-S); None where S is the whole bag.

    For a weighted mean this is ``a_S (l_S - L) / (1 - a_S)`` with ``a_S = sum a_i``, ``l_S`` the logits inside S.
    """
    without = tiles.logits_without(indices)
    return None if without is None else np.asarray(tiles.logits - without)
