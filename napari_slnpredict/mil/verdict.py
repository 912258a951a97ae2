"""From a bag of tile features to a verdict on the slide, and the questions one may then ask of it.

`judge` walks over the bag; `leave_out` and `predict_inside` answer from the verdict at once where the head has a closed
form; `leave_out_job` and `predict_inside_job` do so for every head, by judging again.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import DataError, ResourceError
from napari_slnpredict.events import Job, Stage, Warn, relay

from .evidence import ClosedForm, Floats
from .head import Head, load_head
from .tiles import BagTiles, bag_tiles

if TYPE_CHECKING:
    from napari_slnpredict.encode.features import Bag

    from .base import Weighed

__all__ = [
    "Head", "LeftOut", "Verdict", "judge", "leave_out", "leave_out_job", "load_head", "predict_inside",
]  # fmt: skip

#: A tile of the grid, or several.
Tiles: TypeAlias = int | Sequence[int] | NDArray[np.int64]

#: Above this many tiles exact self-attention on a CPU takes minutes: said before, not after.
MANY_TILES = 30_000
#: An interval needs so many members of an ensemble.
LEAST_MEMBERS = 3
_SMALLEST = 1e-6


@dataclass(frozen=True)
class Verdict:
    """What a head says of a slide.

    Attributes
    ----------
    logits : (c,) float64
    probabilities : (c,) float64
        Softmax of the logits over the bundle's temperature.
    classes : tuple of str
    attention : (n,) float64 or None
        Sums to 1; 0 at damaged tiles, which no head looks at. None where the head has none (max).
    evidence : (n, c) float64 or None
        Change of the logits that leaving the tile out takes back (`evidence`); NaN at damaged tiles and in a bag of
        one. None for self-attention: ask for single tiles by `leave_out_job`.
    interval : dict of class to (low, high), or None
        Of an ensemble: where the probability of another model would lie, trained on other patients of the same kind.
    conformal, out_of_domain
        Prediction set and out-of-domain score, where the bundle has them.
    kept : (m,) int64
        The tiles looked at.
    tiles : ClosedForm or None
        Answers over the `kept` tiles.
    """

    logits: Floats
    probabilities: Floats
    classes: tuple[str, ...]
    attention: Floats | None = field(repr=False)
    evidence: Floats | None = field(repr=False)
    interval: dict[str, Any] | None = None
    conformal: list[str] | None = None
    out_of_domain: dict[str, Any] | None = None
    kept: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64), repr=False)
    tiles: ClosedForm | None = field(default=None, repr=False)
    n_tiles: int = 0

    @property
    def seen(self) -> NDArray[np.bool_]:
        """Tiles the head looked at, (n,)."""
        seen = np.zeros(self.n_tiles, bool)
        seen[self.kept] = True
        return seen

    @property
    def instance_logits(self) -> Floats | None:
        """What the head says of each tile alone, (n, c), NaN at damaged tiles; None without a closed form."""
        return None if self.tiles is None else _spread(self.tiles.instance_logits, self.kept, self.n_tiles, np.nan)

    def share(self) -> Floats | None:
        """Attention times the number of tiles, (n,): 1 is what a tile would have if all counted the same."""
        return None if self.attention is None else self.attention * self.n_tiles

    def rank(self) -> NDArray[np.int64]:
        """Rank of every tile, (n,) int64, a permutation of 1 to n; damaged tiles come last.

        By attention; for max pooling, which has none, by what the tile alone says for the likeliest class.
        """
        values = np.full(self.n_tiles, -np.inf)
        if self.attention is not None:
            values[self.kept] = self.attention[self.kept]
        elif self.tiles is not None:
            values[self.kept] = self.tiles.instance_logits[:, int(self.probabilities.argmax())]
        rank = np.empty(self.n_tiles, np.int64)
        rank[np.argsort(-values, kind="stable")] = np.arange(1, self.n_tiles + 1)
        return rank


@dataclass(frozen=True)
class LeftOut:
    """A slide judged without some of its tiles.

    Attributes
    ----------
    logits, probabilities : (c,) float64
    evidence : (c,) float64
        Logits of the whole minus these: what the tiles left out add.
    """

    logits: Floats
    probabilities: Floats
    evidence: Floats


def judge(head: Head, bag: Bag, *, cancelled: Callable[[], bool] = lambda: False) -> Job[Verdict]:
    """Judge a slide from its features.

    Parameters
    ----------
    head : Head
    bag : Bag
        At least one undamaged tile; features of the head's own encoder.
    cancelled : callable
        Asked between chunks, for callers that do not drive the job by `events.run`; true ends it as `Cancelled`.

    Raises
    ------
    BundleMismatch
        The features are another encoder's, or have another length.
    DataError
        No usable tile, or features that are not finite.
    ResourceError
        Not enough memory.
    """
    tiles = tiles_of(head, bag)
    yield Stage("judge", f"Weighing {len(tiles):,} tiles", len(tiles), "tiles")
    if not head.closed_form and len(tiles) > MANY_TILES and head.device == "cpu":
        yield Warn(
            f"exact self-attention over {len(tiles):,} tiles takes minutes without a GPU; it can be stopped at any time"
        )
    found = yield from _weigh_anywhere(head, tiles, cancelled)
    if not np.isfinite(found.logits).all():
        raise DataError("the model's answer is not a number", file=bag.grid.slide_id, do="embed the slide again")
    n, form = len(bag.features), found.closed_form
    probabilities = head.probabilities(found.logits)
    return Verdict(
        logits=found.logits,
        probabilities=probabilities,
        classes=head.classes,
        attention=None if found.attention is None else _spread(found.attention, tiles.kept, n, 0.0),
        evidence=None if form is None else _spread(form.evidence(), tiles.kept, n, np.nan),
        interval=_interval(head, found),
        conformal=head.doubt.possible(probabilities, head.classes),
        out_of_domain=head.doubt.place(bag.features[tiles.kept] if len(tiles) < n else bag.features),
        kept=tiles.kept,
        tiles=form,
        n_tiles=n,
    )


def _interval(head: Head, found: Weighed) -> dict[str, Any] | None:
    """Return each class's interval from how far an ensemble's members differ; None with fewer than three.

    The bounds are those of one more member, by Student's t on the log-odds: centred on the ensemble, wide for few.
    """
    if found.members is None or len(found.members) < LEAST_MEMBERS:
        return None
    from scipy.stats import t

    k = len(found.members)
    p = np.clip(head.probabilities(found.logits), _SMALLEST, 1 - _SMALLEST)
    each = np.clip(head.probabilities(found.members), _SMALLEST, 1 - _SMALLEST)
    spread = np.log(each / (1 - each)).std(axis=0, ddof=1) * math.sqrt(1 + 1 / k) * float(t.ppf(0.975, k - 1))
    middle = np.log(p / (1 - p))
    low, high = (1 / (1 + np.exp(-(middle + sign * spread))) for sign in (-1, 1))
    return {name: (float(low[i]), float(high[i])) for i, name in enumerate(head.classes)}


def tiles_of(head: Head, bag: Bag) -> BagTiles:
    """Return the undamaged tiles of a bag after checking that head and bag belong together."""
    head.require(bag)
    tiles = bag_tiles(bag.features, bag.grid.centres_um, bag.grid.component, bag.damaged, head.device)
    if not len(tiles):
        raise DataError("no tile is left to judge", file=bag.grid.slide_id, do="look at the tissue layer")
    return tiles


def _weigh_anywhere(head: Head, tiles: BagTiles, cancelled: Callable[[], bool]) -> Job[Weighed]:
    """Judge on the head's device; when an accelerator's memory is too small, on the CPU, with notice."""
    try:
        return (yield from _weigh(head, tiles, cancelled))
    except ResourceError:
        if head.device == "cpu":
            raise
    yield Warn(f"{head.device} has not enough memory for {len(tiles):,} tiles together; judging on the CPU")
    on_cpu = replace(head, module=copy.deepcopy(head.module).to("cpu"), device="cpu")
    return (yield from _weigh(on_cpu, replace(tiles, device="cpu"), cancelled))


def _weigh(head: Head, tiles: BagTiles, cancelled: Callable[[], bool] = lambda: False) -> Job[Weighed]:
    try:
        return (yield from relay(head.module.weigh(tiles), cancelled=cancelled))
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise ResourceError(
            f"not enough memory to judge {len(tiles):,} tiles together", do="close other programs and run again"
        ) from error


def _is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out; torch says so on a CPU by a plain RuntimeError (promise R13)."""
    said = str(error)
    return isinstance(error, MemoryError) or "out of memory" in said or "allocate memory" in said


def leave_out(head: Head, bag: Bag, verdict: Verdict, indices: Tiles) -> Floats | None:
    """Return the probabilities of the slide without some tiles, (c,), at once and exactly.

    None where there is no closed form (ask `leave_out_job`) and where no tile would be left.
    """
    found = _closed(head, verdict, indices)
    return None if found is None else found.probabilities


def leave_out_job(head: Head, bag: Bag, verdict: Verdict, indices: Tiles) -> Job[LeftOut | None]:
    """Return the slide judged without some tiles; for self-attention by judging again. None: no tile would be left.

    The others keep their places: the tissue is still there, it is only not looked at.
    """
    if verdict.tiles is not None:
        return _closed(head, verdict, indices)
    rest = tiles_of(head, bag).without(np.atleast_1d(np.asarray(indices, np.int64)))
    if not len(rest):
        return None
    yield Stage("leave-out", "Judging without it", len(rest), "tiles")
    found = yield from _weigh(head, rest)
    return _left_out(head, verdict, found.logits)


def predict_inside(head: Head, verdict: Verdict, indices: Sequence[int] | NDArray[np.int64]) -> Floats | None:
    """Return the probabilities of a region of tiles alone, (c,); None without a closed form or an undamaged tile."""
    if verdict.tiles is None:
        return None
    logits = verdict.tiles.logits_inside(_positions(verdict, indices))
    return None if logits is None else head.probabilities(logits)


def _closed(head: Head, verdict: Verdict, indices: Tiles) -> LeftOut | None:
    if verdict.tiles is None:
        return None
    logits = verdict.tiles.logits_without(_positions(verdict, indices))
    return None if logits is None else _left_out(head, verdict, logits)


def _left_out(head: Head, verdict: Verdict, logits: Floats) -> LeftOut:
    return LeftOut(logits, head.probabilities(logits), verdict.logits - logits)


def _positions(verdict: Verdict, indices: Tiles) -> NDArray[np.int64]:
    """Return where tiles of the grid stand among the kept ones; damaged ones stand nowhere."""
    asked = np.atleast_1d(np.asarray(indices, np.int64))
    if len(asked) and not (asked.min() >= 0 and asked.max() < verdict.n_tiles):
        raise IndexError(f"tile {int(asked.max())} of {verdict.n_tiles}")
    return np.flatnonzero(np.isin(verdict.kept, asked))


def _spread(values: Floats, kept: NDArray[np.int64], n: int, missing: float) -> Floats:
    """Return values of the kept tiles, (m, ...), over all tiles of the grid, (n, ...)."""
    if len(kept) == n:
        return values
    spread = np.full((n, *values.shape[1:]), missing)
    spread[kept] = values
    return spread
