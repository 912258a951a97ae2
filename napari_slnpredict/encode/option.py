"""Settings that explain themselves: one dataclass gives a command its flags, a form its fields, a bundle its record.

A field made by `option` carries its words, unit and limits; its kind is that of its default. Nothing else says what may
be chosen, so command, viewer and record cannot disagree.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from napari_slnpredict.errors import DataError


@dataclass(frozen=True)
class Option:
    """One thing that can be chosen.

    Attributes
    ----------
    name : str
        Of the dataclass's field.
    kind : type
        int, float, bool or str.
    default : int, float, bool or str
    text : str
        What a help page and a tooltip say.
    unit : str
    choices : tuple of str
        Empty: anything of its kind.
    low, high : float or None
        Limits, allowed themselves.
    main : bool
        Shown at once; the others are folded away in a form.
    """

    name: str
    kind: type
    default: Any
    text: str
    unit: str = ""
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    main: bool = False

    @property
    def flag(self) -> str:
        """How a command spells it."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def help(self) -> str:
        """The words of a help page: text, unit, choices."""
        words = self.text + (f", {self.unit}" if self.unit else "")
        return words + (f": {', '.join(self.choices)}" if self.choices else "")

    def problem(self, value: Any) -> str:
        """What is wrong with a value, in words; "" when nothing is."""
        if self.kind is float and isinstance(value, (int, float)) and not math.isfinite(value):
            return f"{value} is no number"
        if self.choices and value not in self.choices:
            return f"{value!r} is none of {', '.join(self.choices)}"
        if self.low is not None and value < self.low:
            return f"{value:g} is less than {self.low:g}"
        if self.high is not None and value > self.high:
            return f"{value:g} is more than {self.high:g}"
        return ""

    def spelt(self, value: Any) -> list[str]:
        """Return the words of a command line that ask for a value."""
        if self.kind is bool:
            return [self.flag if value else f"--no-{self.flag.removeprefix('--')}"]
        return [self.flag, f"{value:g}" if self.kind is float and float(f"{value:g}") == value else str(value)]


def option(
    default: Any,
    text: str,
    unit: str = "",
    *,
    choices: tuple[str, ...] = (),
    low: float | None = None,
    high: float | None = None,
    main: bool = False,
) -> Any:
    """Return a dataclass field that says what it means; see `Option`."""
    words = {"text": text, "unit": unit, "choices": choices, "low": low, "high": high, "main": main}
    return field(default=default, metadata=words)


def options_of(settings: Any) -> tuple[Option, ...]:
    """Return what can be chosen in a dataclass (or an instance of one), in its order."""
    return tuple(
        Option(one.name, type(one.default), one.default, **one.metadata)
        for one in dataclasses.fields(settings)
        if "text" in one.metadata
    )


def given(settings: Any) -> dict[str, Any]:
    """Return the values that are not the defaults, by name."""
    values = {one.name: getattr(settings, one.name) for one in options_of(settings)}
    return {one.name: values[one.name] for one in options_of(settings) if values[one.name] != one.default}


def spelt(settings: Any) -> list[str]:
    """Return the flags that ask for these settings on a command line; defaults are left out."""
    known = {one.name: one for one in options_of(settings)}
    return [word for name, value in given(settings).items() for word in known[name].spelt(value)]


def check_options(settings: Any) -> None:
    """Raise `DataError` for the first value that cannot be."""
    for one in options_of(settings):
        problem = one.problem(getattr(settings, one.name))
        if problem:
            raise DataError(f"{one.flag}: {problem}", do=f"it is: {one.help}")
