"""What is asked with: the tiles to be like and those not to be like."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .similar_jobs import Example

#: What the next click does.
NEW, LIKE, UNLIKE = "new", "like", "unlike"


@dataclass
class Question:
    """The examples of one search.

    Attributes
    ----------
    examples : tuple of Example
    next_click : str
        ``new``, ``like`` or ``unlike``.
    """

    examples: tuple[Example, ...] = ()
    next_click: str = NEW

    @property
    def ready(self) -> bool:
        """Whether there is a tile to be like."""
        return any(example.like for example in self.examples)

    def click(self, example: Example) -> bool:
        """Take a tile that was clicked; False: a tile not to be like cannot be the first."""
        if self.next_click == NEW:
            self.examples = (example,)
            return True
        if self.next_click == UNLIKE and not self.ready:
            return False
        self.forget_unknown()
        self.add(replace(example, like=self.next_click == LIKE))
        return True

    def add(self, example: Example) -> None:
        """Ask with another tile, too."""
        self.examples = (*self.examples, example)

    def drop(self, number: int) -> None:
        """Ask without a tile."""
        self.examples = tuple(example for k, example in enumerate(self.examples) if k != number)

    def forget_unknown(self) -> None:
        """Leave out what was clicked and could not be looked at."""
        self.examples = tuple(example for example in self.examples if example.asked is not None)

    def is_of(self, content_id: str) -> bool:
        """Whether any tile is of a slide."""
        return any(example.content_id == content_id for example in self.examples)
