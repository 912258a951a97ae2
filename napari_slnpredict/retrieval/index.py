"""An index: a folder with one page a slide.

Adding a slide touches nothing else, a killed run goes on where it was, and several processes may add to one index.
"""

from __future__ import annotations

import os
from pathlib import Path

from napari_slnpredict.errors import BundleMismatch, DataError, MissingWeights, ResourceError, UnsafeFile
from napari_slnpredict.files import write_file

from .pages import SUFFIX, Page, page_bytes, read_page


class Index:
    """A folder of pages, all of one encoder and one size of tile.

    Parameters
    ----------
    folder : Path
        Need not exist yet.

    Raises
    ------
    DataError
        A page that cannot be read (named).
    BundleMismatch
        Pages of different encoders (both named).
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.pages: list[Page] = []
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            page = read_page(path)
            self.check(page)
            self.pages.append(page)

    def __len__(self) -> int:
        """Return the number of tiles."""
        return sum(len(page) for page in self.pages)

    @property
    def first(self) -> Page | None:
        """A page that says what all of them hold; None while there is none."""
        return self.pages[0] if self.pages else None

    def holds(self, content_id: str) -> bool:
        """Whether a slide is in it, under whatever name."""
        return self.page(content_id) is not None

    def page(self, content_id: str) -> Page | None:
        """Return a slide's page."""
        return next((page for page in self.pages if page.content_id == content_id), None)

    def check(self, page: Page) -> None:
        """Raise `BundleMismatch` unless a page's descriptors can be compared with those here."""
        self.require(page.encoder_digest, page.holds, (page.tile_px, page.mpp), page.slide_id)

    def require(self, digest: str, holds: str, tile: tuple[int, float], who: str) -> None:
        """Raise `BundleMismatch` unless descriptors can be compared with those here.

        Parameters
        ----------
        digest, holds : str
            What they are, as a page says it.
        tile : (int, float)
            Side in px and um/px of the tiles.
        who : str
            Whose they are, for the message.
        """
        first = self.first
        if first is None:
            return
        if digest != first.encoder_digest:
            raise BundleMismatch(
                f"the index holds the {first.holds} ({first.encoder_digest[:8]}), {who} the {holds} ({digest[:8]})",
                file=self.folder,
                do="choose the encoder of the index, or make another index for the other",
            )
        if tile != (first.tile_px, first.mpp):
            raise BundleMismatch(
                f"the index holds tiles of {first.tile_px} px at {first.mpp:g} um/px, {who} {tile[0]} px at "
                f"{tile[1]:g}",
                file=self.folder,
                do="make another index for tiles of another size",
            )

    def add(self, page: Page) -> Page:
        """Write a page, whole or not at all, in place of an older one of the same slide; return it as read back."""
        self.pages = [known for known in self.pages if known.content_id != page.content_id]
        self.check(page)
        path = write_file(self.path_of(page.content_id), page_bytes(page))
        self.pages.append(read_page(path))
        return self.pages[-1]

    def remove(self, page: Page) -> None:
        """Take a slide out."""
        self.pages = [known for known in self.pages if known.content_id != page.content_id]
        try:
            self.path_of(page.content_id).unlink(missing_ok=True)
        except OSError as error:
            raise ResourceError(
                "a page cannot be removed from the index", file=self.folder, do="check your rights"
            ) from error

    def look_again(self, content_id: str) -> Page | None:
        """Return a slide's page as it is on the disk now: another process may have written it since this was read."""
        path = self.path_of(content_id)
        if not path.is_file():
            return None
        try:
            page = read_page(path)
        except (DataError, UnsafeFile, MissingWeights):
            return None  # it is written again
        self.pages = [known for known in self.pages if known.content_id != content_id]
        self.check(page)
        self.pages.append(page)
        return page

    def path_of(self, content_id: str) -> Path:
        """Return where a slide's page lies."""
        return self.folder / f"{content_id[:40]}{SUFFIX}"

    def relative(self, slide: Path) -> str:
        """Return a slide's path as a page names it: from the index's folder, so that both can move together."""
        slide = Path(slide).resolve()
        try:
            return Path(os.path.relpath(slide, self.folder.resolve())).as_posix()
        except ValueError:  # another drive of Windows
            return slide.as_posix()

    def slide_of(self, page: Page) -> Path | None:
        """Return where the slide of a page should lie; None where the page does not say."""
        return (self.folder / page.slide_path).resolve() if page.slide_path else None


def open_index(folder: Path | str) -> Index:
    """Read an index that must be there.

    Raises
    ------
    DataError
        No such folder, or no page in it; or as `Index`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError("there is no such folder", file=folder, do="make an index with slnpredict index")
    index = Index(folder)
    if index.first is None:
        raise DataError("holds no index", file=folder, do="make one with slnpredict index")
    return index
