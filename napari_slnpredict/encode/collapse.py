"""Has the encoder stopped telling tiles apart? What self-supervised training dies of, noticed early."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

from napari_slnpredict.errors import DataError
from napari_slnpredict.torch_door import import_torch

#: Spread of unit vectors over directions: 1 when they fill them all, 0 when all are one.
LEAST_SPREAD = 0.02
#: Directions in which features differ, as a number (effective rank).
LEAST_RANK = 1.5
#: Mean distance of tiles far apart, of unit vectors.
LEAST_FAR = 0.3
#: Looks in a row that must all be bad: a single batch may hold one slide.
_LOOKS = 5


@dataclass(frozen=True)
class Health:
    """How a batch of vectors is spread.

    Attributes
    ----------
    spread : float
        Mean squared distance of unit vectors from their mean: 0 when all are equal, near 1 when they point anywhere.
    rank : float
        Exponential of the entropy of the covariance's eigenvalues (Roy and Vetterli 2007): directions in use.
    far : float or None
        Mean distance of pairs that are far apart, where the method has such.
    """

    spread: float
    rank: float
    far: float | None = None

    @property
    def complaint(self) -> str:
        """What is wrong, in words; "" when nothing is."""
        if self.spread < LEAST_SPREAD:
            return f"all tiles get nearly the same vector (spread {self.spread:.3f})"
        if self.rank < LEAST_RANK:
            return f"vectors differ along one direction only (effective rank {self.rank:.1f})"
        if self.far is not None and self.far < LEAST_FAR:
            return f"tiles far apart lie {self.far:.2f} from each other"
        return ""


def health(vectors: Tensor, far: Any = None) -> Health:
    """Look at a batch of vectors.

    Parameters
    ----------
    vectors : (b, k)
        Of any length; b at least 2.
    far : (pairs,) float tensor, optional
        Distances of far pairs of unit vectors.
    """
    torch = import_torch()
    with torch.no_grad():
        unit = torch.nn.functional.normalize(vectors.detach().float(), dim=1)
        centred = unit - unit.mean(dim=0)
        variance = torch.linalg.svdvals(centred).pow(2)
        share = variance / variance.sum().clamp_min(1e-20)
        entropy = -(share * share.clamp_min(1e-20).log()).sum()
        spread = float(centred.pow(2).sum(dim=1).mean())
        # Vectors all equal differ along no direction; their rounding would look like many.
        rank = float(entropy.exp()) if spread > 1e-8 else 0.0
        apart = None if far is None or not len(far) else float(far.mean())
    return Health(spread, rank, apart)


class Alarm:
    """Stops a training whose vectors have collapsed in several looks in a row."""

    def __init__(self) -> None:
        self._bad: deque[bool] = deque(maxlen=_LOOKS)

    def look(self, seen: Health, step: int) -> None:
        """Note one look. Raises `DataError` when all of the last few were bad."""
        self._bad.append(bool(seen.complaint))
        if len(self._bad) == _LOOKS and all(self._bad):
            raise DataError(
                f"training collapsed by step {step}: {seen.complaint}",
                do="lower the learning rate, enlarge the batch, or draw from more slides",
            )
