"""Here: what the model made of the place that was clicked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import QHBoxLayout, QLabel, QVBoxLayout, QWidget

from . import words
from .asks import shown_class
from .widgets import Fold, Words, faded

if TYPE_CHECKING:
    from .controller import Controller

PICTURE = 92


class HereSection(Fold):
    """Shows the last click; absent before the first."""

    def __init__(self, controller: Controller) -> None:
        super().__init__("Here")
        self._controller = controller
        self._asks = controller.asks
        self.picture = QLabel()
        self.picture.setFixedSize(QSize(PICTURE, PICTURE))
        self.picture.setAlignment(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft)
        self.lines = Words()
        self.place = Words(quiet=True)
        beside = QWidget()
        column = QVBoxLayout(beside)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.lines)
        column.addWidget(self.place)
        column.addStretch(1)
        row = QWidget()
        layout = QHBoxLayout(row)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(8)
        layout.addWidget(self.picture, 0, Qt.AlignmentFlag.AlignTop)
        layout.addWidget(beside, 1)
        self.add(row)
        self._asks.here_changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show the present answer."""
        answer, message = self._asks.here, self._asks.message
        self.setVisible(answer is not None or bool(message))
        picture = getattr(answer, "picture", None)
        self.picture.setVisible(picture is not None)
        if picture is not None:
            self.picture.setPixmap(faded(picture, PICTURE))
        prediction = self._controller.answered.prediction if self._controller.answered is not None else None
        self.lines.say("\n".join(here_lines(answer, message, prediction)))
        location = getattr(answer, "location", None)
        self.place.say(f"x {words.count(location[0])}, y {words.count(location[1])} px" if location else "")


def here_lines(answer: Any, message: str, prediction: Any) -> list[str]:
    """Return what is known of a place, a fact a line; what the model cannot tell is absent."""
    if answer is None or answer.tile is None:
        return [message[:1].upper() + message[1:]] if message else []
    lines = []
    if answer.share is not None:
        so_far = " so far" if answer.reason == "so far" else ""
        lines.append(f"{words.three(answer.share)} × mean attention{so_far}")
    if answer.rank and prediction is not None:
        lines.append(f"rank {words.count(answer.rank)} of {words.count(len(prediction.grid))}")
    if prediction is not None and answer.evidence is not None:
        column = shown_class(prediction)
        lines.append(f"evidence {words.signed(float(answer.evidence[column]))} for {prediction.bundle.classes[column]}")
    if prediction is not None and answer.probabilities_without is not None:
        column = shown_class(prediction)
        whole = float(prediction.verdict.probabilities[column])
        without = float(answer.probabilities_without[column])
        lines.append(f"without this tile: {change(whole, without)}")
    elif prediction is not None and not answer.reason and self_attention(prediction):
        lines.append("without this tile: being worked out…")
    if answer.reason and answer.reason != "so far":
        lines.append(answer.reason[:1].upper() + answer.reason[1:] + ".")
    return lines


def self_attention(prediction: Any) -> bool:
    """Whether the model has to look at all tiles again to tell what one of them changed."""
    return str(prediction.bundle.model.get("type", "")) == "self-attention"


def change(whole: float, without: float) -> str:
    """Return how a probability changes, with as many digits as show the change."""
    for digits in (2, 3, 4):
        before, after = f"{whole:.{digits}f}", f"{without:.{digits}f}"
        if before != after:
            return f"{before} → {after}"
    return f"{whole:.2f}, unchanged"
