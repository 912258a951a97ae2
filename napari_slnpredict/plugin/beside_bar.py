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
        self.away = QPushButton("Close")
        self.away.setToolTip("Close this view and its slide (Alt+B)")
        self.away.clicked.connect(beside.close)
        self.text = Words(quiet=True)
        line = QHBoxLayout()
        line.setContentsMargins(0, 0, 0, 0)
        line.setSpacing(4)
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
        self.linked.setText("Linked" if beside.linked else "Not linked")
        self.linked.setEnabled(not beside.why_not)
        self.here.setEnabled(not beside.linked and not beside.why_not)
        lines = [view_line("left", beside.first), view_line("right", beside.controller), beside.why_not]
        self.text.say("\n".join(line for line in lines if line))


def view_line(side: str, controller: Controller) -> str:
    """Return what one side shows: slide, model, answer."""
    shown = controller.slides.current
    if shown is None:
        return ""
    parts = [f"{side}: {shown.slide.slide_id}", controller.runs.model]
    if controller.answered is not None:
        parts.append(str(controller.answered.prediction.answer))
    return " · ".join(parts)
