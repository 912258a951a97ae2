"""The row of magnifications, and what else a microscope has beside its stage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QMenu, QPushButton, QSizePolicy, QVBoxLayout, QWidget

from .view import MAGNIFICATIONS
from .widgets import Row

if TYPE_CHECKING:
    from .controller import Controller

#: A magnification counts as set within this factor.
NEAR = 1.01


class ViewRows(QWidget):
    """Magnification buttons; measure, label, second view."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller = controller
        self.fit = small_button("fit", "The whole slide (Alt+0)")
        self.fit.clicked.connect(controller.camera.fit)
        self.times = {times: self._magnification(number, times) for number, times in enumerate(MAGNIFICATIONS, 1)}
        buttons = QWidget()
        line = QHBoxLayout(buttons)
        line.setContentsMargins(0, 0, 0, 0)
        line.setSpacing(2)
        for button in (self.fit, *self.times.values()):
            line.addWidget(button, 1)
        self.measure = QPushButton("Measure")
        self.measure.setCheckable(True)
        self.measure.setToolTip("Drag lines on the slide (Alt+M). Backspace takes the last one away.")
        self.measure.clicked.connect(controller.measure.switch)
        self.label = QPushButton("Label…")
        self.label.setToolTip("Show the slide's label and macro pictures. They may name the patient.")
        self.label.clicked.connect(controller.label.ask)
        self.beside = QPushButton("Beside")
        self.beside.setToolTip("A second view with a linked camera")
        self.beside.setMenu(self._menu())
        tools = QHBoxLayout()
        tools.setContentsMargins(0, 0, 0, 0)
        tools.setSpacing(4)
        for tool in (self.measure, self.label, self.beside):
            tools.addWidget(tool, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(Row("Zoom", buttons))
        layout.addLayout(tools)
        controller.slides.changed.connect(self.refresh)
        controller.camera_moved.connect(self._moved)
        controller.measure.changed.connect(self._measuring)
        controller.beside.changed.connect(self._beside_changed)
        controller.label.changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show what fits the present slide."""
        shown = self._controller.slides.current
        self.setVisible(shown is not None)
        scale = shown is not None and bool(shown.slide.mpp)
        self.label.setVisible(self._controller.label.there)
        for button in self.times.values():
            button.setEnabled(scale)
        self._moved()
        self._measuring()
        self._beside_changed()

    def _magnification(self, number: int, times: int) -> QPushButton:
        button = small_button(f"{times}x", f"{times}x (Alt+{number})")
        button.clicked.connect(lambda: self._controller.camera.magnify(times))
        button.clicked.connect(self._moved)
        return button

    def _menu(self) -> QMenu:
        menu = QMenu(self)
        self.other = menu.addAction("Another slide beside…")
        self.other.triggered.connect(self._ask_for_file)
        self.again = menu.addAction("This slide, for another model")
        self.again.triggered.connect(lambda: self._controller.beside.open())
        self.close_second = menu.addAction("Close the second view")
        self.close_second.triggered.connect(self._controller.beside.close)
        return menu

    def _moved(self) -> None:
        present = self._controller.camera.magnification
        for times, button in self.times.items():
            near = present is not None and times / NEAR < present < times * NEAR
            if button.isChecked() != near:
                button.setChecked(near)

    def _measuring(self) -> None:
        self.measure.setChecked(self._controller.measure.on)

    def _beside_changed(self) -> None:
        beside = self._controller.beside
        self.close_second.setVisible(beside.panel is not None)
        # Within the second view's own dock these would replace the slide it shows.
        self.beside.setVisible(beside.first is self._controller)

    def _ask_for_file(self) -> None:
        from .start_section import SLIDE_FILTER

        shown = self._controller.slides.current
        start = str(Path(shown.slide.path).parent) if shown is not None else ""
        path, _ = QFileDialog.getOpenFileName(self, "Open a slide beside", start, SLIDE_FILTER)
        if path:
            self._controller.beside.open(path)


def small_button(text: str, tip: str) -> QPushButton:
    """Return a narrow button that shows whether it is what is set."""
    button = QPushButton()
    button.setText(text)
    button.setToolTip(tip)
    button.setCheckable(text != "fit")
    button.setProperty("small", True)
    button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return button
