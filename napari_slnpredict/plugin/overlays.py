"""Everything of ours that lies on the slide, shown or hidden as one."""

from __future__ import annotations

import weakref
from typing import Any

from .click import OUTLINE, Outline
from .layers import ROLE_KEY
from .maps import MAP_LAYERS, Maps
from .score_layer import SCORES
from .similar_roles import SIMILAR_LAYERS
from .tissue_layer import TISSUE

ROLES = (*MAP_LAYERS, SCORES, *SIMILAR_LAYERS, TISSUE, OUTLINE)


class Overlays:
    """The overlays of one viewer.

    Parameters
    ----------
    viewer : napari.Viewer
        Held weakly.
    maps : Maps
        Which of its two layers shall be seen.
    outline : Outline
        Whose layer stays hidden while it outlines nothing.
    """

    def __init__(self, viewer: Any, maps: Maps, outline: Outline) -> None:
        self._viewer = weakref.ref(viewer)
        self._maps, self._outline = maps, outline
        self._hidden: list[Any] = []

    def show(self, visible: bool | None) -> None:
        """Show or hide them all; what the user had hidden stays hidden. None: the other way round."""
        current = [layer for layer in self._layers() if layer.visible]
        if visible is None:
            visible = not current
        if not visible:
            self._hidden = current
            for layer in current:
                layer.visible = False
            return
        for layer in self._hidden or self._wanted():
            if layer.metadata[ROLE_KEY] != OUTLINE or self._outline.shown:
                layer.visible = True
        self._hidden = []

    def _layers(self) -> list[Any]:
        viewer = self._viewer()
        return [] if viewer is None else [layer for layer in viewer.layers if layer.metadata.get(ROLE_KEY) in ROLES]

    def _wanted(self) -> list[Any]:
        others = {*MAP_LAYERS} - {self._maps.state.layer}
        return [layer for layer in self._layers() if layer.metadata[ROLE_KEY] not in others]
