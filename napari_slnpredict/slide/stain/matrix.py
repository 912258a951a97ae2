"""What is known of a stain: two colours and how much of each, for one slide or for a batch of tiles.

Conventions, the same everywhere:

- **Optical density** is ``-log((I + 1) / white)``, natural logarithm, I from 0 to 255, `white` 240 unless the slide's
  own glass was measured. Rows are stains, columns red, green, blue.
- **Order**: haematoxylin first. It is the stain that takes more red light; the other one is eosin on H&E, DAB or
  another chromogen on IHC.
- **Norm and sign**: each stain is a vector of length 1 with no negative part, so that an amount is an optical density.
- **Strength** is the 99th percentile of a stain's amount over tissue: what "fully stained" means here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.torch_door import import_torch

if TYPE_CHECKING:
    from torch import Tensor

Colour: TypeAlias = tuple[float, float, float]

#: White of Macenko's reference program, a little below 255 so that glass has a density near 0.
WHITE = 240.0
#: A stain weaker than this is taken for this, optical density: a stain that is absent has no strength to divide by.
WEAKEST = 0.05
#: Amounts are multiplied by at most this, and by no less than one over it: beyond, noise is made visible, not tissue.
MOST_GAIN = 5.0
#: Mean density up to which a pixel is glass and stays as it is, and from which it is tissue; blended between.
GLASS, TISSUE = 0.04, 0.12


class Outcome(IntEnum):
    """How the estimate of one tile went; anything but `FINE` leaves the tile as it is."""

    FINE = 0
    NOT_FINITE = 1  # a pixel is NaN or infinite
    NO_TISSUE = 2  # too few pixels of tissue: glass, black, or nearly so
    DEGENERATE = 3  # tissue of one colour: two stains cannot be told apart


@dataclass(frozen=True)
class StainMatrix:
    """The stain of one slide; plain numbers, so that it can be compared, hashed, written and sent anywhere.

    Attributes
    ----------
    stains : two colours
        Haematoxylin, then the other stain: optical density in red, green, blue, length 1, none negative.
    strength : (float, float)
        99th percentile of each stain's amount over tissue, optical density.
    white : (float, float, float)
        Light through empty glass, 0 to 255, plus 1.
    method : str
        "macenko", "vahadane", or "given".
    tiles, failed : int
        Tiles it is the median of, and tiles that were looked at in vain.
    brown : float
        Share of the tissue that takes more blue than green light, 0 to 1.
    """

    stains: tuple[Colour, Colour]
    strength: tuple[float, float]
    white: Colour = (WHITE, WHITE, WHITE)
    method: str = "given"
    tiles: int = 0
    failed: int = 0
    brown: float = 0.0

    def __post_init__(self) -> None:
        norms = np.linalg.norm(self.array, axis=1)
        if self.array.shape != (2, 3) or not np.allclose(norms, 1, atol=1e-4) or (self.array < -1e-6).any():
            raise ValueError(f"stains are two colours of length 1 and nothing negative, not {self.stains}")
        if not all(math.isfinite(v) and v > 0 for v in (*self.strength, *self.white)):
            raise ValueError(f"strength {self.strength} and white {self.white} are positive numbers")
        if self.angle < 1:
            raise ValueError(f"two stains of one colour cannot be told apart: {self.stains}")

    @property
    def array(self) -> NDArray[np.float64]:
        """The two colours, (2, 3) float64."""
        return np.asarray(self.stains, np.float64)

    @property
    def angle(self) -> float:
        """Angle between the two stains, degrees."""
        first, second = self.array
        return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(first, second)), first @ second)))

    @property
    def is_brown(self) -> bool:
        """Whether the second stain takes more blue than green light: DAB and its like, in place of eosin."""
        return bool(self.array[1, 2] > self.array[1, 1])

    def angle_to(self, other: StainMatrix) -> tuple[float, float]:
        """Angle between each stain and the same stain of another slide, degrees."""
        cosine = np.clip((self.array * other.array).sum(axis=1), -1, 1)
        first, second = np.degrees(np.arccos(cosine)).tolist()
        return first, second


#: Stains of the reference image that Macenko's published program was shipped with: a target when there is no other.
REFERENCE = StainMatrix(
    stains=((0.5626, 0.7201, 0.4062), (0.2159, 0.8012, 0.5581)), strength=(1.9705, 1.0308), method="reference"
)


@dataclass(frozen=True)
class StainFit:
    """Stains of a batch of tiles, or of a slide, as tensors on the tiles' device.

    Attributes
    ----------
    stains : (b, 2, 3) float32
        As `StainMatrix.stains`; the reference's where the estimate failed.
    strength : (b, 2) float32
    white : (b, 3) float32
    outcome : (b,) int64
        An `Outcome` a tile.
    borrowed : (b,) bool
        The estimate failed and another slide's or the slide's own matrix stands in for it.
    """

    stains: Tensor
    strength: Tensor
    white: Tensor
    outcome: Tensor
    borrowed: Tensor

    def __len__(self) -> int:
        return len(self.outcome)

    @property
    def usable(self) -> Tensor:
        """Which tiles have stains to work with, (b,) bool."""
        usable: Tensor = (self.outcome == Outcome.FINE) | self.borrowed
        return usable

    def take(self, indices: Tensor | list[int]) -> StainFit:
        """Return the fit of some tiles; of one tile it is a target for any number."""
        torch = import_torch()
        chosen = torch.as_tensor(indices, device=self.outcome.device, dtype=torch.int64).reshape(-1)
        parts = (self.stains, self.strength, self.white, self.outcome, self.borrowed)
        return StainFit(*(part[chosen] for part in parts))

    def or_else(self, slide: StainMatrix) -> StainFit:
        """Return the fit with the slide's own stains for tiles without an estimate; `outcome` still says which."""
        torch = import_torch()
        own, failed = fit_of(slide, like=self.stains), self.outcome != Outcome.FINE
        return replace(
            self,
            stains=torch.where(failed[:, None, None], own.stains, self.stains),
            strength=torch.where(failed[:, None], own.strength, self.strength),
            white=torch.where(failed[:, None], own.white, self.white),
            borrowed=failed & (self.outcome != Outcome.NOT_FINITE),
        )

    def matrix(self, index: int, method: str = "given") -> StainMatrix:
        """Return one tile's stains as plain numbers."""
        stains = self.stains[index].double().cpu().numpy()
        return matrix_of(stains, self.strength[index].tolist(), self.white[index].tolist(), method)


@dataclass(frozen=True)
class ColourFit:
    """Mean and deviation of tissue in CIELAB (D65), for Reinhard's method.

    Attributes
    ----------
    mean, deviation : (b, 3) float32
        L 0 to 100, a and b about -100 to 100.
    outcome : (b,) int64
        An `Outcome` a tile.
    """

    mean: Tensor
    deviation: Tensor
    outcome: Tensor

    def __len__(self) -> int:
        return len(self.outcome)

    @property
    def usable(self) -> Tensor:
        """Which tiles have colours to work with, (b,) bool."""
        usable: Tensor = self.outcome == Outcome.FINE
        return usable

    def take(self, indices: Tensor | list[int]) -> ColourFit:
        """Return the fit of some tiles; of one tile it is a target for any number."""
        torch = import_torch()
        chosen = torch.as_tensor(indices, device=self.outcome.device, dtype=torch.int64).reshape(-1)
        return ColourFit(self.mean[chosen], self.deviation[chosen], self.outcome[chosen])


@dataclass(frozen=True)
class SlideColours:
    """Mean and deviation of one slide's tissue in CIELAB, for Reinhard's method; plain numbers, as `StainMatrix`.

    Attributes
    ----------
    mean, deviation : (float, float, float)
        L, a, b.
    tiles, failed : int
        Tiles they were taken over, and tiles that were looked at in vain.
    """

    mean: Colour
    deviation: Colour
    tiles: int = 0
    failed: int = 0

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (*self.mean, *self.deviation))) or min(self.deviation) <= 0:
            raise ValueError(f"no colours of a slide: mean {self.mean}, deviation {self.deviation}")


@dataclass(frozen=True)
class FitSpec:
    """How stains are looked for.

    Attributes
    ----------
    every : int
        Look at every so many pixels along both axes. On tiles of 224 px full of tissue 4 moves a stain by about half a
        degree, on half empty ones by two.
    density : float
        Optical density from which a pixel is tissue (beta in Macenko's words).
    faintest : bool
        That density is asked of the faintest channel, as Macenko's program does, else of the mean of the channels.
    percentile : float
        Of the hue among tissue, from both ends, where the two stains are taken (alpha).
    least_share, least_px : float, int
        Fewer tissue pixels than this share of the tile, or than this number, are too few.
    everywhere : bool
        Take strength over every pixel, as torchstain does, in place of tissue: it then falls with the share of glass.
    white : (float, float, float)
        Light through empty glass, plus 1.
    """

    every: int = 1
    density: float = 0.15
    faintest: bool = True
    percentile: float = 1.0
    least_share: float = 0.02
    least_px: int = 500
    everywhere: bool = False
    white: Colour = (WHITE, WHITE, WHITE)

    def __post_init__(self) -> None:
        if self.every < 1 or not 0 <= self.percentile < 50 or not 0 <= self.least_share <= 1:
            raise ValueError(f"no way to look for stains: {self}")


def matrix_of(
    stains: NDArray[np.floating],
    strength: list[float],
    white: list[float],
    method: str,
    tiles: int = 0,
    failed: int = 0,
) -> StainMatrix:
    """Return plain numbers from (2, 3) stains of any length and float noise below 0."""
    clean = np.clip(np.asarray(stains, np.float64), 0, None)
    clean /= np.linalg.norm(clean, axis=1, keepdims=True)
    first, second = ((float(r), float(g), float(b)) for r, g, b in clean.tolist())
    return StainMatrix(
        (first, second),
        (float(strength[0]), float(strength[1])),
        (float(white[0]), float(white[1]), float(white[2])),
        method,
        tiles,
        failed,
    )


def fit_of(matrix: StainMatrix, like: Tensor | None = None) -> StainFit:
    """Return a slide's stains as a fit of one tile, on the device of `like`."""
    torch = import_torch()
    device = like.device if like is not None else torch.device("cpu")

    def tensor(values: object) -> Tensor:
        made: Tensor = torch.tensor(values, dtype=torch.float32, device=device)[None]
        return made

    return StainFit(
        tensor(matrix.stains),
        tensor(matrix.strength),
        tensor(matrix.white),
        torch.zeros(1, dtype=torch.int64, device=device),
        torch.zeros(1, dtype=torch.bool, device=device),
    )
