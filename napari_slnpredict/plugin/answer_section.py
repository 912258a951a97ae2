"""The answer: a sentence, then numbers, then the way to doubt it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_slnpredict.answer import belief_words

from . import words
from .asks import shown_class
from .widgets import Fold, ProbabilityBar, Words

if TYPE_CHECKING:
    from .controller import Controller


class AnswerSection(Fold):
    """Shows the finished prediction; absent while there is none."""

    def __init__(self, controller: Controller) -> None:
        super().__init__("Answer")
        self._controller = controller
        self.sentence = Words(strong=True, size=1.15)
        self.numbers = Words()
        self.bar = ProbabilityBar()
        self.doubt = Words()
        self.looks = Words()
        self.counted = Words(quiet=True)
        self.facts = Words(quiet=True)
        self.warnings = Words()
        self.notice = Words(quiet=True)
        self.add(self.sentence, self.numbers, self.bar, self.doubt)
        self.add(self.looks, self.counted, self.facts, self.warnings, self.notice)
        controller.answer_changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show the present answer."""
        answered = self._controller.answered
        self.setVisible(answered is not None)
        if answered is None:
            return
        prediction = answered.prediction
        verdict = prediction.verdict
        self.sentence.say(prediction.answer)
        self.bar.setVisible(verdict is not None)
        if verdict is not None:
            column = shown_class(prediction)
            name = str(verdict.classes[column])
            interval = (verdict.interval or {}).get(name)
            value = float(verdict.probabilities[column])
            self.bar.show_value(value, interval, threshold_of(prediction))
            lines = class_lines(verdict, column)
            told = name in prediction.answer and belief_words(value) in prediction.answer
            self.numbers.say("" if told and "\n" not in lines else lines)
            coverage = float(prediction.bundle.calibration.get("coverage", 0.9))
            self.doubt.say("\n".join(words.doubt_lines(verdict, coverage)))
        else:
            self.numbers.say("")
            self.doubt.say("")
        self._show_classes(prediction)
        self.facts.say(facts_line(prediction))
        self.warnings.say("\n".join(prediction.warnings))
        self.notice.say(str(prediction.bundle.notice or ""))

    def _show_classes(self, prediction: Any) -> None:
        """Say how much of the tissue looks like what, where tiles were told apart."""
        looks = prediction.tile_classes
        told = "" if looks is None or looks.sentence() in prediction.answer else f"Tile by tile, {looks.sentence()}"
        self.looks.say(told)
        self.counted.say("" if looks is None else looks.how_counted)


def class_lines(verdict: Any, column: int) -> str:
    """Return the probability of the class the bar shows; of every class where there are more than two."""
    chosen = [column] if len(verdict.classes) == 2 else list(np.argsort(-np.asarray(verdict.probabilities)))
    lines = []
    for number in chosen:
        name = str(verdict.classes[number])
        interval = (verdict.interval or {}).get(name)
        lines.append(words.probability_line(name, float(verdict.probabilities[number]), interval))
    return "\n".join(lines)


def threshold_of(prediction: Any) -> float | None:
    """Return the probability above which the task calls the slide positive; None where that has no meaning."""
    if len(prediction.bundle.classes) != 2:
        return None
    return float(prediction.bundle.calibration.get("threshold", 0.5))


def facts_line(prediction: Any) -> str:
    """Return tiles, seconds and where it ran."""
    stages = {k: v for k, v in prediction.seconds.items() if k not in ("read", "decode", "encode", "write")}
    parts = [f"{words.count(len(prediction.grid))} tiles", words.duration(sum(stages.values()))]
    if prediction.bag is not None and "encode" not in prediction.seconds:
        parts.append("features from cache")
    parts.append(prediction.bundle.name)
    return " · ".join(parts)
