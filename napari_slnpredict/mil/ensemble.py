"""Heads trained on different folds that answer together. Loads torch: import it inside functions.

Their logits are averaged. Leaving tiles out of an average of logits is the average of leaving them out, so evidence
stays exact; and how far the members differ tells how much the answer depends on which patients were trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.events import Job, Meter, Stage, Throttle
from napari_slnpredict.torch_door import import_torch

from .aggregators import Output
from .base import Aggregator, Weighed
from .evidence import ClosedForm, Floats, Indices
from .tiles import BagTiles

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from .pooling import Pooling
else:
    torch = import_torch()
    nn = torch.nn

#: More members than this are a broken bundle, not an ensemble.
MOST = 64


class Ensemble(Aggregator):
    """The mean of the logits of several heads of one kind.

    Parameters
    ----------
    members : sequence of Aggregator
        At least one; same kind, parameters, features and classes.
    """

    def __init__(self, members: Sequence[Aggregator]) -> None:
        super().__init__(members[0].options, members[0].dim, members[0].classes)
        self.members = nn.ModuleList(members)
        self.closed_form = all(member.closed_form for member in members)
        self.streams = all(member.streams for member in members)
        self.per_tile = (len(members),)

    def look(self, features: Tensor, places: NDArray[np.float64] | None) -> Output:
        """Judge tiles held in memory by every member."""
        found = [cast("Aggregator", member).look(features, places) for member in self.members]
        attention = None
        if all(one.attention is not None for one in found):
            attention = torch.stack([cast("Tensor", one.attention) for one in found]).mean(0)
        return Output(torch.stack([one.logits for one in found]).mean(0), attention)

    def weigh(self, tiles: BagTiles) -> Job[Weighed]:
        """Judge any number of tiles: read once where each member judges tiles by themselves, else once a member."""
        if self.closed_form:
            return (yield from self._weigh_together(tiles))
        found = []
        for number, member in enumerate(self.members, 1):
            yield Stage("judge", f"Weighing, model {number} of {len(self.members)}", len(tiles), "tiles")
            found.append((yield from cast("Aggregator", member).weigh(tiles)))
        logits = np.stack([one.logits for one in found])
        weights = [one.attention for one in found if one.attention is not None]
        attention = np.mean(weights, axis=0) if len(weights) == len(found) else None
        return Weighed(logits.mean(axis=0), attention, members=logits)

    def instances(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return each member's scores (n, k) and instance logits (n, k, c) of features (n, d)."""
        parts = [cast("Pooling", member).instances(features) for member in self.members]
        return torch.stack([part[0] for part in parts], 1), torch.stack([part[1] for part in parts], 1)

    def pool(self, scores: Floats, logits: Floats) -> MeanOfForms:
        """Return the closed form over all tiles, of what `instances` gives, float64."""
        members = zip(self.members, scores.T, np.moveaxis(logits, 1, 0), strict=True)
        return MeanOfForms(tuple(cast("Pooling", member).pool(own, said) for member, own, said in members))

    def _weigh_together(self, tiles: BagTiles) -> Job[Weighed]:
        k = len(self.members)
        scores, logits = np.empty((len(tiles), k)), np.empty((len(tiles), k, self.classes))
        meter, due = Meter(len(tiles)), Throttle()
        for start, stop, features in tiles.chunks():
            with torch.inference_mode():
                found = self.instances(features)
            scores[start:stop], logits[start:stop] = (part.cpu().numpy() for part in found)
            meter.done = stop
            if due() or stop == len(tiles):
                yield meter.progress()
        pooled = self.pool(scores, logits)
        return Weighed(pooled.logits, pooled.attention, pooled, np.stack([form.logits for form in pooled.forms]))

    def centre_logits(self) -> None:
        """Make every member's logits sum to zero over the classes."""
        for member in self.members:
            cast("Aggregator", member).centre_logits()


@dataclass(frozen=True)
class MeanOfForms:
    """What a bag's tiles say together, averaged over several heads.

    Attributes
    ----------
    forms : tuple of ClosedForm
    """

    forms: tuple[ClosedForm, ...] = field(repr=False)

    @cached_property
    def instance_logits(self) -> Floats:
        """What the members say of each tile alone, on average, (n, c)."""
        return np.asarray(np.mean([form.instance_logits for form in self.forms], axis=0))

    @cached_property
    def attention(self) -> Floats | None:
        """Mean weights, (n,), sum 1; None where a member has none."""
        weights = [form.attention for form in self.forms if form.attention is not None]
        return np.asarray(np.mean(weights, axis=0)) if len(weights) == len(self.forms) else None

    @cached_property
    def logits(self) -> Floats:
        """Logits of the whole bag, (c,)."""
        return np.asarray(np.mean([form.logits for form in self.forms], axis=0))

    def evidence(self) -> Floats:
        """Return L - L(-i) for every tile, (n, c); NaN for a bag of one."""
        return np.asarray(np.mean([form.evidence() for form in self.forms], axis=0))

    def disagreement(self) -> Floats:
        """Return the standard deviation of the members' evidence for every tile, (n, c)."""
        return np.asarray(np.std([form.evidence() for form in self.forms], axis=0))

    def logits_without(self, indices: Indices) -> Floats | None:
        """Return the logits of the bag without these tiles, (c,)."""
        return _mean([form.logits_without(indices) for form in self.forms])

    def logits_inside(self, indices: Indices) -> Floats | None:
        """Return the logits of these tiles alone, (c,)."""
        return _mean([form.logits_inside(indices) for form in self.forms])


def _mean(parts: Sequence[Floats | None]) -> Floats | None:
    known = [part for part in parts if part is not None]
    return np.asarray(np.mean(known, axis=0)) if len(known) == len(parts) else None
