"""Open anyone's scores: a CSV or an HDF5 file of CLAM, TRIDENT, STAMP, WSInfer, ours, or of anybody.

A file is recognised by what is in it. What it does not tell (the tiles' size, the unit of the places) is asked, never
guessed: `MissingPlaces` says what is missing, `Answers` brings it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import MissingScale
from napari_slnpredict.events import Job

from .child import read_in_child
from .places import Places, lay_places, spacing
from .raw import PROGRAMS, RawScores, ScoresError

if TYPE_CHECKING:
    from napari_slnpredict.slide.slide import Slide

#: Share of tiles beyond the slide's edge above which the scores must belong to another slide.
MOST_OUTSIDE = 0.02
#: Share of rows that repeat a place above which the table must hold several slides or several runs.
MOST_REPEATED = 0.5
#: What a size may be, level-0 px.
SIZES = (1.0, 100_000.0)


class MissingPlaces(ScoresError):
    """A score file that does not tell where or how large its tiles are.

    Parameters
    ----------
    missing : tuple of str
        ``size``, ``unit``.
    suggestion : float or None
        Distance of neighbouring places, in the file's unit: the size where tiles do not overlap.
    unit : str
        What is known of the unit: ``px``, ``um`` or empty.
    """

    title = "These scores do not say where they lie"

    def __init__(
        self,
        what: str,
        *,
        file: Path | str | None = None,
        do: str = "",
        missing: tuple[str, ...] = (),
        suggestion: float | None = None,
        unit: str = "",
    ) -> None:
        super().__init__(what, file=file, do=do)
        self.missing, self.suggestion, self.unit = missing, suggestion, unit

    def __reduce__(self) -> tuple[object, ...]:
        """Errors travel between processes with their parts."""
        return _rebuild, (self.what, self.file, self.do, self.missing, self.suggestion, self.unit)


def _rebuild(
    what: str, file: str | None, do: str, missing: tuple[str, ...], suggestion: float | None, unit: str
) -> MissingPlaces:
    return MissingPlaces(what, file=file, do=do, missing=missing, suggestion=suggestion, unit=unit)


@dataclass(frozen=True)
class Answers:
    """What the user knows where a file does not say.

    Attributes
    ----------
    size : float or None
        Side of a tile, in the unit of the file's places.
    unit : str
        ``px`` (level 0), ``um``, a number of um per unit, or empty.
    """

    size: float | None = None
    unit: str = ""


@dataclass(frozen=True)
class SlideFacts:
    """What must be known of a slide to place tiles on it."""

    slide_id: str
    mpp: float | None
    dimensions: tuple[int, int]
    level_dimensions: tuple[tuple[int, int], ...]
    level_downsamples: tuple[float, ...]


def facts_of(slide: Slide | Any) -> SlideFacts:
    """Return the facts of an open slide."""
    width, height = slide.dimensions
    own = slice(slide.stored_level_count)  # other programs know the file's own levels only
    return SlideFacts(
        str(slide.slide_id),
        slide.mpp,
        (int(width), int(height)),
        tuple((int(w), int(h)) for w, h in slide.level_dimensions[own]),
        tuple(float(v) for v in slide.level_downsamples[own]),
    )


@dataclass(frozen=True)
class Column:
    """One number per tile.

    Attributes
    ----------
    name, unit : str
    values : (n,) float32
        NaN where nothing is known.
    two_sided : bool
        Zero is the middle: evidence for and against.
    is_share : bool
        The values sum to one: times n they are multiples of the mean.
    """

    name: str
    unit: str
    values: NDArray[np.float32] = field(repr=False)
    two_sided: bool = False
    is_share: bool = False


@dataclass(frozen=True)
class ForeignScores:
    """Scores that lie on a slide.

    Attributes
    ----------
    source : str
        The file's name.
    kind : str
        A key of `raw.PROGRAMS`.
    places : Places
    columns : tuple of Column
        At least one; for a file without scores one that says where its tiles lie.
    notes : tuple of str
        What the user must know: tiles left out, values that are no numbers, features without scores.
    coverage_only : bool
        The file holds no scores.
    """

    source: str
    kind: str
    places: Places
    columns: tuple[Column, ...]
    notes: tuple[str, ...] = ()
    coverage_only: bool = False

    @property
    def program(self) -> str:
        """What made the file, in words."""
        return PROGRAMS[self.kind]


def read_scores(path: Path, facts: SlideFacts, answers: Answers | None = None) -> Job[ForeignScores]:
    """Read a score file and lay it on a slide.

    Raises
    ------
    ScoresError
        The file is wrong, or belongs to another slide.
    MissingPlaces
        The file does not tell the tiles' size or the unit of their places, nor do the answers.
    MissingScale
        The slide has no pixel size.
    """
    raw = yield from read_in_child(Path(path))
    return lay_scores(raw, Path(path).name, facts, answers or Answers())


def lay_scores(raw: RawScores, source: str, facts: SlideFacts, answers: Answers) -> ForeignScores:
    """Lay what a file holds on a slide; `read_scores` says what can be wrong."""
    if not facts.mpp:
        raise MissingScale("the slide has no pixel size, so its maps have no place", file=source, do="give it first")
    notes: list[str] = []
    raw = _only_this_slide(raw, source, facts, notes)
    _check_slide(raw, source, facts)
    locations, size = _in_pixels(raw, source, facts, answers)
    _check_size(size, source, facts)
    inside = _inside(locations, size, source, facts, notes)
    locations, values = _unique(locations[inside], raw.values[inside], source, notes)
    places = lay_places(
        locations, size, slide_id=facts.slide_id, slide_mpp=facts.mpp, extent=facts.dimensions, file=source
    )
    if not places.exact:
        notes.append(f"The tiles lie irregularly: their edges are drawn to the nearest {places.step:.3g} px.")
    columns = tuple(_column(raw.kind, name, values[:, k], notes) for k, name in enumerate(raw.names))
    if columns:
        return ForeignScores(source, raw.kind, places, columns, tuple(notes))
    holds = f"It holds {raw.holds}" if raw.holds else "It holds places"
    notes.insert(0, f"{holds}, but no score per tile: the map shows where its tiles lie.")
    where = Column("tiles", "1 where the file has a tile", np.ones(len(places), np.float32))
    return ForeignScores(source, raw.kind, places, (where,), tuple(notes), coverage_only=True)


def _only_this_slide(raw: RawScores, source: str, facts: SlideFacts, notes: list[str]) -> RawScores:
    """Keep this slide's rows of a table of several slides."""
    mine = [k for k, name in enumerate(raw.slides) if _same_name(name, facts.slide_id)]
    if len(raw.slides) > 1:
        if not mine:
            what = f"has rows of {len(raw.slides)} slides, none named {facts.slide_id}"
            raise ScoresError(what, file=source, do="open the slide they belong to, or name it as the table does")
        keep = np.isin(raw.slide_of, mine)
        return replace(raw, coords=raw.coords[keep], values=raw.values[keep])
    if raw.slides and not mine:
        notes.append(f"The file names the slide {raw.slides[0]}, this one is {facts.slide_id}.")
    return raw


def _same_name(name: str, slide_id: str) -> bool:
    return slide_id.lower() in (name.lower(), Path(name).stem.lower())


def _check_slide(raw: RawScores, source: str, facts: SlideFacts) -> None:
    """Refuse scores whose slide has another size."""
    if raw.extent is None or raw.extent_level >= len(facts.level_dimensions):
        return
    here = facts.level_dimensions[raw.extent_level]
    if raw.extent != here:
        at = "" if raw.extent_level == 0 else f" at level {raw.extent_level}"
        what = f"was made on a slide of {_by(raw.extent)} px{at}, this one has {_by(here)}"
        raise ScoresError(what, file=source, do="open the slide they belong to")


def _by(pair: tuple[float, float]) -> str:
    return f"{round(pair[0]):,} × {round(pair[1]):,}"


def _in_pixels(raw: RawScores, source: str, facts: SlideFacts, answers: Answers) -> tuple[NDArray[np.float64], float]:
    """Return corners, (n, 2) float64, and side of the tiles in level-0 px."""
    assert facts.mpp
    if not np.isfinite(raw.coords).all():
        first = int(np.flatnonzero(~np.isfinite(raw.coords).all(axis=1))[0])
        raise ScoresError(f"the place of tile {first + 1} is not a number", file=source, do="mend the file")
    unit = raw.unit or answers.unit
    size = raw.size if raw.size is not None else answers.size
    missing = tuple(name for name, known in (("unit", unit), ("size", size)) if not known)
    if size is None or missing:
        raise _missing(raw, source, missing)
    scale = px_per_unit(unit, facts.mpp)
    level = raw.size_level if raw.size is not None else None
    if level is not None:
        if level >= len(facts.level_downsamples):
            what = f"its tiles are cut from level {level}, this slide has {len(facts.level_downsamples)} levels"
            raise ScoresError(what, file=source, do="open the slide they belong to")
        size *= facts.level_downsamples[level]
    side = float(size) * scale
    return raw.coords * scale - (side / 2 if raw.centred else 0.0), side


def px_per_unit(unit: str, mpp: float) -> float:
    """Return how many level-0 px one unit of a file's places is.

    Raises
    ------
    ScoresError
        Neither ``px`` nor ``um`` nor a positive number.
    """
    if unit == "px":
        return 1.0
    try:
        um = 1.0 if unit == "um" else float(unit)
    except ValueError:
        um = 0.0
    if not 0 < um < 1e6:
        raise ScoresError(f"{unit!r} is no unit of places", do="give px, um, or the um of one unit")
    return um / mpp


def _missing(raw: RawScores, source: str, missing: tuple[str, ...]) -> MissingPlaces:
    apart = spacing(raw.coords)
    words = {"unit": "in which unit its places are", "size": "how large its tiles are"}
    what = f"does not say {' and '.join(words[name] for name in missing)}"
    if "size" in missing and raw.missing:
        what += f" (it lacks {' and '.join(raw.missing)})"
    told = f"; its places lie {apart:g} apart" if apart is not None else ""
    return MissingPlaces(
        what + told,
        file=source,
        do="give it: in the dock, or with --scores-size and --scores-unit",
        missing=missing,
        suggestion=apart,
        unit=raw.unit,
    )


def _check_size(size: float, source: str, facts: SlideFacts) -> None:
    if not SIZES[0] <= size <= min(SIZES[1], max(facts.dimensions)):
        what = f"its tiles would be {size:,.3g} px wide on a slide of {_by(facts.dimensions)}"
        raise ScoresError(what, file=source, do="check the size and the unit")


def _inside(
    locations: NDArray[np.float64], size: float, source: str, facts: SlideFacts, notes: list[str]
) -> NDArray[np.bool_]:
    """Return which tiles touch the slide, (n,) bool: a lattice may reach over the edge."""
    touches = (locations + size > 0.5) & (locations < np.array(facts.dimensions) - 0.5)
    inside = np.asarray(touches.all(axis=1), np.bool_)
    outside = len(inside) - int(inside.sum())
    if outside > MOST_OUTSIDE * len(inside):
        reach = locations.max(axis=0) + size
        what = (
            f"{100 * outside / len(inside):.0f} % of its tiles lie beyond the slide: they reach to {_by(reach)} px, "
            f"the slide has {_by(facts.dimensions)}. These scores belong to another slide, or their unit is another"
        )
        raise ScoresError(what, file=source, do="open the slide they belong to, or check the unit")
    if outside:
        notes.append(f"{outside:,} of {len(inside):,} tiles lie beyond the slide's edge and are left out.")
    return inside


def _unique(
    locations: NDArray[np.float64], values: NDArray[np.float64], source: str, notes: list[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Merge rows of one place: their mean stands there."""
    rounded = np.rint(locations * 16).astype(np.int64)
    order = np.lexsort((rounded[:, 0], rounded[:, 1]))
    new = np.append(True, (np.diff(rounded[order], axis=0) != 0).any(axis=1))
    repeated = len(order) - int(new.sum())
    if not repeated:
        return locations, values
    if repeated > MOST_REPEATED * len(order):
        what = f"{repeated:,} of {len(order):,} rows repeat a place"
        raise ScoresError(what, file=source, do="give one slide and one run, one row a tile")
    first = np.flatnonzero(new)
    with np.errstate(invalid="ignore"):
        known = np.isfinite(values[order])
        total = np.add.reduceat(np.where(known, values[order], 0.0), first, axis=0)
        count = np.add.reduceat(known.astype(np.int64), first, axis=0)
        means = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    notes.append(f"{repeated:,} rows repeat a place: the mean stands there.")
    # In the order of the file.
    back = np.argsort(order[first], kind="stable")
    return locations[order[first]][back], means[back]


def _column(kind: str, name: str, values: NDArray[np.float64], notes: list[str]) -> Column:
    """Name a column's unit by what it holds."""
    known = np.isfinite(values)
    lost = len(values) - int(known.sum())
    if lost:
        every = lost == len(values)
        notes.append(f"{name}: {'no value is' if every else f'{lost:,} values are not'} a finite number.")
    told = values[known]
    is_share = bool(len(told) > 1 and (told >= 0).all() and abs(float(told.sum()) - 1.0) < 1e-3)
    evidence = kind == "slnpredict" and name.startswith("evidence_")
    if evidence:
        unit = "logit"
    elif is_share:
        unit = "weight, all tiles sum to 1"
    elif name.startswith("prob_") and len(told) and told.min() >= 0 and told.max() <= 1:
        unit = "probability"
    else:
        unit = "as in the file"
    clean = np.where(known, values, np.nan).astype(np.float32)
    return Column(name, unit, clean, two_sided=evidence, is_share=is_share)
