"""What a bundle knows about its own limits: sets of answers that keep a promise, and slides it should not judge."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_slnpredict.errors import BundleMismatch
from napari_slnpredict.metrics.conformal import Conformal

from .domain import Domain, domain_of

if TYPE_CHECKING:
    from napari_slnpredict.bundles.bundle import Bundle

#: The file of a bundle that holds its `Domain`.
DOMAIN = "domain.safetensors"


@dataclass(frozen=True)
class Doubt:
    """Calibration of a model.

    Attributes
    ----------
    sets : Conformal or None
    domain : Domain or None
    """

    sets: Conformal | None = None
    domain: Domain | None = field(default=None, repr=False)

    def possible(self, probabilities: ArrayLike, classes: tuple[str, ...]) -> list[str] | None:
        """Return the classes a slide's set holds, in their order; None where the model has no calibrated sets.

        Parameters
        ----------
        probabilities : (c,)
            Calibrated.
        classes : tuple of str
        """
        if self.sets is None:
            return None
        held = self.sets.sets(np.asarray(probabilities, np.float64))
        return [name for name, inside in zip(classes, held.tolist(), strict=True) if inside]

    def place(self, features: Any) -> dict[str, Any] | None:
        """Return where a slide lies among the training slides (`Domain.place`); None where that is unknown."""
        return None if self.domain is None else self.domain.place(features)


def calibration_entry(temperature: float, sets: Conformal | None, classes: tuple[str, ...]) -> dict[str, Any]:
    """Return the ``calibration`` entry of a bundle; `load_doubt` and `load_head` read it."""
    entry: dict[str, Any] = {"temperature": temperature}
    if sets is not None:
        entry["coverage"] = sets.coverage
        entry["least"] = dict(zip(classes, sets.least.tolist(), strict=True))
        entry["cases"] = dict(zip(classes, sets.cases.tolist(), strict=True))
    return entry


def load_doubt(bundle: Bundle, classes: tuple[str, ...], dim: int) -> Doubt:
    """Read what a bundle knows about its limits, strictly.

    Parameters
    ----------
    bundle : Bundle
    classes : tuple of str
        Those of its head, in order.
    dim : int
        Length of the features.

    Raises
    ------
    BundleMismatch
        Thresholds that are none, or not of these classes.
    """
    domain = domain_of(bundle.tensors(DOMAIN), dim) if DOMAIN in bundle.files else None
    return Doubt(_sets(bundle, classes), domain)


def _sets(bundle: Bundle, classes: tuple[str, ...]) -> Conformal | None:
    entry = bundle.calibration or {}
    if "least" not in entry:
        return None
    coverage: Any = entry.get("coverage")
    least, cases = (_by_class(bundle, entry.get(name), classes, name) for name in ("least", "cases"))
    if not _is_number(coverage) or not 0 < coverage < 1 or (least < 0).any() or (least > 1).any() or (cases < 0).any():
        raise BundleMismatch("its calibrated sets promise nothing sensible", file=bundle.folder, do="copy it again")
    return Conformal(float(coverage), least, cases.astype(np.int64))


def _by_class(bundle: Bundle, table: Any, classes: tuple[str, ...], name: str) -> NDArray[np.float64]:
    values = [table.get(one) for one in classes] if isinstance(table, dict) and set(table) == set(classes) else [None]
    if not all(_is_number(value) for value in values):
        raise BundleMismatch(
            f"its calibration ({name}) does not name its classes", file=bundle.folder, do="copy it again"
        )
    return np.array(values, np.float64)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
