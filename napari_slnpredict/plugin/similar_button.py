"""What the main dock has for similar tiles; the search itself is not loaded before it is pressed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QPushButton

if TYPE_CHECKING:
    from .controller import Controller


class SimilarButton(QPushButton):
    """Opens the dock from the main one; a second view's window has no room for another."""

    def __init__(self, controller: Controller) -> None:
        super().__init__("Similar tiles…")
        self._controller = controller
        self.setToolTip("Click a tile, see those that look alike, here and on other slides")
        self.clicked.connect(self._open)
        controller.slides.changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Tiles need a slide."""
        viewer = self._controller.viewer
        room = viewer is not None and hasattr(viewer.window, "add_dock_widget")
        self.setVisible(room and self._controller.slides.current is not None)

    def _open(self) -> None:
        from .launch import add_similar_dock

        dock = add_similar_dock(self._controller.viewer)
        dock.similar.switch_click(True)
