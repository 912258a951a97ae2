"""The bar above the second view: what it shows, the link, the way out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from .widgets import Words

if TYPE_CHECKING:
    from .beside import Beside
    from .controller import Controller


class BesideBar(QWidget):
    """Link, dock and close buttons, and both answers."""

    def __init__(self, beside: Beside) -> None:
        super().__init__()
        self._beside = beside
        self.linked = QPushButton("Linked")
        self.linked.setCheckable(True)
        self.linked.setToolTip("Both views move and zoom as one (Alt+K)")
        self.linked.clicked.connect(beside.switch_link)
        self.here = QPushButton("Link here")
        self.here.setToolTip("Take the places both views show now as belonging together")
        self.here.clicked.connect(beside.link_here)
        self.model = QPushButton("Model")
        self.model.setToolTip("Slide, model and answer of this view, at the right")
        self.model.clicked.connect(lambda: beside.show_dock(second=True))
        self.away = QPushButton("\u2715")
        self.away.setAccessibleName("Close the second view")
        self.away.setToolTip("Close this view and its slide (Alt+B)")
        self.away.clicked.connect(beside.close)
        self.text = Words(quiet=True)
        line = QHBoxLayout()
        line.setContentsMargins(0, 0, 0, 0)
        line.setSpacing(4)
        self.setStyleSheet("QPushButton { padding: 4px 5px; }")  # two canvases leave little room
        for button in (self.linked, self.here, self.model):
            line.addWidget(button)
        line.addStretch(1)
        line.addWidget(self.away)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 4, 6, 4)
        layout.setSpacing(2)
        layout.addLayout(line)
        layout.addWidget(self.text)
        beside.changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show the present state."""
        beside = self._beside
        if beside.controller is None:
            return
        self.linked.setChecked(beside.linked)
        self.linked.setText("Linked" if beside.linked else "Link")
        self.linked.setEnabled(not beside.why_not)
        self.here.setEnabled(not beside.linked and not beside.why_not)
        sides = (("left", beside.first), ("right", beside.controller))
        shown = {str(side.slides.current.slide.path) for _, side in sides if side.slides.current is not None}
        lines = [view_line(name, side, name_slide=len(shown) > 1) for name, side in sides]
        self.text.say("\n".join(line for line in (*lines, beside.why_not) if line))


def view_line(name: str, side: Controller, *, name_slide: bool) -> str:
    """Return what one side shows: its slide where they differ, its model and answer once it has one."""
    shown, parts = side.slides.current, []
    if shown is not None and name_slide:
        parts.append(shown.slide.slide_id)
    if side.answered is not None:
        prediction = side.answered.prediction
        parts += [str(prediction.bundle.name), str(prediction.answer)]
    return f"{name}: {' · '.join(parts)}" if parts else ""
