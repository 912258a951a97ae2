"""Here: what the model made of the place that was clicked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_slnpredict.foreign.explain import ScoreAnswer

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
        answered = self._controller.answered
        prediction = None if answered is None else answered.prediction
        if isinstance(answer, ScoreAnswer):
            lines = words.score_lines(answer)
        elif answer is not None and answer.tiles_so_far is not None:
            lines = lines_so_far(answer, self._asks.so_far, prediction, running=self._controller.runs.running)
        else:
            lines = here_lines(answer, message, prediction)
        self.lines.say("\n".join(lines))
        location = getattr(answer, "location", None)
        self.place.say(f"x {words.count(location[0])}, y {words.count(location[1])} px" if location else "")


def here_lines(answer: Any, message: str, prediction: Any) -> list[str]:
    """Return what is known of a place, a fact a line; what the model cannot tell is absent."""
    if answer is None or answer.tile is None:
        return [sentence(message)] if message else []
    lines = look_lines(answer)
    if answer.share is not None:
        lines.append(share_line(answer))
    if answer.rank and prediction is not None:
        lines.append(f"rank {words.count(answer.rank)} of {words.count(len(prediction.grid))}")
    if prediction is not None and answer.evidence is not None:
        column = shown_class(prediction)
        lines.append(evidence_line(answer, column, prediction.bundle.classes))
    if prediction is not None and answer.probabilities_without is not None:
        column = shown_class(prediction)
        whole = float(prediction.verdict.probabilities[column])
        without = float(answer.probabilities_without[column])
        lines.append(f"without this tile: {change(whole, without)}")
    elif prediction is not None and not answer.reason and self_attention(prediction):
        lines.append("without this tile: being worked out…")
    if answer.reason:
        lines.append(sentence(answer.reason) + ".")
    return lines


def lines_so_far(answer: Any, so_far: Any, prediction: Any, *, running: bool) -> list[str]:
    """Return what is known of a place that was embedded on the spot: beside which tiles, and what is missing still."""
    if answer.classes is not None:
        return look_lines(answer) + ([sentence(answer.reason) + "."] if answer.reason else [])
    lines = []
    if answer.share is not None:
        lines.append(share_line(answer))
    if answer.evidence is not None and so_far is not None:
        lines.append(evidence_line(answer, class_so_far(answer, so_far), so_far.head.classes))
    others = words.count(answer.tiles_so_far - 1)
    if lines and answer.tile is None:
        lines.append(f"if it were looked at beside the {others} others")
    elif lines:
        lines.append(f"so far, of {words.count(answer.tiles_so_far)} tiles looked at")
    if answer.tissue is not None and not answer.reason:
        lines.append(f"{answer.tissue:.0%} of it is tissue")
    if answer.reason:
        lines.append(sentence(answer.reason) + ".")
    if prediction is None and not running:
        lines.append("Press Run for the slide's answer.")
    return lines


def look_lines(answer: Any) -> list[str]:
    """Return what the tile looks like: its likeliest classes, where there are any."""
    from napari_slnpredict.tile_classes import class_words

    return [] if answer.classes is None else ["looks like", *class_words(answer.classes)]


def class_so_far(answer: Any, so_far: Any) -> int:
    """Return the class evidence is told for before there is a verdict: the positive one, else the one it is for."""
    positive = so_far.head.bundle.task.get("positive")
    classes = list(so_far.head.classes)
    return classes.index(positive) if positive in classes else int(answer.evidence.argmax())


def share_line(answer: Any) -> str:
    """Return the tile's attention."""
    return f"{words.three(answer.share)} × mean attention"


def evidence_line(answer: Any, column: int, classes: Any) -> str:
    """Return what the tile says for a class."""
    return f"evidence {words.signed(float(answer.evidence[column]))} for {classes[column]}"


def sentence(text: str) -> str:
    """Return a text with a capital letter."""
    return text[:1].upper() + text[1:]


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
