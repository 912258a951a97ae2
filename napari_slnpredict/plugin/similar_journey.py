"""From a tile that was found to its slide, and back; what to do when a slide is not where its index says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal

if TYPE_CHECKING:
    from napari_slnpredict.retrieval import Hit, Index, Page

    from .controller import Controller
    from .last_view import LastView

#: A tile is shown at no less than this magnification.
LEAST_MAGNIFICATION = 10


@dataclass(frozen=True)
class Square:
    """How large a tile is: what the outline needs of a grid."""

    slide_mpp: float
    size_level0: float


class Journey(QObject):
    """The jumps of one viewer, and where its slides lie.

    Parameters
    ----------
    controller : Controller
    parent : QObject
    """

    changed = Signal()  # a slide is lost or found again, or the way back

    def __init__(self, controller: Controller, parent: QObject) -> None:
        super().__init__(parent)
        self._controller = controller
        self.paths: dict[str, Path] = {}  # where slides of this session lie, by content id
        self.lost: Hit | None = None  # its slide is not where the index says: the user is asked
        self.told = ""  # what is wrong with the file the user chose for it
        self._jump: Hit | None = None
        self._restore: LastView | None = None
        self._back: list[tuple[Path, LastView]] = []
        controller.slides.failed.connect(self._failed)
        self._note()

    @property
    def can_go_back(self) -> bool:
        """Whether there is a way back."""
        return bool(self._back)

    def go_to(self, hit: Hit, index: Index | None) -> None:
        """Show a tile; its slide is opened when it is another one."""
        shown, view = self._controller.slides.current, self._controller.camera.stand()
        self.forget()
        if shown is not None and view is not None:
            self._back.append((Path(shown.slide.path), view))
        if shown is not None and shown.slide.content_id == hit.page.content_id:
            self._show(hit)
            return
        path = self.where(index)(hit.page)
        if path is None or not path.exists():
            self.lost = hit
            self._back = self._back[:-1]
            self.changed.emit()
            return
        self._jump = hit
        self._controller.open(path)

    def use_file(self, path: Path) -> None:
        """Take a file for the slide that is lost; it is compared when it is open."""
        self._jump = self.lost
        self._controller.open(path)

    def go_back(self) -> None:
        """Show what was on the screen before the last jump."""
        if not self._back:
            return
        path, view = self._back.pop()
        shown = self._controller.slides.current
        if shown is not None and Path(shown.slide.path) == path:
            self._controller.camera.restore(view)
        else:
            self._restore = view
            self._controller.open(path)
        self.changed.emit()

    def forget(self) -> None:
        """Ask for no slide any more."""
        self.lost, self.told, self._jump = None, "", None
        self.changed.emit()

    def arrive(self) -> bool:
        """Another slide is on the screen: show what it was opened for; whether that was so."""
        self._note()
        shown = self._controller.slides.current
        hit, restore, self._jump, self._restore = self._jump, self._restore, None, None
        if shown is None:
            self._jump, self._restore = hit, restore  # one slide goes before the other comes
            return True
        if restore is not None:
            self._controller.camera.restore(restore)
        wanted = hit or self.lost
        if wanted is None:
            return restore is not None
        if shown.slide.content_id != wanted.page.content_id:
            if hit is not None:
                name = Path(shown.slide.path).name
                self.lost, self.told = hit, f"{name} is another slide than {hit.page.slide_id} of the index."
        elif not shown.slide.mpp:
            self._jump = wanted
            self._controller.give_mpp(wanted.page.tile_px * wanted.page.mpp / wanted.page.size_level0)
        else:
            self._show(wanted)
            self.forget()
        self.changed.emit()
        return True

    def where(self, index: Index | None) -> Callable[[Page], Path | None]:
        """Return what finds the file of a page's slide, from any thread.

        It lies where it was seen in this session, or where the index says, or beside one that had moved.
        """
        paths = dict(self.paths)
        beside = list(dict.fromkeys(path.parent for path in reversed(paths.values())))

        def find(page: Page) -> Path | None:
            said = index.slide_of(page) if index is not None else None
            guesses = [paths.get(page.content_id), said]
            if said is not None:
                guesses += [folder / said.name for folder in beside]
            return next((path for path in guesses if path is not None and path.exists()), said)

        return find

    def _show(self, hit: Hit) -> None:
        shown, half = self._controller.slides.current, hit.page.size_level0 / 2
        if shown is None:
            return
        x, y = hit.location
        self._controller.camera.go_to(x + half, y + half, least_magnification=LEAST_MAGNIFICATION)
        self._controller.asks.outline.show(Square(shown.slide.mpp, hit.page.size_level0), (x, y))
        self.changed.emit()

    def _note(self) -> None:
        shown = self._controller.slides.current
        if shown is not None:
            self.paths[shown.slide.content_id] = Path(shown.slide.path)

    def _failed(self, problem: object) -> None:
        self._jump = self._restore = None
