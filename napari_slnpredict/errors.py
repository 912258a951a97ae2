"""Every error the program raises on purpose.

::

    SlnPredictError                exit 1
    ├── SlideError                 exit 1   one slide cannot be used; the others go on
    │   ├── CorruptSlide                    the file is damaged or ends early
    │   ├── SlideStalled                    the drive or share it lies on does not answer
    │   ├── UnsupportedSlide                a kind of file no reader here opens
    │   ├── NotBrightfield                  fluorescence, 16 bit, grey: models here cannot judge it
    │   └── MissingScale                    no believable um/px
    ├── ModelError                 exit 3   the environment lacks a usable model
    │   ├── MissingWeights                  a name without weights: says where they go
    │   ├── BundleMismatch         exit 1   model and slide or features do not belong together
    │   └── UnsafeFile                      wrong hash, a pickle, a path outside the folder
    ├── DataError                  exit 1   cohort table, split or features are wrong
    ├── ResourceError              exit 3   no memory, no disk, folder not writable
    └── Cancelled                  exit 130 asked for by the user; not an error, resumable

A message is built from three parts, in this order: which file, what is wrong, what to do.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar


def one_line(text: object, limit: int = 400) -> str:
    """Return text safe to print on one line: control characters escaped, cut at `limit` characters.

    File names are chosen by strangers: a line feed or an escape sequence in one must not reach a terminal or a report.
    """
    escaped = "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in str(text)
    )
    return escaped if len(escaped) <= limit else escaped[: limit - 1] + "…"


class SlnPredictError(Exception):
    """Base of all errors raised on purpose.

    Parameters
    ----------
    what : str
        What is wrong, in words a user knows.
    file : path or str, optional
        The file concerned; only its name is shown (absolute paths never leave the program).
    do : str, optional
        What the user can do about it.
    """

    exit_code: ClassVar[int] = 1
    #: Short heading in the dock.
    title: ClassVar[str] = "Something went wrong"

    def __init__(self, what: str, *, file: Path | str | None = None, do: str = "") -> None:
        self.what, self.file, self.do = what, (Path(file).name if file is not None else None), do
        subject = f"{one_line(self.file, 120)}: " if self.file else ""
        remedy = f". {do[:1].upper()}{do[1:]}." if do else ""
        super().__init__(one_line(f"{subject}{what}{remedy}", 900))

    def __reduce__(self) -> tuple[object, ...]:
        """Errors travel between processes with their parts."""
        return _rebuild, (type(self), self.what, self.file, self.do)


def _rebuild(kind: type[SlnPredictError], what: str, file: str | None, do: str) -> SlnPredictError:
    return kind(what, file=file, do=do)


class SlideError(SlnPredictError):
    """A slide that cannot be used."""

    title = "This slide cannot be used"


class CorruptSlide(SlideError):
    """The file is damaged or incomplete."""

    title = "This file is damaged"


class SlideStalled(SlideError):
    """A read has not come back: the drive or network share does not answer. The file itself may be sound."""

    title = "The drive or share does not answer"


class UnsupportedSlide(SlideError):
    """No reader here opens this kind of file."""

    title = "This kind of file cannot be opened"


class NotBrightfield(SlideError):
    """Fluorescence, 16 bit, grey-scale and the like: opened for no model."""

    title = "Not a brightfield slide"


class MissingScale(SlideError):
    """No believable micrometres per pixel."""

    title = "The pixel size is missing"


class ModelError(SlnPredictError):
    """A model cannot be used."""

    exit_code = 3
    title = "This model cannot be used"


class MissingWeights(ModelError):
    """A model name without weights on this machine."""

    title = "The model's weights are not here"


class BundleMismatch(ModelError):
    """A model and a slide, or a model and features, that do not belong together."""

    exit_code = 1
    title = "Model and slide do not fit"


class UnsafeFile(ModelError):
    """A model file that fails its hash, holds code, or points outside its folder."""

    title = "This model file is not safe"


class DataError(SlnPredictError):
    """A cohort table, a split or a feature file that is wrong."""

    title = "The data are wrong"


class ResourceError(SlnPredictError):
    """The machine cannot: memory, disk, rights."""

    exit_code = 3
    title = "This machine cannot do it"


class Cancelled(SlnPredictError):
    """The user stopped the work; what was done is kept."""

    exit_code = 130
    title = "Stopped"
