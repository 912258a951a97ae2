"""Stains: what two dyes a slide or a tile holds, and the same tissue in the stain of another one.

::

    fit = fit_macenko(tiles)                        # (b, h, w, 3) on any device; a failure is a code, not an exception
    same = restain(tiles, fit, fit.take([0]))       # all in the stain of the first
    own = events.run(slide_stain(slide, tissue))    # one matrix a slide
    levels = stained_levels(slide, own, REFERENCE)  # the slide in another stain, lazily
"""

from .jitter import JitterSpec, jitter
from .macenko import fit_macenko
from .matrix import REFERENCE, ColourFit, FitSpec, Outcome, SlideColours, StainFit, StainMatrix, fit_of
from .of_slide import painter, slide_colours, slide_stain, stained_levels
from .paint import Restainer
from .recolourer import Recolourer
from .reinhard import fit_reinhard, recolour
from .restain import NORMALISERS, Normaliser, find_normaliser, restain
from .unmix import amounts
from .vahadane import fit_vahadane

__all__ = [
    "NORMALISERS",
    "REFERENCE",
    "ColourFit",
    "FitSpec",
    "JitterSpec",
    "Normaliser",
    "Outcome",
    "Recolourer",
    "Restainer",
    "SlideColours",
    "StainFit",
    "StainMatrix",
    "amounts",
    "find_normaliser",
    "fit_macenko",
    "fit_of",
    "fit_reinhard",
    "fit_vahadane",
    "jitter",
    "painter",
    "recolour",
    "restain",
    "slide_colours",
    "slide_stain",
    "stained_levels",
]
