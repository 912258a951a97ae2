"""What each tile looks like, by the classifier that a training with labels leaves in its encoder's bundle.

Such a bundle says nothing about the slide as a whole: no probability, no interval. It says of every tile which class it
looks most like, and so how much of the tissue does. How often it errs on slides like this one is not known here; a
share of tissue is a count of its opinions, and is told as such.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .bundles.bundle import MANIFEST, Bundle, load_bundle
from .encode.encoder import encoder_from_bundle
from .encode.trained import CLASS_NAMES, HEADS
from .errors import BundleMismatch, UnsafeFile
from .mil.evidence import softmax
from .mil.running import TileSoFar
from .mil.verdict import Head, load_head

if TYPE_CHECKING:
    from .encode.features import Bag
    from .encode.gate import Judge
    from .encode.record import Encoder
    from .slide.grid import TileGrid

#: What stands below every share of tissue.
HOW_COUNTED = (
    "Each tile counts for the class it looks most like, by as much tissue as it holds. How often the classifier errs "
    "on slides like this one is not known, so there is no interval."
)
#: Below this share a class is not named in the sentence, which names so many at most.
_WORTH_NAMING, _MOST_NAMED = 0.005, 4
#: Below this probability a class is not named beside a tile's likeliest one.
_WORTH_SAYING = 0.01


@dataclass(frozen=True)
class TileHead:
    """A classifier of tiles, kept in the bundle of the encoder it was trained with.

    Attributes
    ----------
    bundle : Bundle
        The encoder's.
    classes : tuple of str
    weight : (c, d) float32
    bias : (c,) float32
    encoder_digest : str
        Whose features it takes.
    """

    #: Each tile is judged alone.
    closed_form: ClassVar[bool] = True

    bundle: Bundle = field(repr=False)
    classes: tuple[str, ...]
    weight: NDArray[np.float32] = field(repr=False)
    bias: NDArray[np.float32] = field(repr=False)
    encoder_digest: str

    def probabilities(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return what features (k, d) look like, (k, c); rows sum to 1."""
        logits = np.asarray(features, np.float32) @ self.weight.T + self.bias
        rows = [softmax(row) for row in np.asarray(logits, np.float64)]
        return np.stack(rows) if rows else np.empty((0, len(self.classes)))

    def of(self, bag: Bag) -> TileClasses:
        """Return the classes of a slide's tiles; those that could not be read have none."""
        bag.require(self.encoder_digest)
        found = np.full((len(bag.grid), len(self.classes)), np.nan, np.float32)
        seen = ~bag.damaged
        found[seen] = self.probabilities(bag.features[seen])
        return TileClasses(bag.grid, self.classes, found, self.bundle.name, self.bundle.digest)

    def named(self, feature: NDArray[np.floating]) -> dict[str, float]:
        """Return what one feature (d,) looks like, by class."""
        return dict(zip(self.classes, self.probabilities(feature[None])[0].tolist(), strict=True))


@dataclass(frozen=True)
class TileClasses:
    """What every tile of a slide looks like.

    Attributes
    ----------
    grid : TileGrid
    classes : tuple of str
    probabilities : (n, c) float32
        NaN where a tile was not looked at.
    name, digest : str
        Of the bundle that says so.
    """

    grid: TileGrid = field(repr=False)
    classes: tuple[str, ...]
    probabilities: NDArray[np.float32] = field(repr=False)
    name: str
    digest: str

    @cached_property
    def best(self) -> NDArray[np.int64]:
        """The class each tile looks most like, (n,) int64; -1 where nothing is known."""
        known = np.isfinite(self.probabilities).all(axis=1)
        return np.where(known, np.nan_to_num(self.probabilities, nan=-1.0).argmax(axis=1), -1)

    @cached_property
    def belief(self) -> NDArray[np.float32]:
        """Probability of that class, (n,) float32; NaN where nothing is known."""
        highest: NDArray[np.float32] = self.probabilities.max(axis=1)
        return highest

    @cached_property
    def area_mm2(self) -> NDArray[np.float64]:
        """Tissue that looks most like each class, (c,); tiles that overlap count by their own cell of the lattice."""
        cell = (self.grid.stride_level0 * self.grid.slide_mpp / 1000.0) ** 2
        tissue = np.minimum(self.grid.tissue, 1.0).astype(np.float64)
        return cell * np.array([tissue[self.best == number].sum() for number in range(len(self.classes))])

    @property
    def fractions(self) -> NDArray[np.float64]:
        """Share of the tissue looked at that looks most like each class, (c,); zeros when none was looked at."""
        whole = float(self.area_mm2.sum())
        return self.area_mm2 / whole if whole else np.zeros(len(self.classes))

    @property
    def how_counted(self) -> str:
        """What stands below the shares."""
        return HOW_COUNTED

    @property
    def seen(self) -> int:
        """Tiles looked at."""
        return int((self.best >= 0).sum())

    def named(self, tile: int) -> dict[str, float] | None:
        """Return one tile's probabilities by class; None where it could not be read."""
        if self.best[tile] < 0:
            return None
        return dict(zip(self.classes, self.probabilities[tile].tolist(), strict=True))

    def ranked(self) -> list[tuple[str, float, float]]:
        """Return name, share and mm² of every class, the largest first."""
        rows = zip(self.classes, self.fractions.tolist(), self.area_mm2.tolist(), strict=True)
        return sorted(rows, key=lambda row: -row[1])

    def sentence(self) -> str:
        """Return the shares as a sentence: ``62 % of the tissue looks most like tumour, 38 % like normal.``"""
        told = [(name, share) for name, share, _ in self.ranked() if share >= _WORTH_NAMING]
        if not told:
            return "Nothing was looked at."
        (name, share), *others = told[:_MOST_NAMED]
        parts = [f"{per_cent(share)} of the tissue looks most like {name}"]
        parts += [f"{per_cent(share)} like {name}" for name, share in others]
        parts += ["the rest like others"] if len(told) > _MOST_NAMED else []
        return f"{', '.join(parts)}."


class RunningClasses:
    """The classes of the tiles embedded so far: painted while embedding runs. In place of `mil.running`.

    Parameters
    ----------
    head : TileHead
    grid : TileGrid
    """

    #: There is no attention to paint.
    available = False

    def __init__(self, head: TileHead, grid: TileGrid) -> None:
        self._head, self._grid = head, grid
        self._lock = threading.Lock()
        self._found = np.full((len(grid), len(head.classes)), np.nan, np.float32)

    @property
    def tiles_seen(self) -> int:
        """Tiles looked at so far."""
        return self.classes().seen

    def take(
        self, indices: NDArray[np.int64], features: NDArray[np.floating], damaged: NDArray[np.bool_] | None = None
    ) -> None:
        """Take in features (k, d) of tiles (k,) just computed; damaged ones are left out."""
        usable = np.isfinite(features).all(axis=1)
        if damaged is not None:
            usable &= ~damaged
        found = self._head.probabilities(features[usable])
        with self._lock:
            self._found[np.asarray(indices)[usable]] = found

    def classes(self) -> TileClasses:
        """Return what is known so far."""
        with self._lock:
            found = self._found.copy()
        bundle = self._head.bundle
        return TileClasses(self._grid, self._head.classes, found, bundle.name, bundle.digest)

    def share(self) -> NDArray[np.float32]:
        """Return no attention, (n,) NaN."""
        return np.full(len(self._grid), np.nan, np.float32)

    def explain(self, feature: NDArray[np.floating], tile: int | None = None) -> TileSoFar:
        """Say what one tile is among the others: nothing, it is judged alone."""
        return TileSoFar(1)


#: What can be run on a slide: a model that judges it as a whole, or a classifier of its tiles.
Model: TypeAlias = Head | TileHead


def load_model(bundle: Bundle, device: str = "cpu") -> Model:
    """Return what a bundle can say of a slide.

    Raises
    ------
    BundleMismatch
        An encoder that keeps no classifier, or a bundle of another kind.
    """
    if bundle.kind != "encoder":
        return load_head(bundle, device)
    head = load_tile_head(bundle)
    if head is None:
        raise BundleMismatch(
            "is an encoder that keeps no tile classes: it has nothing to say of a slide by itself",
            file=bundle.folder,
            do="train a model on it, or give an encoder of pretrain supervised",
        )
    return head


def load_tile_head(bundle: Bundle) -> TileHead | None:
    """Return the classifier in an encoder's bundle, None where it keeps none.

    Raises
    ------
    BundleMismatch, UnsafeFile
        Its parts do not belong together.
    """
    if bundle.kind != "encoder" or HEADS not in bundle.files:
        return None
    tensors = bundle.tensors(HEADS)
    if "classes.weight" not in tensors:
        return None
    encoder = encoder_from_bundle(bundle)
    classes, weight, bias = bundle.classes, tensors["classes.weight"], tensors.get("classes.bias")
    c, d = len(classes), encoder.dim
    if bias is None or weight.shape != (c, d) or bias.shape != (c,) or c < 2:
        raise BundleMismatch(
            f"its classifier is {tuple(weight.shape)} for {c} classes and {d} features",
            file=bundle.folder,
            do="copy the model again, or train it again",
        )
    if _names(tensors.get(CLASS_NAMES)) != list(classes):
        raise BundleMismatch(
            "the classes in bundle.json are not those its classifier was trained for, in that order",
            file=bundle.folder,
            do="copy the model again",
        )
    weight, bias = weight.astype(np.float32), bias.astype(np.float32)
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise UnsafeFile("its classifier holds numbers that are not finite", file=bundle.folder)
    return TileHead(bundle, classes, weight, bias, encoder.digest)


def _names(stored: NDArray[Any] | None) -> list[str]:
    try:
        names = json.loads(bytes(np.asarray([] if stored is None else stored, np.uint8).ravel()[:65_536]))
    except ValueError:
        return []
    return [str(name) for name in names] if isinstance(names, list) else []


def kept_by(encoder: Encoder) -> TileHead | None:
    """Return the classifier that lies beside an encoder's weights, None where there is none.

    A slide model trained on such an encoder gets the class map for nothing: its features are there already.
    """
    folder = encoder.weights.parent if encoder.weights is not None else None
    if folder is None or not (folder / HEADS).is_file() or not (folder / MANIFEST).is_file():
        return None
    head = _kept_in(folder, encoder.sha256)
    return head if head is not None and head.encoder_digest == encoder.digest else None


@lru_cache(maxsize=4)
def _kept_in(folder: Path, sha256: str) -> TileHead | None:
    return load_tile_head(load_bundle(folder))  # verifies every file: once, not for every slide


def judge_of(model: Model) -> Judge | None:
    """Return the judge of an encoder's other precisions: a slide's probabilities, or the tiles' mean ones."""
    from .mil.checking import check_judge

    if isinstance(model, Head):
        return check_judge(model)
    head = model
    return lambda features: head.probabilities(features).mean(axis=0)


def per_cent(share: float) -> str:
    """Return a share of tissue: whole per cent, below one as such."""
    if 0 < share < 0.01:
        return "below 1 %"
    return "above 99 %" if 0.99 < share < 1 else f"{share:.0%}".replace("%", " %")


def class_words(named: Mapping[str, float]) -> list[str]:
    """Return a tile's likeliest classes, one a line: ``tumour 0.91``."""
    from .answer import belief_words

    told = sorted(named.items(), key=lambda item: -item[1])[:_MOST_NAMED]
    return [f"{name} {belief_words(p)}" for place, (name, p) in enumerate(told) if p >= _WORTH_SAYING or not place]
