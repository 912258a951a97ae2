"""The tissue layer: shown, drawn on, kept. The next run respects what was drawn."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer, Signal

from .edits import TissueEdit
from .layers import ROLE_KEY, add_tissue

TISSUE = "tissue"
#: An edit is kept this long after its last stroke, ms (reliability R14: within 5 s).
KEEP_MS = 2000


class TissueLayer(QObject):
    """The tissue of the present slide.

    Parameters
    ----------
    viewer : napari.Viewer
        Held weakly.
    parent : QObject
    """

    edited = Signal()  # the user drew
    keep = Signal(object)  # TissueEdit to write down

    def __init__(self, viewer: Any, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = weakref.ref(viewer)
        self._by_hand = False
        self._timer = QTimer(self, singleShot=True, interval=KEEP_MS)
        self._timer.timeout.connect(self.keep_now)

    @property
    def layer(self) -> Any:
        """The Labels layer, or None."""
        viewer = self._viewer()
        if viewer is None:
            return None
        return next((layer for layer in viewer.layers if layer.metadata.get(ROLE_KEY) == TISSUE), None)

    def show(self, mask: NDArray[np.bool_], mask_mpp: float, slide_mpp: float, *, by_hand: bool = False) -> None:
        """Show a mask that was found, or drawn in an earlier session."""
        layer = add_tissue(self._viewer(), mask, mask_mpp, slide_mpp)
        layer.metadata["mpp"] = mask_mpp
        self._by_hand = by_hand
        # Strokes, fills and undo each tell of themselves in their own way.
        for event in (layer.events.paint, layer.events.labels_update):
            event.connect(self._drawn)

    def edit(self) -> TissueEdit | None:
        """Return the mask the next run shall respect; None when nobody drew."""
        layer = self.layer
        if layer is None or not self._by_hand:
            return None
        return TissueEdit(np.asarray(layer.data) > 0, float(layer.metadata["mpp"]))

    def draw(self) -> bool:
        """Give the user a brush; False when there is no layer yet."""
        layer, viewer = self.layer, self._viewer()
        if layer is None or viewer is None:
            return False
        viewer.layers.selection = {layer}
        layer.visible = True
        layer.mode = "paint"
        return True

    def clear(self) -> None:
        """Another slide: write down what was drawn, and go."""
        if self._timer.isActive():
            self.keep_now()
        layer, viewer = self.layer, self._viewer()
        if layer is not None and viewer is not None:
            viewer.layers.remove(layer)
        self._by_hand = False

    def keep_now(self) -> None:
        """Write down what was drawn."""
        self._timer.stop()
        edit = self.edit()
        if edit is not None:
            self.keep.emit(edit)

    def _drawn(self, event: object = None) -> None:
        self._by_hand = True
        self._timer.start()
        self.edited.emit()
