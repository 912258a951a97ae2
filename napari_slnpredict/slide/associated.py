"""The label, macro and thumbnail pictures beside a slide: decoded on request only, kept nowhere.

A label carries a name or an accession number, and a macro often shows the label again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_slnpredict.errors import CorruptSlide

from .backends import open_tiffslide
from .directory import Inspection
from .handle import SlideFile
from .source import WHITE, over_white

#: The names that may be asked for; a vendor's further pictures (focus maps) show nothing a reader of slides needs.
NAMES = ("label", "macro", "thumbnail")
#: Largest such picture, px.
LIMIT_PX = 1 << 26


def associated_names(file: SlideFile, inspection: Inspection) -> tuple[str, ...]:
    """Return which of `NAMES` the slide has; nothing is decoded."""
    try:
        with _library(file, inspection) as handle:
            return tuple(name for name in NAMES if name in set(handle.associated_images.keys()))
    except CorruptSlide:
        return ()


def associated_image(file: SlideFile, inspection: Inspection, name: str) -> NDArray[np.uint8]:
    """Decode one picture, (h, w, 3) uint8."""
    with _library(file, inspection) as handle:
        picture = handle.associated_images[name]
        if picture.width * picture.height > LIMIT_PX:
            raise CorruptSlide(f"its {name} picture is absurdly large", file=inspection.path, do="leave it out")
        pixels = np.asarray(picture.convert("RGBA"))
    colour, alpha = np.ascontiguousarray(pixels[..., :3]), pixels[..., 3]
    return colour if (alpha == WHITE).all() else over_white(colour, alpha, premultiplied=False)


@contextlib.contextmanager
def _library(file: SlideFile, inspection: Inspection) -> Iterator[Any]:
    """Lend a library's handle for a moment, its errors turned into ours."""
    handle: Any = None
    try:
        if inspection.directories:
            handle = open_tiffslide(file)
        else:
            import openslide

            handle = openslide.OpenSlide(str(file.path))
        yield handle
    except CorruptSlide:
        raise
    except Exception as error:  # whatever a library raises on a strange file
        raise CorruptSlide(
            f"its pictures beside the slide cannot be read ({type(error).__name__})",
            file=inspection.path,
            do="the slide itself may be sound",
        ) from error
    finally:
        if handle is not None:
            handle.close()
